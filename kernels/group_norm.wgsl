// group_norm: out = act((x - mean) rstd w + b), act = silu or nothing.
//   GRAD: out = dx = rstd (q - (sum of q) / n - xhat (sum of q xhat) / n), q = g w act'(...)
// A workgroup has a run of RUN cells of one plane (batch, channel): what belongs to the plane is read once.
override WG: u32 = 64u;
override GRAD: bool = false;
override SILU: bool = false;
const RUN = 1024u;
struct Params { planes: u32, count: u32, cells: u32, groups: u32 } // count = cells of a group's channels
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>; // [channels]
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(3) var<storage, read> g: array<f32>; // like x
@group(0) @binding(4) var<storage, read> forward: array<f32>; // [batch * groups, 2]: mean, rstd
@group(0) @binding(5) var<storage, read> sums: array<f32>; // [batch * groups, 2]
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
@group(0) @binding(7) var<uniform> p: Params;

fn sigmoid(v: vec4f) -> vec4f { return 1.0 / (1.0 + exp(-clamp(v, vec4f(-80.0), vec4f(80.0)))); }

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) t: u32,
) {
  let plane = w.y;
  let each = p.count / p.cells; // channels of a group
  let group = plane / each;
  let c = plane % (each * p.groups);
  let mean = forward[2u * group];
  let rstd = forward[2u * group + 1u];
  let scale = weight[c];
  let shift = bias[c];
  var first = 0.0;
  var second = 0.0;
  if (GRAD) {
    first = sums[2u * group] / f32(p.count);
    second = sums[2u * group + 1u] / f32(p.count);
  }
  let start = plane * p.cells;
  let run = (w.z * grid.x + w.x) * RUN;
  let end = start + min(p.cells, run + RUN);
  // Four at a time: their loads do not wait for each other.
  for (var i = start + run + t; i < end; i += 4u * WG) {
    let at = min(i + vec4u(0u, WG, 2u * WG, 3u * WG), vec4u(end - 1u));
    let xhat = (vec4f(x[at.x], x[at.y], x[at.z], x[at.w]) - mean) * rstd;
    var y = xhat * scale + shift;
    if (GRAD) {
      var q = vec4f(g[at.x], g[at.y], g[at.z], g[at.w]) * scale;
      if (SILU) {
        let s = sigmoid(y);
        q *= s * (1.0 + y * (1.0 - s));
      }
      y = rstd * (q - (first + xhat * second));
    } else if (SILU) {
      y *= sigmoid(y);
    }
    out[at.x] = y.x;
    if (i + WG < end) { out[at.y] = y.y; }
    if (i + 2u * WG < end) { out[at.z] = y.z; }
    if (i + 3u * WG < end) { out[at.w] = y.w; }
  }
}
