// layer_norm_fours: layer_norm for adapters that are processors, where the cells of a channel come in fours: a
// thread has four columns, whose weights it reads once, and four numbers are read in less time than one by one.
override GRAD: bool = false;
const THREADS = 8u; // of a workgroup: what such an adapter does at once
struct Params { columns: u32, channels: u32, cells: u32, eps: f32 } // columns = batch * cells
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> g: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(5) var<uniform> p: Params;

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) t: u32,
) {
  let i = (w.y * grid.x + w.x) * THREADS + t;
  if (i >= p.columns / 4u) { return; }
  let step = p.cells / 4u;
  let start = i / step * p.channels * step + i % step;
  let n = f32(p.channels);

  var first = vec4f(); // sums of x, q
  var second = vec4f();
  for (var c = 0u; c < p.channels; c++) {
    first += x[start + c * step];
    if (GRAD) { second += g[start + c * step] * weight[c]; }
  }
  let meanX = first / n;
  let meanQ = second / n;

  var d1 = vec4f(); // sums of d, d d, e, e d
  var d2 = vec4f();
  var e1 = vec4f();
  var e2 = vec4f();
  for (var c = 0u; c < p.channels; c++) {
    let d = x[start + c * step] - meanX;
    d1 += d;
    d2 += d * d;
    if (GRAD) {
      let e = g[start + c * step] * weight[c] - meanQ;
      e1 += e;
      e2 += e * d;
    }
  }
  // The sums of d and e repair the rounding of both means.
  let shift = d1 / n;
  let mean = meanX + shift;
  let rstd = 1.0 / sqrt(d2 / n - shift * shift + p.eps);
  let other = e1 / n;
  let slope = rstd * (e2 / n - other * shift); // mean(q xhat)
  for (var c = 0u; c < p.channels; c++) {
    let at = start + c * step;
    let xhat = (x[at] - mean) * rstd;
    if (GRAD) {
      // Like e above, then less its mean: see layer_norm.
      let e = g[at] * weight[c] - meanQ;
      out[at] = rstd * (e - other - xhat * slope);
    } else {
      out[at] = xhat * weight[c] + bias[c];
    }
  }
}
