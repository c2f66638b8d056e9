// winograd_output: the 2x2 outputs of a tile are A^T m A, A^T = [[1,1,1,0],[0,1,-1,-1]],
// plus bias[o], plus shift[b,o], plus residual, where asked for. flip: m is stored as winograd_input says.
// m holds slice channels from firstChannel, and tiles from first; a thread does four tiles. How they are written is
// in winograd_output_fours or winograd_output_ones.
override WG: u32 = 64u;
override RESIDUAL: bool = false;
struct Params {
  count: u32, channels: u32, height: u32, width: u32, rows: u32, columns: u32, tiles: u32, first: u32, all: u32,
  slice: u32, firstChannel: u32,
  shiftStride: u32, // from one batch element's shifts to the next's, or 0 for one shared by the batch
  shiftFirst: u32,
  planes: u32, // 16, or the first 9 if the others are 0
  flip: u32, bias: u32, shift: u32, // 1 or 0; no constants, as pipelines take a second to compile
}
@group(0) @binding(0) var<storage, read> m: array<vec4f>; // [planes, slice, tiles]
@group(0) @binding(1) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(2) var<storage, read> shift: array<f32>; // channels of each batch element, or of all
@group(0) @binding(5) var<uniform> p: Params;

// Left and right outputs of four tiles.
struct Sides { left: vec4f, right: vec4f }

fn number(row: u32, column: u32, i: u32) -> vec4f {
  let z = select(plane(row, column), flipped(row, column), p.flip != 0u);
  return m[z * (p.slice * p.tiles / 4u) + i];
}

fn line(row: u32, i: u32) -> Sides {
  if (row == 2u && p.planes == 9u) { return Sides(); }
  let a = number(row, 0u, i);
  let b = number(row, 1u, i);
  var c = vec4f();
  if (p.planes > 9u) { c = number(row, 2u, i); }
  let d = number(row, 3u, i);
  return Sides(a + b + c, b - c - d);
}

// What is added to all of a channel.
fn added(b: u32, o: u32) -> f32 {
  var add = 0.0;
  if (p.bias != 0u) { add += bias[o]; }
  if (p.shift != 0u) { add += shift[p.shiftFirst + b * p.shiftStride + o]; }
  return add;
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x; // ((o - firstChannel) * tiles + t - first) / 4
  if (i >= p.count) { return; }
  let c = i / (p.tiles / 4u);
  let t = p.first + i * 4u - c * p.tiles;
  let m0 = line(0u, i);
  let m1 = line(1u, i);
  let m2 = line(2u, i);
  let m3 = line(3u, i);
  let upper = Sides(m0.left + m1.left + m2.left, m0.right + m1.right + m2.right);
  let lower = Sides(m1.left - m2.left - m3.left, m1.right - m2.right - m3.right);
  let b = t / (p.rows * p.columns);
  let inImage = t - b * p.rows * p.columns;
  let y = inImage / p.columns;
  write(t, vec3u(b, y, inImage - y * p.columns), p.firstChannel + c, upper, lower);
}
