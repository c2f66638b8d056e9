// How winograd_output writes where the tiles of a row come in fours and all of the image is covered by whole tiles.
@group(0) @binding(3) var<storage, read> residual: array<vec4f>; // like out
@group(0) @binding(4) var<storage, read_write> out: array<vec4f>; // [batch, channels, height, width]

fn put(at: u32, value: vec4f) {
  if (RESIDUAL) { out[at] = value + residual[at]; } else { out[at] = value; }
}

// The outputs of four tiles of channel o, whose first is `at`: batch element, row and column.
fn write(_t: u32, at: vec3u, o: u32, upper: Sides, lower: Sides) {
  let add = added(at.x, o);
  let width = p.width / 4u;
  let i = ((at.x * p.channels + o) * p.height + 2u * at.y) * width + at.z / 2u;
  put(i, vec4f(upper.left.x, upper.right.x, upper.left.y, upper.right.y) + add);
  put(i + 1u, vec4f(upper.left.z, upper.right.z, upper.left.w, upper.right.w) + add);
  put(i + width, vec4f(lower.left.x, lower.right.x, lower.left.y, lower.right.y) + add);
  put(i + width + 1u, vec4f(lower.left.z, lower.right.z, lower.left.w, lower.right.w) + add);
}
