// Sums over cells `start` to `end` of a group, in fours, less `mean`, and of their squares; a thread's part of them.
// `further` leads from them to those of x.
fn sumsOwn(t: u32, start: u32, end: u32, further: u32, mean: f32) -> Sums {
  var sums = Sums();
  for (var first = start; first < end; first += BLOCK) {
    var here = Sums();
    let last = min(first + BLOCK, end);
    for (var i = first + t; i < last; i += THREADS) {
      let d = x[i + further] - mean;
      here.first += d;
      here.second += d * d;
    }
    sums.first += here.first;
    sums.second += here.second;
  }
  return sums;
}
