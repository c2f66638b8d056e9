// group_norm_stats: per (batch, group), over `count` contiguous numbers:
//   forward: stats = (mean, 1 / sqrt(variance + eps)), two passes, biased variance
//   GRAD: stats = (sum of q, sum of q xhat), q = g w act'(...), xhat = (x - mean) rstd
// One workgroup per group. With PARTS one per `part` numbers of a group, for group_norm_merge: forward stats
// are then (mean, sum of squares around it) of each part.
override WG: u32 = 256u; // a multiple of FOLD
override GRAD: bool = false;
override SILU: bool = false;
override PARTS: bool = false;
struct Params { count: u32, cells: u32, groups: u32, own: u32, part: u32, eps: f32 }
@group(0) @binding(0) var<storage, read> x: array<f32>; // of `own` channels
@group(0) @binding(1) var<storage, read> beside: array<f32>; // BESIDE: of the others
@group(0) @binding(2) var<storage, read> weight: array<f32>; // [channels]
@group(0) @binding(3) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(4) var<storage, read> g: array<f32>; // of all channels
@group(0) @binding(5) var<storage, read> forward: array<f32>; // [batch * groups, 2]
@group(0) @binding(6) var<storage, read_write> stats: array<f32>; // [batch * groups, parts, 2]
@group(0) @binding(7) var<uniform> p: Params;

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

// A part of a group: its numbers `first` to `end`, of which those before `own` are in x. The others lead from a
// number in the group to where it is in either tensor, and in g.
struct Part { first: u32, end: u32, own: u32, further: u32, furtherBeside: u32, group: u32 }

fn sums(t: u32, n: Part, mean: f32) -> vec2f {
  var mine = sumsOwn(t, n.first, n.own, n.further, mean);
  if (BESIDE) { mine += sumsBeside(t, n.own, n.end, n.furtherBeside, mean); }
  return total(t, mine);
}

// (mean, sum of squares around it), in two passes.
fn moments(t: u32, n: Part) -> vec2f {
  let count = f32(n.end - n.first);
  let mean = sums(t, n, 0.0).x / count;
  // The first part repairs the rounding of the mean.
  let both = sums(t, n, mean);
  let shift = both.x / count;
  return vec2f(mean + shift, both.y - both.x * shift);
}

// (sum of q, sum of q xhat).
fn slopes(t: u32, n: Part, channel: u32, mean: f32, rstd: f32) -> vec2f {
  var mine = slopesOwn(t, n.first, n.own, n.further, n.group, channel, mean, rstd);
  if (BESIDE) { mine += slopesBeside(t, n.own, n.end, n.furtherBeside, n.group, channel, mean, rstd); }
  return total(t, mine);
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) t: u32,
) {
  let first = w.y * p.part;
  let end = min(first + p.part, p.count);
  let own = clamp(ownChannels(w.x) * p.cells, first, end);
  let n = Part(first, end, own, planeOwn(w.x) * p.cells, planeBeside(w.x) * p.cells, w.x * p.count);
  let slot = 2u * (w.x * grid.y + w.y);
  var found: vec2f;
  if (GRAD) {
    found = slopes(t, n, firstChannel(w.x), forward[2u * w.x], forward[2u * w.x + 1u]);
  } else {
    found = moments(t, n);
    if (!PARTS) { found.y = 1.0 / sqrt(found.y / f32(end - first) + p.eps); }
  }
  if (t == 0u) { stats[slot] = found.x; stats[slot + 1u] = found.y; }
}
