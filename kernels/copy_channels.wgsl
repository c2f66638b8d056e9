// copy_channels: a run of channels from one tensor to another: out[b, to + i] = x[b, from + i], i < run
override WG: u32 = 64u;
const RUN = 1024u; // numbers of one workgroup, all of one b
struct Params { batch: u32, run: u32, xStride: u32, outStride: u32, from_: u32, to_: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) t: u32,
) {
  // The run may be long and the batch is short: runs lie along z, too.
  let first = (w.z * grid.x + w.x) * RUN;
  let end = min(p.run, first + RUN);
  for (var i = first + t; i < end; i += WG) {
    out[w.y * p.outStride + p.to_ + i] = x[w.y * p.xStride + p.from_ + i];
  }
}
