// gather_rows: out[b, c, n] = table[ids[b, n], c] + positions[n, c], channel-major result
override WG: u32 = 64u;
struct Params { count: u32, channels: u32, cells: u32 }
@group(0) @binding(0) var<storage, read> table: array<f32>; // [rows, channels]
@group(0) @binding(1) var<storage, read> positions: array<f32>; // [cells, channels]
@group(0) @binding(2) var<storage, read> ids: array<f32>; // [batch, cells], whole numbers
@group(0) @binding(3) var<storage, read_write> out: array<f32>; // [batch, channels, cells]
@group(0) @binding(4) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let n = i % p.cells;
  let c = i / p.cells % p.channels;
  let b = i / p.cells / p.channels;
  out[i] = table[u32(ids[b * p.cells + n]) * p.channels + c] + positions[n * p.channels + c];
}
