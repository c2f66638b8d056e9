// winograd_weight: U[z,o,c] = (G w G^T)[row,column], w = weight[o0 + o, c0 + c] 3x3, z = plane(row, column)
// G = [[1,0,0],[1/2,1/2,1/2],[1/2,-1/2,1/2],[0,0,1]] (Lavin and Gray 2016, F(2x2,3x3))
override WG: u32 = 64u;
override HALF: bool = false; // weight holds f16, two to a word
struct Params {
  count: u32, // of 3x3 kernels
  width: u32, // input channels of u
  stride: u32, // input channels of weight
  first: u32, // o0 * stride + c0
  planes: u32, // 16, or the first 9
}
@group(0) @binding(0) var<storage, read> weight: array<u32>; // [out, in, 9], f32 by its bits or pairs of f16
@group(0) @binding(1) var<storage, read_write> u: array<f32>; // [planes, count]
@group(0) @binding(2) var<uniform> p: Params;

fn tap(i: u32) -> f32 {
  if (HALF) { return unpack2x16float(weight[i >> 1u] >> ((i & 1u) * 16u)).x; }
  return bitcast<f32>(weight[i]);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let w = 9u * (p.first + i / p.width * p.stride + i % p.width);
  let r0 = vec3f(tap(w), tap(w + 1u), tap(w + 2u));
  let r1 = vec3f(tap(w + 3u), tap(w + 4u), tap(w + 5u));
  let r2 = vec3f(tap(w + 6u), tap(w + 7u), tap(w + 8u));
  put(i, 0u, r0);
  put(i, 1u, 0.5 * (r0 + r1 + r2));
  if (p.planes > 9u) { put(i, 2u, 0.5 * (r0 - r1 + r2)); }
  put(i, 3u, r2);
}

fn put(i: u32, row: u32, v: vec3f) {
  u[plane(row, 0u) * p.count + i] = v.x;
  u[plane(row, 1u) * p.count + i] = 0.5 * (v.x + v.y + v.z);
  if (p.planes > 9u) { u[plane(row, 2u) * p.count + i] = 0.5 * (v.x - v.y + v.z); }
  u[plane(row, 3u) * p.count + i] = v.z;
}
