// im2col: columns[b, (c, ky, kx), (oy, ox)] = x[b, c, oy stride + ky - top, ox stride + kx - left], 0 outside
// Only planes from `plane` and output cells from `first` to `first + cells`. A thread has up to RUN cells of a line
// (b, c, ky, kx), one after the other: software adapters divide number by number, and start threads slowly.
const THREADS = 8u; // of a workgroup: what such an adapter does at once
const RUN = 256u;
struct Params {
  lines: u32, height: u32, width: u32, outWidth: u32, kernel: u32, stride: u32, top: u32, left: u32,
  plane: u32, first: u32, cells: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>; // [batch * channels, height, width]
@group(0) @binding(1) var<storage, read_write> columns: array<f32>; // [lines, cells]
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) t: u32,
) {
  let i = (w.y * grid.x + w.x) * THREADS + t;
  let line = i % p.lines; // neighbours have the same cells
  let start = i / p.lines * RUN;
  let end = min(start + RUN, p.cells);
  let plane = p.plane + line / (p.kernel * p.kernel);
  let tap = line % (p.kernel * p.kernel);
  let row = (p.first + start) / p.outWidth;
  // Wraps below zero, and so fails the test against the size.
  let left = tap % p.kernel - p.left;
  var column = p.first + start - row * p.outWidth;
  var y = row * p.stride + tap / p.kernel - p.top;
  for (var cell = start; cell < end; cell++) {
    let c = column * p.stride + left;
    var value = 0.0;
    if (y < p.height && c < p.width) { value = x[(plane * p.height + y) * p.width + c]; }
    columns[line * p.cells + cell] = value;
    column++;
    if (column == p.outWidth) { column = 0u; y += p.stride; }
  }
}
