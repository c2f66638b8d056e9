// flash_matrix: flash_attention by matrix units; see flash_matrix_tile for how it is shared among threads.
//   S[j,n] = sum_d k[z,d,j] q[z,d,n];  P = exp(scale (S - base_n));  out[z,d,n] = sum_j v[z,d,j] P[j,n] / sum_j P[j,n]
//   stats[z,0,n] = scale max_j S, stats[z,1,n] = 1 / sum_j exp(scale S - stats[z,0,n])
// The base is a maximum of the past: what has been added up is shrunk only where a query's scores have grown so far
// beyond it that 16 bits might not hold P, which past the first tile hardly happens.
const LOWEST = -1e30; // below any score, and its exponential is 0
const HEADROOM = 8.0; // P stays below 2^HEADROOM
struct Params {
  queries: u32, keys: u32, width: u32, scale: f32,
  wideQueries: u32, wideKeys: u32, // lengths of lines
  // Line d of head z is pitch z + first + d.
  qPitch: u32, qFirst: u32, kPitch: u32, kFirst: u32, vPitch: u32, vFirst: u32,
}
@group(0) @binding(0) var<storage, read> q: array<vec4u>; // lines of queries in 16 bits, ended by zeros
@group(0) @binding(1) var<storage, read> k: array<vec4u>; // lines of keys
@group(0) @binding(2) var<storage, read> v: array<vec4u>; // lines of keys
@group(0) @binding(3) var<storage, read_write> stats: array<f32>; // [z, 2, queries]
@group(0) @binding(4) var<storage, read_write> out: array<f32>; // [z, width, queries]
@group(0) @binding(5) var<uniform> p: Params;
var<workgroup> grown: vec4u; // whether a base must grow, in the first; see the tile for why there are four

fn eightOfQ(z: u32, d: u32, n: u32) -> vec4u {
  if (d >= p.width || n >= p.wideQueries) { return vec4u(); }
  return q[((z * p.qPitch + p.qFirst + d) * p.wideQueries + n) / 8u];
}

fn eightOfK(z: u32, d: u32, j: u32) -> vec4u {
  if (d >= p.width || j >= p.wideKeys) { return vec4u(); }
  return k[((z * p.kPitch + p.kFirst + d) * p.wideKeys + j) / 8u];
}

fn eightOfV(z: u32, d: u32, j: u32) -> vec4u {
  if (d >= p.width || j >= p.wideKeys) { return vec4u(); }
  return v[((z * p.vPitch + p.vFirst + d) * p.wideKeys + j) / 8u];
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
  let column = strip + lane % STRIP; // this thread's query
  let row = 2u * (lane / STRIP); // the first of its keys
  let own = row * ACROSS + column;
  let c = p.scale * LOG2E;
  var high = LOWEST; // largest score
  var base = LOWEST;
  var sum = 0.0; // over this thread's keys
  {@ ownFragments}
  {@ sums}
  for (var y0 = 0u; y0 < p.keys; y0 += TILE) {
    {@ read}
    workgroupBarrier();
    if (t == 0u) { grown = vec4u(); }
    {@ write}
    workgroupBarrier();
    {@ scores}
    workgroupBarrier();
    {@ take}
    if (y0 + TILE > p.keys) {
      {@ mask}
    }
    var most = LOWEST;
    {@ most}
    {@ mostOfAll}
    high = max(high, most);
    let grows = c * (high - base) > HEADROOM;
    if (grows) { grown.x = 1u; }
    if (workgroupUniformLoad(&grown).x != 0u) {
      let next = select(base, high, grows);
      let shrink = exp2(c * (base - next));
      base = next;
      sum *= shrink;
      if (y0 > 0u) {
        {@ shrink}
      }
    }
    {@ probabilities}
    workgroupBarrier();
    {@ values}
  }
  {@ sumOfAll}
  let inverse = 1.0 / sum;
  let n = n0 + column;
  if (n < p.queries && row == 0u) {
    let at = z * 2u * p.queries + n;
    stats[at] = p.scale * high;
    stats[at + p.queries] = inverse * exp2(c * (high - base));
  }
  {@ handOut}
}
