// group_norm: out = act((x - mean) rstd w + b), act = silu or nothing.
//   GRAD: out = dx = rstd (q - (sum of q) / n - xhat (sum of q xhat) / n), q = g w act'(...)
override WG: u32 = 64u;
override GRAD: bool = false;
override SILU: bool = false;
struct Params { total: u32, count: u32, cells: u32, groups: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>; // [channels]
@group(0) @binding(2) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(3) var<storage, read> g: array<f32>; // like x
@group(0) @binding(4) var<storage, read> forward: array<f32>; // [batch * groups, 2]: mean, rstd
@group(0) @binding(5) var<storage, read> sums: array<f32>; // [batch * groups, 2]
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
@group(0) @binding(7) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.total) { return; }
  let group = i / p.count;
  let c = group % p.groups * (p.count / p.cells) + i % p.count / p.cells;
  let rstd = forward[2u * group + 1u];
  let xhat = (x[i] - forward[2u * group]) * rstd;
  let pre = xhat * weight[c] + bias[c];
  let s = 1.0 / (1.0 + exp(-clamp(pre, -80.0, 80.0)));
  if (GRAD) {
    var q = g[i] * weight[c];
    if (SILU) { q *= s * (1.0 + pre * (1.0 - s)); }
    let n = f32(p.count);
    out[i] = rstd * (q - (sums[2u * group] + xhat * sums[2u * group + 1u]) / n);
  } else if (SILU) {
    out[i] = pre * s;
  } else {
    out[i] = pre;
  }
}
