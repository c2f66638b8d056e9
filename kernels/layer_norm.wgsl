// layer_norm over the channels of channel-major x [batch, channels, cells]; one thread per (batch, cell),
// so that neighbouring threads read neighbouring numbers.
//   out = (x - mean) rstd w + b
//   GRAD: out = dx = rstd (q - mean(q) - xhat mean(q xhat)), q = g w; statistics are computed again
override WG: u32 = 64u;
override GRAD: bool = false;
struct Params { columns: u32, channels: u32, cells: u32, eps: f32 } // columns = batch * cells
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> g: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.columns) { return; }
  let start = i / p.cells * p.channels * p.cells + i % p.cells;
  let n = f32(p.channels);
  var sum = 0.0;
  for (var c = 0u; c < p.channels; c++) { sum += x[start + c * p.cells]; }
  let mean = sum / n;
  var square = 0.0;
  for (var c = 0u; c < p.channels; c++) {
    let d = x[start + c * p.cells] - mean;
    square += d * d;
  }
  let rstd = 1.0 / sqrt(square / n + p.eps);
  if (GRAD) {
    var first = 0.0;
    var second = 0.0;
    for (var c = 0u; c < p.channels; c++) {
      let q = g[start + c * p.cells] * weight[c];
      first += q;
      second += q * (x[start + c * p.cells] - mean) * rstd;
    }
    for (var c = 0u; c < p.channels; c++) {
      let at = start + c * p.cells;
      let xhat = (x[at] - mean) * rstd;
      out[at] = rstd * (g[at] * weight[c] - (first + xhat * second) / n);
    }
  } else {
    for (var c = 0u; c < p.channels; c++) {
      let at = start + c * p.cells;
      out[at] = (x[at] - mean) * rstd * weight[c] + bias[c];
    }
  }
}
