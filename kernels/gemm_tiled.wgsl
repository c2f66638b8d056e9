// gemm_tiled: gemm for GPUs, same contract, any sizes and layouts; the main function is that of tiled.wgsl.
//   A[m,k] = a[oa + z*sa + (A_ROW ? m*lda + k : k*lda + m)]
//   B[k,n] = b[ob + z*sb + (B_ROW ? n*ldb + k : k*ldb + n)]
//   C[m,n] = c[oc + z*sc + m*ldc + n]; residual is addressed like c
// Where K is long and tiles are few, several workgroups share a tile and have `each` of its k.
override A_ROW: bool = true;
override B_ROW: bool = false;
override A_QUAD: bool = false; // A has contiguous m, all aligned to 4
override B_QUAD: bool = false; // B has contiguous n, all aligned to 4: read through bQuads
override BIAS: bool = false;
override RESIDUAL: bool = false;
override ACCUMULATE: bool = false;
override SPLIT: bool = false; // c takes the sums of parts of k, [batch, parts, M, N]; see split_sum
struct Params {
  M: u32, N: u32, K: u32,
  lda: u32, ldb: u32, ldc: u32,
  sa: u32, sb: u32, sc: u32,
  oa: u32, ob: u32, oc: u32,
  parts: u32, each: u32, // a multiple of STEP, or K
  alpha: f32,
}
@group(0) @binding(0) var<storage, read> a: array<Words>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [M]
@group(0) @binding(3) var<storage, read> residual: array<f32>; // like c
@group(0) @binding(4) var<storage, read_write> c: array<f32>;
@group(0) @binding(5) var<storage, read> bQuads: array<vec4f>; // b again
@group(0) @binding(6) var<uniform> p: Params;
var<private> z: u32;
var<private> ofPart: u32;
var<private> startA: u32;
var<private> startB: u32;

fn begin(w: vec3u, thread: u32) {
  z = w.z / p.parts;
  ofPart = w.z % p.parts;
  startA = p.oa + z * p.sa;
  startB = p.ob + z * p.sb;
}

// Neighbouring threads take what lies side by side in memory.
fn placeOfA(i: u32) -> vec2u {
  if (A_LINES) { return vec2u(i / (STEP / 4u), i % (STEP / 4u) * 4u); }
  if (A_ROW) { return vec2u(i / STEP, i % STEP); }
  return vec2u(i % (TM / 4u), i / (TM / 4u));
}

fn placeOfB(i: u32) -> vec2u {
  if (B_ROW) { return vec2u(i / STEP, i % STEP); }
  return vec2u(i % (TN / 4u), i / (TN / 4u));
}

fn inRows(m: u32, at: u32) -> NumberOfA {
  if (m >= p.M) { return NumberOfA(); }
  return numberOfA(at);
}

fn readA(m: u32, k: u32) -> QuadOfA {
  if (k >= p.K || m >= p.M) { return QuadOfA(); }
  let step = select(1u, p.lda, A_ROW);
  let at = startA + m * step + k * select(p.lda, 1u, A_ROW);
  if (A_LINES || A_QUAD) { return fourOfA(at); }
  return QuadOfA(
    inRows(m, at),
    inRows(m + 1u, at + step),
    inRows(m + 2u, at + 2u * step),
    inRows(m + 3u, at + 3u * step),
  );
}

fn numberOfB(n: u32, at: u32) -> f32 {
  if (n >= p.N) { return 0.0; }
  return b[at];
}

fn readB(k: u32, n: u32) -> vec4f {
  if (k >= p.K || n >= p.N) { return vec4f(); }
  if (B_QUAD) { return bQuads[(startB + k * p.ldb + n) / 4u]; }
  let step = select(1u, p.ldb, B_ROW);
  let at = startB + n * step + k * select(p.ldb, 1u, B_ROW);
  return vec4f(
    numberOfB(n, at),
    numberOfB(n + 1u, at + step),
    numberOfB(n + 2u, at + 2u * step),
    numberOfB(n + 3u, at + 3u * step),
  );
}

fn put(m: u32, n: u32, sums: vec4f) {
  if (m >= p.M) { return; }
  if (SPLIT) {
    let line = ((z * p.parts + ofPart) * p.M + m) * p.N + n;
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
