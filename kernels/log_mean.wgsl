// log_mean: out[o, g, i] = log of the mean of exp(x[o, m, i]) over the members m of group g:
// means of probabilities kept in logs. x is [outer, members, inner]; groups are runs of members.
//   GRAD: dx[o, m, i] = grad[o, g, i] exp(x - y) / size of g
override WG: u32 = 64u;
override GRAD: bool = false;
struct Params { count: u32, members: u32, inner: u32, groups: u32 } // count = outer * groups * inner
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> runs: array<f32>; // [groups, 2]: first member, size
@group(0) @binding(2) var<storage, read> y: array<f32>; // [outer, groups, inner], with GRAD
@group(0) @binding(3) var<storage, read> grad: array<f32>; // [outer, groups, inner], with GRAD
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.count) { return; }
  let g = i / p.inner % p.groups;
  let first = u32(runs[2u * g]);
  let size = u32(runs[2u * g + 1u]);
  let start = (i / p.inner / p.groups * p.members + first) * p.inner + i % p.inner;
  if (GRAD) {
    for (var m = 0u; m < size; m++) {
      let at = start + m * p.inner;
      out[at] = grad[i] * exp(x[at] - y[i]) / f32(size);
    }
  } else {
    var high = x[start];
    for (var m = 1u; m < size; m++) { high = max(high, x[start + m * p.inner]); }
    var sum = 0.0;
    for (var m = 0u; m < size; m++) { sum += exp(x[start + m * p.inner] - high); }
    out[i] = high + log(sum / f32(size));
  }
}
