// What group_norm_stats does with numbers `first` to `end` of a group: `further` leads from them to those of x, `group`
// to those of g.
fn xAtOwn(i: u32) -> vec4f { return vec4f(x[i], x[i + WG], x[i + 2u * WG], x[i + 3u * WG]); }

// A thread's sums over the numbers, less `mean`, and of their squares.
fn sumsOwn(t: u32, first: u32, end: u32, further: u32, mean: f32) -> vec2f {
  var mine = vec2f();
  // Eight at a time: their loads do not wait for each other, and the loop itself costs a third of a
  // read on software adapters.
  let whole = first + (end - first) / (8u * WG) * (8u * WG);
  for (var i = first + t; i < whole; i += 8u * WG) {
    let d = xAtOwn(further + i) - mean;
    let e = xAtOwn(further + i + 4u * WG) - mean;
    let v = d + e;
    mine += vec2f((v.x + v.y) + (v.z + v.w), dot(d, d) + dot(e, e));
  }
  for (var i = whole + t; i < end; i += WG) {
    let d = x[further + i] - mean;
    mine += vec2f(d, d * d);
  }
  return mine;
}

// A thread's sums of q and q xhat; the group begins with channel `channel`.
fn slopesOwn(
  t: u32, first: u32, end: u32, further: u32, group: u32, channel: u32, mean: f32, rstd: f32,
) -> vec2f {
  var mine = vec2f();
  let whole = first + (end - first) / (4u * WG) * (4u * WG);
  for (var i = first + t; i < whole; i += 4u * WG) {
    let four = xAtOwn(further + i);
    let g = gAt(group + i);
    let c = channel + (i + vec4u(0u, WG, 2u * WG, 3u * WG)) / p.cells;
    mine += (slope(four.x, g.x, mean, rstd, c.x) + slope(four.y, g.y, mean, rstd, c.y)) +
      (slope(four.z, g.z, mean, rstd, c.z) + slope(four.w, g.w, mean, rstd, c.w));
  }
  for (var i = whole + t; i < end; i += WG) {
    mine += slope(x[further + i], g[group + i], mean, rstd, channel + i / p.cells);
  }
  return mine;
}
