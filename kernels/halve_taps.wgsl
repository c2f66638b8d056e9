// halve_taps: what a 3x3 convolution reads, in 16 bits: copy kx of plane c has in row r, 0 to height + 1, and
// column n, 0 to wide - 1, x[c, r - 1, n + kx - 1] times halfScale() if SCALED; 0 outside of x.
//   DOUBLED: of x doubled by nearest neighbours; height and width are those of the double
override SCALED: bool = false;
override DOUBLED: bool = false;
struct Params { octets: u32, planes: u32, height: u32, width: u32, wide: u32, across: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>; // [planes, height, width], or half of each
@group(0) @binding(1) var<storage, read> peaks: array<vec4f>; // from `largest`
@group(0) @binding(2) var<storage, read_write> y: array<vec4u>; // [3, planes, height + 2, wide]
@group(0) @binding(3) var<uniform> p: Params;

fn cell(line: u32, column: u32) -> f32 {
  if (column >= p.width) { return 0.0; } // also what is left of 0
  if (DOUBLED) { return x[line + column / 2u]; }
  return x[line + column];
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.y * p.across + id.x;
  if (i >= p.octets) { return; }
  let octet = i % (p.wide / 8u);
  var rest = i / (p.wide / 8u);
  let row = rest % (p.height + 2u) - 1u;
  rest = rest / (p.height + 2u);
  if (row >= p.height) {
    y[i] = vec4u();
    return;
  }
  let c = rest % p.planes;
  let start = 8u * octet + rest / p.planes - 1u;
  var line = (c * p.height + row) * p.width;
  if (DOUBLED) { line = (c * (p.height / 2u) + row / 2u) * (p.width / 2u); }
  var scale = 1.0;
  if (SCALED) { scale = halfScale(); }
  var words = vec4u();
  for (var j = 0u; j < 4u; j++) {
    let two = scale * vec2f(cell(line, start + 2u * j), cell(line, start + 2u * j + 1u));
    words[j] = pack2x16float(clamp(two, vec2f(-65504.0), vec2f(65504.0)));
  }
  y[i] = words;
}
