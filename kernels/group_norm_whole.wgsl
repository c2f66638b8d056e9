// group_norm_whole: statistics and all that group_norm does with them, a workgroup per (batch, group), for
// adapters that are processors: there a run costs as much as reading many thousand numbers once more. The sums are
// those of group_norm_sums, what is done to a number is in group_norm_apply.
override GRAD: bool = false;
const LANES = 8u; // threads that have a plane (batch, channel)
struct Params { count: u32, cells: u32, groups: u32, eps: f32 } // count = cells of a group's channels
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>; // [channels]
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(3) var<storage, read> g: array<f32>; // like x
@group(0) @binding(4) var<storage, read_write> stats: array<f32>; // [batch * groups, 2]: mean, rstd; GRAD reads them
@group(0) @binding(5) var<storage, read_write> out: array<f32>;
@group(0) @binding(6) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let start = w.x * p.count;
  let each = p.count / p.cells; // channels of a group
  let channel = w.x % p.groups * each;
  let size = f32(p.count);
  var n = Plane();
  if (GRAD) {
    n.mean = stats[2u * w.x];
    n.rstd = stats[2u * w.x + 1u];
    let sums = slopes(t, start, p.count, p.cells, start, channel, n.mean, n.rstd);
    n.first = sums.x / size;
    n.second = sums.y / size;
  } else {
    let found = moments(t, start, p.count);
    n.mean = found.x;
    n.rstd = 1.0 / sqrt(found.y / size + p.eps);
    if (t == 0u) { stats[2u * w.x] = n.mean; stats[2u * w.x + 1u] = n.rstd; }
  }
  for (var c = t / LANES; c < each; c += WG / LANES) {
    n.scale = weight[channel + c];
    n.shift = bias[channel + c];
    let plane = start + c * p.cells;
    apply(n, plane + t % LANES, plane + p.cells, LANES);
  }
}
