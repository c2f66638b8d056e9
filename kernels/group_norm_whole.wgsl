// group_norm_whole: statistics and all that group_norm does with them, a workgroup per (batch, group), for
// adapters that are processors: there a run costs as much as reading many thousand numbers once more. The statistics
// are those of group_norm_moments, what is done to a number is in group_norm_apply.
override GRAD: bool = false;
override SILU: bool = false;
struct Params { count: u32, cells: u32, groups: u32, own: u32, eps: f32 } // count = cells of a group's channels
@group(0) @binding(0) var<storage, read> x: array<vec4f>; // of `own` channels
@group(0) @binding(1) var<storage, read> beside: array<vec4f>; // BESIDE: of the others
@group(0) @binding(2) var<storage, read> weight: array<f32>; // [channels]
@group(0) @binding(3) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(4) var<storage, read> g: array<vec4f>; // like out
@group(0) @binding(5) var<storage, read_write> stats: array<f32>; // [batch * groups, 2]: mean, rstd; GRAD reads them
@group(0) @binding(6) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(7) var<uniform> p: Params;

// What belongs to channel c of a group.
fn channel(group: u32, c: u32, n: Plane) -> Plane {
  let i = firstChannel(group) + c;
  return Plane(n.mean, n.rstd, weight[i], bias[i], n.first, n.second);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let cells = p.cells / 4u;
  let each = channelsOf();
  let own = ownChannels(w.x);
  let start = w.x * each * cells;
  let further = planeOwn(w.x) * cells - start;
  let furtherBeside = planeBeside(w.x) * cells - start;
  var n = Plane();
  if (GRAD) {
    n.mean = stats[2u * w.x];
    n.rstd = stats[2u * w.x + 1u];
    var sums = Sums();
    for (var c = 0u; c < own; c++) {
      let here = slopesOwn(t, start + c * cells, further, channel(w.x, c, n));
      sums.first += here.first;
      sums.second += here.second;
    }
    if (BESIDE) {
      for (var c = own; c < each; c++) {
        let here = slopesBeside(t, start + c * cells, furtherBeside, channel(w.x, c, n));
        sums.first += here.first;
        sums.second += here.second;
      }
    }
    let both = total(t, sums.first, sums.second) / f32(p.count);
    n.first = both.x;
    n.second = both.y;
  } else {
    let found = moments(t, w.x);
    n.mean = found.x;
    n.rstd = found.y;
  }
  for (var c = 0u; c < own; c++) { applyOwn(t, start + c * cells, further, channel(w.x, c, n)); }
  if (BESIDE) {
    for (var c = own; c < each; c++) { applyBeside(t, start + c * cells, furtherBeside, channel(w.x, c, n)); }
  }
}
