// redistribute: in each column of attention weights the chosen tokens give what they have in all, S, to
// those of them whose mask covers the query, and the column is scaled back to the sum it had:
//   W[i] = mask[i, n] S for the tokens, then W = W (sum before) / (sum now)
override WG: u32 = 64u;
struct Params { count: u32, keys: u32, columns: u32, queries: u32, first: u32, tokens: u32 }
@group(0) @binding(0) var<storage, read_write> s: array<f32>; // [z, keys, columns]
@group(0) @binding(1) var<storage, read> chosen: array<f32>; // [tokens], key numbers, all different
@group(0) @binding(2) var<storage, read> mask: array<f32>; // [tokens, queries]
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let column = i % p.columns;
  let start = i / p.columns * p.keys * p.columns + column;
  var before = 0.0;
  for (var k = 0u; k < p.keys; k++) { before += s[start + k * p.columns]; }
  var share = 0.0;
  for (var t = 0u; t < p.tokens; t++) { share += s[start + u32(chosen[t]) * p.columns]; }
  for (var t = 0u; t < p.tokens; t++) {
    s[start + u32(chosen[t]) * p.columns] = share * mask[t * p.queries + p.first + column];
  }
  var total = 0.0;
  for (var k = 0u; k < p.keys; k++) { total += s[start + k * p.columns]; }
  let scale = before / max(total, 1e-30);
  for (var k = 0u; k < p.keys; k++) { s[start + k * p.columns] *= scale; }
}
