// group_norm: out = act((x - mean) rstd w + b), act = silu or nothing.
//   GRAD: out = dx = rstd (q - (sum of q) / n - xhat (sum of q xhat) / n), q = g w act'(...)
// A workgroup has a run of RUN cells of one plane (batch, channel): what belongs to the plane is read once. What
// is done to a number is in group_norm_apply.
override WG: u32 = 64u;
override GRAD: bool = false;
override SILU: bool = false;
const RUN = 1024u;
struct Params { planes: u32, count: u32, cells: u32, groups: u32 } // count = cells of a group's channels
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>; // [channels]
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(3) var<storage, read> g: array<f32>; // like x
@group(0) @binding(4) var<storage, read> forward: array<f32>; // [batch * groups, 2]: mean, rstd
@group(0) @binding(5) var<storage, read> sums: array<f32>; // [batch * groups, 2]
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
@group(0) @binding(7) var<uniform> p: Params;

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

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) t: u32,
) {
  let plane = w.y;
  let each = p.count / p.cells; // channels of a group
  let group = plane / each;
  let c = plane % (each * p.groups);
  var n = Plane(forward[2u * group], forward[2u * group + 1u], weight[c], bias[c], 0.0, 0.0);
  if (GRAD) {
    n.first = sums[2u * group] / f32(p.count);
    n.second = sums[2u * group + 1u] / f32(p.count);
  }
  let start = plane * p.cells;
  let run = (w.z * grid.x + w.x) * RUN;
  let end = start + min(p.cells, run + RUN);
  apply(n, start + run + t, end, WG);
}
