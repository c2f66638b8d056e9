// group_norm_merge: what group_norm_stats finds over a group, from what it finds over its parts:
//   forward: n_k numbers with mean m_k and squares s_k around it give
//     mean = sum n_k m_k / n, variance = sum (s_k + n_k (m_k - mean)^2) / n
//   GRAD: the sums of each part are added up
// One workgroup per group.
override WG: u32 = 64u;
override GRAD: bool = false;
struct Params { count: u32, part: u32, parts: u32, eps: f32 } // parts * part >= count
@group(0) @binding(0) var<storage, read> found: array<f32>; // [batch * groups, parts, 2]
@group(0) @binding(1) var<storage, read_write> stats: array<f32>; // [batch * groups, 2]
@group(0) @binding(2) var<uniform> p: Params;
var<workgroup> part: array<vec2f, WG>;

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
  let start = 2u * w.x * p.parts;
  let n = f32(p.count);
  var mine = vec2f();
  if (GRAD) {
    for (var k = t; k < p.parts; k += WG) { mine += vec2f(found[start + 2u * k], found[start + 2u * k + 1u]); }
    mine = total(t, mine);
    if (t == 0u) { stats[2u * w.x] = mine.x; stats[2u * w.x + 1u] = mine.y; }
  } else {
    for (var k = t; k < p.parts; k += WG) {
      mine.x += f32(min(p.part, p.count - k * p.part)) * found[start + 2u * k];
    }
    let mean = total(t, mine).x / n;
    mine = vec2f();
    for (var k = t; k < p.parts; k += WG) {
      let d = found[start + 2u * k] - mean;
      let nd = f32(min(p.part, p.count - k * p.part)) * d;
      mine += vec2f(nd, found[start + 2u * k + 1u] + nd * d);
    }
    // The first part repairs the rounding of the mean.
    let means = total(t, mine) / n;
    if (t == 0u) {
      stats[2u * w.x] = mean + means.x;
      stats[2u * w.x + 1u] = 1.0 / sqrt(means.y - means.x * means.x + p.eps);
    }
  }
}
