// combine: out[i] = alpha * x[i] + beta * y[i]; the last four may reach into what a buffer has to spare
override WG: u32 = 64u;
const RUN = 1024u / EACH; // of one workgroup
struct Params { count: u32, alpha: f32, beta: f32 }
@group(0) @binding(0) var<storage, read> x: array<Numbers>;
@group(0) @binding(1) var<storage, read> y: array<Numbers>;
@group(0) @binding(2) var<storage, read_write> out: array<Numbers>;
@group(0) @binding(3) var<uniform> p: Params;
@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) t: u32,
) {
  let first = (w.z * grid.x + w.x) * RUN;
  let end = min((p.count + EACH - 1u) / EACH, first + RUN);
  for (var i = first + t; i < end; i += WG) { out[i] = p.alpha * x[i] + p.beta * y[i]; }
}
