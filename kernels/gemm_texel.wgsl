// gemm_texel: gemm on adapters that are processors. They fetch storage lane by lane, each component
// behind its own bounds check; a texel is one wide load per lane. So A and B come through textures, four
// numbers to a texel. Each thread holds 8 rows x 16 columns, or GATED 4 rows and their gates, of which it
// stores what geglu makes of them. Either matrix may have any of its axes contiguous: blocks of 4 x 4 are
// turned in registers where k is not the axis that a texel lies along in A, or where it is in B. What reads
// a and b, and the constants, is in gemm_texel_load.
override GATED: bool = false;

struct Params {
  M: u32, N: u32, K: u32,
  am: u32, ak: u32, bn: u32, bk: u32, ldc: u32, // strides; one of each pair is 1
  sa: u32, sb: u32, sc: u32,
  oc: u32,
  first: u32, // row of the bias and of the shift
  shiftFirst: u32, shiftStride: u32,
  gate: u32, // GATED: from a row of A to its gate's
  alpha: f32,
  across: u32, // threads along n: 1, 2, 4 or 8; the others lie along m
  block: u32, // k is added up in blocks: rounding grows with their number, not with K
}
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [M]
@group(0) @binding(3) var<storage, read> residual: array<vec4f>; // like c
@group(0) @binding(4) var<storage, read> shift: array<f32>;
@group(0) @binding(5) var<storage, read_write> c: array<vec4f>;
@group(0) @binding(6) var<uniform> p: Params;

// What is added to a whole row.
fn rowOf(z: u32, m: u32) -> f32 {
  var add = 0.0;
  if (BIAS) { add += bias[p.first + m]; }
  if (SHIFT) { add += shift[p.shiftFirst + z * p.shiftStride + p.first + m]; }
  return add;
}

fn put(at: u32, add: f32, value: vec4f) {
  var sum = p.alpha * value + add;
  if (RESIDUAL) { sum += residual[at]; }
  if (ACCUMULATE) { sum += c[at]; }
  c[at] = sum;
}

