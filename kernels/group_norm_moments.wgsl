// What kernels have in common that do all of a group norm, a workgroup per (batch, group): its statistics. Their
// source follows. A workgroup is what a processor does at once, as more threads would only wait for each other; the
// cells of a plane come in fours, which are read in less time than four numbers.
const THREADS = 8u;
const BLOCK = 64u * THREADS; // is added up by itself: rounding grows with the number of blocks, not of numbers
var<workgroup> part: array<vec2f, THREADS>;

// The sum over all threads of the numbers in both.
fn total(t: u32, a: vec4f, b: vec4f) -> vec2f {
  part[t] = vec2f((a.x + a.y) + (a.z + a.w), (b.x + b.y) + (b.z + b.w));
  workgroupBarrier();
  var sum = vec2f();
  for (var i = 0u; i < THREADS; i++) { sum += part[i]; }
  workgroupBarrier();
  return sum;
}

// (mean, 1 / std) of a group, which are stored, too; biased variance, in two passes.
fn moments(t: u32, group: u32) -> vec2f {
  let start = group * (p.count / 4u);
  let end = start + p.count / 4u;
  let size = f32(p.count);
  var sum = vec4f();
  for (var first = start; first < end; first += BLOCK) {
    var here = vec4f();
    let last = min(first + BLOCK, end);
    for (var i = first + t; i < last; i += THREADS) { here += x[i]; }
    sum += here;
  }
  let mean = total(t, sum, vec4f()).x / size;
  sum = vec4f();
  var squares = vec4f();
  for (var first = start; first < end; first += BLOCK) {
    var here = vec4f();
    var square = vec4f();
    let last = min(first + BLOCK, end);
    for (var i = first + t; i < last; i += THREADS) {
      let d = x[i] - mean;
      here += d;
      square += d * d;
    }
    sum += here;
    squares += square;
  }
  // The first sum repairs the rounding of the mean.
  let sums = total(t, sum, squares);
  let shift = sums.x / size;
  let found = vec2f(mean + shift, 1.0 / sqrt((sums.y - sums.x * shift) / size + p.eps));
  if (t == 0u) { stats[2u * group] = found.x; stats[2u * group + 1u] = found.y; }
  return found;
}
