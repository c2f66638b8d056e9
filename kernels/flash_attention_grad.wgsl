// flash_attention_grad: one gradient of attention, on its queries, its keys or its values, from scores
// that are computed again. "Own" are the queries (BY_QUERY) or keys whose gradient is made, "others"
// the keys or queries that it adds up over; scores s = scale sum_d a[z,d,own] b[z,d,other].
//   P  = exp(s - max) / sum, with the query's max and 1 / sum;  dP = sum_d ga[z,d,own] gb[z,d,other]
//   dS = P (dP - delta[query]) + sum_t h[z,t,query] [probed[t] = key]
//   on queries: scale sum_keys dS k      a = q, b = k, ga = go, gb = v   (BY_QUERY)
//   on keys:    scale sum_queries dS q   a = k, b = q, ga = v,  gb = go
//   on values:  sum_queries P go         a = k, b = q,          gb = go  (VALUES)
// Tiles as in flash_attention: 32 own by 64 others.
override PARTS: u32 = 10u; // 16 dimensions each; width <= 16 PARTS
override QUADS: u32 = 2u; // quads of others whose b or gb is in workgroup memory at a time
override BY_QUERY: bool = true;
override VALUES: bool = false;
override OUTPUT: bool = true; // dP is wanted, else 0
override PROBE: bool = false;
override CAUSAL: bool = false;
const TX = 8u; // threads along own, 4 each
const TY = 16u; // threads along others, 4 each
const OTHERS = 64u; // of a tile
const DEPTH = 16u; // dimensions that are in workgroup memory at a time
struct Params {
  own: u32, others: u32, width: u32, tokens: u32, scale: f32,
  // Line d of head z is pitch z + first + d.
  aPitch: u32, aFirst: u32, bPitch: u32, bFirst: u32,
  gaPitch: u32, gaFirst: u32, gbPitch: u32, gbFirst: u32,
  outPitch: u32, outFirst: u32,
}
@group(0) @binding(0) var<storage, read> a: array<f32>; // lines of own
@group(0) @binding(1) var<storage, read> b: array<f32>; // lines of others
@group(0) @binding(2) var<storage, read> ga: array<f32>; // lines of own
@group(0) @binding(3) var<storage, read> gb: array<f32>; // lines of others
@group(0) @binding(4) var<storage, read> rows: array<f32>; // [z, 3, queries]: max, 1 / sum, delta
@group(0) @binding(5) var<storage, read> h: array<f32>; // [z, tokens, queries]
@group(0) @binding(6) var<storage, read> probed: array<f32>; // [tokens], key numbers
@group(0) @binding(7) var<storage, read_write> out: array<f32>; // lines of own
@group(0) @binding(8) var<uniform> p: Params;
// By turns: a or ga [DEPTH][TX] and b or gb [DEPTH][TY]; b or gb [16 PARTS][QUADS]. 384 at most.
var<workgroup> stage: array<vec4f, 384>;
var<workgroup> weights: array<vec4f, 512>; // [OTHERS][TX]: dS or P

fn numberOfOwn(second: bool, at: u32, i: u32) -> f32 {
  if (i >= p.own) { return 0.0; }
  if (second) { return ga[at]; }
  return a[at];
}

// Four numbers of a, or of ga if second.
fn ofOwn(second: bool, z: u32, d: u32, i: u32) -> vec4f {
  if (d >= p.width) { return vec4f(); }
  let line = select(z * p.aPitch + p.aFirst, z * p.gaPitch + p.gaFirst, second) + d;
  let at = line * p.own + i;
  return vec4f(
    numberOfOwn(second, at, i),
    numberOfOwn(second, at + 1u, i + 1u),
    numberOfOwn(second, at + 2u, i + 2u),
    numberOfOwn(second, at + 3u, i + 3u),
  );
}

fn numberOfOthers(second: bool, at: u32, i: u32) -> f32 {
  if (i >= p.others) { return 0.0; }
  if (second) { return gb[at]; }
  return b[at];
}

// Four numbers of b, or of gb if second.
fn ofOthers(second: bool, z: u32, d: u32, i: u32) -> vec4f {
  if (d >= p.width) { return vec4f(); }
  let line = select(z * p.bPitch + p.bFirst, z * p.gbPitch + p.gbFirst, second) + d;
  let at = line * p.others + i;
  return vec4f(
    numberOfOthers(second, at, i),
    numberOfOthers(second, at + 1u, i + 1u),
    numberOfOthers(second, at + 2u, i + 2u),
    numberOfOthers(second, at + 3u, i + 3u),
  );
}

struct Row { high: vec4f, inverse: vec4f, delta: vec4f }

fn numbers(z: u32, which: u32, x: u32) -> vec4f {
  let start = (z * 3u + which) * p.own;
  let at = min(vec4u(x, x + 1u, x + 2u, x + 3u), vec4u(p.own - 1u));
  return vec4f(rows[start + at.x], rows[start + at.y], rows[start + at.z], rows[start + at.w]);
}

