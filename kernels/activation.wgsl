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

// Rational form of erf on [-4, 4], a few ULP (the one XLA and Eigen use).
fn erf(v: f32) -> f32 {
  let c = clamp(v, -4.0, 4.0);
  let s = c * c;
  var a = -2.72614225801306e-10;
  a = a * s + 2.77068142495902e-08;
  a = a * s - 2.10102402082508e-06;
  a = a * s - 5.69250639462346e-05;
  a = a * s - 7.34990630326855e-04;
  a = a * s - 2.95459980854025e-03;
  a = a * s - 1.60960333262415e-02;
  var b = -1.45660718464996e-05;
  b = b * s - 2.13374055278905e-04;
  b = b * s - 1.68282697438203e-03;
  b = b * s - 7.37332916720468e-03;
  b = b * s - 1.42647390514189e-02;
  return c * a / b;
}

fn sigmoid(v: f32) -> f32 { return 1.0 / (1.0 + exp(-clamp(v, -80.0, 80.0))); }

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let v = x[i];
  var value = 0.0;
  var slope = 0.0;
  if (KIND == 1u) {
    let phi = 0.5 * (1.0 + erf(v * 0.7071067811865476));
    value = v * phi;
    slope = phi + v * 0.3989422804014327 * exp(-0.5 * min(v * v, 160.0));
  } else {
    let k = select(1.0, 1.702, KIND == 2u);
    let s = sigmoid(k * v);
    value = v * s;
    slope = s * (1.0 + k * v * (1.0 - s));
  }
  if (GRAD) { out[i] = g[i] * slope; } else { out[i] = value; }
}