fn gated(value: vec4f, gate: vec4f) -> vec4f {
  return value * gate * phi(gate);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  // Neighbours in x share columns: they stay in the cache.
  let rows = select(8u, 4u, GATED);
  let m0 = (w.x * (THREADS / p.across) + t / p.across) * rows;
  let n0 = w.y * p.across * 4u + t % p.across; // in fours
  let columns = p.N / 4u;
  // In texels: to the next of four, to the next four rows or columns, to the next four of k.
  let aNext = select(p.ak, p.am, BY_K) / 4u;
  let aFour = select(1u, p.am, BY_K);
  let aHigh = select(1u, p.gate / 4u, GATED) * aFour;
  let aStep = select(p.ak, 1u, BY_K);
  let bNext = select(p.bn, p.bk, BY_N) / 4u;
  let bFour = select(p.bn, 1u, BY_N);
  let bStep = select(1u, p.bk, BY_N);
  let a0 = w.z * p.sa / 4u + m0 / 4u * aFour;
  let b0 = w.z * p.sb / 4u + n0 * bFour;
  let bPart = p.across * bFour;
  var c00 = vec4f(); var c01 = vec4f(); var c02 = vec4f(); var c03 = vec4f();
  var c10 = vec4f(); var c11 = vec4f(); var c12 = vec4f(); var c13 = vec4f();
  var c20 = vec4f(); var c21 = vec4f(); var c22 = vec4f(); var c23 = vec4f();
  var c30 = vec4f(); var c31 = vec4f(); var c32 = vec4f(); var c33 = vec4f();
  var c40 = vec4f(); var c41 = vec4f(); var c42 = vec4f(); var c43 = vec4f();
  var c50 = vec4f(); var c51 = vec4f(); var c52 = vec4f(); var c53 = vec4f();
  var c60 = vec4f(); var c61 = vec4f(); var c62 = vec4f(); var c63 = vec4f();
  var c70 = vec4f(); var c71 = vec4f(); var c72 = vec4f(); var c73 = vec4f();
  var t00 = vec4f(); var t01 = vec4f(); var t02 = vec4f(); var t03 = vec4f();
  var t10 = vec4f(); var t11 = vec4f(); var t12 = vec4f(); var t13 = vec4f();
  var t20 = vec4f(); var t21 = vec4f(); var t22 = vec4f(); var t23 = vec4f();
  var t30 = vec4f(); var t31 = vec4f(); var t32 = vec4f(); var t33 = vec4f();
  var t40 = vec4f(); var t41 = vec4f(); var t42 = vec4f(); var t43 = vec4f();
  var t50 = vec4f(); var t51 = vec4f(); var t52 = vec4f(); var t53 = vec4f();
  var t60 = vec4f(); var t61 = vec4f(); var t62 = vec4f(); var t63 = vec4f();
  var t70 = vec4f(); var t71 = vec4f(); var t72 = vec4f(); var t73 = vec4f();
  let fours = p.K / 4u;
  for (var first = 0u; first < fours; first += p.block) {
    let end = min(first + p.block, fours);
    for (var k = first; k < end; k++) {
      let i = a0 + k * aStep;
      let j = b0 + k * bStep;
      let x = turned(right(j, bNext), !BY_N);
      let y = turned(right(j + bPart, bNext), !BY_N);
      let z = turned(right(j + 2u * bPart, bNext), !BY_N);
      let u = turned(right(j + 3u * bPart, bNext), !BY_N);
      let low = turned(left(i, aNext), !BY_K);
      let high = turned(left(i + aHigh, aNext), !BY_K);
      let v0 = low[0];
      c00 += (v0.x * x[0] + v0.y * x[1]) + (v0.z * x[2] + v0.w * x[3]);
      c01 += (v0.x * y[0] + v0.y * y[1]) + (v0.z * y[2] + v0.w * y[3]);
      c02 += (v0.x * z[0] + v0.y * z[1]) + (v0.z * z[2] + v0.w * z[3]);
      c03 += (v0.x * u[0] + v0.y * u[1]) + (v0.z * u[2] + v0.w * u[3]);
      let v1 = low[1];
      c10 += (v1.x * x[0] + v1.y * x[1]) + (v1.z * x[2] + v1.w * x[3]);
      c11 += (v1.x * y[0] + v1.y * y[1]) + (v1.z * y[2] + v1.w * y[3]);
      c12 += (v1.x * z[0] + v1.y * z[1]) + (v1.z * z[2] + v1.w * z[3]);
      c13 += (v1.x * u[0] + v1.y * u[1]) + (v1.z * u[2] + v1.w * u[3]);
      let v2 = low[2];
      c20 += (v2.x * x[0] + v2.y * x[1]) + (v2.z * x[2] + v2.w * x[3]);
      c21 += (v2.x * y[0] + v2.y * y[1]) + (v2.z * y[2] + v2.w * y[3]);
      c22 += (v2.x * z[0] + v2.y * z[1]) + (v2.z * z[2] + v2.w * z[3]);
      c23 += (v2.x * u[0] + v2.y * u[1]) + (v2.z * u[2] + v2.w * u[3]);
      let v3 = low[3];
      c30 += (v3.x * x[0] + v3.y * x[1]) + (v3.z * x[2] + v3.w * x[3]);
      c31 += (v3.x * y[0] + v3.y * y[1]) + (v3.z * y[2] + v3.w * y[3]);
      c32 += (v3.x * z[0] + v3.y * z[1]) + (v3.z * z[2] + v3.w * z[3]);
      c33 += (v3.x * u[0] + v3.y * u[1]) + (v3.z * u[2] + v3.w * u[3]);
      let v4 = high[0];
      c40 += (v4.x * x[0] + v4.y * x[1]) + (v4.z * x[2] + v4.w * x[3]);
      c41 += (v4.x * y[0] + v4.y * y[1]) + (v4.z * y[2] + v4.w * y[3]);
      c42 += (v4.x * z[0] + v4.y * z[1]) + (v4.z * z[2] + v4.w * z[3]);
      c43 += (v4.x * u[0] + v4.y * u[1]) + (v4.z * u[2] + v4.w * u[3]);
      let v5 = high[1];
      c50 += (v5.x * x[0] + v5.y * x[1]) + (v5.z * x[2] + v5.w * x[3]);
      c51 += (v5.x * y[0] + v5.y * y[1]) + (v5.z * y[2] + v5.w * y[3]);
      c52 += (v5.x * z[0] + v5.y * z[1]) + (v5.z * z[2] + v5.w * z[3]);
      c53 += (v5.x * u[0] + v5.y * u[1]) + (v5.z * u[2] + v5.w * u[3]);
      let v6 = high[2];
      c60 += (v6.x * x[0] + v6.y * x[1]) + (v6.z * x[2] + v6.w * x[3]);
      c61 += (v6.x * y[0] + v6.y * y[1]) + (v6.z * y[2] + v6.w * y[3]);
      c62 += (v6.x * z[0] + v6.y * z[1]) + (v6.z * z[2] + v6.w * z[3]);
      c63 += (v6.x * u[0] + v6.y * u[1]) + (v6.z * u[2] + v6.w * u[3]);
      let v7 = high[3];
      c70 += (v7.x * x[0] + v7.y * x[1]) + (v7.z * x[2] + v7.w * x[3]);
      c71 += (v7.x * y[0] + v7.y * y[1]) + (v7.z * y[2] + v7.w * y[3]);
      c72 += (v7.x * z[0] + v7.y * z[1]) + (v7.z * z[2] + v7.w * z[3]);
      c73 += (v7.x * u[0] + v7.y * u[1]) + (v7.z * u[2] + v7.w * u[3]);
    }
    t00 += c00; c00 = vec4f(); t01 += c01; c01 = vec4f(); t02 += c02; c02 = vec4f(); t03 += c03; c03 = vec4f();
    t10 += c10; c10 = vec4f(); t11 += c11; c11 = vec4f(); t12 += c12; c12 = vec4f(); t13 += c13; c13 = vec4f();
    t20 += c20; c20 = vec4f(); t21 += c21; c21 = vec4f(); t22 += c22; c22 = vec4f(); t23 += c23; c23 = vec4f();
    t30 += c30; c30 = vec4f(); t31 += c31; c31 = vec4f(); t32 += c32; c32 = vec4f(); t33 += c33; c33 = vec4f();
    t40 += c40; c40 = vec4f(); t41 += c41; c41 = vec4f(); t42 += c42; c42 = vec4f(); t43 += c43; c43 = vec4f();
    t50 += c50; c50 = vec4f(); t51 += c51; c51 = vec4f(); t52 += c52; c52 = vec4f(); t53 += c53; c53 = vec4f();
    t60 += c60; c60 = vec4f(); t61 += c61; c61 = vec4f(); t62 += c62; c62 = vec4f(); t63 += c63; c63 = vec4f();
    t70 += c70; c70 = vec4f(); t71 += c71; c71 = vec4f(); t72 += c72; c72 = vec4f(); t73 += c73; c73 = vec4f();
  }
  // Arrays, so that one loop may write all rows: as eight lines it would compile longer than the rest.
  var part0 = array(t00, t10, t20, t30, t40, t50, t60, t70);
  var part1 = array(t01, t11, t21, t31, t41, t51, t61, t71);
  var part2 = array(t02, t12, t22, t32, t42, t52, t62, t72);
  var part3 = array(t03, t13, t23, t33, t43, t53, t63, t73);
  let n1 = n0 + p.across;
  let n2 = n1 + p.across;
  let n3 = n2 + p.across;
  // The same index in all threads: arrays are then read at once, not lane by lane.
  for (var r = 0u; r < rows; r++) {
    let m = m0 + r;
    if (m >= p.M) { continue; }
    let row = (p.oc + w.z * p.sc + m * p.ldc) / 4u;
    let add = rowOf(w.z, m);
    if (GATED) {
      let more = rowOf(w.z, p.gate + m);
      let g = r + 4u;
      if (n0 < columns) { c[row + n0] = gated(part0[r] + add, part0[g] + more); }
      if (n1 < columns) { c[row + n1] = gated(part1[r] + add, part1[g] + more); }
      if (n2 < columns) { c[row + n2] = gated(part2[r] + add, part2[g] + more); }
      if (n3 < columns) { c[row + n3] = gated(part3[r] + add, part3[g] + more); }
      continue;
    }
    if (n0 < columns) { put(row + n0, add, part0[r]); }
    if (n1 < columns) { put(row + n1, add, part1[r]); }
    if (n2 < columns) { put(row + n2, add, part2[r]); }
    if (n3 < columns) { put(row + n3, add, part3[r]); }
  }
}
