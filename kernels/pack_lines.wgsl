// pack_lines: out[z, 0, d, j] = x[z, d, j], out[z, 1, d, j] = y[z, d, j]; lines end with zeros, so that they come in
// fours. One thread per four.
override WG: u32 = 64u;
struct Params {
  count: u32, width: u32, cells: u32,
  // Line d of head z is pitch z + first + d.
  xPitch: u32, xFirst: u32, yPitch: u32, yFirst: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>; // lines of cells
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4f>; // [z, 2, width, cells in fours]
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let fours = (p.cells + 3u) / 4u;
  let line = i / fours;
  let z = line / (2u * p.width);
  let d = line % p.width;
  let second = line / p.width % 2u == 1u;
  let j = i % fours * 4u;
  let row = select(z * p.xPitch + p.xFirst, z * p.yPitch + p.yFirst, second) + d;
  var four = vec4f();
  for (var e = 0u; e < min(4u, p.cells - j); e++) {
    let at = row * p.cells + j + e;
    if (second) { four[e] = y[at]; } else { four[e] = x[at]; }
  }
  out[i] = four;
}
