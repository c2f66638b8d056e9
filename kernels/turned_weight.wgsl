// turned_weight: y[c, o, tap] = w[o, c, 8 - tap], in 16 bits: the 3x3 convolution that is another one's gradient
override HALF: bool = false; // w holds f16, two to a word
const SIDE = 16u; // of a workgroup's square of channels
const LINE = 9u * SIDE;
struct Params { outs: u32, channels: u32 }
@group(0) @binding(0) var<storage, read> w: array<u32>; // [outs, channels, 9], f32 by its bits, or pairs of f16
@group(0) @binding(1) var<storage, read_write> y: array<u32>; // [channels, outs, 9], pairs of f16
@group(0) @binding(2) var<uniform> p: Params;
var<workgroup> square: array<f32, SIDE * LINE>; // [o][c][tap]

fn number(at: u32) -> f32 {
  if (HALF) { return unpack2x16float(w[at >> 1u] >> ((at & 1u) * 16u)).x; }
  return bitcast<f32>(w[at]);
}

fn turned(c: u32, i: u32) -> f32 {
  return square[(i / 9u * SIDE + c) * 9u + 8u - i % 9u];
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) t: u32) {
  let o0 = group.y * SIDE;
  let c0 = group.x * SIDE;
  for (var i = t; i < SIDE * LINE; i += 256u) {
    let o = o0 + i / LINE;
    let at = (o * p.channels + c0) * 9u + i % LINE;
    if (o < p.outs && c0 + i % LINE / 9u < p.channels) { square[i] = number(at); }
  }
  workgroupBarrier();
  // The number of outs is even, so that lines begin with a word.
  for (var i = t; i < SIDE * LINE / 2u; i += 256u) {
    let c = i / (LINE / 2u);
    let j = 2u * (i % (LINE / 2u));
    if (c0 + c < p.channels && o0 * 9u + j < p.outs * 9u) {
      y[(((c0 + c) * p.outs + o0) * 9u + j) / 2u] = pack2x16float(vec2f(turned(c, j), turned(c, j + 1u)));
    }
  }
}
