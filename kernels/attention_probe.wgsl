// attention_probe: out[z, i, n] = log of the probability of key tokens[i] for query n
//   = scale * sum_d k[z, d, tokens[i]] q[z, d, n] - max + log(1 / sum)
// exact also where the probability itself would underflow.
override WG: u32 = 64u;
struct Params {
  count: u32, tokens: u32, queries: u32, keys: u32, width: u32, scale: f32,
  // Line d of head z is pitch z + first + d.
  qPitch: u32, qFirst: u32, kPitch: u32, kFirst: u32,
}
@group(0) @binding(0) var<storage, read> q: array<f32>; // lines of queries
@group(0) @binding(1) var<storage, read> k: array<f32>; // lines of keys
@group(0) @binding(2) var<storage, read> stats: array<f32>; // [z, 2, queries]
@group(0) @binding(3) var<storage, read> tokens: array<f32>; // whole numbers
@group(0) @binding(4) var<storage, read_write> out: array<f32>; // [z, tokens, queries]
@group(0) @binding(5) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let n = i % p.queries;
  let token = u32(tokens[i / p.queries % p.tokens]);
  let z = i / p.queries / p.tokens;
  let ofK = z * p.kPitch + p.kFirst;
  let ofQ = z * p.qPitch + p.qFirst;
  var sum = 0.0;
  for (var d = 0u; d < p.width; d++) {
    sum += k[(ofK + d) * p.keys + token] * q[(ofQ + d) * p.queries + n];
  }
  let at = z * 2u * p.queries + n;
  out[i] = p.scale * sum - stats[at] + log(stats[at + p.queries]);
}
