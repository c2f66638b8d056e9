// group_norm_stats: per (batch, group), over `count` contiguous numbers:
//   forward: stats = (mean, 1 / sqrt(variance + eps)), two passes, biased variance
//   GRAD: stats = (sum of q, sum of q xhat), q = g w act'(...), xhat = (x - mean) rstd
// One workgroup per group. With PARTS one per `part` numbers of a group, for group_norm_merge: forward stats
// are then (mean, sum of squares around it) of each part. The sums are those of group_norm_sums.
override GRAD: bool = false;
override PARTS: bool = false;
struct Params { count: u32, cells: u32, groups: u32, part: u32, eps: f32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>; // [channels]
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(3) var<storage, read> g: array<f32>; // like x
@group(0) @binding(4) var<storage, read> forward: array<f32>; // [batch * groups, 2]
@group(0) @binding(5) var<storage, read_write> stats: array<f32>; // [batch * groups, parts, 2]
@group(0) @binding(6) var<uniform> p: Params;

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
