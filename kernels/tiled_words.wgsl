// What tiled.wgsl reads of A where it may be f32 or f16, and tiles are f32.
override A_HALF: bool = false; // a holds f16
alias Words = vec2u; // two f32 by their bits, or four f16
alias NumberOfA = f32;
alias QuadOfA = vec4f;

fn numberOfA(at: u32) -> NumberOfA {
  if (A_HALF) { return unpack2x16float(a[at / 4u][at / 2u % 2u] >> (at % 2u * 16u)).x; }
  return bitcast<f32>(a[at / 2u][at % 2u]);
}

// Four numbers that lie side by side from a multiple of 4 on.
fn fourOfA(at: u32) -> QuadOfA {
  if (A_HALF) {
    let words = a[at / 4u];
    return vec4f(unpack2x16float(words.x), unpack2x16float(words.y));
  }
  return vec4f(bitcast<vec2f>(a[at / 2u]), bitcast<vec2f>(a[at / 2u + 1u]));
}
