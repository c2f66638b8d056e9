// conv_tiled: a convolution, or its input's gradient, as one matrix product whose B is never stored.
//   forward: y[b,m,oy,ox] = sum_{c,ky,kx} w[m,c,ky,kx] x[b,c, STRIDE oy + ky - top, STRIDE ox + kx - left]
//   GRAD:    y[b,m,iy,ix] = sum_{o,ky,kx} w[o,m,ky,kx] x[b,o,oy,ox]   (x: gradient on the result)
//            over the o, ky, kx with STRIDE oy + ky - top = iy, STRIDE ox + kx - left = ix
//   DOUBLED: forward of x doubled by nearest neighbours, x[b,c, (oy + ky - top) / 2, (ox + kx - left) / 2]
//   (+ bias[m]) (+ shift[shiftFirst + b * shiftStride + m]) (+ residual); what lies outside of x is 0
// M output channels, N = batch * toCells, K = channels * SIDE * SIDE, in the order of a checkpoint's
// [out, in, SIDE, SIDE]. Tiles and parts as in gemm_tiled.
override TX: u32 = 16u; // threads along n
override TY: u32 = 16u; // threads along m; a multiple of QUADS
override QUADS: u32 = 2u; // of columns that a thread holds, 1 or 2
override SIDE: u32 = 3u; // of the kernel
override STRIDE: u32 = 1u;
override GRAD: bool = false;
override DOUBLED: bool = false;
override HALF: bool = false; // w holds f16, two to a word
override BIAS: bool = false;
override SHIFT: bool = false;
override RESIDUAL: bool = false;
override LONG: bool = false; // add up in blocks of k: rounding grows with their number, not with K
override SPLIT: bool = false; // y takes the sums of parts of k, [batch, parts, M, toCells]; see split_sum
const STEP = 16u; // of k that are in workgroup memory at a time
const BLOCK = 32u; // a multiple of STEP
override TAPS = SIDE * SIDE;
override ROWS = STEP * (TY + 1u); // one quad more than is used, against conflicts of memory banks
override COLUMNS = STEP * (TX * QUADS + 1u);
struct Params {
  M: u32, N: u32, K: u32,
  channels: u32, // of x
  height: u32, width: u32, // of x
  toWidth: u32, toCells: u32, // of y
  top: u32, left: u32,
  shiftStride: u32,
  shiftFirst: u32,
  parts: u32, each: u32, // a multiple of BLOCK, or K
}
@group(0) @binding(0) var<storage, read> w: array<u32>; // f32 by its bits, or pairs of f16
@group(0) @binding(1) var<storage, read> x: array<f32>; // [batch, channels, height, width]
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [M]
@group(0) @binding(3) var<storage, read> shift: array<f32>; // M of each batch element, or of all
@group(0) @binding(4) var<storage, read> residual: array<f32>; // like y
@group(0) @binding(5) var<storage, read_write> y: array<f32>; // [batch, M, toCells]
@group(0) @binding(6) var<uniform> p: Params;
var<workgroup> rows: array<vec4f, ROWS>; // [STEP][TY + 1], each 4 rows of one k
var<workgroup> columns: array<vec4f, COLUMNS>; // [STEP][TX * QUADS + 1]

fn weight(m: u32, k: u32) -> f32 {
  if (m >= p.M || k >= p.K) { return 0.0; }
  var at = m * p.K + k;
  if (GRAD) { at = (k / TAPS * p.M + m) * TAPS + k % TAPS; }
  if (HALF) { return unpack2x16float(w[at >> 1u] >> ((at & 1u) * 16u)).x; }
  return bitcast<f32>(w[at]);
}

fn cell(plane: u32, row: u32, column: u32, inside: bool) -> f32 {
  if (!inside) { return 0.0; }
  return x[plane + row * p.width + column];
}

// What the kernel's tap k reads for four columns: image is where each one's picture starts, high and
// wide are where its taps start. Below 0 wraps around, past any height.
fn gather(image: vec4u, high: vec4u, wide: vec4u, n: u32, k: u32) -> vec4f {
  if (k >= p.K) { return vec4f(); }
  let tap = k % TAPS;
  var row = high + tap / SIDE;
  var column = wide + tap % SIDE;
  var inside = vec4u(n, n + 1u, n + 2u, n + 3u) < vec4u(p.N);
  if (GRAD) {
    row = high - tap / SIDE;
    column = wide - tap % SIDE;
    if (STRIDE > 1u) {
      inside = inside & (row % STRIDE == vec4u()) & (column % STRIDE == vec4u());
      row = row / STRIDE;
      column = column / STRIDE;
    }
  }
  if (DOUBLED) {
    row = row / 2u; // what wrapped around stays past any height
    column = column / 2u;
  }
  inside = inside & (row < vec4u(p.height)) & (column < vec4u(p.width));
  let plane = image + k / TAPS * p.height * p.width;
  return vec4f(
    cell(plane.x, row.x, column.x, inside.x),
    cell(plane.y, row.y, column.y, inside.y),
    cell(plane.z, row.z, column.z, inside.z),
    cell(plane.w, row.w, column.w, inside.w),
  );
}

fn put(part: u32, m: u32, n: u32, sums: vec4f) {
  if (m >= p.M) { return; }
  if (SPLIT) {
    for (var j = 0u; j < 4u && n + j < p.N; j++) {
      let b = (n + j) / p.toCells;
      y[((b * p.parts + part) * p.M + m) * p.toCells + (n + j) % p.toCells] = sums[j];
    }
    return;
  }
  var values = sums;
  if (BIAS) { values += bias[m]; }
  for (var j = 0u; j < 4u && n + j < p.N; j++) {
    let b = (n + j) / p.toCells;
    let at = (b * p.M + m) * p.toCells + (n + j) % p.toCells;
    var value = values[j];
    if (SHIFT) { value += shift[p.shiftFirst + b * p.shiftStride + m]; }
    if (RESIDUAL) { value += residual[at]; }
    y[at] = value;
  }
}

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
  let four = vec4u(n, n + 1u, n + 2u, n + 3u);
  let to = four % p.toCells;
  let image = four / p.toCells * (p.channels * p.height * p.width);
  var high = to / p.toWidth;
  var wide = to % p.toWidth;
  if (GRAD) {
    high += p.top;
    wide += p.left;
  } else {
    high = high * STRIDE - p.top;
    wide = wide * STRIDE - p.left;
  }
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
      columns[k * (across + 1u) + quad] = gather(image, high, wide, n, first + k);
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
