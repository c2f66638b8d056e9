// gemm_uniform: gemm on adapters that are processors. They fetch storage lane by lane, each with its
// own bounds check; a uniform address costs one scalar load for all lanes, a texel one wide load per
// lane. So A comes through a window of the uniform kind and B through a texture. All lanes of a
// workgroup share 16 rows; each holds 8 columns of them.
override A_HALF: bool = false; // a holds f16, eight to an element
override B_COLUMN: bool = false; // b has contiguous k instead of contiguous n
override LONG: bool = false; // k is added up in blocks: rounding grows with their number, not with K
const BLOCK = 16u; // fours of k; the four are added up in pairs first
const ROW_BITS = 8u; // a texture row holds 256 fours

const BIAS = 1u; // flags
const RESIDUAL = 2u;
const ACCUMULATE = 4u;
struct Params {
  M: u32, N: u32, K: u32,
  am: u32, bn: u32, bk: u32, ldc: u32, // strides
  sa: u32, sb: u32, sc: u32, // of the batch, whose A is in one window
  oa: u32, ob: u32, oc: u32,
  window: u32, origin: u32, // where a and b start
  first: u32, // row of the bias
  alpha: f32,
  flags: u32,
}
@group(0) @binding(0) var<uniform> a: array<vec4u, 4096>;
@group(0) @binding(1) var b: texture_2d<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<vec4f>; // like c
@group(0) @binding(4) var<storage, read_write> c: array<vec4f>;
@group(0) @binding(5) var<uniform> p: Params;

fn left(i: u32) -> vec4f {
  if (A_HALF) {
    let eight = a[i >> 1u];
    let four = select(eight.xy, eight.zw, (i & 1u) != 0u);
    return vec4f(unpack2x16float(four.x), unpack2x16float(four.y));
  }
  return bitcast<vec4f>(a[i]);
}

fn right(i: u32) -> vec4f {
  return textureLoad(b, vec2u(i & ((1u << ROW_BITS) - 1u), i >> ROW_BITS), 0);
}

