// conv_tiled: a convolution, or its input's gradient, as one matrix product whose B is never stored; the main function
// is that of tiled.wgsl.
//   forward: y[b,m,oy,ox] = sum_{c,ky,kx} w[m,c,ky,kx] x[b,c, STRIDE oy + ky - top, STRIDE ox + kx - left]
//   GRAD:    y[b,m,iy,ix] = sum_{o,ky,kx} w[o,m,ky,kx] x[b,o,oy,ox]   (x: gradient on the result)
//            over the o, ky, kx with STRIDE oy + ky - top = iy, STRIDE ox + kx - left = ix
//   DOUBLED: forward of x doubled by nearest neighbours, x[b,c, (oy + ky - top) / 2, (ox + kx - left) / 2]
//   (+ bias[m]) (+ shift[shiftFirst + b * shiftStride + m]) (+ residual); what lies outside of x is 0
// M output channels, N = batch * toCells, K = channels * SIDE * SIDE, in the order of a checkpoint's
// [out, in, SIDE, SIDE].
override SIDE: u32 = 3u; // of the kernel
override STRIDE: u32 = 1u;
override GRAD: bool = false;
override DOUBLED: bool = false;
override FOURS: bool = false; // lines of y come in fours
override BIAS: bool = false;
override SHIFT: bool = false;
override RESIDUAL: bool = false;
override SPLIT: bool = false; // y takes the sums of parts of k, [batch, parts, M, toCells]; see split_sum
override TAPS = SIDE * SIDE;
struct Params {
  M: u32, N: u32, K: u32,
  channels: u32, // of x
  height: u32, width: u32, // of x
  toWidth: u32, toCells: u32, // of y
  top: u32, left: u32,
  shiftStride: u32,
  shiftFirst: u32,
  parts: u32, each: u32, // a multiple of STEP, or K
}
@group(0) @binding(0) var<storage, read> a: array<Words>; // w
@group(0) @binding(1) var<storage, read> x: array<f32>; // [batch, channels, height, width]
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [M]
@group(0) @binding(3) var<storage, read> shift: array<f32>; // M of each batch element, or of all
@group(0) @binding(4) var<storage, read> residual: array<f32>; // like y
@group(0) @binding(5) var<storage, read_write> y: array<f32>; // [batch, M, toCells]
@group(0) @binding(6) var<uniform> p: Params;

var<private> ofPart: u32;
var<private> quad: u32; // of columns that a thread copies, for each k
var<private> four: Four;

fn begin(w: vec3u, thread: u32) {
  ofPart = w.z;
  quad = thread % (TN / 4u);
  four = fourFrom(w.x * TN + 4u * quad);
}

fn placeOfA(i: u32) -> vec2u {
  if (A_LINES) { return vec2u(i / (STEP / 4u), i % (STEP / 4u) * 4u); }
  return vec2u(i / STEP, i % STEP);
}

fn placeOfB(i: u32) -> vec2u { return vec2u(quad, i / (TN / 4u)); }

fn weight(m: u32, k: u32) -> NumberOfA {
  if (m >= p.M) { return NumberOfA(); }
  var at = m * p.K + k;
  if (GRAD) { at = (k / TAPS * p.M + m) * TAPS + k % TAPS; }
  return numberOfA(at);
}

fn readA(m: u32, k: u32) -> QuadOfA {
  if (k >= p.K || m >= p.M) { return QuadOfA(); }
  if (A_LINES) { return fourOfA(m * p.K + k); }
  return QuadOfA(weight(m, k), weight(m + 1u, k), weight(m + 2u, k), weight(m + 3u, k));
}

fn cell(plane: u32, row: u32, column: u32, inside: bool) -> f32 {
  if (!inside) { return 0.0; }
  return x[plane + row * p.width + column];
}

// Of four columns: where each one's picture starts, and where its taps start there. Below 0 wraps around, past
// any height.
struct Four { image: vec4u, high: vec4u, wide: vec4u }

fn fourFrom(n: u32) -> Four {
  let four = vec4u(n, n + 1u, n + 2u, n + 3u);
  let to = four % p.toCells;
  let image = four / p.toCells * (p.channels * p.height * p.width);
  let high = to / p.toWidth;
  let wide = to % p.toWidth;
  if (GRAD) { return Four(image, high + p.top, wide + p.left); }
  return Four(image, high * STRIDE - p.top, wide * STRIDE - p.left);
}

// What the kernel's tap k reads for the four columns from n on.
fn readB(k: u32, n: u32) -> vec4f {
  if (k >= p.K || n >= p.N) { return vec4f(); }
  let tap = k % TAPS;
  let plane = k / TAPS * p.height * p.width;
  if (FOURS && STRIDE == 1u && !DOUBLED) {
    // All four are in one line.
    var row = four.high.x + tap / SIDE;
    var column = four.wide.x + tap % SIDE;
    if (GRAD) {
      row = four.high.x - tap / SIDE;
      column = four.wide.x - tap % SIDE;
    }
    if (row >= p.height) { return vec4f(); }
    let at = four.image.x + plane + row * p.width;
    return vec4f(
      inLine(at, column),
      inLine(at, column + 1u),
      inLine(at, column + 2u),
      inLine(at, column + 3u),
    );
  }
  return gather(n, tap, four.image + plane);
}

fn inLine(line: u32, column: u32) -> f32 {
  if (column >= p.width) { return 0.0; }
  return x[line + column];
}

fn gather(n: u32, tap: u32, plane: vec4u) -> vec4f {
  var row = four.high + tap / SIDE;
  var column = four.wide + tap % SIDE;
  var inside = vec4u(n, n + 1u, n + 2u, n + 3u) < vec4u(p.N);
  if (GRAD) {
    row = four.high - tap / SIDE;
    column = four.wide - tap % SIDE;
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
  return vec4f(
    cell(plane.x, row.x, column.x, inside.x),
    cell(plane.y, row.y, column.y, inside.y),
    cell(plane.z, row.z, column.z, inside.z),
    cell(plane.w, row.w, column.w, inside.w),
  );
}

fn put(m: u32, n: u32, sums: vec4f) {
  if (m >= p.M) { return; }
  if (SPLIT) {
    for (var j = 0u; j < 4u && n + j < p.N; j++) {
      let b = (n + j) / p.toCells;
      y[((b * p.parts + ofPart) * p.M + m) * p.toCells + (n + j) % p.toCells] = sums[j];
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
