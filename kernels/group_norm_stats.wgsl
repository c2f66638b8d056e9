// group_norm_stats: per (batch, group), over `count` contiguous numbers:
//   forward: stats = (mean, 1 / sqrt(variance + eps)), two passes, biased variance
//   GRAD: stats = (sum of q, sum of q xhat), q = g w act'(...), xhat = (x - mean) rstd
// One workgroup per group; partial sums go through workgroup memory.
override WG: u32 = 64u;
override GRAD: bool = false;
override SILU: bool = false;
struct Params { count: u32, cells: u32, groups: u32, eps: f32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>; // [channels]
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(3) var<storage, read> g: array<f32>; // like x
@group(0) @binding(4) var<storage, read> forward: array<f32>; // [batch * groups, 2]
@group(0) @binding(5) var<storage, read_write> stats: array<f32>; // [batch * groups, 2]
@group(0) @binding(6) var<uniform> p: Params;
var<workgroup> part: array<vec2f, WG>;

// Every thread adds up all parts: two barriers instead of two per halving, which compile far faster
// on software adapters.
fn total(t: u32, mine: vec2f) -> vec2f {
  part[t] = mine;
  workgroupBarrier();
  var sum = vec2f();
  for (var i = 0u; i < WG; i++) { sum += part[i]; }
  workgroupBarrier();
  return sum;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let start = w.x * p.count;
  let n = f32(p.count);
  var mine = vec2f();
  if (GRAD) {
    let mean = forward[2u * w.x];
    let rstd = forward[2u * w.x + 1u];
    let channel = w.x % p.groups * (p.count / p.cells);
    for (var i = t; i < p.count; i += WG) {
      let c = channel + i / p.cells;
      let xhat = (x[start + i] - mean) * rstd;
      var q = g[start + i];
      if (SILU) {
        let pre = xhat * weight[c] + bias[c];
        let s = 1.0 / (1.0 + exp(-clamp(pre, -80.0, 80.0)));
        q *= s * (1.0 + pre * (1.0 - s));
      }
      q *= weight[c];
      mine += vec2f(q, q * xhat);
    }
    mine = total(t, mine);
    if (t == 0u) { stats[2u * w.x] = mine.x; stats[2u * w.x + 1u] = mine.y; }
  } else {
    // Four at a time: the loop itself costs a third of a read on software adapters.
    let whole = p.count / (4u * WG) * (4u * WG);
    for (var i = start + t; i < start + whole; i += 4u * WG) {
      mine.x += (x[i] + x[i + WG]) + (x[i + 2u * WG] + x[i + 3u * WG]);
    }
    for (var i = whole + t; i < p.count; i += WG) { mine.x += x[start + i]; }
    let mean = total(t, mine).x / n;
    mine = vec2f();
    for (var i = start + t; i < start + whole; i += 4u * WG) {
      let d = vec4f(x[i], x[i + WG], x[i + 2u * WG], x[i + 3u * WG]) - mean;
      mine += vec2f(d.x + d.y + d.z + d.w, dot(d, d));
    }
    for (var i = whole + t; i < p.count; i += WG) {
      let d = x[start + i] - mean;
      mine += vec2f(d, d * d);
    }
    // The first part repairs the rounding of the mean.
    let sums = total(t, mine);
    let shift = sums.x / n;
    if (t == 0u) {
      stats[2u * w.x] = mean + shift;
      stats[2u * w.x + 1u] = 1.0 / sqrt(sums.y / n - shift * shift + p.eps);
    }
  }
}
