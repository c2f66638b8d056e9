// gemm_vec4: gemm for B with contiguous columns and N, ldb, ldc, offsets and strides that are
// multiples of 4. Same contract, params in elements. Each thread holds 8 rows x 8 columns.
override TX: u32 = 8u; // threads along n
override TY: u32 = 4u; // threads along m
override A_ROW: bool = true;
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
@group(0) @binding(1) var<storage, read> b: array<vec4f>;
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [M]
@group(0) @binding(3) var<storage, read> residual: array<vec4f>; // like c
@group(0) @binding(4) var<storage, read_write> c: array<vec4f>;
@group(0) @binding(5) var<uniform> p: Params;

fn left(i: u32) -> f32 {
  if (A_HALF) { return unpack2x16float(a[i >> 1u] >> ((i & 1u) * 16u)).x; }
  return bitcast<f32>(a[i]);
}

fn put(z: u32, m: u32, n: u32, lo: vec4f, hi: vec4f) {
  if (m >= p.M) { return; }
  let at = (p.oc + z * p.sc + m * p.ldc) / 4u + n;
  var first = p.alpha * lo;
  var second = p.alpha * hi;
  if (BIAS) { first += bias[m]; second += bias[m]; }
  if (n < p.N / 4u) {
    if (RESIDUAL) { first += residual[at]; }
    if (ACCUMULATE) { first += c[at]; }
    c[at] = first;
  }
  if (n + TX < p.N / 4u) {
    if (RESIDUAL) { second += residual[at + TX]; }
    if (ACCUMULATE) { second += c[at + TX]; }
    c[at + TX] = second;
  }
}

@compute @workgroup_size(TX, TY)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_id) l: vec3u) {
  let z = w.z;
  let m0 = (w.y * TY + l.y) * 8u;
  let n0 = w.x * TX * 2u + l.x; // in vec4
  let am = select(1u, p.lda, A_ROW);
  let ak = select(p.lda, 1u, A_ROW);
  let start = p.oa + z * p.sa;
  let last = p.M - 1u;
  let a0 = start + min(m0, last) * am;
  let a1 = start + min(m0 + 1u, last) * am;
  let a2 = start + min(m0 + 2u, last) * am;
  let a3 = start + min(m0 + 3u, last) * am;
  let a4 = start + min(m0 + 4u, last) * am;
  let a5 = start + min(m0 + 5u, last) * am;
  let a6 = start + min(m0 + 6u, last) * am;
  let a7 = start + min(m0 + 7u, last) * am;
  let base = (p.ob + z * p.sb) / 4u;
  let b0 = base + min(n0, p.N / 4u - 1u);
  let b1 = base + min(n0 + TX, p.N / 4u - 1u);
  let step = p.ldb / 4u;
  var c00 = vec4f(); var c01 = vec4f();
  var c10 = vec4f(); var c11 = vec4f();
  var c20 = vec4f(); var c21 = vec4f();
  var c30 = vec4f(); var c31 = vec4f();
  var c40 = vec4f(); var c41 = vec4f();
  var c50 = vec4f(); var c51 = vec4f();
  var c60 = vec4f(); var c61 = vec4f();
  var c70 = vec4f(); var c71 = vec4f();
  var t00 = vec4f(); var t01 = vec4f();
  var t10 = vec4f(); var t11 = vec4f();
  var t20 = vec4f(); var t21 = vec4f();
  var t30 = vec4f(); var t31 = vec4f();
  var t40 = vec4f(); var t41 = vec4f();
  var t50 = vec4f(); var t51 = vec4f();
  var t60 = vec4f(); var t61 = vec4f();
  var t70 = vec4f(); var t71 = vec4f();
  let block = select(p.K, BLOCK, LONG);
  for (var first = 0u; first < p.K; first += block) {
    let end = min(first + block, p.K);
    for (var k = first; k < end; k++) {
      let lo = b[b0 + k * step];
      let hi = b[b1 + k * step];
      let ka = k * ak;
      let v0 = left(a0 + ka); c00 += v0 * lo; c01 += v0 * hi;
      let v1 = left(a1 + ka); c10 += v1 * lo; c11 += v1 * hi;
      let v2 = left(a2 + ka); c20 += v2 * lo; c21 += v2 * hi;
      let v3 = left(a3 + ka); c30 += v3 * lo; c31 += v3 * hi;
      let v4 = left(a4 + ka); c40 += v4 * lo; c41 += v4 * hi;
      let v5 = left(a5 + ka); c50 += v5 * lo; c51 += v5 * hi;
      let v6 = left(a6 + ka); c60 += v6 * lo; c61 += v6 * hi;
      let v7 = left(a7 + ka); c70 += v7 * lo; c71 += v7 * hi;
    }
    if (LONG) {
      t00 += c00; c00 = vec4f(); t01 += c01; c01 = vec4f();
      t10 += c10; c10 = vec4f(); t11 += c11; c11 = vec4f();
      t20 += c20; c20 = vec4f(); t21 += c21; c21 = vec4f();
      t30 += c30; c30 = vec4f(); t31 += c31; c31 = vec4f();
      t40 += c40; c40 = vec4f(); t41 += c41; c41 = vec4f();
      t50 += c50; c50 = vec4f(); t51 += c51; c51 = vec4f();
      t60 += c60; c60 = vec4f(); t61 += c61; c61 = vec4f();
      t70 += c70; c70 = vec4f(); t71 += c71; c71 = vec4f();
    }
  }
  if (LONG) {
    c00 = t00; c01 = t01;
    c10 = t10; c11 = t11;
    c20 = t20; c21 = t21;
    c30 = t30; c31 = t31;
    c40 = t40; c41 = t41;
    c50 = t50; c51 = t51;
    c60 = t60; c61 = t61;
    c70 = t70; c71 = t71;
  }
  put(z, m0, n0, c00, c01);
  put(z, m0 + 1u, n0, c10, c11);
  put(z, m0 + 2u, n0, c20, c21);
  put(z, m0 + 3u, n0, c30, c31);
  put(z, m0 + 4u, n0, c40, c41);
  put(z, m0 + 5u, n0, c50, c51);
  put(z, m0 + 6u, n0, c60, c61);
  put(z, m0 + 7u, n0, c70, c71);
}
