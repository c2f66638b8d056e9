// multiply_add: every thread does `steps` times 8 rounds of x = x * a + b on 8 independent numbers, so
// that nothing but arithmetic takes time: 128 operations a step.
struct Params { count: u32, steps: u32, a: f32, b: f32 }
@group(0) @binding(0) var<storage, read_write> y: array<f32>; // [count]
@group(0) @binding(1) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x;
  if (i >= p.count) { return; }
  var u = vec4f(0.0, 1.0, 2.0, 3.0) + f32(i % 8u);
  var v = u + 4.0;
  for (var s = 0u; s < p.steps; s++) {
    u = u * p.a + p.b; v = v * p.a + p.b;
    u = u * p.a + p.b; v = v * p.a + p.b;
    u = u * p.a + p.b; v = v * p.a + p.b;
    u = u * p.a + p.b; v = v * p.a + p.b;
    u = u * p.a + p.b; v = v * p.a + p.b;
    u = u * p.a + p.b; v = v * p.a + p.b;
    u = u * p.a + p.b; v = v * p.a + p.b;
    u = u * p.a + p.b; v = v * p.a + p.b;
  }
  let w = u + v;
  y[i] = w.x + w.y + w.z + w.w;
}
