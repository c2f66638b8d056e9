// How winograd_input reads where the tiles of a row come in fours, and cells, too: those of a thread share rows.
@group(0) @binding(0) var<storage, read> x: array<vec4f>; // [batch, channels, height, width]

// Row y, above or below the image perhaps, of the patches of four tiles; `column` is that of their first cells, in fours.
fn line(plane: u32, y: i32, column: u32) -> mat4x4f {
  if (y < 0 || y >= i32(p.height)) { return mat4x4f(); }
  let width = p.width / 4u;
  let i = (plane * p.height + u32(y)) * width + column;
  var before = 0.0;
  if (column > 0u) { before = x[i - 1u].w; }
  let low = x[i];
  let high = x[i + 1u];
  var after = 0.0;
  if (column + 2u < width) { after = x[i + 2u].x; }
  return patchRow(before, low, high, after);
}

// Of channel c and the tiles from t on.
fn patches(t: u32, c: u32) -> Patches {
  let at = place(t);
  let plane = at.x * p.channels + c;
  let y = i32(at.y * 2u) - 1;
  let column = at.z / 2u;
  return Patches(
    line(plane, y, column),
    line(plane, y + 1, column),
    line(plane, y + 2, column),
    line(plane, y + 3, column),
  );
}
