// winograd_norm: winograd_input_fours of act((x - mean) rstd w + b), act = silu or nothing, a workgroup per (batch,
// group): one run instead of two, and no normalised image. Statistics are those of group_norm_moments, what is done to
// a number is in group_norm_apply, how V is stored in winograd_tiles. A thread goes down strips of four tiles side
// by side, whose patches share two of four rows with those above.
override SILU: bool = false;
const GRAD = false; // of group_norm_apply
struct Params {
  count: u32, cells: u32, groups: u32, eps: f32, // as group_norm_whole has them
  channels: u32, height: u32, width: u32, rows: u32, columns: u32, tiles: u32, flip: u32, // as winograd_input
}
@group(0) @binding(0) var<storage, read> x: array<vec4f>; // [batch, channels, height, width]
@group(0) @binding(1) var<storage, read> weight: array<f32>; // [channels]
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(3) var<storage, read_write> stats: array<f32>; // [batch * groups, 2]: mean, rstd
@group(0) @binding(4) var<storage, read_write> v: array<vec4f>; // [16, channels, tiles]
@group(0) @binding(5) var<uniform> p: Params;

// Row y of the patches of four tiles, 0 outside the image; `column` is that of their first cells, in fours.
fn line(plane: u32, y: u32, column: u32, n: Plane) -> mat4x4f {
  if (y >= p.height) { return mat4x4f(); }
  let width = p.width / 4u;
  let i = (plane * p.height + y) * width + column;
  let low = four(x[i], vec4f(), n);
  let high = four(x[i + 1u], vec4f(), n);
  var ends = vec4f();
  if (column > 0u) { ends.x = x[i - 1u].w; }
  if (column + 2u < width) { ends.y = x[i + 2u].x; }
  ends = four(ends, vec4f(), n);
  let before = select(0.0, ends.x, column > 0u);
  let after = select(0.0, ends.y, column + 2u < width);
  return patchRow(before, low, high, after);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let found = moments(t, w.x);
  var n = Plane(found.x, found.y, 0.0, 0.0, 0.0, 0.0);
  let each = p.count / p.cells; // channels of a group
  let strips = p.columns / 4u;
  for (var i = t; i < each * strips; i += THREADS) {
    let c = w.x % p.groups * each + i / strips;
    let strip = i % strips;
    n.scale = weight[c];
    n.shift = bias[c];
    let plane = w.x * each + i / strips;
    let tile = w.x / p.groups * p.rows * p.columns; // of this batch element, the first
    var at = (c * p.tiles + tile) / 4u + strip;
    var above = mat4x4f();
    var upper = line(plane, 0u, 2u * strip, n);
    for (var row = 0u; row < p.rows; row++) {
      let lower = line(plane, 2u * row + 1u, 2u * strip, n);
      let below = line(plane, 2u * row + 2u, 2u * strip, n);
      put(at, 0u, above - lower);
      put(at, 1u, upper + lower);
      put(at, 2u, lower - upper);
      put(at, 3u, upper - below);
      above = lower;
      upper = below;
      at += strips;
    }
  }
}
