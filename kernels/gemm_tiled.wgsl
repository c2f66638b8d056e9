// gemm_tiled: gemm for GPUs, same contract and params, any sizes and layouts.
//   A[m,k] = a[oa + z*sa + (A_ROW ? m*lda + k : k*lda + m)]
//   B[k,n] = b[ob + z*sb + (B_ROW ? n*ldb + k : k*ldb + n)]
//   C[m,n] = c[oc + z*sc + m*ldc + n]; residual is addressed like c
// A workgroup makes 4 TY rows x 4 TX QUADS columns of C. Its threads copy STEP lines of A and B to
// workgroup memory, in quads (4 rows or columns, one k), then each thread adds up 4 rows and 1 or 2
// quads of columns. Quads of columns lie TX apart, so that neighbours read neighbouring memory banks.
// Where K is long and tiles are few, several workgroups share a tile and have `each` of its k.
override TX: u32 = 16u; // threads along n
override TY: u32 = 16u; // threads along m
override QUADS: u32 = 2u; // of columns that a thread holds, 1 or 2
override A_ROW: bool = true;
override B_ROW: bool = false;
override A_HALF: bool = false; // a holds f16, two to a word
override A_QUAD: bool = false; // A has contiguous m, all aligned to 4: read through aQuads
override B_QUAD: bool = false; // likewise B and n
override BIAS: bool = false;
override RESIDUAL: bool = false;
override ACCUMULATE: bool = false;
override LONG: bool = false; // add up in blocks of k: rounding grows with their number, not with K
override SPLIT: bool = false; // c takes the sums of parts of k, [batch, parts, M, N]; see split_sum
const STEP = 16u; // of k that are in workgroup memory at a time
const BLOCK = 32u; // a multiple of STEP
override ROWS = STEP * (TY + 1u); // one quad more than is used, against conflicts of memory banks
override COLUMNS = STEP * (TX * QUADS + 1u);
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
var<workgroup> rows: array<vec4f, ROWS>; // [STEP][TY + 1], each 4 rows of one k
var<workgroup> columns: array<vec4f, COLUMNS>; // [STEP][TX * QUADS + 1]

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

@compute @workgroup_size(TX, TY)
fn main(
  @builtin(workgroup_id) w: vec3u,
  @builtin(local_invocation_id) l: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let z = w.z / p.parts;
  let part = w.z % p.parts;
  let end = min(p.K, (part + 1u) * p.each);
  let m0 = w.y * TY * 4u;
  let n0 = w.x * TX * QUADS * 4u;
  let startA = p.oa + z * p.sa;
  let startB = p.ob + z * p.sb;
  let wide = TX * QUADS;
  var c00 = vec4f(); var c01 = vec4f();
  var c10 = vec4f(); var c11 = vec4f();
  var c20 = vec4f(); var c21 = vec4f();
  var c30 = vec4f(); var c31 = vec4f();
  var t00 = vec4f(); var t01 = vec4f();
  var t10 = vec4f(); var t11 = vec4f();
  var t20 = vec4f(); var t21 = vec4f();
  var t30 = vec4f(); var t31 = vec4f();
  for (var first = part * p.each; first < end; first += STEP) {
    // Neighbouring threads take what lies side by side in memory.
    for (var i = thread; i < STEP * TY; i += TX * TY) {
      let k = select(i / TY, i % STEP, A_ROW);
      let quad = select(i % TY, i / STEP, A_ROW);
      rows[k * (TY + 1u) + quad] = quadOfA(startA, m0 + 4u * quad, first + k);
    }
    for (var i = thread; i < STEP * wide; i += TX * TY) {
      let k = select(i / wide, i % STEP, B_ROW);
      let quad = select(i % wide, i / STEP, B_ROW);
      columns[k * (wide + 1u) + quad] = quadOfB(startB, n0 + 4u * quad, first + k);
    }
    workgroupBarrier();
    // Four at a time, which compilers unroll; past K all is 0, and parts end where steps do.
    for (var start = first; start < min(first + STEP, end); start += 4u) {
      for (var i = 0u; i < 4u; i++) {
        let k = start - first + i;
        let x = rows[k * (TY + 1u) + l.y];
        let lo = columns[k * (wide + 1u) + l.x];
        c00 += x.x * lo; c10 += x.y * lo; c20 += x.z * lo; c30 += x.w * lo;
        if (QUADS > 1u) {
          let hi = columns[k * (wide + 1u) + l.x + TX];
          c01 += x.x * hi; c11 += x.y * hi; c21 += x.z * hi; c31 += x.w * hi;
        }
      }
    }
    if (LONG && (first + STEP) % BLOCK == 0u) {
      t00 += c00; c00 = vec4f(); t01 += c01; c01 = vec4f();
      t10 += c10; c10 = vec4f(); t11 += c11; c11 = vec4f();
      t20 += c20; c20 = vec4f(); t21 += c21; c21 = vec4f();
      t30 += c30; c30 = vec4f(); t31 += c31; c31 = vec4f();
    }
    workgroupBarrier();
  }
  let m = m0 + 4u * l.y;
  let n = n0 + 4u * l.x;
  put(z, part, m, n, t00 + c00);
  put(z, part, m + 1u, n, t10 + c10);
  put(z, part, m + 2u, n, t20 + c20);
  put(z, part, m + 3u, n, t30 + c30);
  if (QUADS > 1u) {
    put(z, part, m, n + 4u * TX, t01 + c01);
    put(z, part, m + 1u, n + 4u * TX, t11 + c11);
    put(z, part, m + 2u, n + 4u * TX, t21 + c21);
    put(z, part, m + 3u, n + 4u * TX, t31 + c31);
  }
}
