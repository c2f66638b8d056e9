// group_norm_whole: statistics and all that group_norm does with them, a workgroup per (batch, group), for
// adapters that are processors: there a run costs as much as reading many thousand numbers once more. The statistics
// are those of group_norm_moments, what is done to a number is in group_norm_apply.
override GRAD: bool = false;
override SILU: bool = false;
struct Params { count: u32, cells: u32, groups: u32, eps: f32 } // count = cells of a group's channels
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> weight: array<f32>; // [channels]
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(3) var<storage, read> g: array<vec4f>; // like x
@group(0) @binding(4) var<storage, read_write> stats: array<f32>; // [batch * groups, 2]: mean, rstd; GRAD reads them
@group(0) @binding(5) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(6) var<uniform> p: Params;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let cells = p.cells / 4u;
  let each = p.count / p.cells; // channels of a group
  let start = w.x * (p.count / 4u);
  let channel = w.x % p.groups * each;
  var n = Plane();
  if (GRAD) {
    n.mean = stats[2u * w.x];
    n.rstd = stats[2u * w.x + 1u];
    var first = vec4f();
    var second = vec4f();
    for (var c = 0u; c < each; c++) {
      n.scale = weight[channel + c];
      n.shift = bias[channel + c];
      let end = start + (c + 1u) * cells;
      for (var block = end - cells; block < end; block += BLOCK) {
        var here = vec4f();
        var product = vec4f();
        let last = min(block + BLOCK, end);
        for (var i = block + t; i < last; i += THREADS) {
          let xhat = (x[i] - n.mean) * n.rstd;
          let q = slope(xhat, g[i], n);
          here += q;
          product += q * xhat;
        }
        first += here;
        second += product;
      }
    }
    let sums = total(t, first, second) / f32(p.count);
    n.first = sums.x;
    n.second = sums.y;
  } else {
    let found = moments(t, w.x);
    n.mean = found.x;
    n.rstd = found.y;
  }
  for (var c = 0u; c < each; c++) {
    n.scale = weight[channel + c];
    n.shift = bias[channel + c];
    let end = start + (c + 1u) * cells;
    for (var i = end - cells + t; i < end; i += THREADS) {
      var y = vec4f();
      if (GRAD) { y = g[i]; }
      out[i] = four(x[i], y, n);
    }
  }
}
