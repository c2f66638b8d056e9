// softmax_columns: in place, over the keys j of scores s[z, j, n]; one thread per (z, query n).
//   s becomes e = exp(s - max_j s), stats[z, 0, first + n] = max_j s, stats[z, 1, first + n] = 1 / sum_j e
//   CAUSAL: only keys j <= first + n count; the others get 0
// The division is left to scale_columns, which does it on the far smaller product with v.
override WG: u32 = 64u;
override CAUSAL: bool = false;
struct Params { count: u32, keys: u32, columns: u32, queries: u32, first: u32 }
@group(0) @binding(0) var<storage, read_write> s: array<f32>; // [z, keys, columns]
@group(0) @binding(1) var<storage, read_write> stats: array<f32>; // [z, 2, queries]
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let z = i / p.columns;
  let n = i % p.columns;
  let start = z * p.keys * p.columns + n;
  let at = z * 2u * p.queries + p.first + n;
  var last = p.keys;
  if (CAUSAL) { last = min(last, p.first + n + 1u); }
  var high = -3.4e38;
  // Four at a time: the loop itself costs a third of a read on software adapters.
  let whole = last / 4u * 4u;
  for (var j = 0u; j < whole; j += 4u) {
    let k = start + j * p.columns;
    let a = max(s[k], s[k + p.columns]);
    let b = max(s[k + 2u * p.columns], s[k + 3u * p.columns]);
    high = max(high, max(a, b));
  }
  for (var j = whole; j < last; j++) { high = max(high, s[start + j * p.columns]); }
  var sum = 0.0;
  // In blocks: up to thousands of terms of one sign, whose rounding would not average out.
  for (var block = 0u; block < last; block += 32u) {
    var part = 0.0;
    let end = min(block + 32u, last);
    for (var j = block; j < end; j++) {
      let e = exp(s[start + j * p.columns] - high);
      part += e;
      s[start + j * p.columns] = e;
    }
    sum += part;
  }
  if (CAUSAL) {
    for (var j = last; j < p.keys; j++) { s[start + j * p.columns] = 0.0; }
  }
  stats[at] = high;
  stats[at + p.queries] = 1.0 / sum;
}
