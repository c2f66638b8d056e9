// flash_attention: out[z,d,n] = sum_j v[z,d,j] p_j, p = softmax over j of scale sum_d k[z,d,j] q[z,d,n],
// for any width up to 160, without holding the scores.
//   stats[z,0,n] = max_j score, stats[z,1,n] = 1 / sum_j exp(score - max)
//   CAUSAL: only keys j <= n count
// A workgroup owns 32 queries and goes over the keys in tiles of 64. Each thread has 4 keys by 4 queries
// of a tile's scores, then, of the values, dimensions ty, ty + 16, ... of its 4 queries. A maximum
// that grows shrinks what has been added up (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al.
// 2022, arXiv:2205.14135).
override PARTS: u32 = 10u; // 16 dimensions each; width <= 16 PARTS
override QUADS: u32 = 2u; // quads of keys whose values are in workgroup memory at a time
override CAUSAL: bool = false;
const TX = 8u; // threads along queries, 4 each
const TY = 16u; // threads along keys, 4 each
const KEYS = 64u; // of a tile
const DEPTH = 16u; // dimensions of q and k that are in workgroup memory at a time
const LOWEST = -1e30; // below any score, and its exponential is 0
struct Params {
  queries: u32, keys: u32, width: u32, scale: f32,
  // Line d of head z is pitch z + first + d.
  qPitch: u32, qFirst: u32, kPitch: u32, kFirst: u32, vPitch: u32, vFirst: u32,
}
@group(0) @binding(0) var<storage, read> q: array<f32>; // lines of queries
@group(0) @binding(1) var<storage, read> k: array<f32>; // lines of keys
@group(0) @binding(2) var<storage, read> v: array<f32>; // lines of keys
@group(0) @binding(3) var<storage, read_write> stats: array<f32>; // [z, 2, queries]
@group(0) @binding(4) var<storage, read_write> out: array<f32>; // [z, width, queries]
@group(0) @binding(5) var<uniform> p: Params;
// By turns: q [DEPTH][TX] and k [DEPTH][TY]; a number per thread; v [16 PARTS][QUADS]. 384 at most.
var<workgroup> stage: array<vec4f, 384>;
var<workgroup> probs: array<vec4f, 512>; // [KEYS][TX]

fn numberOfQ(at: u32, n: u32) -> f32 {
  if (n >= p.queries) { return 0.0; }
  return q[at];
}

fn quadOfQ(z: u32, d: u32, n: u32) -> vec4f {
  if (d >= p.width) { return vec4f(); }
  let at = (z * p.qPitch + p.qFirst + d) * p.queries + n;
  return vec4f(
    numberOfQ(at, n),
    numberOfQ(at + 1u, n + 1u),
    numberOfQ(at + 2u, n + 2u),
    numberOfQ(at + 3u, n + 3u),
  );
}

fn numberOfK(at: u32, j: u32) -> f32 {
  if (j >= p.keys) { return 0.0; }
  return k[at];
}

fn quadOfK(z: u32, d: u32, j: u32) -> vec4f {
  if (d >= p.width) { return vec4f(); }
  let at = (z * p.kPitch + p.kFirst + d) * p.keys + j;
  return vec4f(
    numberOfK(at, j),
    numberOfK(at + 1u, j + 1u),
    numberOfK(at + 2u, j + 2u),
    numberOfK(at + 3u, j + 3u),
  );
}

fn numberOfV(at: u32, j: u32) -> f32 {
  if (j >= p.keys) { return 0.0; }
  return v[at];
}

fn quadOfV(z: u32, d: u32, j: u32) -> vec4f {
  if (d >= p.width) { return vec4f(); }
  let at = (z * p.vPitch + p.vFirst + d) * p.keys + j;
  return vec4f(
    numberOfV(at, j),
    numberOfV(at + 1u, j + 1u),
    numberOfV(at + 2u, j + 2u),
    numberOfV(at + 3u, j + 3u),
  );
}

// Which of the queries n to n + 3 see key j.
fn sees(n: u32, j: u32) -> vec4<bool> {
  let inside = vec4<bool>(j < p.keys);
  if (CAUSAL) { return inside & (vec4u(j) <= vec4u(n, n + 1u, n + 2u, n + 3u)); }
  return inside;
}

