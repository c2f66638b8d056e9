// matrix_product: matrix products by units that multiply fragments of 16-bit numbers and add them up in 32 bits.
//   A[m,k] = a[oa + z*sa + (A_ROW ? m*lda + k : k*lda + m)], f32 or f16, in eights
//   B[k,n] = b[z*sb + k*ldb + n], f16, in eights; TAPS: of a 3x3 convolution, see halve_taps:
//            b[(kx * planes + z*K/9 + c) * plane + ky * wide + n] with k = 9 c + 3 ky + kx
//   C[m,n] = c[oc + z*sc + m*ldc + cell], in fours; cell is n without what is past `width` in each `wide` columns;
//            residual is addressed like c
// A workgroup makes TM x TN numbers of C, each of its subgroups WM x WN fragments of that. Where K is long and tiles
// are few, several workgroups share a tile and have `each` of its k. matrix_product.ts writes what stands before this:
// FM, FN, FK and SUBGROUP, the sizes that the adapter has, TM, TN, WM, WN, A_ROW and STEP, of k that are in workgroup
// memory at a time; and, since arrays of fragments
// would not be in registers and loops would wait for each read, what is in braces with an @.
override A_HALF: bool = false;
override TAPS: bool = false;
override BIAS: bool = false;
override SHIFT: bool = false;
override RESIDUAL: bool = false;
override ACCUMULATE: bool = false;
override SPLIT: bool = false; // c takes the sums of parts of k, [batch, parts, M, cells]; see split_sum
override SCALED: bool = false; // B was multiplied by halfScale()
struct Params {
  M: u32, N: u32, K: u32,
  lda: u32, ldb: u32, ldc: u32,
  sa: u32, sb: u32, sc: u32,
  oa: u32, oc: u32,
  plane: u32, planes: u32, wide: u32, width: u32, cells: u32,
  shiftFirst: u32, shiftStride: u32,
  parts: u32, each: u32, // a multiple of STEP, or K
  alpha: f32,
}
@group(0) @binding(0) var<storage, read> a: array<vec4u>;
@group(0) @binding(1) var<storage, read> b: array<vec4u>;
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [M]
@group(0) @binding(3) var<storage, read> shift: array<f32>; // M of each z, or of all
@group(0) @binding(4) var<storage, read> residual: array<vec4f>; // like c
@group(0) @binding(5) var<storage, read> peaks: array<vec4f>; // from `largest`
@group(0) @binding(6) var<storage, read_write> c: array<vec4f>;
@group(0) @binding(7) var<uniform> p: Params;

const ACROSS = TN / (WN * FN); // subgroups along n
const SUBGROUPS = ACROSS * TM / (WM * FM);
const THREADS = SUBGROUPS * SUBGROUP;
const PAD = 8u; // between lines, against conflicts of memory banks
const LEFT = select(TM, STEP, A_ROW) + PAD;
const LEFTS = LEFT * select(STEP, TM, A_ROW);
const RIGHT = TN + PAD;
const AT_ONCE = 2u; // fragments of a subgroup that are handed out together
var<workgroup> left: array<f16, LEFTS>; // [TM][STEP], or [STEP][TM]
var<workgroup> right: array<f16, STEP * RIGHT>; // [STEP][TN]
var<workgroup> results: array<f32, SUBGROUPS * AT_ONCE * FM * FN>;

alias Left = subgroup_matrix_left<f16, FK, FM>;
alias Right = subgroup_matrix_right<f16, FN, FK>;
alias Sums = subgroup_matrix_result<f32, FN, FM>;

// A[m, k to k + 7], or A[m to m + 7, k], two to a word.
fn octetOfA(start: u32, m: u32, k: u32) -> vec4u {
  if (m >= p.M || k >= p.K) { return vec4u(); }
  let at = start + select(k * p.lda + m, m * p.lda + k, A_ROW);
  if (A_HALF) { return a[at / 8u]; }
  let low = bitcast<vec4f>(a[at / 4u]);
  let high = bitcast<vec4f>(a[at / 4u + 1u]);
  return vec4u(pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw));
}

// B[k, n to n + 7].
fn octetOfB(z: u32, k: u32, n: u32) -> vec4u {
  if (k >= p.K || n >= p.N) { return vec4u(); }
  if (TAPS) {
    let plane = k % 3u * p.planes + z * (p.K / 9u) + k / 9u;
    return b[(plane * p.plane + k % 9u / 3u * p.wide + n) / 8u];
  }
  return b[(z * p.sb + k * p.ldb + n) / 8u];
}

// C[m, n to n + 3] from sums of products.
fn put(z: u32, part: u32, m: u32, n: u32, sums: vec4f) {
  let row = n / p.wide;
  let column = n % p.wide;
  if (m >= p.M || n >= p.N || column >= p.width) { return; }
  let cell = row * p.width + column;
  if (SPLIT) {
    let line = ((z * p.parts + part) * p.M + m) * p.cells + cell;
    c[line / 4u] = sums;
    return;
  }
  let at = p.oc + z * p.sc + m * p.ldc + cell;
  var values = p.alpha * sums;
  if (BIAS) { values += bias[m]; }
  if (SHIFT) { values += shift[p.shiftFirst + z * p.shiftStride + m]; }
  if (RESIDUAL) { values += residual[at / 4u]; }
  if (ACCUMULATE) { values += c[at / 4u]; }
  c[at / 4u] = values;
}

// Hands out the fragments of C from [m, n] on that a subgroup has in `results`, side by side.
fn handOut(z: u32, part: u32, group: u32, lane: u32, m: u32, n: u32, factor: f32) {
  workgroupBarrier();
  for (var i = lane; i < AT_ONCE * FM * FN / 4u; i += SUBGROUP) {
    let at = group * AT_ONCE * FM * FN + 4u * i;
    let row = i % (FM * FN / 4u) / (FN / 4u);
    let column = i / (FM * FN / 4u) * FN + i % (FN / 4u) * 4u;
    let four = vec4f(results[at], results[at + 1u], results[at + 2u], results[at + 3u]);
    put(z, part, m + row, n + column, factor * four);
  }
  workgroupBarrier();
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) w: vec3u,
  @builtin(local_invocation_index) t: u32,
  @builtin(subgroup_id) group: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let z = w.z / p.parts;
  let part = w.z % p.parts;
  let end = min(p.K, (part + 1u) * p.each);
  let m0 = w.y * TM;
  let n0 = w.x * TN;
  let startA = p.oa + z * p.sa;
  let m = group / ACROSS * WM * FM;
  let n = group % ACROSS * WN * FN;
  {@ sums}
  for (var first = part * p.each; first < end; first += STEP) {
    {@ read}
    workgroupBarrier();
    {@ write}
    workgroupBarrier();
    {@ multiply}
  }
  var factor = 1.0;
  if (SCALED) { factor = 1.0 / halfScale(); }
  let slot = group * AT_ONCE * FM * FN;
  {@ handOut}
}
