// copy_channels: a run of channels from one tensor to another: out[b, to + i] = x[b, from + i], i < run
override WG: u32 = 64u;
struct Params { count: u32, run: u32, xStride: u32, outStride: u32, from_: u32, to_: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let b = i / p.run;
  let k = i % p.run;
  out[b * p.outStride + p.to_ + k] = x[b * p.xStride + p.from_ + k];
}
