// What group_norm and group_norm_whole have in common: the numbers of one plane (batch, channel). Their source
// follows.
fn sigmoid(v: vec4f) -> vec4f { return 1.0 / (1.0 + exp(-clamp(v, vec4f(-80.0), vec4f(80.0)))); }

// What belongs to a plane.
struct Plane { mean: f32, rstd: f32, scale: f32, shift: f32, first: f32, second: f32 }

// What a gradient g of the result is, times the slope of the activation and the scale.
fn slope(xhat: vec4f, g: vec4f, n: Plane) -> vec4f {
  let q = g * n.scale;
  if (!SILU) { return q; }
  let pre = xhat * n.scale + n.shift;
  let s = sigmoid(pre);
  return q * (s * (1.0 + pre * (1.0 - s)));
}

fn four(x: vec4f, g: vec4f, n: Plane) -> vec4f {
  let xhat = (x - n.mean) * n.rstd;
  if (GRAD) { return n.rstd * (slope(xhat, g, n) - (n.first + xhat * n.second)); }
  let pre = xhat * n.scale + n.shift;
  if (SILU) { return pre * sigmoid(pre); }
  return pre;
}
