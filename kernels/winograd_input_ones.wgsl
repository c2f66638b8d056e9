// How winograd_input reads an image of any size, number by number.
@group(0) @binding(0) var<storage, read> x: array<f32>; // [batch, channels, height, width]

// Row r of one tile's patch, which begins at row y and column x of a plane.
fn line(plane: u32, y: i32, x0: i32) -> vec4f {
  if (y < 0 || y >= i32(p.height)) { return vec4f(); }
  let w = i32(p.width);
  let i = (i32(plane * p.height) + y) * w + x0;
  var d = vec4f();
  if (x0 >= 0) { d.x = x[i]; }
  if (x0 + 1 < w) { d.y = x[i + 1]; }
  if (x0 + 2 < w) { d.z = x[i + 2]; }
  if (x0 + 3 < w) { d.w = x[i + 3]; }
  return d;
}

// Of channel c and the tiles from t on.
fn patches(t: u32, c: u32) -> Patches {
  let last = p.all - 1u;
  let at0 = place(min(t, last));
  let at1 = place(min(t + 1u, last));
  let at2 = place(min(t + 2u, last));
  let at3 = place(min(t + 3u, last));
  let planes = vec4u(at0.x, at1.x, at2.x, at3.x) * p.channels + c;
  let ys = vec4i(vec4u(at0.y, at1.y, at2.y, at3.y) * 2u) - 1;
  let xs = vec4i(vec4u(at0.z, at1.z, at2.z, at3.z) * 2u) - 1;
  var d: array<mat4x4f, 4>;
  for (var r = 0; r < 4; r++) {
    d[r] = transpose(mat4x4f(
      line(planes.x, ys.x + r, xs.x),
      line(planes.y, ys.y + r, xs.y),
      line(planes.z, ys.z + r, xs.z),
      line(planes.w, ys.w + r, xs.w),
    ));
  }
  return Patches(d[0], d[1], d[2], d[3]);
}