// Of own x to x + 3, where these are queries.
fn rowOfOwn(z: u32, x: u32) -> Row {
  return Row(numbers(z, 0u, x), numbers(z, 1u, x), numbers(z, 2u, x));
}

// Of other y, where that is a query.
fn rowOfOther(z: u32, y: u32) -> Row {
  let at = z * 3u * p.others + min(y, p.others - 1u);
  return Row(vec4f(rows[at]), vec4f(rows[at + p.others]), vec4f(rows[at + 2u * p.others]));
}

// Which of own x to x + 3 are seen with, or see, other y.
fn meets(x: u32, y: u32) -> vec4<bool> {
  let own = vec4u(x, x + 1u, x + 2u, x + 3u);
  let inside = vec4<bool>(y < p.others) & (own < vec4u(p.own));
  if (!CAUSAL) { return inside; }
  if (BY_QUERY) { return inside & (vec4u(y) <= own); }
  return inside & (own <= vec4u(y));
}

// What the probes add to dS of own x to x + 3 and other y.
fn ofProbes(z: u32, x: u32, y: u32) -> vec4f {
  var sum = vec4f();
  for (var t = 0u; t < p.tokens; t++) {
    let token = u32(probed[t]);
    for (var c = 0u; c < 4u; c++) {
      if (token != select(x + c, y, BY_QUERY)) { continue; }
      let query = select(y, x + c, BY_QUERY);
      let queries = select(p.others, p.own, BY_QUERY);
      if (query < queries) { sum[c] += h[(z * p.tokens + t) * queries + query]; }
    }
  }
  return sum;
}

// P or dS from the scores and dP of own x to x + 3 with other y; own as rowOfOwn has it.
fn weight(z: u32, x: u32, y: u32, scores: vec4f, dp: vec4f, own: Row) -> vec4f {
  let inside = meets(x, y);
  var query = own;
  if (!BY_QUERY) { query = rowOfOther(z, y); }
  // A score that is not inside may be anything.
  let power = select(vec4f(), p.scale * scores - query.high, inside);
  var value = exp(power) * query.inverse;
  if (!VALUES) { value *= dp - query.delta; }
  if (PROBE && !VALUES) { value += ofProbes(z, x, y); }
  return select(vec4f(), value, inside);
}

fn addOthers(sum: vec4f, v: vec4f, a: vec4f, b: vec4f, c: vec4f, d: vec4f) -> vec4f {
  return sum + v.x * a + v.y * b + v.z * c + v.w * d;
}

fn put(z: u32, d: u32, x: u32, values: vec4f) {
  if (d >= p.width) { return; }
  let at = (z * p.outPitch + p.outFirst + d) * p.own + x;
  for (var c = 0u; c < 4u && x + c < p.own; c++) { out[at + c] = values[c]; }
}

