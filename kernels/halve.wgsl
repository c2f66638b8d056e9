// halve: numbers of 32 bits to 16 bits, times halfScale() if SCALED; lines of N become lines of `wide`, ended by 0.
//   y[z, k, n] = x[first + z * sx + k * ldx + n]
override SCALED: bool = false;
struct Params { octets: u32, wide: u32, N: u32, K: u32, ldx: u32, sx: u32, first: u32, across: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> peaks: array<vec4f>; // from `largest`
@group(0) @binding(2) var<storage, read_write> y: array<vec4u>;
@group(0) @binding(3) var<uniform> p: Params;

// x[line + n] and x[line + n + 1], as far as the line goes.
fn two(line: u32, n: u32, scale: f32) -> u32 {
  var values = vec2f();
  if (n < p.N) { values.x = x[line + n]; }
  if (n + 1u < p.N) { values.y = x[line + n + 1u]; }
  // What 16 bits cannot hold becomes their largest number, not infinite.
  return pack2x16float(clamp(scale * values, vec2f(-65504.0), vec2f(65504.0)));
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.y * p.across + id.x;
  if (i >= p.octets) { return; }
  let which = 8u * i / p.wide;
  let n = 8u * i % p.wide;
  let line = p.first + which / p.K * p.sx + which % p.K * p.ldx;
  var scale = 1.0;
  if (SCALED) { scale = halfScale(); }
  y[i] = vec4u(
    two(line, n, scale),
    two(line, n + 2u, scale),
    two(line, n + 4u, scale),
    two(line, n + 6u, scale),
  );
}
