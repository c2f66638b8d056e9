// upsample: nearest neighbour; y[i, oy, ox] = x[i, floor(oy h / H), floor(ox w / W)]
//   GRAD: dx[i, y, x] = sum of the outputs that read it
override WG: u32 = 64u;
override GRAD: bool = false;
struct Params { count: u32, height: u32, width: u32, outHeight: u32, outWidth: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  if (GRAD) {
    let plane = i / (p.height * p.width);
    let r = i / p.width % p.height;
    let c = i % p.width;
    let y1 = ((r + 1u) * p.outHeight + p.height - 1u) / p.height;
    let x0 = (c * p.outWidth + p.width - 1u) / p.width;
    let x1 = ((c + 1u) * p.outWidth + p.width - 1u) / p.width;
    var sum = 0.0;
    for (var y = (r * p.outHeight + p.height - 1u) / p.height; y < y1; y++) {
      for (var k = x0; k < x1; k++) { sum += x[(plane * p.outHeight + y) * p.outWidth + k]; }
    }
    out[i] = sum;
  } else {
    let plane = i / (p.outHeight * p.outWidth);
    let r = i / p.outWidth % p.outHeight * p.height / p.outHeight;
    let c = i % p.outWidth * p.width / p.outWidth;
    out[i] = x[(plane * p.height + r) * p.width + c];
  }
}
