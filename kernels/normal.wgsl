// normal: out[i] ~ N(0, 1), counter-based: element i depends on the key, the stream and i alone.
// Philox 4x32-10 (Salmon et al. 2011) on the counter (i / 4, stream0, stream1, stream2) gives four
// words, two Box-Muller pairs. Logarithm, sine and cosine are written out, because WGSL leaves the
// accuracy of its own to the device.
override WG: u32 = 64u;
struct Params { count: u32, key0: u32, key1: u32, stream0: u32, stream1: u32, stream2: u32 }
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<uniform> p: Params;

// High and low word of a 32 x 32 bit product.
fn multiply(a: u32, b: u32) -> vec2u {
  let a0 = a & 0xffffu; let a1 = a >> 16u;
  let b0 = b & 0xffffu; let b1 = b >> 16u;
  let low = a0 * b0;
  let middle = a1 * b0 + (low >> 16u);
  let other = a0 * b1 + (middle & 0xffffu);
  return vec2u(a1 * b1 + (middle >> 16u) + (other >> 16u), a * b);
}

fn philox(counter: vec4u, key: vec2u) -> vec4u {
  var c = counter;
  var k = key;
  for (var round = 0u; round < 10u; round++) {
    let m0 = multiply(0xD2511F53u, c.x);
    let m1 = multiply(0xCD9E8D57u, c.z);
    c = vec4u(m1.x ^ c.y ^ k.x, m1.y, m0.x ^ c.w ^ k.y, m0.y);
    k += vec2u(0x9E3779B9u, 0xBB67AE85u);
  }
  return c;
}

// Natural logarithm of v in (0, 1), by the Cephes polynomial on [sqrt(1/2), sqrt(2)).
fn logarithm(v: f32) -> f32 {
  let bits = bitcast<u32>(v);
  var e = f32(i32(bits >> 23u) - 126);
  var m = bitcast<f32>((bits & 0x7fffffu) | 0x3f000000u); // [1/2, 1)
  if (m < 0.70710678) { e -= 1.0; m = m + m; }
  let x = m - 1.0;
  let z = x * x;
  var y = 7.0376836292e-2;
  y = y * x - 1.1514610310e-1;
  y = y * x + 1.1676998740e-1;
  y = y * x - 1.2420140846e-1;
  y = y * x + 1.4249322787e-1;
  y = y * x - 1.6668057665e-1;
  y = y * x + 2.0000714765e-1;
  y = y * x - 2.4999993993e-1;
  y = y * x + 3.3333331174e-1;
  y = y * x * z;
  y += -2.12194440e-4 * e - 0.5 * z;
  return x + y + 0.693359375 * e;
}

// Cosine and sine of 2 pi n 2^-24: an octant and a Taylor polynomial on [-pi/4, pi/4].
fn circle(n: u32) -> vec2f {
  let quadrant = ((n + 0x200000u) >> 22u) & 3u;
  let x = f32(i32(n) - i32(((n + 0x200000u) >> 22u) << 22u)) * 3.7450702829e-7; // 2 pi / 2^24
  let z = x * x;
  let s = x + x * z * (-1.6666654611e-1 + z * (8.3321608736e-3 - z * 1.9515295891e-4));
  let c = 1.0 - 0.5 * z + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5));
  if (quadrant == 0u) { return vec2f(c, s); }
  if (quadrant == 1u) { return vec2f(-s, c); }
  if (quadrant == 2u) { return vec2f(-c, -s); }
  return vec2f(s, -c);
}

fn pair(a: u32, b: u32) -> vec2f {
  let radius = sqrt(-2.0 * logarithm((f32(a >> 9u) + 0.5) * 1.1920928955078125e-7));
  return radius * circle(b >> 8u);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (4u * i >= p.count) { return; }
  let words = philox(vec4u(i, p.stream0, p.stream1, p.stream2), vec2u(p.key0, p.key1));
  let first = pair(words.x, words.y);
  let second = pair(words.z, words.w);
  let values = vec4f(first, second);
  for (var j = 0u; j < 4u; j++) {
    if (4u * i + j < p.count) { out[4u * i + j] = values[j]; }
  }
}
