// flash_matrix_grad: flash_attention_grad by matrix units, without probes; see flash_matrix_tile for how it is shared
// among threads. "Own" are the queries (BY_QUERY) or keys whose gradients are made, "others" the keys or queries that
// these add up over.
//   S[y,x] = sum_d b[z,d,y] a[z,d,x];  P = exp(scale S - max) / sum, with the query's max and 1 / sum
//   dP[y,x] = sum_d gb[z,d,y] ga[z,d,x];  dS = P (dP - delta[query])
//   on queries: scale sum_keys dS k      a = q, b = k, ga = go, gb = v   (BY_QUERY, SLOPES)
//   on keys:    scale sum_queries dS q   a = k, b = q, ga = v,  gb = go  (SLOPES)
//   on values:  sum_queries P go         a = k, b = q,          gb = go  (VALUES)
// go is in 16 bits after halfScale(), so that dP and delta are multiplied by it, too. Before they are rounded P and dS are
// multiplied by MANY and MORE: probabilities of thousands of keys are small.
const MANY = 4096.0;
const MORE = 16.0;
const NEVER = 1e30; // exp2(-NEVER) is 0
struct Params {
  own: u32, others: u32, width: u32, scale: f32,
  wideOwn: u32, wideOthers: u32, // lengths of lines
  // Line d of head z is pitch z + first + d.
  aPitch: u32, aFirst: u32, bPitch: u32, bFirst: u32,
  gaPitch: u32, gaFirst: u32, gbPitch: u32, gbFirst: u32,
  slopesPitch: u32, slopesFirst: u32, valuesPitch: u32, valuesFirst: u32,
}
@group(0) @binding(0) var<storage, read> a: array<vec4u>; // lines of own in 16 bits, ended by zeros
@group(0) @binding(1) var<storage, read> b: array<vec4u>; // lines of others
@group(0) @binding(2) var<storage, read> ga: array<vec4u>; // lines of own
@group(0) @binding(3) var<storage, read> gb: array<vec4u>; // lines of others
@group(0) @binding(4) var<storage, read> rows: array<f32>; // [z, 2, queries], from flash_matrix_rows
@group(0) @binding(5) var<storage, read> peaks: array<vec4f>; // from `largest`, of go
@group(0) @binding(6) var<storage, read_write> out: array<f32>; // lines of own: gradients by slopes and by values
@group(0) @binding(7) var<uniform> p: Params;
var<workgroup> queries: array<vec2f, TILE>; // of others, where these are queries

fn eightOfA(z: u32, d: u32, x: u32) -> vec4u {
  if (d >= p.width || x >= p.wideOwn) { return vec4u(); }
  return a[((z * p.aPitch + p.aFirst + d) * p.wideOwn + x) / 8u];
}

fn eightOfB(z: u32, d: u32, y: u32) -> vec4u {
  if (d >= p.width || y >= p.wideOthers) { return vec4u(); }
  return b[((z * p.bPitch + p.bFirst + d) * p.wideOthers + y) / 8u];
}

fn eightOfGa(z: u32, d: u32, x: u32) -> vec4u {
  if (d >= p.width || x >= p.wideOwn) { return vec4u(); }
  return ga[((z * p.gaPitch + p.gaFirst + d) * p.wideOwn + x) / 8u];
}

fn eightOfGb(z: u32, d: u32, y: u32) -> vec4u {
  if (d >= p.width || y >= p.wideOthers) { return vec4u(); }
  return gb[((z * p.gbPitch + p.gbFirst + d) * p.wideOthers + y) / 8u];
}

// Of a query, P = exp2(scale log2(e) S - x), and y is its delta.
fn queryOf(z: u32, n: u32) -> vec2f {
  let count = select(p.others, p.own, BY_QUERY);
  if (n >= count) { return vec2f(NEVER, 0.0); }
  let at = z * 2u * count + n;
  return vec2f(rows[at], rows[at + count]);
}

// P never is above 1; but where a tile is beyond the others, S is 0 whatever the scores.
fn probability(c: f32, scores: vec4f, x: vec4f) -> vec4f {
  return exp2(min(c * scores - x, vec4f()));
}

fn slope(p: vec4f, dp: vec4f, delta: vec4f) -> vec4<f16> {
  return vec4<f16>(clamp(MORE * p * (dp - delta), vec4f(-65504.0), vec4f(65504.0)));
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) w: vec3u,
  @builtin(local_invocation_index) t: u32,
  @builtin(subgroup_id) group: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let z = w.y;
  let n0 = w.x * OWN;
  let strip = group * STRIP;
  let column = strip + lane % STRIP; // this thread's own
  let row = 2u * (lane / STRIP); // the first of its others
  let own = row * ACROSS + column;
  let c = p.scale * LOG2E;
  let n = n0 + column;
  var query = vec2f();
  if (BY_QUERY) { query = queryOf(z, n); }
  {@ ownFragments}
  {@ sums}
  for (var y0 = 0u; y0 < p.others; y0 += TILE) {
    {@ read}
    workgroupBarrier();
    {@ write}
    if (!BY_QUERY && t < TILE) { queries[t] = queryOf(z, y0 + t); }
    workgroupBarrier();
    {@ scores}
    workgroupBarrier();
    {@ probabilities}
    workgroupBarrier();
    {@ values}
    {@ slopes}
  }
  let back = 1.0 / halfScale();
  {@ handOut}
}
