// gemm: c[z] = alpha * A[z] * B[z] (+ bias[m]) (+ shift[z, m]) (+ residual[z]) (+ c[z]), any sizes and layouts.
//   A[m,k] = a[oa + z sa + m am + k ak], B[k,n] = b[ob + z sb + k bk + n bn], C[m,n] = c[oc + z sc + m ldc + n];
//   residual is addressed like c
// Each thread holds 4 rows x 8 columns in registers. Columns lie `across` apart, so that neighbouring
// threads touch neighbouring numbers. gemm_vec4 is the faster form where sizes allow.
// One pipeline for all shapes, layouts and epilogues: software adapters take a second to compile it.
override A_HALF: bool = false; // a holds f16, two to a word
const THREADS = 8u; // what software adapters do at once

const BIAS = 1u; // flags
const RESIDUAL = 2u;
const ACCUMULATE = 4u;
const SHIFT = 8u;
struct Params {
  M: u32, N: u32, K: u32,
  am: u32, ak: u32, bn: u32, bk: u32, ldc: u32, // strides
  sa: u32, sb: u32, sc: u32,
  oa: u32, ob: u32, oc: u32,
  shiftFirst: u32, shiftStride: u32,
  alpha: f32,
  across: u32, // threads along n: 1, 2 or 4; the others lie along m
  flags: u32,
  block: u32, // k is added up in blocks: rounding grows with their number, not with K
}
@group(0) @binding(0) var<storage, read> a: array<u32>; // f32 by its bits, or pairs of f16
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [M]
@group(0) @binding(3) var<storage, read> residual: array<f32>; // like c
@group(0) @binding(4) var<storage, read> shift: array<f32>;
@group(0) @binding(5) var<storage, read_write> c: array<f32>;
@group(0) @binding(6) var<uniform> p: Params;

fn left(i: u32) -> f32 {
  if (A_HALF) { return unpack2x16float(a[i >> 1u] >> ((i & 1u) * 16u)).x; }
  return bitcast<f32>(a[i]);
}

fn put(at: u32, z: u32, m: u32, value: f32) {
  var sum = p.alpha * value;
  if ((p.flags & BIAS) != 0u) { sum += bias[m]; }
  if ((p.flags & SHIFT) != 0u) { sum += shift[p.shiftFirst + z * p.shiftStride + m]; }
  if ((p.flags & RESIDUAL) != 0u) { sum += residual[at]; }
  if ((p.flags & ACCUMULATE) != 0u) { sum += c[at]; }
  c[at] = sum;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let z = w.z;
  let m0 = (w.y * (THREADS / p.across) + t / p.across) * 4u;
  let n0 = w.x * p.across * 8u + t % p.across;
  // Rows and columns past the end read the last one; the loop at the end drops them.
  let start = p.oa + z * p.sa;
  let last = p.M - 1u;
  let a0 = start + min(m0, last) * p.am;
  let a1 = start + min(m0 + 1u, last) * p.am;
  let a2 = start + min(m0 + 2u, last) * p.am;
  let a3 = start + min(m0 + 3u, last) * p.am;
  let base = p.ob + z * p.sb;
  let right = p.N - 1u;
  let b0 = base + min(n0, right) * p.bn;
  let b1 = base + min(n0 + 1u * p.across, right) * p.bn;
  let b2 = base + min(n0 + 2u * p.across, right) * p.bn;
  let b3 = base + min(n0 + 3u * p.across, right) * p.bn;
  let b4 = base + min(n0 + 4u * p.across, right) * p.bn;
  let b5 = base + min(n0 + 5u * p.across, right) * p.bn;
  let b6 = base + min(n0 + 6u * p.across, right) * p.bn;
  let b7 = base + min(n0 + 7u * p.across, right) * p.bn;
  var c00 = vec4f(); var c01 = vec4f();
  var c10 = vec4f(); var c11 = vec4f();
  var c20 = vec4f(); var c21 = vec4f();
  var c30 = vec4f(); var c31 = vec4f();
  var t00 = vec4f(); var t01 = vec4f();
  var t10 = vec4f(); var t11 = vec4f();
  var t20 = vec4f(); var t21 = vec4f();
  var t30 = vec4f(); var t31 = vec4f();
  for (var first = 0u; first < p.K; first += p.block) {
    let end = min(first + p.block, p.K);
    for (var k = first; k < end; k++) {
      let kb = k * p.bk;
      let lo = vec4f(b[b0 + kb], b[b1 + kb], b[b2 + kb], b[b3 + kb]);
      let hi = vec4f(b[b4 + kb], b[b5 + kb], b[b6 + kb], b[b7 + kb]);
      let ka = k * p.ak;
      let v0 = left(a0 + ka); c00 += v0 * lo; c01 += v0 * hi;
      let v1 = left(a1 + ka); c10 += v1 * lo; c11 += v1 * hi;
      let v2 = left(a2 + ka); c20 += v2 * lo; c21 += v2 * hi;
      let v3 = left(a3 + ka); c30 += v3 * lo; c31 += v3 * hi;
    }
    t00 += c00; c00 = vec4f(); t01 += c01; c01 = vec4f();
    t10 += c10; c10 = vec4f(); t11 += c11; c11 = vec4f();
    t20 += c20; c20 = vec4f(); t21 += c21; c21 = vec4f();
    t30 += c30; c30 = vec4f(); t31 += c31; c31 = vec4f();
  }
  // An array, so that one loop may write all: written out it would compile longer than the rest.
  var sums = array(t00, t01, t10, t11, t20, t21, t30, t31);
  // The same index in all threads: the array is then read at once, not lane by lane.
  for (var r = 0u; r < 4u; r++) {
    let m = m0 + r;
    if (m >= p.M) { continue; }
    let row = p.oc + z * p.sc + m * p.ldc;
    for (var j = 0u; j < 8u; j++) {
      let n = n0 + j * p.across;
      if (n < p.N) { put(row + n, z, m, sums[2u * r + j / 4u][j % 4u]); }
    }
  }
}
