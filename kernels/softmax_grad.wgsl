// softmax_grad: from raw scores s of one chunk of queries, the softmax Jacobian:
//   P = exp(s - max) / sum; max, 1 / sum and delta come from attention_rows
//   dS[z, j, n] = P[z, j, n] (dP[z, j, n] - delta[z, first + n]) (+ h of the probed tokens that are j)
// OUTPUT: dP is given, else 0. PROBE: h = a dE/da of each probed token, see methods in attention.ts.
// VALUES: s becomes P. CAUSAL: P is 0 for keys j > first + n; one query at a time only.
override WG: u32 = 64u;
const RUN = 1024u / EACH; // queries of one workgroup, in Numbers
const KEYS = 8u; // keys of one workgroup: they share what belongs to a query
override OUTPUT: bool = true;
override PROBE: bool = false;
override VALUES: bool = false;
override CAUSAL: bool = false;
struct Params { batch: u32, keys: u32, columns: u32, queries: u32, first: u32, tokens: u32 }
@group(0) @binding(0) var<storage, read_write> s: array<Numbers>; // [z, keys, columns]: scores, then P
@group(0) @binding(1) var<storage, read_write> ds: array<Numbers>; // [z, keys, columns]: dP, then dS
@group(0) @binding(2) var<storage, read> rows: array<Numbers>; // [z, 3, queries]: max, 1 / sum, delta
@group(0) @binding(3) var<storage, read> h: array<Numbers>; // [z, tokens, queries]
@group(0) @binding(4) var<storage, read> probed: array<f32>; // [tokens], key numbers
@group(0) @binding(5) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let z = w.z;
  let start = w.y * KEYS;
  let stop = min(p.keys, start + KEYS);
  let columns = p.columns / EACH;
  let queries = p.queries / EACH;
  let at = z * 3u * queries + p.first / EACH;
  let end = min(columns, (w.x + 1u) * RUN);
  for (var n = w.x * RUN + t; n < end; n += WG) {
    let most = rows[at + n];
    let scale = rows[at + queries + n];
    let delta = rows[at + 2u * queries + n];
    for (var key = start; key < stop; key++) {
      let i = (z * p.keys + key) * columns + n;
      var value = exp(min(s[i] - most, Numbers())) * scale;
      if (CAUSAL) { value = select(value, Numbers(), key > p.first + n); }
      if (VALUES) { s[i] = value; }
      var g = -delta;
      if (OUTPUT) { g += ds[i]; }
      ds[i] = value * g;
    }
  }
  if (PROBE) {
    for (var i = 0u; i < p.tokens; i++) {
      let key = u32(probed[i]);
      if (key >= start && key < stop) {
        let row = (z * p.keys + key) * columns;
        let from_ = (z * p.tokens + i) * queries + p.first / EACH;
        for (var n = w.x * RUN + t; n < end; n += WG) { ds[row + n] += h[from_ + n]; }
      }
    }
  }
}
