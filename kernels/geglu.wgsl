// geglu: x is [batch, 2 inner, cells]; the first half of the channels is the value v, the second the gate u.
//   out[b,i,n] = v gelu(u); with GRAD out is dx: dv = g gelu(u), du = g v gelu'(u)
override WG: u32 = 64u;
override GRAD: bool = false;
const RUN = 1024u; // numbers of one workgroup
struct Params { batch: u32, plane: u32 } // plane = inner * cells
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) t: u32,
) {
  // Runs of one batch element lie along x and z.
  let first = (w.z * grid.x + w.x) * RUN;
  let end = min(p.plane, first + RUN);
  for (var k = first + t; k < end; k += WG) {
    let i = w.y * p.plane + k;
    let at = i + w.y * p.plane;
    let v = x[at];
    let u = x[at + p.plane];
    let share = phi(u);
    if (GRAD) {
      out[at] = g[i] * u * share;
      out[at + p.plane] = g[i] * v * (share + u * 0.3989422804014327 * exp(-0.5 * min(u * u, 160.0)));
    } else {
      out[i] = v * u * share;
    }
  }
}
