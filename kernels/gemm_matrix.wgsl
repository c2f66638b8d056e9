// gemm_matrix: gemm_tiled for adapters that multiply matrices of 16-bit numbers, where A has
// contiguous k in eights and B contiguous n in fours; both are rounded to 16 bits. The main function is that of
// `matrix`, where numbers lie is that of gemm_tiled_load.
var<private> z: u32;
var<private> part: u32;
var<private> column: u32;

fn begin(w: vec3u, n: u32) {
  z = w.z / p.parts;
  part = w.z % p.parts;
  column = n;
}

fn two(at: u32) -> u32 { return pack2x16float(vec2f(bitcast<f32>(a[at]), bitcast<f32>(a[at + 1u]))); }

fn octet(m: u32, k: u32) -> vec4u {
  if (m >= p.M || k >= p.K) { return vec4u(); }
  let at = p.oa + z * p.sa + m * p.lda + k;
  if (A_HALF) { return bitcast<vec4u>(aQuads[at / 8u]); }
  return vec4u(two(at), two(at + 2u), two(at + 4u), two(at + 6u));
}

fn quad(k: u32) -> vec4f { return quadOfB(p.ob + z * p.sb, column, k); }

fn keep(m: u32, n: u32, sums: vec4f) { put(z, part, m, n, sums); }
