// largest: out[w] = the largest |x[i]| of those that workgroup w sees
const WG = 256u;
const GROUPS = 64u;
struct Params { fours: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>; // [GROUPS]
@group(0) @binding(2) var<uniform> p: Params;
var<workgroup> found: array<vec4f, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  var most = vec4f();
  for (var i = w.x * WG + t; i < p.fours; i += GROUPS * WG) { most = max(most, abs(x[i])); }
  found[t] = most;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half = half / 2u) {
    if (t < half) { found[t] = max(found[t], found[t + half]); }
    workgroupBarrier();
  }
  if (t == 0u) {
    let four = found[0];
    out[w.x] = max(max(four.x, four.y), max(four.z, four.w));
  }
}
