// group_norm_stats: per (batch, group), over `count` contiguous numbers:
//   forward: stats = (mean, 1 / sqrt(variance + eps)), two passes, biased variance
//   GRAD: stats = (sum of q, sum of q xhat), q = g w act'(...), xhat = (x - mean) rstd
// One workgroup per group. With PARTS one per `part` numbers of a group, for group_norm_merge: forward stats
// are then (mean, sum of squares around it) of each part.
override WG: u32 = 256u; // a multiple of FOLD
override GRAD: bool = false;
override SILU: bool = false;
override PARTS: bool = false;
struct Params { count: u32, cells: u32, groups: u32, part: u32, eps: f32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>; // [channels]
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(3) var<storage, read> g: array<f32>; // like x
@group(0) @binding(4) var<storage, read> forward: array<f32>; // [batch * groups, 2]
@group(0) @binding(5) var<storage, read_write> stats: array<f32>; // [batch * groups, parts, 2]
@group(0) @binding(6) var<uniform> p: Params;

// Sums over `count` numbers from `start` on by all threads of a workgroup go through workgroup memory.
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

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) t: u32,
) {
  let first = w.y * p.part;
  let group = w.x * p.count;
  let count = min(p.part, p.count - first);
  let slot = 2u * (w.x * grid.y + w.y);
  var found: vec2f;
  if (GRAD) {
    let channel = w.x % p.groups * (p.count / p.cells);
    found = slopes(t, group + first, count, p.cells, group, channel, forward[2u * w.x], forward[2u * w.x + 1u]);
  } else {
    found = moments(t, group + first, count);
    if (!PARTS) { found.y = 1.0 / sqrt(found.y / f32(count) + p.eps); }
  }
  if (t == 0u) { stats[slot] = found.x; stats[slot + 1u] = found.y; }
}
