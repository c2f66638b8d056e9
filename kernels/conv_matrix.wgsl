// conv_matrix: conv_tiled's forward way for adapters that multiply matrices of 16-bit numbers, where K
// comes in eights; w and x are rounded to 16 bits. The main function is that of `matrix`, what taps read is
// that of conv_tiled_load.
var<private> part: u32;
var<private> column: u32;
var<private> four: Four;

fn begin(group: vec3u, n: u32) {
  part = group.z;
  column = n;
  four = fourFrom(n);
}

fn two(at: u32) -> u32 { return pack2x16float(vec2f(bitcast<f32>(w[at]), bitcast<f32>(w[at + 1u]))); }

fn octet(m: u32, k: u32) -> vec4u {
  if (m >= p.M || k >= p.K) { return vec4u(); }
  let at = m * p.K + k;
  if (HALF) { return vec4u(w[at / 2u], w[at / 2u + 1u], w[at / 2u + 2u], w[at / 2u + 3u]); }
  return vec4u(two(at), two(at + 2u), two(at + 4u), two(at + 6u));
}

fn quad(k: u32) -> vec4f { return gather(four, column, k); }

fn keep(m: u32, n: u32, sums: vec4f) { put(part, m, n, sums); }
