// guided_step: classifier-free guidance and one linear sampler step in one pass.
//   e = u + scale (c - u) with u, c the model's unconditional and conditional outputs
//   next = a z + b e, clean = c0 z + d e
override WG: u32 = 64u;
struct Params { count: u32, scale: f32, a: f32, b: f32, c0: f32, d: f32 }
@group(0) @binding(0) var<storage, read> z: array<f32>;
@group(0) @binding(1) var<storage, read> outputs: array<f32>; // [2 batch, ...]: unconditional, conditional
@group(0) @binding(2) var<storage, read_write> next: array<f32>;
@group(0) @binding(3) var<storage, read_write> clean: array<f32>;
@group(0) @binding(4) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let u = outputs[i];
  let e = u + p.scale * (outputs[p.count + i] - u);
  next[i] = p.a * z[i] + p.b * e;
  clean[i] = p.c0 * z[i] + p.d * e;
}
