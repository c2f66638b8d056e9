// What winograd_input and winograd_norm have in common: how V is stored. Their source follows.
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
