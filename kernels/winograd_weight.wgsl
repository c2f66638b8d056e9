// winograd_weight: U[z,o,i] = (G w G^T)[z], w = weight[o,i] 3x3, z = 4 row + column
// G = [[1,0,0],[1/2,1/2,1/2],[1/2,-1/2,1/2],[0,0,1]] (Lavin and Gray 2016, F(2x2,3x3))
override WG: u32 = 64u;
struct Params { count: u32 } // out channels * in channels
@group(0) @binding(0) var<storage, read> weight: array<f32>; // [count, 9]
@group(0) @binding(1) var<storage, read_write> u: array<f32>; // [16, count]
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let r0 = vec3f(weight[9u * i], weight[9u * i + 1u], weight[9u * i + 2u]);
  let r1 = vec3f(weight[9u * i + 3u], weight[9u * i + 4u], weight[9u * i + 5u]);
  let r2 = vec3f(weight[9u * i + 6u], weight[9u * i + 7u], weight[9u * i + 8u]);
  put(i, 0u, r0);
  put(i, 4u, 0.5 * (r0 + r1 + r2));
  put(i, 8u, 0.5 * (r0 - r1 + r2));
  put(i, 12u, r2);
}

fn put(i: u32, z: u32, v: vec3f) {
  u[z * p.count + i] = v.x;
  u[(z + 1u) * p.count + i] = 0.5 * (v.x + v.y + v.z);
  u[(z + 2u) * p.count + i] = 0.5 * (v.x - v.y + v.z);
  u[(z + 3u) * p.count + i] = v.z;
}