fn addKeys(sum: vec4f, v: vec4f, a: vec4f, b: vec4f, c: vec4f, d: vec4f) -> vec4f {
  return sum + v.x * a + v.y * b + v.z * c + v.w * d;
}

fn put(z: u32, d: u32, n: u32, values: vec4f) {
  if (d >= p.width) { return; }
  let at = (z * p.width + d) * p.queries + n;
  for (var c = 0u; c < 4u && n + c < p.queries; c++) { out[at + c] = values[c]; }
}

@compute @workgroup_size(TX, TY)
fn main(
  @builtin(workgroup_id) w: vec3u,
  @builtin(local_invocation_id) l: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let z = w.y;
  let n0 = w.x * 4u * TX;
  let n = n0 + 4u * l.x;
  var end = p.keys;
  if (CAUSAL) { end = min(end, n0 + 4u * TX); }
  var high = vec4f(LOWEST);
  var sum = vec4f(); // over this thread's keys
  var o0 = vec4f(); var o1 = vec4f(); var o2 = vec4f(); var o3 = vec4f(); var o4 = vec4f();
  var o5 = vec4f(); var o6 = vec4f(); var o7 = vec4f(); var o8 = vec4f(); var o9 = vec4f();
  for (var j0 = 0u; j0 < end; j0 += KEYS) {
    let j = j0 + 4u * l.y;
    let tileEnd = min(j0 + KEYS, end);
    var s0 = vec4f(); var s1 = vec4f(); var s2 = vec4f(); var s3 = vec4f();
    for (var d0 = 0u; d0 < p.width; d0 += DEPTH) {
      workgroupBarrier();
      stage[thread] = quadOfQ(z, d0 + thread / TX, n0 + thread % TX * 4u);
      for (var i = thread; i < DEPTH * TY; i += TX * TY) {
        stage[DEPTH * TX + i] = quadOfK(z, d0 + i / TY, j0 + i % TY * 4u);
      }
      workgroupBarrier();
      // Four at a time, which compilers unroll; past the width all is 0.
      for (var four = d0; four < min(d0 + DEPTH, p.width); four += 4u) {
        for (var i = 0u; i < 4u; i++) {
          let d = four - d0 + i;
          let queries = stage[d * TX + l.x];
          let keys = stage[DEPTH * TX + d * TY + l.y];
          s0 += keys.x * queries;
          s1 += keys.y * queries;
          s2 += keys.z * queries;
          s3 += keys.w * queries;
        }
      }
    }
    s0 = select(vec4f(LOWEST), p.scale * s0, sees(n, j));
    s1 = select(vec4f(LOWEST), p.scale * s1, sees(n, j + 1u));
    s2 = select(vec4f(LOWEST), p.scale * s2, sees(n, j + 2u));
    s3 = select(vec4f(LOWEST), p.scale * s3, sees(n, j + 3u));
    workgroupBarrier();
    stage[l.y * TX + l.x] = max(max(s0, s1), max(s2, s3));
    workgroupBarrier();
    var now = high;
    for (var i = j0; i < tileEnd; i += 4u) { now = max(now, stage[(i - j0) / 4u * TX + l.x]); }
    let shrink = exp(high - now);
    high = now;
    s0 = exp(s0 - now); s1 = exp(s1 - now); s2 = exp(s2 - now); s3 = exp(s3 - now);
    sum = sum * shrink + ((s0 + s1) + (s2 + s3));
    let at = 4u * l.y * TX + l.x;
    probs[at] = s0;
    probs[at + TX] = s1;
    probs[at + 2u * TX] = s2;
    probs[at + 3u * TX] = s3;
    // Each tile is added up by itself: rounding grows with their number, not with that of keys.
    var t0 = vec4f(); var t1 = vec4f(); var t2 = vec4f(); var t3 = vec4f(); var t4 = vec4f();
    var t5 = vec4f(); var t6 = vec4f(); var t7 = vec4f(); var t8 = vec4f(); var t9 = vec4f();
    for (var first = j0; first < tileEnd; first += 4u * QUADS) {
      workgroupBarrier();
      for (var i = thread; i < 16u * PARTS * QUADS; i += TX * TY) {
        stage[i] = quadOfV(z, i / QUADS, first + i % QUADS * 4u);
      }
      workgroupBarrier();
      let last = min(first + 4u * QUADS, tileEnd);
      for (var i = first; i < last; i += 4u) {
        let at = (i - j0) * TX + l.x;
        let a = probs[at];
        let b = probs[at + TX];
        let c = probs[at + 2u * TX];
        let d = probs[at + 3u * TX];
        let from0 = l.y * QUADS + (i - first) / 4u;
        t0 = addKeys(t0, stage[from0 + 0u * QUADS], a, b, c, d);
        if (PARTS > 1u) { t1 = addKeys(t1, stage[from0 + 16u * QUADS], a, b, c, d); }
        if (PARTS > 2u) { t2 = addKeys(t2, stage[from0 + 32u * QUADS], a, b, c, d); }
        if (PARTS > 3u) { t3 = addKeys(t3, stage[from0 + 48u * QUADS], a, b, c, d); }
        if (PARTS > 4u) { t4 = addKeys(t4, stage[from0 + 64u * QUADS], a, b, c, d); }
        if (PARTS > 5u) { t5 = addKeys(t5, stage[from0 + 80u * QUADS], a, b, c, d); }
        if (PARTS > 6u) { t6 = addKeys(t6, stage[from0 + 96u * QUADS], a, b, c, d); }
        if (PARTS > 7u) { t7 = addKeys(t7, stage[from0 + 112u * QUADS], a, b, c, d); }
        if (PARTS > 8u) { t8 = addKeys(t8, stage[from0 + 128u * QUADS], a, b, c, d); }
        if (PARTS > 9u) { t9 = addKeys(t9, stage[from0 + 144u * QUADS], a, b, c, d); }
      }
    }
    o0 = o0 * shrink + t0;
    if (PARTS > 1u) { o1 = o1 * shrink + t1; }
    if (PARTS > 2u) { o2 = o2 * shrink + t2; }
    if (PARTS > 3u) { o3 = o3 * shrink + t3; }
    if (PARTS > 4u) { o4 = o4 * shrink + t4; }
    if (PARTS > 5u) { o5 = o5 * shrink + t5; }
    if (PARTS > 6u) { o6 = o6 * shrink + t6; }
    if (PARTS > 7u) { o7 = o7 * shrink + t7; }
    if (PARTS > 8u) { o8 = o8 * shrink + t8; }
    if (PARTS > 9u) { o9 = o9 * shrink + t9; }
  }
  workgroupBarrier();
  stage[l.y * TX + l.x] = sum;
  workgroupBarrier();
  var total = vec4f();
  for (var i = 0u; i < min(4u * TY, end); i += 4u) { total += stage[i / 4u * TX + l.x]; }
  let inverse = 1.0 / total;
  put(z, l.y + 0u, n, o0 * inverse);
  if (PARTS > 1u) { put(z, l.y + 16u, n, o1 * inverse); }
  if (PARTS > 2u) { put(z, l.y + 32u, n, o2 * inverse); }
  if (PARTS > 3u) { put(z, l.y + 48u, n, o3 * inverse); }
  if (PARTS > 4u) { put(z, l.y + 64u, n, o4 * inverse); }
  if (PARTS > 5u) { put(z, l.y + 80u, n, o5 * inverse); }
  if (PARTS > 6u) { put(z, l.y + 96u, n, o6 * inverse); }
  if (PARTS > 7u) { put(z, l.y + 112u, n, o7 * inverse); }
  if (PARTS > 8u) { put(z, l.y + 128u, n, o8 * inverse); }
  if (PARTS > 9u) { put(z, l.y + 144u, n, o9 * inverse); }
  if (l.y == 0u) {
    let at = z * 2u * p.queries + n;
    for (var c = 0u; c < 4u && n + c < p.queries; c++) {
      stats[at + c] = high[c];
      stats[at + p.queries + c] = inverse[c];
    }
  }
}
