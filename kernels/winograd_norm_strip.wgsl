// Row y of the patches of four tiles, 0 outside the image; `column` is that of their first cells, in fours.
fn lineOwn(plane: u32, y: u32, column: u32, n: Plane) -> mat4x4f {
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

// A strip of channel c of a group, which is a plane of x.
fn stripOwn(group: u32, c: u32, strip: u32, plane: u32, found: vec2f) {
  let channel = firstChannel(group) + c;
  let n = Plane(found.x, found.y, weight[channel], bias[channel], 0.0, 0.0);
  let strips = p.columns / 4u;
  let tile = group / p.groups * p.rows * p.columns; // of this batch element, the first
  var at = (channel * p.tiles + tile) / 4u + strip;
  var above = mat4x4f();
  var upper = lineOwn(plane, 0u, 2u * strip, n);
  for (var row = 0u; row < p.rows; row++) {
    let lower = lineOwn(plane, 2u * row + 1u, 2u * strip, n);
    let below = lineOwn(plane, 2u * row + 2u, 2u * strip, n);
    put(at, 0u, above - lower);
    put(at, 1u, upper + lower);
    put(at, 2u, lower - upper);
    put(at, 3u, upper - below);
    above = lower;
    upper = below;
    at += strips;
  }
}
