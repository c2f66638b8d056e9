// gemm: c[z] = alpha * A[z] * B[z] (+ bias[m]) (+ residual[z]) (+ c[z]), any sizes and layouts.
//   A[m,k] = a[oa + z*sa + (A_ROW ? m*lda + k : k*lda + m)]
//   B[k,n] = b[ob + z*sb + (B_ROW ? n*ldb + k : k*ldb + n)]
//   C[m,n] = c[oc + z*sc + m*ldc + n]; residual is addressed like c
// Each thread holds 4 rows x 8 columns in registers. Columns lie TX apart, so neighbouring threads
// touch neighbouring numbers. gemm_vec4 is the faster form where sizes allow.
override TX: u32 = 8u; // threads along n
override TY: u32 = 8u; // threads along m
override A_ROW: bool = true;
override B_ROW: bool = false;
override A_HALF: bool = false; // a holds f16, two to a word
override BIAS: bool = false;
override RESIDUAL: bool = false;
override ACCUMULATE: bool = false;
override LONG: bool = false; // add up in blocks of k: rounding grows with their number, not with K
const BLOCK = 32u;
struct Params {
  M: u32, N: u32, K: u32,
  lda: u32, ldb: u32, ldc: u32,
  sa: u32, sb: u32, sc: u32,
  oa: u32, ob: u32, oc: u32,
  alpha: f32,
}
@group(0) @binding(0) var<storage, read> a: array<u32>; // f32 by its bits, or pairs of f16
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [M]
@group(0) @binding(3) var<storage, read> residual: array<f32>; // like c
@group(0) @binding(4) var<storage, read_write> c: array<f32>;
@group(0) @binding(5) var<uniform> p: Params;

fn left(i: u32) -> f32 {
  if (A_HALF) { return unpack2x16float(a[i >> 1u] >> ((i & 1u) * 16u)).x; }
  return bitcast<f32>(a[i]);
}

fn put(z: u32, m: u32, n: u32, lo: vec4f, hi: vec4f) {
  if (m >= p.M) { return; }
  let row = p.oc + z * p.sc + m * p.ldc;
  var shift = 0.0;
  if (BIAS) { shift = bias[m]; }
  for (var j = 0u; j < 8u; j++) {
    let column = n + j * TX;
    if (column < p.N) {
      let quad = select(lo, hi, j >= 4u);
      var value = p.alpha * quad[j & 3u] + shift;
      if (RESIDUAL) { value += residual[row + column]; }
      if (ACCUMULATE) { value += c[row + column]; }
      c[row + column] = value;
    }
  }
}

@compute @workgroup_size(TX, TY)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_id) l: vec3u) {
  let z = w.z;
  let m0 = (w.y * TY + l.y) * 4u;
  let n0 = w.x * TX * 8u + l.x;
  let am = select(1u, p.lda, A_ROW);
  let ak = select(p.lda, 1u, A_ROW);
  let bn = select(1u, p.ldb, B_ROW);
  let bk = select(p.ldb, 1u, B_ROW);
  // Rows and columns past the end read the last one; put() drops them.
  let a0 = p.oa + z * p.sa + min(m0, p.M - 1u) * am;
  let a1 = p.oa + z * p.sa + min(m0 + 1u, p.M - 1u) * am;
  let a2 = p.oa + z * p.sa + min(m0 + 2u, p.M - 1u) * am;
  let a3 = p.oa + z * p.sa + min(m0 + 3u, p.M - 1u) * am;
  let base = p.ob + z * p.sb;
  let last = p.N - 1u;
  let b0 = base + min(n0, last) * bn;
  let b1 = base + min(n0 + TX, last) * bn;
  let b2 = base + min(n0 + 2u * TX, last) * bn;
  let b3 = base + min(n0 + 3u * TX, last) * bn;
  let b4 = base + min(n0 + 4u * TX, last) * bn;
  let b5 = base + min(n0 + 5u * TX, last) * bn;
  let b6 = base + min(n0 + 6u * TX, last) * bn;
  let b7 = base + min(n0 + 7u * TX, last) * bn;
  var c00 = vec4f(); var c01 = vec4f();
  var c10 = vec4f(); var c11 = vec4f();
  var c20 = vec4f(); var c21 = vec4f();
  var c30 = vec4f(); var c31 = vec4f();
  var t00 = vec4f(); var t01 = vec4f();
  var t10 = vec4f(); var t11 = vec4f();
  var t20 = vec4f(); var t21 = vec4f();
  var t30 = vec4f(); var t31 = vec4f();
  let block = select(p.K, BLOCK, LONG);
  for (var first = 0u; first < p.K; first += block) {
    let end = min(first + block, p.K);
    for (var k = first; k < end; k++) {
      let kb = k * bk;
      let lo = vec4f(b[b0 + kb], b[b1 + kb], b[b2 + kb], b[b3 + kb]);
      let hi = vec4f(b[b4 + kb], b[b5 + kb], b[b6 + kb], b[b7 + kb]);
      let ka = k * ak;
      let v0 = left(a0 + ka); c00 += v0 * lo; c01 += v0 * hi;
      let v1 = left(a1 + ka); c10 += v1 * lo; c11 += v1 * hi;
      let v2 = left(a2 + ka); c20 += v2 * lo; c21 += v2 * hi;
      let v3 = left(a3 + ka); c30 += v3 * lo; c31 += v3 * hi;
    }
    if (LONG) {
      t00 += c00; c00 = vec4f(); t01 += c01; c01 = vec4f();
      t10 += c10; c10 = vec4f(); t11 += c11; c11 = vec4f();
      t20 += c20; c20 = vec4f(); t21 += c21; c21 = vec4f();
      t30 += c30; c30 = vec4f(); t31 += c31; c31 = vec4f();
    }
  }
  if (LONG) {
    c00 = t00; c01 = t01;
    c10 = t10; c11 = t11;
    c20 = t20; c21 = t21;
    c30 = t30; c31 = t31;
  }
  put(z, m0, n0, c00, c01);
  put(z, m0 + 1u, n0, c10, c11);
  put(z, m0 + 2u, n0, c20, c21);
  put(z, m0 + 3u, n0, c30, c31);
}
