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

// What belongs to a plane.
struct Plane { mean: f32, rstd: f32, scale: f32, shift: f32, first: f32, second: f32 }

fn four(x: vec4f, g: vec4f, n: Plane) -> vec4f {
  let xhat = (x - n.mean) * n.rstd;
  let pre = xhat * n.scale + n.shift;
  if (GRAD) {
    var q = g * n.scale;
    if (SILU) {
      let s = sigmoid(pre);
      q *= s * (1.0 + pre * (1.0 - s));
    }
    return n.rstd * (q - (n.first + xhat * n.second));
  }
  if (SILU) { return pre * sigmoid(pre); }
  return pre;
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) t: u32,
) {
  let plane = w.y;
  let each = p.count / p.cells; // channels of a group
  let group = plane / each;
  let c = plane % (each * p.groups);
  var n = Plane(forward[2u * group], forward[2u * group + 1u], weight[c], bias[c], 0.0, 0.0);
  if (GRAD) {
    n.first = sums[2u * group] / f32(p.count);
    n.second = sums[2u * group + 1u] / f32(p.count);
  }
  let start = plane * p.cells;
  let run = (w.z * grid.x + w.x) * RUN;
  let end = start + min(p.cells, run + RUN);
  var i = start + run + t;
  // Four at a time: their loads do not wait for each other.
  for (; i + 3u * WG < end; i += 4u * WG) {
    var slope = vec4f();
    if (GRAD) { slope = vec4f(g[i], g[i + WG], g[i + 2u * WG], g[i + 3u * WG]); }
    let y = four(vec4f(x[i], x[i + WG], x[i + 2u * WG], x[i + 3u * WG]), slope, n);
    out[i] = y.x;
    out[i + WG] = y.y;
    out[i + 2u * WG] = y.z;
    out[i + 3u * WG] = y.w;
  }
  for (; i < end; i += WG) {
    var slope = 0.0;
    if (GRAD) { slope = g[i]; }
    out[i] = four(vec4f(x[i]), vec4f(slope), n).x;
  }
}
