// winograd_input: V[z,c,t] = (B^T d B)[row,column], z = plane(row, column), d the 4x4 patch of tile t, which
// starts at (2 ty - 1, 2 tx - 1)
//   B^T = [[1,0,-1,0],[0,1,1,0],[0,-1,1,0],[0,1,0,-1]]; outside the image is 0; t = (b, ty, tx)
// flip stores a number where the transform of the flipped kernel has it, so that the same U serves the vjp. Only tiles first to first + tiles of the image are transformed, four to a thread;
// past the last one it is repeated.
override WG: u32 = 64u;
override FOURS: bool = false; // the tiles of a row come in fours: those of a thread share what they read
struct Params {
  count: u32, channels: u32, height: u32, width: u32, rows: u32, columns: u32, tiles: u32, first: u32, all: u32,
  flip: u32, // 1 or 0; no constant, as pipelines take a second to compile
}
@group(0) @binding(0) var<storage, read> x: array<f32>; // [batch, channels, height, width]
@group(0) @binding(1) var<storage, read_write> v: array<vec4f>; // [16, channels, tiles]
@group(0) @binding(2) var<uniform> p: Params;

// Where a tile's patch begins.
struct Place { base: u32, y: i32, x: i32 }

fn place(t: u32, c: u32) -> Place {
  let perImage = p.rows * p.columns;
  let b = t / perImage;
  let inImage = t - b * perImage;
  let ty = inImage / p.columns;
  let tx = inImage - ty * p.columns;
  return Place((b * p.channels + c) * p.height * p.width, i32(ty * 2u) - 1, i32(tx * 2u) - 1);
}

// Row r of one tile's patch.
fn line(at: Place, r: i32) -> vec4f {
  let y = at.y + r;
  if (y < 0 || y >= i32(p.height)) { return vec4f(); }
  let w = i32(p.width);
  let i = i32(at.base) + y * w + at.x;
  var d = vec4f();
  if (at.x >= 0) { d.x = x[i]; }
  if (at.x + 1 < w) { d.y = x[i + 1]; }
  if (at.x + 2 < w) { d.z = x[i + 2]; }
  if (at.x + 3 < w) { d.w = x[i + 3]; }
  return d;
}

// Row r of the patches of four tiles side by side: a column of the matrix is a column of the patches.
fn lines(at: Place, r: i32) -> mat4x4f {
  let y = at.y + r;
  if (y < 0 || y >= i32(p.height)) { return mat4x4f(); }
  let w = i32(p.width);
  let i = i32(at.base) + y * w + at.x;
  var d0 = 0.0;
  if (at.x >= 0) { d0 = x[i]; }
  let low = vec4f(x[i + 1], x[i + 2], x[i + 3], x[i + 4]);
  let high = vec3f(x[i + 5], x[i + 6], x[i + 7]);
  var d8 = 0.0;
  if (at.x + 8 < w) { d8 = x[i + 8]; }
  var d9 = 0.0;
  if (at.x + 9 < w) { d9 = x[i + 9]; }
  return mat4x4f(
    vec4f(d0, low.y, low.w, high.y),
    vec4f(low.x, low.z, high.x, high.z),
    vec4f(low.y, low.w, high.y, d8),
    vec4f(low.z, high.x, high.z, d9),
  );
}

fn store(at: u32, row: u32, column: u32, value: vec4f) {
  let z = select(plane(row, column), flipped(row, column), p.flip != 0u);
  v[z * (p.channels * p.tiles / 4u) + at] = value;
}

fn put(at: u32, row: u32, d: mat4x4f) {
  store(at, row, 0u, d[0] - d[2]);
  store(at, row, 1u, d[1] + d[2]);
  store(at, row, 2u, d[2] - d[1]);
  store(at, row, 3u, d[1] - d[3]);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x; // (c * tiles + t) / 4
  if (i >= p.count) { return; }
  let c = i / (p.tiles / 4u);
  let t = p.first + i * 4u - c * p.tiles;
  var d: array<mat4x4f, 4>;
  if (FOURS) {
    let at = place(t, c);
    d = array(lines(at, 0), lines(at, 1), lines(at, 2), lines(at, 3));
  } else {
    let last = p.all - 1u;
    let at0 = place(min(t, last), c);
    let at1 = place(min(t + 1u, last), c);
    let at2 = place(min(t + 2u, last), c);
    let at3 = place(min(t + 3u, last), c);
    for (var r = 0; r < 4; r++) {
      d[r] = transpose(mat4x4f(line(at0, r), line(at1, r), line(at2, r), line(at3, r)));
    }
  }
  put(i, 0u, d[0] - d[2]);
  put(i, 1u, d[1] + d[2]);
  put(i, 2u, d[2] - d[1]);
  put(i, 3u, d[1] - d[3]);
}
