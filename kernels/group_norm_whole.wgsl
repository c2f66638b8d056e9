// group_norm_whole: statistics and all that group_norm does with them, a workgroup per (batch, group), for
// adapters that are processors: there a run costs as much as reading many thousand numbers once more. A workgroup is
// what such an adapter does at once, as more threads would only wait for each other; the cells of a plane come in
// fours, which are read in less time than four numbers. What is done to a number is in group_norm_apply.
override GRAD: bool = false;
override SILU: bool = false;
const THREADS = 8u;
const BLOCK = 64u * THREADS; // is added up by itself: rounding grows with the number of blocks, not of numbers
struct Params { count: u32, cells: u32, groups: u32, eps: f32 } // count = cells of a group's channels
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> weight: array<f32>; // [channels]
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(3) var<storage, read> g: array<vec4f>; // like x
@group(0) @binding(4) var<storage, read_write> stats: array<f32>; // [batch * groups, 2]: mean, rstd; GRAD reads them
@group(0) @binding(5) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(6) var<uniform> p: Params;
var<workgroup> part: array<vec2f, THREADS>;

// The sum over all threads of the numbers in both.
fn total(t: u32, a: vec4f, b: vec4f) -> vec2f {
  part[t] = vec2f((a.x + a.y) + (a.z + a.w), (b.x + b.y) + (b.z + b.w));
  workgroupBarrier();
  var sum = vec2f();
  for (var i = 0u; i < THREADS; i++) { sum += part[i]; }
  workgroupBarrier();
  return sum;
}

// (mean, sum of squares around it) of the fours from `start` to `end`, in two passes.
fn moments(t: u32, start: u32, end: u32) -> vec2f {
  let size = f32(p.count);
  var sum = vec4f();
  for (var first = start; first < end; first += BLOCK) {
    var here = vec4f();
    let last = min(first + BLOCK, end);
    for (var i = first + t; i < last; i += THREADS) { here += x[i]; }
    sum += here;
  }
  let mean = total(t, sum, vec4f()).x / size;
  sum = vec4f();
  var squares = vec4f();
  for (var first = start; first < end; first += BLOCK) {
    var here = vec4f();
    var square = vec4f();
    let last = min(first + BLOCK, end);
    for (var i = first + t; i < last; i += THREADS) {
      let d = x[i] - mean;
      here += d;
      square += d * d;
    }
    sum += here;
    squares += square;
  }
  // The first sum repairs the rounding of the mean.
  let sums = total(t, sum, squares);
  let shift = sums.x / size;
  return vec2f(mean + shift, sums.y - sums.x * shift);
}

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
    let found = moments(t, start, start + p.count / 4u);
    n.mean = found.x;
    n.rstd = 1.0 / sqrt(found.y / f32(p.count) + p.eps);
    if (t == 0u) { stats[2u * w.x] = n.mean; stats[2u * w.x + 1u] = n.rstd; }
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
