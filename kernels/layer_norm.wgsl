// layer_norm over the channels of channel-major x [batch, channels, cells]; a workgroup has COLUMNS columns
// (batch, cell), so that neighbouring threads read neighbouring numbers, and LANES threads for each.
//   out = (x - mean) rstd w + b
//   GRAD: out = dx = rstd (q - mean(q) - xhat mean(q xhat)), q = g w; statistics are computed again
override COLUMNS: u32 = 64u;
override LANES: u32 = 1u;
override GRAD: bool = false;
override THREADS = COLUMNS * LANES;
struct Params { columns: u32, channels: u32, cells: u32, eps: f32 } // columns = batch * cells
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> g: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<uniform> p: Params;
var<workgroup> part: array<vec2f, THREADS>;

// The sum over the threads of a column.
fn total(column: u32, lane: u32, mine: vec2f) -> vec2f {
  if (LANES == 1u) { return mine; }
  part[lane * COLUMNS + column] = mine;
  workgroupBarrier();
  var sum = vec2f();
  for (var i = 0u; i < LANES; i++) { sum += part[i * COLUMNS + column]; }
  workgroupBarrier();
  return sum;
}

fn add(v: vec4f) -> f32 { return (v.x + v.y) + (v.z + v.w); }

fn xAt(at: vec4u) -> vec4f { return vec4f(x[at.x], x[at.y], x[at.z], x[at.w]); }

fn gAt(at: vec4u) -> vec4f { return vec4f(g[at.x], g[at.y], g[at.z], g[at.w]); }

fn weightAt(c: vec4u) -> vec4f { return vec4f(weight[c.x], weight[c.y], weight[c.z], weight[c.w]); }

fn biasAt(c: vec4u) -> vec4f { return vec4f(bias[c.x], bias[c.y], bias[c.z], bias[c.w]); }

@compute @workgroup_size(COLUMNS, LANES)
fn main(
  @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_id) id: vec3u,
) {
  let column = (w.y * grid.x + w.x) * COLUMNS + id.x;
  let inside = column < p.columns;
  let i = min(column, p.columns - 1u); // the barriers need all threads
  let start = i / p.cells * p.channels * p.cells + i % p.cells;
  let n = f32(p.channels);
  let lane = id.y;
  // Four at a time: their loads do not wait for each other.
  let steps = vec4u(0u, LANES, 2u * LANES, 3u * LANES);
  let whole = p.channels / (4u * LANES) * (4u * LANES);

  var mine = vec2f(); // sums of x, q
  for (var c = lane; c < whole; c += 4u * LANES) {
    let at = start + (c + steps) * p.cells;
    mine.x += add(xAt(at));
    if (GRAD) { mine.y += add(gAt(at) * weightAt(c + steps)); }
  }
  for (var c = whole + lane; c < p.channels; c += LANES) {
    mine.x += x[start + c * p.cells];
    if (GRAD) { mine.y += g[start + c * p.cells] * weight[c]; }
  }
  let means = total(id.x, lane, mine) / n;

  mine = vec2f(); // sums of d, d d
  var other = vec2f(); // sums of e, e d
  for (var c = lane; c < whole; c += 4u * LANES) {
    let at = start + (c + steps) * p.cells;
    let d = xAt(at) - means.x;
    mine += vec2f(add(d), dot(d, d));
    if (GRAD) {
      let e = gAt(at) * weightAt(c + steps) - means.y;
      other += vec2f(add(e), dot(e, d));
    }
  }
  for (var c = whole + lane; c < p.channels; c += LANES) {
    let d = x[start + c * p.cells] - means.x;
    mine += vec2f(d, d * d);
    if (GRAD) {
      let e = g[start + c * p.cells] * weight[c] - means.y;
      other += vec2f(e, e * d);
    }
  }
  // The sums of d and e repair the rounding of both means.
  mine = total(id.x, lane, mine) / n;
  let mean = means.x + mine.x;
  let rstd = 1.0 / sqrt(mine.y - mine.x * mine.x + p.eps);

  if (GRAD) { other = total(id.x, lane, other) / n; }
  let second = rstd * (other.y - other.x * mine.x); // mean(q xhat)
  if (!inside) { return; }
  if (GRAD) {
    for (var c = lane; c < whole; c += 4u * LANES) {
      let at = start + (c + steps) * p.cells;
      let xhat = (xAt(at) - mean) * rstd;
      // Like e above, then less its mean: a device that fuses g w - mean into one rounding does so in
      // both places, and what this leaves of one channel goes away before 1 / sqrt(eps) makes it large.
      let e = gAt(at) * weightAt(c + steps) - means.y;
      let y = rstd * (e - other.x - xhat * second);
      out[at.x] = y.x;
      out[at.y] = y.y;
      out[at.z] = y.z;
      out[at.w] = y.w;
    }
    for (var c = whole + lane; c < p.channels; c += LANES) {
      let at = start + c * p.cells;
      let xhat = (x[at] - mean) * rstd;
      let e = g[at] * weight[c] - means.y;
      out[at] = rstd * (e - other.x - xhat * second);
    }
  } else {
    for (var c = lane; c < whole; c += 4u * LANES) {
      let at = start + (c + steps) * p.cells;
      let y = (xAt(at) - mean) * rstd * weightAt(c + steps) + biasAt(c + steps);
      out[at.x] = y.x;
      out[at.y] = y.y;
      out[at.z] = y.z;
      out[at.w] = y.w;
    }
    for (var c = whole + lane; c < p.channels; c += LANES) {
      let at = start + c * p.cells;
      out[at] = (x[at] - mean) * rstd * weight[c] + bias[c];
    }
  }
}
