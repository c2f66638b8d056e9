// winograd_input: V[z,c,t] = (B^T d B)[z], d the 4x4 patch of tile t, which starts at (2 ty - 1, 2 tx - 1)
//   B^T = [[1,0,-1,0],[0,1,1,0],[0,-1,1,0],[0,1,0,-1]]; outside the image is 0; t = (b, ty, tx)
// FLIP stores row z where the transform of the flipped kernel has it (0 and 3 change places), so that
// the same U serves the vjp. Only tiles first to first + tiles of the image are transformed.
override WG: u32 = 64u;
override FLIP: bool = false;
struct Params {
  count: u32, channels: u32, height: u32, width: u32, rows: u32, columns: u32, tiles: u32, first: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>; // [batch, channels, height, width]
@group(0) @binding(1) var<storage, read_write> v: array<f32>; // [16, channels, tiles]
@group(0) @binding(2) var<uniform> p: Params;

fn line(base: u32, y: i32, x0: i32) -> vec4f {
  if (y < 0 || y >= i32(p.height)) { return vec4f(); }
  let w = i32(p.width);
  let at = i32(base) + y * w + x0;
  var d = vec4f();
  if (x0 >= 0) { d.x = x[at]; }
  if (x0 + 1 < w) { d.y = x[at + 1]; }
  if (x0 + 2 < w) { d.z = x[at + 2]; }
  if (x0 + 3 < w) { d.w = x[at + 3]; }
  return d;
}

fn put(at: u32, row: u32, d: vec4f) {
  let z = select(row, select(row, 3u - row, row == 0u || row == 3u), FLIP) * 4u;
  let plane = p.channels * p.tiles;
  v[select(z, z + 3u, FLIP) * plane + at] = d.x - d.z;
  v[(z + 1u) * plane + at] = d.y + d.z;
  v[(z + 2u) * plane + at] = d.z - d.y;
  v[select(z + 3u, z, FLIP) * plane + at] = d.y - d.w;
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x; // c * tiles + t
  if (i >= p.count) { return; }
  let c = i / p.tiles;
  let t = p.first + i % p.tiles;
  let perImage = p.rows * p.columns;
  let base = (t / perImage * p.channels + c) * p.height * p.width;
  let y0 = i32(t % perImage / p.columns * 2u) - 1;
  let x0 = i32(t % p.columns * 2u) - 1;
  let d0 = line(base, y0, x0);
  let d1 = line(base, y0 + 1, x0);
  let d2 = line(base, y0 + 2, x0);
  let d3 = line(base, y0 + 3, x0);
  put(i, 0u, d0 - d2);
  put(i, 1u, d1 + d2);
  put(i, 2u, d2 - d1);
  put(i, 3u, d1 - d3);
}
