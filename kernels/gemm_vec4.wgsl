// gemm_vec4: gemm for B with contiguous columns and N, ldb, ldc, offsets and strides that are
// multiples of 4. Same contract, params in elements. Each thread holds 8 rows x 8 columns.
override A_HALF: bool = false; // a holds f16, two to a word
const THREADS = 8u; // what software adapters do at once

const BIAS = 1u; // flags
const RESIDUAL = 2u;
const ACCUMULATE = 4u;
const SHIFT = 8u;
struct Params {
  M: u32, N: u32, K: u32,
  am: u32, ak: u32, bn: u32, bk: u32, ldc: u32, // strides; bn is 1
  sa: u32, sb: u32, sc: u32,
  oa: u32, ob: u32, oc: u32,
  shiftFirst: u32, shiftStride: u32,
  alpha: f32,
  across: u32, // threads along n: 1, 2 or 4; the others lie along m
  flags: u32,
  block: u32, // k is added up in blocks: rounding grows with their number, not with K
}
@group(0) @binding(0) var<storage, read> a: array<u32>; // f32 by its bits, or pairs of f16
@group(0) @binding(1) var<storage, read> b: array<vec4f>;
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [M]
@group(0) @binding(3) var<storage, read> residual: array<vec4f>; // like c
@group(0) @binding(4) var<storage, read> shift: array<f32>;
@group(0) @binding(5) var<storage, read_write> c: array<vec4f>;
@group(0) @binding(6) var<uniform> p: Params;

fn left(i: u32) -> f32 {
  if (A_HALF) { return unpack2x16float(a[i >> 1u] >> ((i & 1u) * 16u)).x; }
  return bitcast<f32>(a[i]);
}

fn put(at: u32, z: u32, m: u32, value: vec4f) {
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
  let m0 = (w.y * (THREADS / p.across) + t / p.across) * 8u;
  let n0 = w.x * p.across * 2u + t % p.across; // in vec4
  let n1 = n0 + p.across;
  let columns = p.N / 4u;
  // Rows and columns past the end read the last one; the loop at the end drops them.
  let start = p.oa + z * p.sa;
  let last = p.M - 1u;
  let a0 = start + min(m0, last) * p.am;
  let a1 = start + min(m0 + 1u, last) * p.am;
  let a2 = start + min(m0 + 2u, last) * p.am;
  let a3 = start + min(m0 + 3u, last) * p.am;
  let a4 = start + min(m0 + 4u, last) * p.am;
  let a5 = start + min(m0 + 5u, last) * p.am;
  let a6 = start + min(m0 + 6u, last) * p.am;
  let a7 = start + min(m0 + 7u, last) * p.am;
  let base = (p.ob + z * p.sb) / 4u;
  let b0 = base + min(n0, columns - 1u);
  let b1 = base + min(n1, columns - 1u);
  let step = p.bk / 4u;
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
  for (var first = 0u; first < p.K; first += p.block) {
    let end = min(first + p.block, p.K);
    for (var k = first; k < end; k++) {
      let lo = b[b0 + k * step];
      let hi = b[b1 + k * step];
      let ka = k * p.ak;
      let v0 = left(a0 + ka); c00 += v0 * lo; c01 += v0 * hi;
      let v1 = left(a1 + ka); c10 += v1 * lo; c11 += v1 * hi;
      let v2 = left(a2 + ka); c20 += v2 * lo; c21 += v2 * hi;
      let v3 = left(a3 + ka); c30 += v3 * lo; c31 += v3 * hi;
      let v4 = left(a4 + ka); c40 += v4 * lo; c41 += v4 * hi;
      let v5 = left(a5 + ka); c50 += v5 * lo; c51 += v5 * hi;
      let v6 = left(a6 + ka); c60 += v6 * lo; c61 += v6 * hi;
      let v7 = left(a7 + ka); c70 += v7 * lo; c71 += v7 * hi;
    }
    t00 += c00; c00 = vec4f(); t01 += c01; c01 = vec4f();
    t10 += c10; c10 = vec4f(); t11 += c11; c11 = vec4f();
    t20 += c20; c20 = vec4f(); t21 += c21; c21 = vec4f();
    t30 += c30; c30 = vec4f(); t31 += c31; c31 = vec4f();
    t40 += c40; c40 = vec4f(); t41 += c41; c41 = vec4f();
    t50 += c50; c50 = vec4f(); t51 += c51; c51 = vec4f();
    t60 += c60; c60 = vec4f(); t61 += c61; c61 = vec4f();
    t70 += c70; c70 = vec4f(); t71 += c71; c71 = vec4f();
  }
  // Arrays, so that one loop may write all rows: as eight lines it would compile longer than the rest.
  var low = array(t00, t10, t20, t30, t40, t50, t60, t70);
  var high = array(t01, t11, t21, t31, t41, t51, t61, t71);
  // The same index in all threads: arrays are then read at once, not lane by lane.
  for (var r = 0u; r < 8u; r++) {
    let m = m0 + r;
    if (m >= p.M) { continue; }
    let row = (p.oc + z * p.sc + m * p.ldc) / 4u;
    if (n0 < columns) { put(row + n0, z, m, low[r]); }
    if (n1 < columns) { put(row + n1, z, m, high[r]); }
  }
}