@compute @workgroup_size(TX, TY)
fn main(
  @builtin(workgroup_id) w: vec3u,
  @builtin(local_invocation_id) l: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let z = w.y;
  let x0 = w.x * 4u * TX;
  let x = x0 + 4u * l.x;
  var own = Row();
  if (BY_QUERY) { own = rowOfOwn(z, x); }
  var start = 0u;
  var end = p.others;
  if (CAUSAL && BY_QUERY) { end = min(end, x0 + 4u * TX); }
  if (CAUSAL && !BY_QUERY) { start = x0 / OTHERS * OTHERS; }
  var o0 = vec4f(); var o1 = vec4f(); var o2 = vec4f(); var o3 = vec4f(); var o4 = vec4f();
  var o5 = vec4f(); var o6 = vec4f(); var o7 = vec4f(); var o8 = vec4f(); var o9 = vec4f();
  for (var y0 = start; y0 < end; y0 += OTHERS) {
    let y = y0 + 4u * l.y;
    let tileEnd = min(y0 + OTHERS, end);
    var s0 = vec4f(); var s1 = vec4f(); var s2 = vec4f(); var s3 = vec4f();
    var g0 = vec4f(); var g1 = vec4f(); var g2 = vec4f(); var g3 = vec4f();
    // First a b, then ga gb, where that is wanted.
    for (var turn = 0u; turn < select(1u, 2u, OUTPUT && !VALUES); turn++) {
      g0 = vec4f(); g1 = vec4f(); g2 = vec4f(); g3 = vec4f();
      for (var d0 = 0u; d0 < p.width; d0 += DEPTH) {
        workgroupBarrier();
        stage[thread] = ofOwn(turn > 0u, z, d0 + thread / TX, x0 + thread % TX * 4u);
        for (var i = thread; i < DEPTH * TY; i += TX * TY) {
          stage[DEPTH * TX + i] = ofOthers(turn > 0u, z, d0 + i / TY, y0 + i % TY * 4u);
        }
        workgroupBarrier();
        // Four at a time, which compilers unroll; past the width all is 0.
        for (var four = d0; four < min(d0 + DEPTH, p.width); four += 4u) {
          for (var i = 0u; i < 4u; i++) {
            let d = four - d0 + i;
            let ours = stage[d * TX + l.x];
            let theirs = stage[DEPTH * TX + d * TY + l.y];
            g0 += theirs.x * ours;
            g1 += theirs.y * ours;
            g2 += theirs.z * ours;
            g3 += theirs.w * ours;
          }
        }
      }
      if (turn == 0u) { s0 = g0; s1 = g1; s2 = g2; s3 = g3; }
    }
    if (!OUTPUT) { g0 = vec4f(); g1 = vec4f(); g2 = vec4f(); g3 = vec4f(); }
    let at = 4u * l.y * TX + l.x;
    weights[at] = weight(z, x, y, s0, g0, own);
    weights[at + TX] = weight(z, x, y + 1u, s1, g1, own);
    weights[at + 2u * TX] = weight(z, x, y + 2u, s2, g2, own);
    weights[at + 3u * TX] = weight(z, x, y + 3u, s3, g3, own);
    // Each tile is added up by itself: rounding grows with their number, not with that of others.
    var t0 = vec4f(); var t1 = vec4f(); var t2 = vec4f(); var t3 = vec4f(); var t4 = vec4f();
    var t5 = vec4f(); var t6 = vec4f(); var t7 = vec4f(); var t8 = vec4f(); var t9 = vec4f();
    for (var first = y0; first < tileEnd; first += 4u * QUADS) {
      workgroupBarrier();
      for (var i = thread; i < 16u * PARTS * QUADS; i += TX * TY) {
        stage[i] = ofOthers(VALUES, z, i / QUADS, first + i % QUADS * 4u);
      }
      workgroupBarrier();
      let last = min(first + 4u * QUADS, tileEnd);
      for (var i = first; i < last; i += 4u) {
        let at = (i - y0) * TX + l.x;
        let a = weights[at];
        let b = weights[at + TX];
        let c = weights[at + 2u * TX];
        let d = weights[at + 3u * TX];
        let from0 = l.y * QUADS + (i - first) / 4u;
        t0 = addOthers(t0, stage[from0 + 0u * QUADS], a, b, c, d);
        if (PARTS > 1u) { t1 = addOthers(t1, stage[from0 + 16u * QUADS], a, b, c, d); }
        if (PARTS > 2u) { t2 = addOthers(t2, stage[from0 + 32u * QUADS], a, b, c, d); }
        if (PARTS > 3u) { t3 = addOthers(t3, stage[from0 + 48u * QUADS], a, b, c, d); }
        if (PARTS > 4u) { t4 = addOthers(t4, stage[from0 + 64u * QUADS], a, b, c, d); }
        if (PARTS > 5u) { t5 = addOthers(t5, stage[from0 + 80u * QUADS], a, b, c, d); }
        if (PARTS > 6u) { t6 = addOthers(t6, stage[from0 + 96u * QUADS], a, b, c, d); }
        if (PARTS > 7u) { t7 = addOthers(t7, stage[from0 + 112u * QUADS], a, b, c, d); }
        if (PARTS > 8u) { t8 = addOthers(t8, stage[from0 + 128u * QUADS], a, b, c, d); }
        if (PARTS > 9u) { t9 = addOthers(t9, stage[from0 + 144u * QUADS], a, b, c, d); }
      }
    }
    o0 += t0;
    if (PARTS > 1u) { o1 += t1; }
    if (PARTS > 2u) { o2 += t2; }
    if (PARTS > 3u) { o3 += t3; }
    if (PARTS > 4u) { o4 += t4; }
    if (PARTS > 5u) { o5 += t5; }
    if (PARTS > 6u) { o6 += t6; }
    if (PARTS > 7u) { o7 += t7; }
    if (PARTS > 8u) { o8 += t8; }
    if (PARTS > 9u) { o9 += t9; }
  }
  let alpha = select(p.scale, 1.0, VALUES);
  put(z, l.y + 0u, x, alpha * o0);
  if (PARTS > 1u) { put(z, l.y + 16u, x, alpha * o1); }
  if (PARTS > 2u) { put(z, l.y + 32u, x, alpha * o2); }
  if (PARTS > 3u) { put(z, l.y + 48u, x, alpha * o3); }
  if (PARTS > 4u) { put(z, l.y + 64u, x, alpha * o4); }
  if (PARTS > 5u) { put(z, l.y + 80u, x, alpha * o5); }
  if (PARTS > 6u) { put(z, l.y + 96u, x, alpha * o6); }
  if (PARTS > 7u) { put(z, l.y + 112u, x, alpha * o7); }
  if (PARTS > 8u) { put(z, l.y + 128u, x, alpha * o8); }
  if (PARTS > 9u) { put(z, l.y + 144u, x, alpha * o9); }
}
