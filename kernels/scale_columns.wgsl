// scale_columns: in place, out[z, d, n] *= stats[z, 1, n]; what softmax_columns left undone.
override WG: u32 = 64u;
struct Params { count: u32, width: u32, queries: u32 } // count = z * queries
@group(0) @binding(0) var<storage, read_write> out: array<f32>; // [z, width, queries]
@group(0) @binding(1) var<storage, read> stats: array<f32>; // [z, 2, queries]
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let z = i / p.queries;
  let n = i % p.queries;
  let factor = stats[(2u * z + 1u) * p.queries + n];
  for (var d = 0u; d < p.width; d++) { out[(z * p.width + d) * p.queries + n] *= factor; }
}
