// transpose: out[z, c, r] = x[z, r, c]; a workgroup has a run of one row of x.
override WG: u32 = 64u;
const RUN = 1024u; // columns of one workgroup
struct Params { batch: u32, rows: u32, columns: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>; // [batch, rows, columns]
@group(0) @binding(1) var<storage, read_write> out: array<f32>; // [batch, columns, rows]
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let start = w.z * p.rows * p.columns;
  let end = min(p.columns, (w.x + 1u) * RUN);
  for (var c = w.x * RUN + t; c < end; c += WG) {
    out[start + c * p.rows + w.y] = x[start + w.y * p.columns + c];
  }
}
