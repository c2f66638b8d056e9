// geglu: x is [batch, 2 inner, cells]; the first half of the channels is the value v, the second the gate u.
//   out[b,i,n] = v gelu(u); with GRAD out is dx: dv = g gelu(u), du = g v gelu'(u)
override WG: u32 = 64u;
override GRAD: bool = false;
const RUN = 1024u / EACH; // of one workgroup
struct Params { batch: u32, plane: u32 } // plane = inner * cells
@group(0) @binding(0) var<storage, read> x: array<Numbers>;
@group(0) @binding(1) var<storage, read> g: array<Numbers>;
@group(0) @binding(2) var<storage, read_write> out: array<Numbers>;
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) t: u32,
) {
  let plane = p.plane / EACH;
  // Runs of one batch element lie along x and z.
  let first = (w.z * grid.x + w.x) * RUN;
  let end = min(plane, first + RUN);
  for (var k = first + t; k < end; k += WG) {
    let i = w.y * plane + k;
    let at = i + w.y * plane;
    let v = x[at];
    let u = x[at + plane];
    let share = phi(u);
    if (GRAD) {
      let slope = g[i];
      out[at] = slope * u * share;
      out[at + plane] = slope * v * geluSlope(u, share);
    } else {
      out[i] = v * u * share;
    }
  }
}
