// What group_norm and group_norm_whole have in common: the numbers of one plane (batch, channel). Their source
// follows.
fn sigmoid(v: vec4f) -> vec4f { return 1.0 / (1.0 + exp(-clamp(v, vec4f(-80.0), vec4f(80.0)))); }

// What belongs to a plane.
struct Plane { mean: f32, rstd: f32, scale: f32, shift: f32, first: f32, second: f32 }

fn four(x: vec4f, g: vec4f, n: Plane) -> vec4f {
  let xhat = (x - n.mean) * n.rstd;
  let pre = xhat * n.scale + n.shift;
  if (GRAD) {
    var q = g * n.scale;
    if (SILU) {
      let s = sigmoid(pre);
      q *= s * (1.0 + pre * (1.0 - s));
    }
    return n.rstd * (q - (n.first + xhat * n.second));
  }
  if (SILU) { return pre * sigmoid(pre); }
  return pre;
}

// Numbers from `first` on, each `step` after the one before.
fn apply(n: Plane, first: u32, end: u32, step: u32) {
  var i = first;
  // Four at a time: their loads do not wait for each other.
  for (; i + 3u * step < end; i += 4u * step) {
    var slope = vec4f();
    if (GRAD) { slope = vec4f(g[i], g[i + step], g[i + 2u * step], g[i + 3u * step]); }
    let y = four(vec4f(x[i], x[i + step], x[i + 2u * step], x[i + 3u * step]), slope, n);
    out[i] = y.x;
    out[i + step] = y.y;
    out[i + 2u * step] = y.z;
    out[i + 3u * step] = y.w;
  }
  for (; i < end; i += step) {
    var slope = 0.0;
    if (GRAD) { slope = g[i]; }
    out[i] = four(vec4f(x[i]), vec4f(slope), n).x;
  }
}
