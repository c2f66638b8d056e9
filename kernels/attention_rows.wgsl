// attention_rows: what the way back needs of each query, side by side: rows[z,0..1,n] = stats and
//   rows[z,2,n] = sum_d go[z,d,n] o[z,d,n] (OUTPUT) + sum_i h[z,i,n] (PROBE)
// the last being what the softmax Jacobian subtracts from every key: sum_j p_j g_j
override WG: u32 = 64u;
override OUTPUT: bool = true;
override PROBE: bool = false;
struct Params { count: u32, queries: u32, width: u32, tokens: u32 }
@group(0) @binding(0) var<storage, read> go: array<f32>; // [z, width, queries]
@group(0) @binding(1) var<storage, read> o: array<f32>; // [z, width, queries]
@group(0) @binding(2) var<storage, read> h: array<f32>; // [z, tokens, queries]
@group(0) @binding(3) var<storage, read> stats: array<f32>; // [z, 2, queries]
@group(0) @binding(4) var<storage, read_write> rows: array<f32>; // [z, 3, queries]
@group(0) @binding(5) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let z = i / p.queries;
  let n = i % p.queries;
  var sum = 0.0;
  if (OUTPUT) {
    for (var d = 0u; d < p.width; d++) {
      let at = (z * p.width + d) * p.queries + n;
      sum += go[at] * o[at];
    }
  }
  if (PROBE) {
    for (var t = 0u; t < p.tokens; t++) { sum += h[(z * p.tokens + t) * p.queries + n]; }
  }
  let at = z * 3u * p.queries + n;
  rows[at] = stats[z * 2u * p.queries + n];
  rows[at + p.queries] = stats[(z * 2u + 1u) * p.queries + n];
  rows[at + 2u * p.queries] = sum;
}
