// im2col: columns[b, (c, ky, kx), (oy, ox)] = x[b, c, oy stride + ky - top, ox stride + kx - left], 0 outside
// Only planes from `plane` and output cells from `first` to `first + cells`.
override WG: u32 = 64u;
struct Params {
  count: u32, height: u32, width: u32, outHeight: u32, outWidth: u32, kernel: u32, stride: u32, top: u32, left: u32,
  plane: u32, first: u32, cells: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>; // [batch * channels, height, width]
@group(0) @binding(1) var<storage, read_write> columns: array<f32>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let cell = p.first + i % p.cells;
  let tap = i / p.cells % (p.kernel * p.kernel);
  let plane = p.plane + i / p.cells / (p.kernel * p.kernel);
  // Wraps below zero, and so fails the test against the size.
  let y = cell / p.outWidth * p.stride + tap / p.kernel - p.top;
  let c = cell % p.outWidth * p.stride + tap % p.kernel - p.left;
  var value = 0.0;
  if (y < p.height && c < p.width) { value = x[(plane * p.height + y) * p.width + c]; }
  columns[i] = value;
}
