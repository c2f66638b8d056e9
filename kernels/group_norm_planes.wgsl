// One plane of group_norm_whole: its cells in fours begin at `start` in g and out, and in x as many further.
fn slopesOwn(t: u32, start: u32, further: u32, n: Plane) -> Sums {
  var sums = Sums();
  let end = start + p.cells / 4u;
  for (var block = start; block < end; block += BLOCK) {
    var here = Sums();
    let last = min(block + BLOCK, end);
    for (var i = block + t; i < last; i += THREADS) {
      let xhat = (x[i + further] - n.mean) * n.rstd;
      let q = slope(xhat, g[i], n);
      here.first += q;
      here.second += q * xhat;
    }
    sums.first += here.first;
    sums.second += here.second;
  }
  return sums;
}

fn applyOwn(t: u32, start: u32, further: u32, n: Plane) {
  let end = start + p.cells / 4u;
  for (var i = start + t; i < end; i += THREADS) {
    var y = vec4f();
    if (GRAD) { y = g[i]; }
    out[i] = four(x[i + further], y, n);
  }
}
