// activation: out = f(x), or with GRAD out = g * f'(x); the last four may reach into what a buffer has to spare
//   KIND 0: silu x sigmoid(x); 1: gelu x Phi(x), exact erf form; 2: quick gelu x sigmoid(1.702 x)
override WG: u32 = 64u;
override KIND: u32 = 0u;
override GRAD: bool = false;
const RUN = 1024u / EACH; // of one workgroup
struct Params { count: u32 }
@group(0) @binding(0) var<storage, read> x: array<Numbers>;
@group(0) @binding(1) var<storage, read> g: array<Numbers>;
@group(0) @binding(2) var<storage, read_write> out: array<Numbers>;
@group(0) @binding(3) var<uniform> p: Params;

fn sigmoid(v: Numbers) -> Numbers { return 1.0 / (1.0 + exp(-clamp(v, Numbers(-80.0), Numbers(80.0)))); }

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) t: u32,
) {
  let first = (w.z * grid.x + w.x) * RUN;
  let end = min((p.count + EACH - 1u) / EACH, first + RUN);
  for (var i = first + t; i < end; i += WG) {
    let v = x[i];
    var value = Numbers();
    var slope = Numbers();
    if (KIND == 1u) {
      let share = phi(v);
      value = v * share;
      slope = geluSlope(v, share);
    } else {
      let k = select(1.0, 1.702, KIND == 2u);
      let s = sigmoid(k * v);
      value = v * s;
      slope = s * (1.0 + k * v * (1.0 - s));
    }
    if (GRAD) { out[i] = g[i] * slope; } else { out[i] = value; }
  }
}
