// winograd_doubled: winograd_input of an image that was doubled by nearest neighbours, from the image before: a
// tile is one of its cells, whose patch has the rows (above, itself, itself, below), and columns likewise.
//   B^T d = (above - itself, 2 itself, 0, itself - below), so that 9 of the 16 planes are left
// Four tiles to a thread; past the last one it is repeated.
override WG: u32 = 64u;
override FOURS: bool = false; // the cells of a row come in fours
struct Params { count: u32, channels: u32, rows: u32, columns: u32, tiles: u32, first: u32, all: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>; // [batch, channels, rows, columns]
@group(0) @binding(1) var<storage, read_write> v: array<vec4f>; // [9, channels, tiles]
@group(0) @binding(2) var<uniform> p: Params;

// Of four cells: those to the left, themselves, those to the right.
struct Line { left: vec4f, middle: vec4f, right: vec4f }

// Row `row` of cells side by side, from column `column` on.
fn fours(plane: u32, row: i32, column: i32) -> Line {
  if (row < 0 || row >= i32(p.rows)) { return Line(); }
  let i = i32(plane) + row * i32(p.columns) + column;
  let middle = vec4f(x[i], x[i + 1], x[i + 2], x[i + 3]);
  var before = 0.0;
  if (column > 0) { before = x[i - 1]; }
  var after = 0.0;
  if (column + 4 < i32(p.columns)) { after = x[i + 4]; }
  return Line(vec4f(before, middle.xyz), middle, vec4f(middle.yzw, after));
}

// The row `dy` below that of tile t: left, middle, right.
fn one(t: u32, c: u32, dy: i32) -> vec3f {
  let perImage = p.rows * p.columns;
  let cell = t % perImage;
  let row = i32(cell / p.columns) + dy;
  let column = i32(cell % p.columns);
  if (row < 0 || row >= i32(p.rows)) { return vec3f(); }
  let i = i32((t / perImage * p.channels + c) * perImage) + row * i32(p.columns) + column;
  var d = vec3f(0.0, x[i], 0.0);
  if (column > 0) { d.x = x[i - 1]; }
  if (column + 1 < i32(p.columns)) { d.z = x[i + 1]; }
  return d;
}

fn put(i: u32, row: u32, line: Line) {
  let size = p.channels * p.tiles / 4u;
  v[plane(row, 0u) * size + i] = line.left - line.middle;
  v[plane(row, 1u) * size + i] = 2.0 * line.middle;
  v[plane(row, 3u) * size + i] = line.middle - line.right;
}

fn minus(a: Line, b: Line) -> Line { return Line(a.left - b.left, a.middle - b.middle, a.right - b.right); }

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x; // (c * tiles + t - first) / 4
  if (i >= p.count) { return; }
  let c = i / (p.tiles / 4u);
  let t = p.first + i * 4u - c * p.tiles;
  var lines: array<Line, 3>;
  if (FOURS) {
    let perImage = p.rows * p.columns;
    let cell = t % perImage;
    let start = (t / perImage * p.channels + c) * perImage;
    let row = i32(cell / p.columns);
    let column = i32(cell % p.columns);
    lines = array(fours(start, row - 1, column), fours(start, row, column), fours(start, row + 1, column));
  } else {
    let last = p.all - 1u;
    for (var r = 0; r < 3; r++) {
      let a = one(min(t, last), c, r - 1);
      let b = one(min(t + 1u, last), c, r - 1);
      let d = one(min(t + 2u, last), c, r - 1);
      let e = one(min(t + 3u, last), c, r - 1);
      lines[r] = Line(vec4f(a.x, b.x, d.x, e.x), vec4f(a.y, b.y, d.y, e.y), vec4f(a.z, b.z, d.z, e.z));
    }
  }
  let here = lines[1];
  put(i, 0u, minus(lines[0], here));
  put(i, 1u, Line(2.0 * here.left, 2.0 * here.middle, 2.0 * here.right));
  put(i, 3u, minus(here, lines[2]));
}
