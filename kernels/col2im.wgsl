// col2im: the transpose of im2col: dx[b,c,y,x] = sum of the columns that read it
// Only planes from `plane`; the columns are those of these planes and of all output cells. A thread has `stride`
// lines of as many pixels: each is read by other taps, and all threads go through the same ones together.
override WG: u32 = 64u;
struct Params {
  count: u32, height: u32, width: u32, outHeight: u32, outWidth: u32, kernel: u32, stride: u32, top: u32, left: u32,
  plane: u32,
  down: u32, across: u32, // threads of a plane; count has those of all
}
@group(0) @binding(0) var<storage, read> columns: array<f32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>; // [batch * channels, height, width]
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let plane = i / (p.down * p.across);
  let line = i / p.across % p.down;
  let place = i % p.across;
  let cells = p.outHeight * p.outWidth;
  let first = plane * p.kernel * p.kernel * cells;
  for (var sy = 0u; sy < p.stride; sy++) {
    for (var sx = 0u; sx < p.stride; sx++) {
      var sum = 0.0;
      // What is less than 0 wraps, and is no output either.
      var oy = line;
      for (var ky = sy; ky < p.kernel; ky += p.stride) {
        var ox = place;
        for (var kx = sx; kx < p.kernel; kx += p.stride) {
          if (oy < p.outHeight && ox < p.outWidth) {
            sum += columns[first + (ky * p.kernel + kx) * cells + oy * p.outWidth + ox];
          }
          ox--;
        }
        oy--;
      }
      let y = line * p.stride + sy - p.top;
      let c = place * p.stride + sx - p.left;
      if (y < p.height && c < p.width) { x[((p.plane + plane) * p.height + y) * p.width + c] = sum; }
    }
  }
}