fn put(at: u32, m: u32, value: vec4f) {
  var sum = p.alpha * value;
  if ((p.flags & BIAS) != 0u) { sum += bias[p.first + m]; }
  if ((p.flags & RESIDUAL) != 0u) { sum += residual[at]; }
  if ((p.flags & ACCUMULATE) != 0u) { sum += c[at]; }
  c[at] = sum;
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let m0 = w.x * 16u; // neighbours in x share columns: they stay in the cache
  let n0 = w.y * 16u + t; // in fours
  let columns = p.N / 4u;
  let row = p.am / 4u;
  let a0 = (p.oa + w.z * p.sa - p.window) / 4u + m0 * row;
  let step = select(p.bk, p.bn, B_COLUMN) / 4u; // between lines of B
  let next = select(4u * step, 1u, B_COLUMN); // four of k on
  let half = select(8u, 32u * step, B_COLUMN); // the other columns of a thread
  let b0 = (p.ob + w.z * p.sb - p.origin) / 4u + n0 * select(1u, 4u * step, B_COLUMN);
  var c00 = vec4f(); var c01 = vec4f();
  var c10 = vec4f(); var c11 = vec4f();
  var c20 = vec4f(); var c21 = vec4f();
  var c30 = vec4f(); var c31 = vec4f();
  var c40 = vec4f(); var c41 = vec4f();
  var c50 = vec4f(); var c51 = vec4f();
  var c60 = vec4f(); var c61 = vec4f();
  var c70 = vec4f(); var c71 = vec4f();
  var c80 = vec4f(); var c81 = vec4f();
  var c90 = vec4f(); var c91 = vec4f();
  var ca0 = vec4f(); var ca1 = vec4f();
  var cb0 = vec4f(); var cb1 = vec4f();
  var cc0 = vec4f(); var cc1 = vec4f();
  var cd0 = vec4f(); var cd1 = vec4f();
  var ce0 = vec4f(); var ce1 = vec4f();
  var cf0 = vec4f(); var cf1 = vec4f();
  var t00 = vec4f(); var t01 = vec4f();
  var t10 = vec4f(); var t11 = vec4f();
  var t20 = vec4f(); var t21 = vec4f();
  var t30 = vec4f(); var t31 = vec4f();
  var t40 = vec4f(); var t41 = vec4f();
  var t50 = vec4f(); var t51 = vec4f();
  var t60 = vec4f(); var t61 = vec4f();
  var t70 = vec4f(); var t71 = vec4f();
  var t80 = vec4f(); var t81 = vec4f();
  var t90 = vec4f(); var t91 = vec4f();
  var ta0 = vec4f(); var ta1 = vec4f();
  var tb0 = vec4f(); var tb1 = vec4f();
  var tc0 = vec4f(); var tc1 = vec4f();
  var td0 = vec4f(); var td1 = vec4f();
  var te0 = vec4f(); var te1 = vec4f();
  var tf0 = vec4f(); var tf1 = vec4f();
  let fours = p.K / 4u;
  let block = select(fours, BLOCK, LONG);
  for (var first = 0u; first < fours; first += block) {
    let end = min(first + block, fours);
    for (var k = first; k < end; k++) {
      let i = b0 + k * next;
      let j = i + half;
      var x0 = right(i); var x1 = right(j);
      var y0 = right(i + step); var y1 = right(j + step);
      var z0 = right(i + 2u * step); var z1 = right(j + 2u * step);
      var w0 = right(i + 3u * step); var w1 = right(j + 3u * step);
      if (B_COLUMN) {
        let m0 = transpose(mat4x4f(x0, y0, z0, w0));
        let m1 = transpose(mat4x4f(x1, y1, z1, w1));
        x0 = m0[0]; y0 = m0[1]; z0 = m0[2]; w0 = m0[3];
        x1 = m1[0]; y1 = m1[1]; z1 = m1[2]; w1 = m1[3];
      }
      let v0 = left(a0 + k);
      c00 += (v0.x * x0 + v0.y * y0) + (v0.z * z0 + v0.w * w0);
      c01 += (v0.x * x1 + v0.y * y1) + (v0.z * z1 + v0.w * w1);
      let v1 = left(a0 + row + k);
      c10 += (v1.x * x0 + v1.y * y0) + (v1.z * z0 + v1.w * w0);
      c11 += (v1.x * x1 + v1.y * y1) + (v1.z * z1 + v1.w * w1);
      let v2 = left(a0 + 2u * row + k);
      c20 += (v2.x * x0 + v2.y * y0) + (v2.z * z0 + v2.w * w0);
      c21 += (v2.x * x1 + v2.y * y1) + (v2.z * z1 + v2.w * w1);
      let v3 = left(a0 + 3u * row + k);
      c30 += (v3.x * x0 + v3.y * y0) + (v3.z * z0 + v3.w * w0);
      c31 += (v3.x * x1 + v3.y * y1) + (v3.z * z1 + v3.w * w1);
      let v4 = left(a0 + 4u * row + k);
      c40 += (v4.x * x0 + v4.y * y0) + (v4.z * z0 + v4.w * w0);
      c41 += (v4.x * x1 + v4.y * y1) + (v4.z * z1 + v4.w * w1);
      let v5 = left(a0 + 5u * row + k);
      c50 += (v5.x * x0 + v5.y * y0) + (v5.z * z0 + v5.w * w0);
      c51 += (v5.x * x1 + v5.y * y1) + (v5.z * z1 + v5.w * w1);
      let v6 = left(a0 + 6u * row + k);
      c60 += (v6.x * x0 + v6.y * y0) + (v6.z * z0 + v6.w * w0);
      c61 += (v6.x * x1 + v6.y * y1) + (v6.z * z1 + v6.w * w1);
      let v7 = left(a0 + 7u * row + k);
      c70 += (v7.x * x0 + v7.y * y0) + (v7.z * z0 + v7.w * w0);
      c71 += (v7.x * x1 + v7.y * y1) + (v7.z * z1 + v7.w * w1);
      let v8 = left(a0 + 8u * row + k);
      c80 += (v8.x * x0 + v8.y * y0) + (v8.z * z0 + v8.w * w0);
      c81 += (v8.x * x1 + v8.y * y1) + (v8.z * z1 + v8.w * w1);
      let v9 = left(a0 + 9u * row + k);
      c90 += (v9.x * x0 + v9.y * y0) + (v9.z * z0 + v9.w * w0);
      c91 += (v9.x * x1 + v9.y * y1) + (v9.z * z1 + v9.w * w1);
      let va = left(a0 + 10u * row + k);
      ca0 += (va.x * x0 + va.y * y0) + (va.z * z0 + va.w * w0);
      ca1 += (va.x * x1 + va.y * y1) + (va.z * z1 + va.w * w1);
      let vb = left(a0 + 11u * row + k);
      cb0 += (vb.x * x0 + vb.y * y0) + (vb.z * z0 + vb.w * w0);
      cb1 += (vb.x * x1 + vb.y * y1) + (vb.z * z1 + vb.w * w1);
      let vc = left(a0 + 12u * row + k);
      cc0 += (vc.x * x0 + vc.y * y0) + (vc.z * z0 + vc.w * w0);
      cc1 += (vc.x * x1 + vc.y * y1) + (vc.z * z1 + vc.w * w1);
      let vd = left(a0 + 13u * row + k);
      cd0 += (vd.x * x0 + vd.y * y0) + (vd.z * z0 + vd.w * w0);
      cd1 += (vd.x * x1 + vd.y * y1) + (vd.z * z1 + vd.w * w1);
      let ve = left(a0 + 14u * row + k);
      ce0 += (ve.x * x0 + ve.y * y0) + (ve.z * z0 + ve.w * w0);
      ce1 += (ve.x * x1 + ve.y * y1) + (ve.z * z1 + ve.w * w1);
      let vf = left(a0 + 15u * row + k);
      cf0 += (vf.x * x0 + vf.y * y0) + (vf.z * z0 + vf.w * w0);
      cf1 += (vf.x * x1 + vf.y * y1) + (vf.z * z1 + vf.w * w1);
    }
    if (LONG) {
      t00 += c00; c00 = vec4f(); t01 += c01; c01 = vec4f();
      t10 += c10; c10 = vec4f(); t11 += c11; c11 = vec4f();
      t20 += c20; c20 = vec4f(); t21 += c21; c21 = vec4f();
      t30 += c30; c30 = vec4f(); t31 += c31; c31 = vec4f();
      t40 += c40; c40 = vec4f(); t41 += c41; c41 = vec4f();
      t50 += c50; c50 = vec4f(); t51 += c51; c51 = vec4f();
      t60 += c60; c60 = vec4f(); t61 += c61; c61 = vec4f();
      t70 += c70; c70 = vec4f(); t71 += c71; c71 = vec4f();
      t80 += c80; c80 = vec4f(); t81 += c81; c81 = vec4f();
      t90 += c90; c90 = vec4f(); t91 += c91; c91 = vec4f();
      ta0 += ca0; ca0 = vec4f(); ta1 += ca1; ca1 = vec4f();
      tb0 += cb0; cb0 = vec4f(); tb1 += cb1; cb1 = vec4f();
      tc0 += cc0; cc0 = vec4f(); tc1 += cc1; cc1 = vec4f();
      td0 += cd0; cd0 = vec4f(); td1 += cd1; cd1 = vec4f();
      te0 += ce0; ce0 = vec4f(); te1 += ce1; ce1 = vec4f();
      tf0 += cf0; cf0 = vec4f(); tf1 += cf1; cf1 = vec4f();
    }
  }
  if (!LONG) {
    t00 = c00; t01 = c01;
    t10 = c10; t11 = c11;
    t20 = c20; t21 = c21;
    t30 = c30; t31 = c31;
    t40 = c40; t41 = c41;
    t50 = c50; t51 = c51;
    t60 = c60; t61 = c61;
    t70 = c70; t71 = c71;
    t80 = c80; t81 = c81;
    t90 = c90; t91 = c91;
    ta0 = ca0; ta1 = ca1;
    tb0 = cb0; tb1 = cb1;
    tc0 = cc0; tc1 = cc1;
    td0 = cd0; td1 = cd1;
    te0 = ce0; te1 = ce1;
    tf0 = cf0; tf1 = cf1;
  }
  // Arrays, so that one loop may write all rows: as sixteen lines it would compile longer than the rest.
  var low = array(t00, t10, t20, t30, t40, t50, t60, t70, t80, t90, ta0, tb0, tc0, td0, te0, tf0);
  var high = array(t01, t11, t21, t31, t41, t51, t61, t71, t81, t91, ta1, tb1, tc1, td1, te1, tf1);
  let end = min(m0 + 16u, p.M);
  for (var m = m0; m < end; m++) {
    let at = (p.oc + w.z * p.sc + m * p.ldc) / 4u + n0;
    if (n0 < columns) { put(at, m, low[m - m0]); }
    if (n0 + 8u < columns) { put(at + 8u, m, high[m - m0]); }
  }
}
