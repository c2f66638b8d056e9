// dot: out[slot + b * stride] = sum_i x[b, i] y[b, i]; one workgroup per item of the batch
override WG: u32 = 256u;
struct Params { count: u32, slot: u32, stride: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> p: Params;
var<workgroup> part: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  var sum = 0.0;
  for (var i = t; i < p.count; i += WG) { sum += x[w.x * p.count + i] * y[w.x * p.count + i]; }
  part[t] = sum;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half = half / 2u) {
    if (t < half) { part[t] += part[t + half]; }
    workgroupBarrier();
  }
  if (t == 0u) { out[p.slot + w.x * p.stride] = part[0]; }
}
