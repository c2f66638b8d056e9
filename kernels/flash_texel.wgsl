// flash_texel: flash_attention on adapters that are processors; see gemm_texel for why it reads texels.
//   S[j,n] = sum_d k[z,d,j] q[z,d,n];  out[z,d,n] = sum_j v[z,d,j] exp(scale (S[j,n] - max_j S)) / sum_j exp(...)
//   stats[z,0,n] = scale max_j S, stats[z,1,n] = 1 / sum_j exp(scale S[j,n] - stats[z,0,n])
// Each thread has four queries and meets four keys at a time. What it holds has a variable for each dimension, which are
// written out: an array's elements would be fetched lane by lane. Texels are read before anything is done with them:
// reading one is a call, around which nothing stays in registers.
const LOWEST = -3.4e38; // below any score
const LOG2E = 1.4426950408889634;
const LN2 = 0.6931471805599453;
struct Params {
  queries: u32, keys: u32, line: u32, // keys with what fills them up to fours
  scale: f32,
  head: u32, // the first of the stages
  // Line d of head z of the stages is pitch z + first + d.
  qPitch: u32, qFirst: u32, kPitch: u32, kFirst: u32, vPitch: u32, vFirst: u32,
}
@group(0) @binding(0) var a: texture_storage_2d<rgba32float, read>; // lines of queries
@group(0) @binding(1) var b: texture_storage_2d<rgba32float, read>; // lines of keys and of values
@group(0) @binding(2) var<storage, read_write> stats: array<vec4f>; // [z, 2, queries]
@group(0) @binding(3) var<storage, read_write> out: array<vec4f>; // [z, WIDTH, queries]
@group(0) @binding(4) var<uniform> p: Params;

fn left(i: u32) -> vec4f { return textureLoad(a, place(i)); }
fn right(i: u32) -> vec4f { return textureLoad(b, place(i)); }

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let fours = p.queries / 4u;
  let steps = p.line / 4u;
  let n = w.x * THREADS + t; // in fours
  let qLine = (w.y * p.qPitch + p.qFirst) * fours + min(n, fours - 1u);
  let kLine = (w.y * p.kPitch + p.kFirst) * steps;
  let vLine = (w.y * p.vPitch + p.vFirst) * steps;
  let scale = p.scale * LOG2E;
  var high = vec4f(LOWEST); // largest score so far
  var sum = vec4f();
  {@ start}
  for (var j = 0u; j < steps; j++) {
    var s0 = vec4f(); var s1 = vec4f(); var s2 = vec4f(); var s3 = vec4f();
    {@ keys}
    {@ scores}
    if (4u * j + 3u >= p.keys) { s3 = vec4f(LOWEST); }
    if (4u * j + 2u >= p.keys) { s2 = vec4f(LOWEST); }
    if (4u * j + 1u >= p.keys) { s1 = vec4f(LOWEST); }
    let most = max(high, max(max(s0, s1), max(s2, s3)));
    let shrink = exp2(high - most);
    let e0 = exp2(s0 - most);
    let e1 = exp2(s1 - most);
    let e2 = exp2(s2 - most);
    let e3 = exp2(s3 - most);
    sum = sum * shrink + ((e0 + e1) + (e2 + e3));
    high = most;
    {@ values}
    {@ sums}
  }
  if (n >= fours) { return; }
  let z = p.head + w.y;
  let factor = 1.0 / sum;
  stats[2u * z * fours + n] = high * LN2;
  stats[(2u * z + 1u) * fours + n] = factor;
  var rows = array({@ results});
  // The same index in all threads: the array is then read at once, not lane by lane.
  for (var d = 0u; d < WIDTH; d++) { out[(z * WIDTH + d) * fours + n] = rows[d] * factor; }
}
