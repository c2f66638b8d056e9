// How winograd_output writes an image of any size, number by number.
@group(0) @binding(3) var<storage, read> residual: array<f32>; // like out
@group(0) @binding(4) var<storage, read_write> out: array<f32>; // [batch, channels, height, width]

fn put(base: u32, y: u32, x: u32, value: f32) {
  if (y >= p.height || x >= p.width) { return; }
  let at = base + y * p.width + x;
  if (RESIDUAL) { out[at] = value + residual[at]; } else { out[at] = value; }
}

// The outputs of four tiles from t on of channel o, whose first is `at`: batch element, row and column.
fn write(t: u32, at: vec3u, o: u32, upper: Sides, lower: Sides) {
  var four = array(upper.left, upper.right, lower.left, lower.right);
  var b = at.x;
  var y = at.y;
  var x = at.z;
  for (var j = 0u; j < 4u; j++) {
    if (t + j >= p.all) { return; }
    let add = added(b, o);
    let base = (b * p.channels + o) * p.height * p.width;
    put(base, y * 2u, x * 2u, four[0][j] + add);
    put(base, y * 2u, x * 2u + 1u, four[1][j] + add);
    put(base, y * 2u + 1u, x * 2u, four[2][j] + add);
    put(base, y * 2u + 1u, x * 2u + 1u, four[3][j] + add);
    x++;
    if (x == p.columns) { x = 0u; y++; }
    if (y == p.rows) { y = 0u; b++; }
  }
}
