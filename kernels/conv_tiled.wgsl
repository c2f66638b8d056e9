// conv_tiled: a convolution, or its input's gradient, as one matrix product whose B is never stored; see
// conv_tiled_load. Tiles and parts as in gemm_tiled.
override TX: u32 = 16u; // threads along n
override TY: u32 = 16u; // threads along m; a multiple of QUADS
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
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_id) l: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let part = group.z;
  let end = min(p.K, (part + 1u) * p.each);
  let m0 = group.y * TY * 4u;
  let n0 = group.x * TX * QUADS * 4u;
  let across = TX * QUADS;
  // A thread copies the same four columns for every k that it copies.
  let quad = thread % across;
  let n = n0 + 4u * quad;
  let four = fourFrom(n);
  var c00 = vec4f(); var c01 = vec4f();
  var c10 = vec4f(); var c11 = vec4f();
  var c20 = vec4f(); var c21 = vec4f();
  var c30 = vec4f(); var c31 = vec4f();
  var t00 = vec4f(); var t01 = vec4f();
  var t10 = vec4f(); var t11 = vec4f();
  var t20 = vec4f(); var t21 = vec4f();
  var t30 = vec4f(); var t31 = vec4f();
  for (var first = part * p.each; first < end; first += STEP) {
    for (var i = thread; i < STEP * TY; i += TX * TY) {
      let k = first + i % STEP;
      let m = m0 + 4u * (i / STEP);
      rows[i % STEP * (TY + 1u) + i / STEP] =
        vec4f(weight(m, k), weight(m + 1u, k), weight(m + 2u, k), weight(m + 3u, k));
    }
    for (var k = thread / across; k < STEP; k += TY / QUADS) {
      columns[k * (across + 1u) + quad] = gather(four, n, first + k);
    }
    workgroupBarrier();
    // Four at a time, which compilers unroll; past K all is 0, and parts end where steps do.
    for (var start = first; start < min(first + STEP, end); start += 4u) {
      for (var i = 0u; i < 4u; i++) {
        let k = start - first + i;
        let a = rows[k * (TY + 1u) + l.y];
        let lo = columns[k * (across + 1u) + l.x];
        c00 += a.x * lo; c10 += a.y * lo; c20 += a.z * lo; c30 += a.w * lo;
        if (QUADS > 1u) {
          let hi = columns[k * (across + 1u) + l.x + TX];
          c01 += a.x * hi; c11 += a.y * hi; c21 += a.z * hi; c31 += a.w * hi;
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
  let at = n0 + 4u * l.x;
  put(part, m, at, t00 + c00);
  put(part, m + 1u, at, t10 + c10);
  put(part, m + 2u, at, t20 + c20);
  put(part, m + 3u, at, t30 + c30);
  if (QUADS > 1u) {
    put(part, m, at + 4u * TX, t01 + c01);
    put(part, m + 1u, at + 4u * TX, t11 + c11);
    put(part, m + 2u, at + 4u * TX, t21 + c21);
    put(part, m + 3u, at + 4u * TX, t31 + c31);
  }
}
