// What group_norm_stats and group_norm_whole have in common: sums over `count` numbers from `start` on by all
// threads of a workgroup; partial sums go through workgroup memory. Their source follows.
override WG: u32 = 64u; // a multiple of FOLD
override SILU: bool = false;
const FOLD = 16u;
var<workgroup> part: array<vec2f, WG>;

// WG parts become FOLD, and every thread adds those up: three barriers instead of two per halving,
// which compile far faster on software adapters.
fn total(t: u32, mine: vec2f) -> vec2f {
  part[t] = mine;
  workgroupBarrier();
  var sum = vec2f();
  if (t < FOLD) {
    for (var i = t; i < WG; i += FOLD) { sum += part[i]; }
    part[t] = sum;
  }
  workgroupBarrier();
  sum = vec2f();
  for (var i = 0u; i < FOLD; i++) { sum += part[i]; }
  workgroupBarrier();
  return sum;
}

fn xAt(i: u32) -> vec4f { return vec4f(x[i], x[i + WG], x[i + 2u * WG], x[i + 3u * WG]); }

fn gAt(i: u32) -> vec4f { return vec4f(g[i], g[i + WG], g[i + 2u * WG], g[i + 3u * WG]); }

// (q, q xhat) of one number of channel c.
fn slope(x: f32, g: f32, mean: f32, rstd: f32, c: u32) -> vec2f {
  let xhat = (x - mean) * rstd;
  var q = g;
  if (SILU) {
    let pre = xhat * weight[c] + bias[c];
    let s = 1.0 / (1.0 + exp(-clamp(pre, -80.0, 80.0)));
    q *= s * (1.0 + pre * (1.0 - s));
  }
  q *= weight[c];
  return vec2f(q, q * xhat);
}

// (mean, sum of squares around it), in two passes.
fn moments(t: u32, start: u32, count: u32) -> vec2f {
  let end = start + count;
  let n = f32(count);
  var mine = vec2f();
  // Eight at a time: their loads do not wait for each other, and the loop itself costs a third of a
  // read on software adapters.
  let whole = start + count / (8u * WG) * (8u * WG);
  for (var i = start + t; i < whole; i += 8u * WG) {
    let v = xAt(i) + xAt(i + 4u * WG);
    mine.x += (v.x + v.y) + (v.z + v.w);
  }
  for (var i = whole + t; i < end; i += WG) { mine.x += x[i]; }
  let mean = total(t, mine).x / n;
  mine = vec2f();
  for (var i = start + t; i < whole; i += 8u * WG) {
    let d = xAt(i) - mean;
    let e = xAt(i + 4u * WG) - mean;
    let v = d + e;
    mine += vec2f((v.x + v.y) + (v.z + v.w), dot(d, d) + dot(e, e));
  }
  for (var i = whole + t; i < end; i += WG) {
    let d = x[i] - mean;
    mine += vec2f(d, d * d);
  }
  // The first part repairs the rounding of the mean.
  let sums = total(t, mine);
  let shift = sums.x / n;
  return vec2f(mean + shift, sums.y - sums.x * shift);
}

// (sum of q, sum of q xhat); the group begins at `group` with channel `channel`.
fn slopes(t: u32, start: u32, count: u32, cells: u32, group: u32, channel: u32, mean: f32, rstd: f32) -> vec2f {
  let end = start + count;
  var mine = vec2f();
  let whole = start + count / (4u * WG) * (4u * WG);
  for (var i = start + t; i < whole; i += 4u * WG) {
    let four = xAt(i);
    let g = gAt(i);
    let c = channel + (i - group + vec4u(0u, WG, 2u * WG, 3u * WG)) / cells;
    mine += (slope(four.x, g.x, mean, rstd, c.x) + slope(four.y, g.y, mean, rstd, c.y)) +
      (slope(four.z, g.z, mean, rstd, c.z) + slope(four.w, g.w, mean, rstd, c.w));
  }
  for (var i = whole + t; i < end; i += WG) {
    mine += slope(x[i], g[i], mean, rstd, channel + (i - group) / cells);
  }
  return total(t, mine);
}
