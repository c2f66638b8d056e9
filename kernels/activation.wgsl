// activation: out = f(x), or with GRAD out = g * f'(x).
//   KIND 0: silu x sigmoid(x); 1: gelu x Phi(x), exact erf form; 2: quick gelu x sigmoid(1.702 x)
override WG: u32 = 64u;
override KIND: u32 = 0u;
override GRAD: bool = false;
struct Params { count: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> p: Params;

fn sigmoid(v: f32) -> f32 { return 1.0 / (1.0 + exp(-clamp(v, -80.0, 80.0))); }

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let v = x[i];
  var value = 0.0;
  var slope = 0.0;
  if (KIND == 1u) {
    let share = phi(v);
    value = v * share;
    slope = share + v * 0.3989422804014327 * exp(-0.5 * min(v * v, 160.0));
  } else {
    let k = select(1.0, 1.702, KIND == 2u);
    let s = sigmoid(k * v);
    value = v * s;
    slope = s * (1.0 + k * v * (1.0 - s));
  }
  if (GRAD) { out[i] = g[i] * slope; } else { out[i] = value; }
}
