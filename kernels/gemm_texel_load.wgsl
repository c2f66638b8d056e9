// What gemm_texel and gemm_narrow have in common: their source follows.
override BY_K: bool = true; // whether texels of A lie along k, else along m
override BY_N: bool = true; // whether texels of B lie along n, else along k
// What is added. Adapters that are processors run what a condition skips as well, in no lane: constants take it away.
override BIAS: bool = false;
override SHIFT: bool = false;
override RESIDUAL: bool = false;
override ACCUMULATE: bool = false; // what C holds
@group(0) @binding(0) var a: texture_storage_2d<rgba32float, read>; // rgba16float where A is f16
@group(0) @binding(1) var b: texture_storage_2d<rgba32float, read>;

fn left(i: u32, step: u32) -> mat4x4f {
  return mat4x4f(
    textureLoad(a, place(i)),
    textureLoad(a, place(i + step)),
    textureLoad(a, place(i + 2u * step)),
    textureLoad(a, place(i + 3u * step)),
  );
}

fn right(i: u32, step: u32) -> mat4x4f {
  return mat4x4f(
    textureLoad(b, place(i)),
    textureLoad(b, place(i + step)),
    textureLoad(b, place(i + 2u * step)),
    textureLoad(b, place(i + 3u * step)),
  );
}

fn turned(m: mat4x4f, turn: bool) -> mat4x4f {
  let t = transpose(m);
  let v = vec4<bool>(turn);
  return mat4x4f(
    select(m[0], t[0], v),
    select(m[1], t[1], v),
    select(m[2], t[2], v),
    select(m[3], t[3], v),
  );
}
