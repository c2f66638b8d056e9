// gemm_narrow: gemm_texel for results of at most four columns: the deepest level of a small image, one vector
// per picture. Each thread holds 8 rows x 4 columns, TALL 16 rows: where A's texels lie along m, threads side by
// side then read twice as much of it in a row. What reads a and b, and the constants, is in gemm_texel_load.
override TALL: bool = false;

struct Params {
  M: u32, N: u32, K: u32,
  am: u32, ak: u32, bn: u32, bk: u32, ldc: u32, // strides; of either pair one is 1, the other in fours
  sa: u32, sb: u32, sc: u32,
  oc: u32,
  first: u32, // row of the bias and of the shift
  shiftFirst: u32, shiftStride: u32,
  alpha: f32,
  block: u32, // k is added up in blocks: rounding grows with their number, not with K
}
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [M]
@group(0) @binding(3) var<storage, read> residual: array<f32>; // like c
@group(0) @binding(4) var<storage, read> shift: array<f32>;
@group(0) @binding(5) var<storage, read_write> c: array<f32>;
@group(0) @binding(6) var<uniform> p: Params;

// Rows of products: a column of `v` is a row of A, a column of `x` a row of B.
fn times(v: mat4x4f, x: mat4x4f) -> mat4x4f {
  return mat4x4f(
    (v[0].x * x[0] + v[0].y * x[1]) + (v[0].z * x[2] + v[0].w * x[3]),
    (v[1].x * x[0] + v[1].y * x[1]) + (v[1].z * x[2] + v[1].w * x[3]),
    (v[2].x * x[0] + v[2].y * x[1]) + (v[2].z * x[2] + v[2].w * x[3]),
    (v[3].x * x[0] + v[3].y * x[1]) + (v[3].z * x[2] + v[3].w * x[3]),
  );
}

// What lies past the last column is read and left alone.
fn put(at: u32, z: u32, m: u32, value: vec4f) {
  var sum = p.alpha * value;
  if (BIAS) { sum += bias[p.first + m]; }
  if (SHIFT) { sum += shift[p.shiftFirst + z * p.shiftStride + p.first + m]; }
  if (RESIDUAL) {
    sum += vec4f(residual[at], residual[at + 1u], residual[at + 2u], residual[at + 3u]);
  }
  if (ACCUMULATE) { sum += vec4f(c[at], c[at + 1u], c[at + 2u], c[at + 3u]); }
  c[at] = sum.x;
  if (p.N > 1u) { c[at + 1u] = sum.y; }
  if (p.N > 2u) { c[at + 2u] = sum.z; }
  if (p.N > 3u) { c[at + 3u] = sum.w; }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let height = select(8u, 16u, TALL);
  let m0 = (w.x * THREADS + t) * height;
  // In texels: to the next of four, to the next four rows, to the next four of k.
  let aNext = select(p.ak, p.am, BY_K) / 4u;
  let aFour = select(1u, p.am, BY_K);
  let aStep = select(p.ak, 1u, BY_K);
  let bNext = select(p.bn, p.bk, BY_N) / 4u;
  let bStep = select(1u, p.bk, BY_N);
  let a0 = w.z * p.sa / 4u + m0 / 4u * aFour;
  let b0 = w.z * p.sb / 4u;
  var c0 = mat4x4f(); var c1 = mat4x4f(); var c2 = mat4x4f(); var c3 = mat4x4f();
  var t0 = mat4x4f(); var t1 = mat4x4f(); var t2 = mat4x4f(); var t3 = mat4x4f();
  let fours = p.K / 4u;
  for (var first = 0u; first < fours; first += p.block) {
    let end = min(first + p.block, fours);
    for (var k = first; k < end; k++) {
      let i = a0 + k * aStep;
      let x = turned(right(b0 + k * bStep, bNext), !BY_N);
      c0 += times(turned(left(i, aNext), !BY_K), x);
      c1 += times(turned(left(i + aFour, aNext), !BY_K), x);
      if (TALL) {
        c2 += times(turned(left(i + 2u * aFour, aNext), !BY_K), x);
        c3 += times(turned(left(i + 3u * aFour, aNext), !BY_K), x);
      }
    }
    t0 += c0; c0 = mat4x4f();
    t1 += c1; c1 = mat4x4f();
    t2 += c2; c2 = mat4x4f();
    t3 += c3; c3 = mat4x4f();
  }
  // An array, so that one loop may write all rows: as so many lines it would compile longer than the rest.
  var rows = array(
    t0[0], t0[1], t0[2], t0[3], t1[0], t1[1], t1[2], t1[3],
    t2[0], t2[1], t2[2], t2[3], t3[0], t3[1], t3[2], t3[3],
  );
  // The same index in all threads: the array is then read at once, not lane by lane.
  for (var r = 0u; r < height; r++) {
    let m = m0 + r;
    if (m < p.M) { put(p.oc + w.z * p.sc + m * p.ldc, w.z, m, rows[r]); }
  }
}
