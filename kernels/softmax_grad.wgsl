// softmax_grad: the softmax Jacobian on one chunk of queries, in place on the probabilities P:
//   dS[z, j, n] = P[z, j, n] (dP[z, j, n] - delta[z, first + n]) (+ h of the probed tokens that are j)
// OUTPUT: dP is given, else 0. PROBE: h = a dE/da of each probed token, see methods in attention.ts.
override WG: u32 = 64u;
override OUTPUT: bool = true;
override PROBE: bool = false;
struct Params { count: u32, keys: u32, columns: u32, queries: u32, first: u32, tokens: u32 }
@group(0) @binding(0) var<storage, read_write> s: array<f32>; // [z, keys, columns]: P, then dS
@group(0) @binding(1) var<storage, read> dp: array<f32>; // [z, keys, columns]
@group(0) @binding(2) var<storage, read> delta: array<f32>; // [z, queries]
@group(0) @binding(3) var<storage, read> h: array<f32>; // [z, tokens, queries]
@group(0) @binding(4) var<storage, read> probed: array<f32>; // [tokens], key numbers
@group(0) @binding(5) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let n = p.first + i % p.columns;
  let key = i / p.columns % p.keys;
  let z = i / p.columns / p.keys;
  var g = -delta[z * p.queries + n];
  if (OUTPUT) { g += dp[i]; }
  var value = s[i] * g;
  if (PROBE) {
    for (var t = 0u; t < p.tokens; t++) {
      if (u32(probed[t]) == key) { value += h[(z * p.tokens + t) * p.queries + n]; }
    }
  }
  s[i] = value;
}
