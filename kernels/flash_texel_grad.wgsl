// flash_texel_grad: the way back of flash_texel for a side of it, the queries (BY_QUERY) or the keys, here called own.
//   P = exp(scale S - max) / sum,  dP[j,n] = sum_d v[d,j] go[d,n],  dS = P (dP - delta) (+ h of the probed tokens that are j)
//   BY_QUERY: dq[d,n] = scale sum_j dS[j,n] k[d,j];  else dk[d,j] = scale sum_n dS[j,n] q[d,n], dv[d,j] = sum_n P[j,n] go[d,n]
// OUTPUT: dP is there, else 0. PROBE: h = a dE/da of each probed token, BY_QUERY only. VALUES: dv, too.
const LOG2E = 1.4426950408889634;
override BY_QUERY: bool = true;
override OUTPUT: bool = true;
override PROBE: bool = false;
override VALUES: bool = false;
struct Params {
  columns: u32, steps: u32, // own and others, in fours
  tokens: u32,
  scale: f32,
  head: u32, // the first of the stages
  // Line d of head z of the stages is pitch z + first + d, as it is of the results.
  aPitch: u32, aFirst: u32, gaPitch: u32, gaFirst: u32, // own queries and go, or keys and values
  bPitch: u32, bFirst: u32, gbPitch: u32, gbFirst: u32, // the others
  outPitch: u32, outFirst: u32, valuesPitch: u32, valuesFirst: u32,
}
@group(0) @binding(0) var a: texture_storage_2d<rgba32float, read>; // own lines
@group(0) @binding(1) var b: texture_storage_2d<rgba32float, read>; // the others' lines, ended by zeros
@group(0) @binding(2) var<storage, read> rows: array<vec4f>; // [z, 3, queries]: max, 1 / sum, delta
@group(0) @binding(3) var<storage, read> h: array<vec4f>; // [z, tokens, queries]
@group(0) @binding(4) var<storage, read> probed: array<f32>; // [tokens], key numbers
@group(0) @binding(5) var<storage, read_write> out: array<vec4f>; // lines of the gradients
@group(0) @binding(6) var<uniform> p: Params;

fn left(i: u32) -> vec4f { return textureLoad(a, place(i)); }
fn right(i: u32) -> vec4f { return textureLoad(b, place(i)); }

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let n = w.x * THREADS + t; // in fours
  let z = p.head + w.y;
  let at = min(n, p.columns - 1u);
  let aLine = (w.y * p.aPitch + p.aFirst) * p.columns + at;
  let gaLine = (w.y * p.gaPitch + p.gaFirst) * p.columns + at;
  let bLine = (w.y * p.bPitch + p.bFirst) * p.steps;
  let gbLine = (w.y * p.gbPitch + p.gbFirst) * p.steps;
  let queries = select(p.steps, p.columns, BY_QUERY); // in fours
  let scale = p.scale * LOG2E;
  {@ start}
  var row = 3u * z * queries + at; // of four queries
  for (var j = 0u; j < p.steps; j++) {
    var s0 = vec4f(); var s1 = vec4f(); var s2 = vec4f(); var s3 = vec4f();
    var d0 = vec4f(); var d1 = vec4f(); var d2 = vec4f(); var d3 = vec4f();
    {@ others}
    {@ scores}
    if (OUTPUT) {
      {@ slopes}
    }
    if (!BY_QUERY) { row = 3u * z * queries + j; }
    let most = LOG2E * rows[row];
    let share = rows[row + queries];
    let delta = rows[row + 2u * queries];
    // No score is larger; what fills up the keys is no score.
    var e0: vec4f; var e1: vec4f; var e2: vec4f; var e3: vec4f;
    if (BY_QUERY) {
      e0 = exp2(min(s0 - most, vec4f())) * share;
      e1 = exp2(min(s1 - most, vec4f())) * share;
      e2 = exp2(min(s2 - most, vec4f())) * share;
      e3 = exp2(min(s3 - most, vec4f())) * share;
      d0 = e0 * (d0 - delta);
      d1 = e1 * (d1 - delta);
      d2 = e2 * (d2 - delta);
      d3 = e3 * (d3 - delta);
    } else {
      e0 = exp2(min(s0 - most.x, vec4f())) * share.x;
      e1 = exp2(min(s1 - most.y, vec4f())) * share.y;
      e2 = exp2(min(s2 - most.z, vec4f())) * share.z;
      e3 = exp2(min(s3 - most.w, vec4f())) * share.w;
      d0 = e0 * (d0 - delta.x);
      d1 = e1 * (d1 - delta.y);
      d2 = e2 * (d2 - delta.z);
      d3 = e3 * (d3 - delta.w);
    }
    {@ sums}
    if (VALUES) {
      {@ values}
    }
  }
  if (PROBE) {
    for (var i = 0u; i < p.tokens; i++) {
      let slope = h[(z * p.tokens + i) * queries + at];
      let key = u32(probed[i]);
      let j = key / 4u;
      let e = key % 4u;
      {@ probes}
    }
  }
  if (n >= p.columns) { return; }
  // The same index in all threads: arrays are then read at once, not lane by lane.
  var results = array({@ results});
  let to = (z * p.outPitch + p.outFirst) * p.columns + n;
  for (var d = 0u; d < WIDTH; d++) { out[to + d * p.columns] = p.scale * results[d]; }
  if (VALUES) {
    var valueResults = array({@ valueResults});
    let valuesTo = (z * p.valuesPitch + p.valuesFirst) * p.columns + n;
    for (var d = 0u; d < WIDTH; d++) { out[valuesTo + d * p.columns] = valueResults[d]; }
  }
}
