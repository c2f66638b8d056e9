// flash_matrix_rows: what the way back needs of each query, side by side: P = exp2(log2(e) scale S - rows[z,0,n]),
//   and rows[z,1,n] = sum_d go[z,d,n] out[z,d,n], from the same rounded go as dP: where one P is nearly 1, both are
//   nearly equal, and their difference counts
override WG: u32 = 64u;
struct Params { count: u32, queries: u32, width: u32, wide: u32 }
@group(0) @binding(0) var<storage, read> go: array<u32>; // [z, width, wide] in 16 bits, times halfScale()
@group(0) @binding(1) var<storage, read> out: array<f32>; // [z, width, queries]
@group(0) @binding(2) var<storage, read> stats: array<f32>; // [z, 2, queries]: max, 1 / sum
@group(0) @binding(3) var<storage, read_write> rows: array<f32>; // [z, 2, queries]
@group(0) @binding(4) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let z = i / p.queries;
  let n = i % p.queries;
  var sum = 0.0;
  for (var d = 0u; d < p.width; d++) {
    let line = z * p.width + d;
    let two = unpack2x16float(go[(line * p.wide + n) / 2u]);
    sum += two[n % 2u] * out[line * p.queries + n];
  }
  let at = z * 2u * p.queries + n;
  rows[at] = 1.44269504 * stats[at] - log2(stats[at + p.queries]);
  rows[at + p.queries] = sum;
}
