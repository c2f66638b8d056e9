// col2im: the transpose of im2col: dx[b,c,y,x] = sum of the columns that read it
// Only planes from `plane`; the columns are those of these planes and of all output cells.
override WG: u32 = 64u;
struct Params {
  count: u32, height: u32, width: u32, outHeight: u32, outWidth: u32, kernel: u32, stride: u32, top: u32, left: u32,
  plane: u32,
}
@group(0) @binding(0) var<storage, read> columns: array<f32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>; // [batch * channels, height, width]
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let plane = i / (p.height * p.width);
  let y = i / p.width % p.height + p.top;
  let c = i % p.width + p.left;
  let cells = p.outHeight * p.outWidth;
  var sum = 0.0;
  for (var ky = 0u; ky < p.kernel; ky++) {
    for (var kx = 0u; kx < p.kernel; kx++) {
      let oy = (y - ky) / p.stride;
      let ox = (c - kx) / p.stride;
      // A wrapped or uneven difference is no output.
      if (y >= ky && c >= kx && oy * p.stride + ky == y && ox * p.stride + kx == c
          && oy < p.outHeight && ox < p.outWidth) {
        sum += columns[((plane * p.kernel + ky) * p.kernel + kx) * cells + oy * p.outWidth + ox];
      }
    }
  }
  x[p.plane * p.height * p.width + i] = sum;
}
