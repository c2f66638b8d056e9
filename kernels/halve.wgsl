// halve: numbers of 32 bits to 16 bits, times halfScale() if SCALED; lines of N become lines of `wide`, ended by 0.
//   y[z, k, n] = x[first + z * sx + k * ldx + n]
override SCALED: bool = false;
struct Params { octets: u32, wide: u32, N: u32, K: u32, ldx: u32, sx: u32, first: u32, across: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> peaks: array<vec4f>; // from `largest`
@group(0) @binding(2) var<storage, read_write> y: array<vec4u>;
@group(0) @binding(3) var<uniform> p: Params;

fn words(four: vec4f) -> vec2u {
  // What 16 bits cannot hold becomes their largest number, not infinite.
  let inside = clamp(four, vec4f(-65504.0), vec4f(65504.0));
  return vec2u(pack2x16float(inside.xy), pack2x16float(inside.zw));
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.y * p.across + id.x;
  if (i >= p.octets) { return; }
  let line = 8u * i / p.wide;
  let n = 8u * i % p.wide;
  let at = (p.first + line / p.K * p.sx + line % p.K * p.ldx + n) / 4u;
  var scale = 1.0;
  if (SCALED) { scale = halfScale(); }
  var high = vec4f();
  if (n + 4u < p.N) { high = x[at + 1u]; }
  y[i] = vec4u(words(scale * x[at]), words(scale * high));
}
