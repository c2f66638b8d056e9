// winograd_input: V[z,c,t] = (B^T d B)[row,column], z = plane(row, column), d the 4x4 patch of tile t, which
// starts at (2 ty - 1, 2 tx - 1)
//   B^T = [[1,0,-1,0],[0,1,1,0],[0,-1,1,0],[0,1,0,-1]]; outside the image is 0; t = (b, ty, tx)
// flip stores a number where the transform of the flipped kernel has it, so that the same U serves the vjp. Only tiles
// first to first + tiles of the image are transformed, four to a thread; past the last one it is repeated. How they
// are read is in winograd_input_fours or winograd_input_ones.
override WG: u32 = 64u;
struct Params {
  count: u32, channels: u32, height: u32, width: u32, rows: u32, columns: u32, tiles: u32, first: u32, all: u32,
  flip: u32, // 1 or 0; no constant, as pipelines take a second to compile
}
@group(0) @binding(1) var<storage, read_write> v: array<vec4f>; // [16, channels, tiles]
@group(0) @binding(2) var<uniform> p: Params;

// Row r of the patches of four tiles: a column of each matrix is a column of the patches.
struct Patches { row0: mat4x4f, row1: mat4x4f, row2: mat4x4f, row3: mat4x4f }

// Where a tile is: batch element, row and column.
fn place(t: u32) -> vec3u {
  let b = t / (p.rows * p.columns);
  let inImage = t - b * p.rows * p.columns;
  let y = inImage / p.columns;
  return vec3u(b, y, inImage - y * p.columns);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x; // (c * tiles + t) / 4
  if (i >= p.count) { return; }
  let c = i / (p.tiles / 4u);
  let d = patches(p.first + i * 4u - c * p.tiles, c);
  put(i, 0u, d.row0 - d.row2);
  put(i, 1u, d.row1 + d.row2);
  put(i, 2u, d.row2 - d.row1);
  put(i, 3u, d.row1 - d.row3);
}
