// split_sum: the end of a product that was cut along k: adds up its parts, always in the same order.
//   C[z,m,n] = alpha sum over parts of sums[z,part,m,n]
//   (+ bias[m]) (+ shift[shiftFirst + z * shiftStride + m]) (+ residual) (+ C), all addressed like C
override WG: u32 = 64u;
override BIAS: bool = false;
override SHIFT: bool = false;
override RESIDUAL: bool = false;
override ACCUMULATE: bool = false;
struct Params {
  count: u32, // batch * M * N
  M: u32, N: u32,
  parts: u32,
  ldc: u32, sc: u32, oc: u32,
  shiftStride: u32,
  shiftFirst: u32,
  alpha: f32,
}
@group(0) @binding(0) var<storage, read> sums: array<f32>; // [batch, parts, M, N]
@group(0) @binding(1) var<storage, read> bias: array<f32>; // [M]
@group(0) @binding(2) var<storage, read> shift: array<f32>; // M of each batch element, or of all
@group(0) @binding(3) var<storage, read> residual: array<f32>; // like c
@group(0) @binding(4) var<storage, read_write> c: array<f32>;
@group(0) @binding(5) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let size = p.M * p.N;
  let z = i / size;
  let m = i % size / p.N;
  let n = i % p.N;
  let start = z * p.parts * size + i % size;
  var sum = 0.0;
  for (var part = 0u; part < p.parts; part++) { sum += sums[start + part * size]; }
  let at = p.oc + z * p.sc + m * p.ldc + n;
  var value = p.alpha * sum;
  if (BIAS) { value += bias[m]; }
  if (SHIFT) { value += shift[p.shiftFirst + z * p.shiftStride + m]; }
  if (RESIDUAL) { value += residual[at]; }
  if (ACCUMULATE) { value += c[at]; }
  c[at] = value;
}
