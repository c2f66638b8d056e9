// gemm_tiled: gemm for GPUs, same contract and params, any sizes and layouts; see gemm_tiled_load.
// A workgroup makes 4 TY rows x 4 TX QUADS columns of C. Its threads copy STEP lines of A and B to
// workgroup memory, in quads (4 rows or columns, one k), then each thread adds up 4 rows and 1 or 2
// quads of columns. Quads of columns lie TX apart, so that neighbours read neighbouring memory banks.
override TX: u32 = 16u; // threads along n
override TY: u32 = 16u; // threads along m
override QUADS: u32 = 2u; // of columns that a thread holds, 1 or 2
override LONG: bool = false; // add up in blocks of k: rounding grows with their number, not with K
const STEP = 16u; // of k that are in workgroup memory at a time
const BLOCK = 32u; // a multiple of STEP
override ROWS = STEP * (TY + 1u); // one quad more than is used, against conflicts of memory banks
override COLUMNS = STEP * (TX * QUADS + 1u);
var<workgroup> rows: array<vec4f, ROWS>; // [STEP][TY + 1], each 4 rows of one k
var<workgroup> columns: array<vec4f, COLUMNS>; // [STEP][TX * QUADS + 1]

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
