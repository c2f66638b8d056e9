// gather_rows: out[b, c, n] = table[ids[b, n] - first, c] + positions[n, c], channel-major result;
// only where the id is one of the table's rows, so that a table may come in parts
override WG: u32 = 64u;
override HALF: bool = false; // table holds f16, two to a word
struct Params { count: u32, channels: u32, cells: u32, first: u32, rows: u32 }
@group(0) @binding(0) var<storage, read> table: array<u32>; // [rows, channels], f32 by its bits or pairs of f16
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
  let row = u32(ids[b * p.cells + n]) - p.first; // wraps for ids before the table
  if (row >= p.rows) { return; }
  let at = row * p.channels + c;
  var value: f32;
  if (HALF) {
    value = unpack2x16float(table[at >> 1u] >> ((at & 1u) * 16u)).x;
  } else {
    value = bitcast<f32>(table[at]);
  }
  out[i] = value + positions[n * p.channels + c];
}
