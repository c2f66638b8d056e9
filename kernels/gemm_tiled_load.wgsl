// What gemm_tiled and gemm_matrix have in common: where A, B and C lie, and what is done with a sum. Their source
// follows.
//   A[m,k] = a[oa + z*sa + (A_ROW ? m*lda + k : k*lda + m)]
//   B[k,n] = b[ob + z*sb + (B_ROW ? n*ldb + k : k*ldb + n)]
//   C[m,n] = c[oc + z*sc + m*ldc + n]; residual is addressed like c
// Where K is long and tiles are few, several workgroups share a tile and have `each` of its k.
override A_ROW: bool = true;
override B_ROW: bool = false;
override A_HALF: bool = false; // a holds f16, two to a word
override A_QUAD: bool = false; // A has contiguous m, all aligned to 4: read through aQuads
override B_QUAD: bool = false; // likewise B and n
override BIAS: bool = false;
override RESIDUAL: bool = false;
override ACCUMULATE: bool = false;
override SPLIT: bool = false; // c takes the sums of parts of k, [batch, parts, M, N]; see split_sum
struct Params {
  M: u32, N: u32, K: u32,
  lda: u32, ldb: u32, ldc: u32,
  sa: u32, sb: u32, sc: u32,
  oa: u32, ob: u32, oc: u32,
  parts: u32, each: u32, // a multiple of BLOCK, or K
  alpha: f32,
}
@group(0) @binding(0) var<storage, read> a: array<u32>; // f32 by its bits, or pairs of f16
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [M]
@group(0) @binding(3) var<storage, read> residual: array<f32>; // like c
@group(0) @binding(4) var<storage, read_write> c: array<f32>;
@group(0) @binding(5) var<storage, read> aQuads: array<vec4f>; // a again
@group(0) @binding(6) var<storage, read> bQuads: array<vec4f>; // b again
@group(0) @binding(7) var<uniform> p: Params;

fn numberOfA(m: u32, at: u32) -> f32 {
  if (m >= p.M) { return 0.0; }
  if (A_HALF) { return unpack2x16float(a[at >> 1u] >> ((at & 1u) * 16u)).x; }
  return bitcast<f32>(a[at]);
}

fn quadOfA(start: u32, m: u32, k: u32) -> vec4f {
  if (k >= p.K || m >= p.M) { return vec4f(); }
  if (A_QUAD) { return aQuads[(start + k * p.lda + m) / 4u]; }
  let step = select(1u, p.lda, A_ROW);
  let at = start + m * step + k * select(p.lda, 1u, A_ROW);
  return vec4f(
    numberOfA(m, at),
    numberOfA(m + 1u, at + step),
    numberOfA(m + 2u, at + 2u * step),
    numberOfA(m + 3u, at + 3u * step),
  );
}

fn numberOfB(n: u32, at: u32) -> f32 {
  if (n >= p.N) { return 0.0; }
  return b[at];
}

fn quadOfB(start: u32, n: u32, k: u32) -> vec4f {
  if (k >= p.K || n >= p.N) { return vec4f(); }
  if (B_QUAD) { return bQuads[(start + k * p.ldb + n) / 4u]; }
  let step = select(1u, p.ldb, B_ROW);
  let at = start + n * step + k * select(p.ldb, 1u, B_ROW);
  return vec4f(
    numberOfB(n, at),
    numberOfB(n + 1u, at + step),
    numberOfB(n + 2u, at + 2u * step),
    numberOfB(n + 3u, at + 3u * step),
  );
}

fn put(z: u32, part: u32, m: u32, n: u32, sums: vec4f) {
  if (m >= p.M) { return; }
  if (SPLIT) {
    let line = ((z * p.parts + part) * p.M + m) * p.N + n;
    for (var j = 0u; j < 4u && n + j < p.N; j++) { c[line + j] = sums[j]; }
    return;
  }
  let row = p.oc + z * p.sc + m * p.ldc;
  var values = p.alpha * sums;
  if (BIAS) { values += bias[m]; }
  for (var j = 0u; j < 4u && n + j < p.N; j++) {
    let at = row + n + j;
    var value = values[j];
    if (RESIDUAL) { value += residual[at]; }
    if (ACCUMULATE) { value += c[at]; }
    c[at] = value;
  }
}
