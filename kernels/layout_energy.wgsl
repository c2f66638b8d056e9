// layout_energy: energies of attention maps and their gradient on the log-probabilities.
// One workgroup per row: row r = (head, token i) of logA [heads, tokens, cells].
//   f = sum m a / sum a, aef = (1 - f)^2, d aef / d log a = -2 (1 - f) (m - f) a / sum a
//   per prior j on its cells S: ah = a / sum_S a, nap = sum_S ah log(ah / tau), d nap / d log a = ah (log(ah / tau) - nap)
//   REVERSE: nap = sum_S tau log(tau / ah), gradient ah - tau
//   h = weight (aef' + rho mean_j nap_j')
// a enters only through ratios, so each row is scaled by its own maximum: nothing underflows that matters.
override WG: u32 = 64u;
override REVERSE: bool = false;
override MOST_PRIORS: u32 = 1u; // at least the priors of any row
struct Params { tokens: u32, cells: u32 }
@group(0) @binding(0) var<storage, read> logA: array<f32>;
@group(0) @binding(1) var<storage, read> mask: array<f32>; // [regions, cells], 0 to 1
@group(0) @binding(2) var<storage, read> logTau: array<f32>; // [priors, cells], below -1e30 outside S
@group(0) @binding(3) var<storage, read> rows: array<f32>; // [tokens, 4]: region, first prior, priors, weight
@group(0) @binding(4) var<storage, read> rho: array<f32>; // [1]
@group(0) @binding(5) var<storage, read_write> h: array<f32>; // like logA
@group(0) @binding(6) var<storage, read_write> terms: array<f32>; // [heads * tokens, 3]: aef, nap, f
@group(0) @binding(7) var<uniform> p: Params;
var<workgroup> part: array<vec2f, WG>;

// Every thread adds up all parts: two barriers instead of two per halving, which compile far faster
// on software adapters.
fn total(t: u32, mine: vec2f) -> vec2f {
  part[t] = mine;
  workgroupBarrier();
  var sum = vec2f();
  for (var i = 0u; i < WG; i++) { sum += part[i]; }
  workgroupBarrier();
  return sum;
}

fn highest(t: u32, mine: f32) -> f32 {
  part[t] = vec2f(mine, 0.0);
  workgroupBarrier();
  var high = part[0].x;
  for (var i = 1u; i < WG; i++) { high = max(high, part[i].x); }
  workgroupBarrier();
  return high;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let start = w.x * p.cells;
  let row = w.x % p.tokens * 4u;
  let region = u32(rows[row]) * p.cells;
  let firstPrior = u32(rows[row + 1u]);
  let priors = u32(rows[row + 2u]);
  let weight = rows[row + 3u];

  var high = -3.4e38;
  for (var u = t; u < p.cells; u += WG) { high = max(high, logA[start + u]); }
  high = highest(t, high);
  var mine = vec2f();
  for (var u = t; u < p.cells; u += WG) {
    let a = exp(logA[start + u] - high);
    mine += vec2f(a, mask[region + u] * a);
  }
  let sums = total(t, mine);
  let f = sums.y / sums.x;
  // A full box has nothing outside: do not let rounding say otherwise.
  let outside = max(0.0, 1.0 - f);
  for (var u = t; u < p.cells; u += WG) {
    let a = exp(logA[start + u] - high) / sums.x;
    h[start + u] = -2.0 * weight * outside * (mask[region + u] - f) * a;
  }

  var nap = 0.0;
  // The number of priors and rho come from storage buffers: fixed bound, empty turns past the end.
  for (var j = 0u; j < MOST_PRIORS; j++) {
    let used = j < priors && rho[0] != 0.0;
    let prior = select(0u, firstPrior + j, used) * p.cells;
    var peak = -3.4e38;
    if (used) {
      for (var u = t; u < p.cells; u += WG) {
        if (logTau[prior + u] > -1e30) { peak = max(peak, logA[start + u]); }
      }
    }
    peak = highest(t, peak);
    mine = vec2f();
    if (used) {
      for (var u = t; u < p.cells; u += WG) {
        if (logTau[prior + u] > -1e30) { mine.x += exp(logA[start + u] - peak); }
      }
    }
    let logSum = peak + log(max(total(t, mine).x, 1.0));
    mine = vec2f();
    if (used) {
      for (var u = t; u < p.cells; u += WG) {
        let tau = logTau[prior + u];
        if (tau > -1e30) {
          let l = logA[start + u] - logSum;
          if (REVERSE) { mine.x += exp(tau) * (tau - l); } else { mine.x += exp(l) * (l - tau); }
        }
      }
    }
    let kl = total(t, mine).x;
    if (used) {
      nap += kl / f32(priors);
      let factor = weight * rho[0] / f32(priors);
      for (var u = t; u < p.cells; u += WG) {
        let tau = logTau[prior + u];
        if (tau > -1e30) {
          let l = logA[start + u] - logSum;
          if (REVERSE) {
            h[start + u] += factor * (exp(l) - exp(tau));
          } else {
            h[start + u] += factor * exp(l) * (l - tau - kl);
          }
        }
      }
    }
  }
  if (t == 0u) {
    terms[3u * w.x] = outside * outside;
    terms[3u * w.x + 1u] = nap;
    terms[3u * w.x + 2u] = f;
  }
}
