// group_norm: out = act((x - mean) rstd w + b), act = silu or nothing.
//   GRAD: out = dx = rstd (q - (sum of q) / n - xhat (sum of q xhat) / n), q = g w act'(...)
// A workgroup has a run of RUN cells of one plane (batch, channel): what belongs to the plane is read once. What
// is done to a number is in group_norm_apply.
override WG: u32 = 64u;
override GRAD: bool = false;
override SILU: bool = false;
const RUN = 1024u;
struct Params { planes: u32, count: u32, cells: u32, groups: u32, own: u32 } // count = cells of a group's channels
@group(0) @binding(0) var<storage, read> x: array<f32>; // of `own` channels
@group(0) @binding(1) var<storage, read> beside: array<f32>; // BESIDE: of the others
@group(0) @binding(2) var<storage, read> weight: array<f32>; // [channels]
@group(0) @binding(3) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(4) var<storage, read> g: array<f32>; // like out
@group(0) @binding(5) var<storage, read> forward: array<f32>; // [batch * groups, 2]: mean, rstd
@group(0) @binding(6) var<storage, read> sums: array<f32>; // [batch * groups, 2]
@group(0) @binding(7) var<storage, read_write> out: array<f32>;
@group(0) @binding(8) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) t: u32,
) {
  let plane = w.y;
  let group = plane / channelsOf();
  let c = plane % (channelsOf() * p.groups);
  var n = Plane(forward[2u * group], forward[2u * group + 1u], weight[c], bias[c], 0.0, 0.0);
  if (GRAD) {
    n.first = sums[2u * group] / f32(p.count);
    n.second = sums[2u * group + 1u] / f32(p.count);
  }
  let start = plane * p.cells;
  let run = (w.z * grid.x + w.x) * RUN;
  let end = start + min(p.cells, run + RUN);
  let first = group * channelsOf();
  if (BESIDE && c >= p.own) {
    applyBeside(n, start + run + t, end, WG, (planeBeside(group) - first) * p.cells);
  } else {
    applyOwn(n, start + run + t, end, WG, (planeOwn(group) - first) * p.cells);
  }
}
