// transpose: out[z, c, r] = x[z, r, c]; a workgroup has a run of one row of x.
override WG: u32 = 64u;
const RUN = 1024u; // columns of one workgroup
struct Params {
  batch: u32, rows: u32, columns: u32,
  sx: u32, so: u32, // from one matrix to the next
  ox: u32, oo: u32, // to the first one
}
@group(0) @binding(0) var<storage, read> x: array<f32>; // [batch, rows, columns]
@group(0) @binding(1) var<storage, read_write> out: array<f32>; // [batch, columns, rows]
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let from_ = p.ox + w.z * p.sx + w.y * p.columns;
  let to = p.oo + w.z * p.so + w.y;
  let end = min(p.columns, (w.x + 1u) * RUN);
  for (var c = w.x * RUN + t; c < end; c += WG) {
    out[to + c * p.rows] = x[from_ + c];
  }
}
