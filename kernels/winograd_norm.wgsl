// winograd_norm: winograd_input_fours of act((x - mean) rstd w + b), act = silu or nothing, a workgroup per (batch,
// group): one run instead of two, and no normalised image. Statistics are those of group_norm_moments, what is done to
// a number is in group_norm_apply, how V is stored in winograd_tiles. A thread goes down strips of four tiles side
// by side, whose patches share two of four rows with those above.
override SILU: bool = false;
const GRAD = false; // of group_norm_apply
struct Params {
  count: u32, cells: u32, groups: u32, own: u32, eps: f32, // as group_norm_whole has them
  channels: u32, height: u32, width: u32, rows: u32, columns: u32, tiles: u32, flip: u32, // as winograd_input
}
@group(0) @binding(0) var<storage, read> x: array<vec4f>; // [batch, own, height, width]
@group(0) @binding(1) var<storage, read> beside: array<vec4f>; // BESIDE: [batch, channels - own, height, width]
@group(0) @binding(2) var<storage, read> weight: array<f32>; // [channels]
@group(0) @binding(3) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(4) var<storage, read_write> stats: array<f32>; // [batch * groups, 2]: mean, rstd
@group(0) @binding(5) var<storage, read_write> v: array<vec4f>; // [16, channels, tiles]
@group(0) @binding(6) var<uniform> p: Params;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let found = moments(t, w.x);
  let strips = p.columns / 4u;
  let own = ownChannels(w.x) * strips;
  for (var i = t; i < own; i += THREADS) {
    let c = i / strips;
    stripOwn(w.x, c, i % strips, planeOwn(w.x) + c, found);
  }
  if (BESIDE) {
    for (var i = own + t; i < channelsOf() * strips; i += THREADS) {
      let c = i / strips;
      stripBeside(w.x, c, i % strips, planeBeside(w.x) + c, found);
    }
  }
}
