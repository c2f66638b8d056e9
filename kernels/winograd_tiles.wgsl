// What winograd_input and winograd_norm have in common: how V is stored, and which cells belong to which of four tiles.
// Their source follows.
fn store(at: u32, row: u32, column: u32, value: vec4f) {
  let z = select(plane(row, column), flipped(row, column), p.flip != 0u);
  v[z * (p.channels * p.tiles / 4u) + at] = value;
}

fn put(at: u32, row: u32, d: mat4x4f) {
  store(at, row, 0u, d[0] - d[2]);
  store(at, row, 1u, d[1] + d[2]);
  store(at, row, 2u, d[2] - d[1]);
  store(at, row, 3u, d[1] - d[3]);
}

// A row of the patches of four tiles side by side, from the cell before them, their eight, and the one after.
fn patchRow(before: f32, low: vec4f, high: vec4f, after: f32) -> mat4x4f {
  return mat4x4f(
    vec4f(before, low.y, low.w, high.y),
    vec4f(low.x, low.z, high.x, high.z),
    vec4f(low.y, low.w, high.y, high.w),
    vec4f(low.z, high.x, high.z, after),
  );
}
