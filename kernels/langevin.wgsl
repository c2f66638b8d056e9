// langevin: the two elementwise halves of the adaptive Langevin update, with norms from `state`:
// per item of the batch |eps|^2, |grad|^2, |g|^2, |n|^2, nu, xi.
//   DRIFT (UPDATE false): s = -eps / noiseLevel; nu = factor |s| / |grad| unless it is kept; out = g = s - nu grad
//   UPDATE: xi = 2 (snr |n| / max(|g|, guard |s|))^2; out = z + xi g + sqrt(2 xi) noise n
// WinWinLay, arXiv:2506.15563, eq. 14 to 16.
override WG: u32 = 64u;
override UPDATE: bool = false;
struct Params {
  count: u32, // numbers per item
  total: u32,
  adapt: u32, // 1: nu from the norms; 0: nu stands in state; 2: nu is given
  noiseLevel: f32, // sqrt(1 - abar)
  factor: f32, // on the adaptive nu
  nu: f32,
  snr: f32,
  guard: f32,
  noise: f32, // 1, or 0 to leave the noise out
  expected: f32, // > 0: use it as |n|^2 instead of the norm of the drawn noise
}
@group(0) @binding(0) var<storage, read> x: array<f32>; // eps | z
@group(0) @binding(1) var<storage, read> y: array<f32>; // grad | g
@group(0) @binding(2) var<storage, read> n: array<f32>; // unused | noise
@group(0) @binding(3) var<storage, read_write> state: array<f32>; // [batch, 6]
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.y * grid.x * WG + id.x;
  if (i >= p.total) { return; }
  let item = i / p.count * 6u;
  let first = i % p.count == 0u; // this thread reports
  let score = sqrt(state[item]) / p.noiseLevel;
  if (UPDATE) {
    let noise = sqrt(select(state[item + 3u], p.expected, p.expected > 0.0));
    let ratio = p.snr * noise / max(sqrt(state[item + 2u]), p.guard * score);
    let xi = 2.0 * ratio * ratio;
    out[i] = x[i] + xi * y[i] + sqrt(2.0 * xi) * p.noise * n[i];
    if (first) { state[item + 5u] = xi; }
  } else {
    var nu = 0.0;
    if (p.adapt == 0u) {
      nu = state[item + 4u];
    } else if (p.adapt == 2u) {
      nu = p.nu;
    } else if (state[item + 1u] > 1e-38) {
      nu = p.factor * score / sqrt(state[item + 1u]);
    }
    out[i] = -x[i] / p.noiseLevel - nu * y[i];
    if (first && p.adapt != 0u) { state[item + 4u] = nu; }
  }
}
