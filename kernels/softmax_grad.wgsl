// softmax_grad: from raw scores s of one chunk of queries, the softmax Jacobian:
//   P = exp(s - max) / sum; max, 1 / sum and delta come from attention_rows
//   dS[z, j, n] = P[z, j, n] (dP[z, j, n] - delta[z, first + n]) (+ h of the probed tokens that are j)
// OUTPUT: dP is given, else 0. PROBE: h = a dE/da of each probed token, see methods in attention.ts.
// VALUES: s becomes P. CAUSAL: P is 0 for keys j > first + n.
override WG: u32 = 64u;
const RUN = 1024u; // queries of one workgroup, all of one key
override OUTPUT: bool = true;
override PROBE: bool = false;
override VALUES: bool = false;
override CAUSAL: bool = false;
struct Params { batch: u32, keys: u32, columns: u32, queries: u32, first: u32, tokens: u32 }
@group(0) @binding(0) var<storage, read_write> s: array<f32>; // [z, keys, columns]: scores, then P
@group(0) @binding(1) var<storage, read_write> ds: array<f32>; // [z, keys, columns]: dP, then dS
@group(0) @binding(2) var<storage, read> rows: array<f32>; // [z, 3, queries]: max, 1 / sum, delta
@group(0) @binding(3) var<storage, read> h: array<f32>; // [z, tokens, queries]
@group(0) @binding(4) var<storage, read> probed: array<f32>; // [tokens], key numbers
@group(0) @binding(5) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let key = w.y;
  let z = w.z;
  let row = (z * p.keys + key) * p.columns;
  let at = z * 3u * p.queries + p.first;
  let end = min(p.columns, (w.x + 1u) * RUN);
  for (var n = w.x * RUN + t; n < end; n += WG) {
    var value = exp(min(s[row + n] - rows[at + n], 0.0)) * rows[at + p.queries + n];
    if (CAUSAL) { value = select(value, 0.0, key > p.first + n); }
    if (VALUES) { s[row + n] = value; }
    var g = -rows[at + 2u * p.queries + n];
    if (OUTPUT) { g += ds[row + n]; }
    ds[row + n] = value * g;
  }
  if (PROBE) {
    for (var i = 0u; i < p.tokens; i++) {
      if (u32(probed[i]) == key) {
        let from_ = (z * p.tokens + i) * p.queries + p.first;
        for (var n = w.x * RUN + t; n < end; n += WG) { ds[row + n] += h[from_ + n]; }
      }
    }
  }
}
