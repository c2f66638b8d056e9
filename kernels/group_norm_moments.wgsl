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

// Sums of each thread.
struct Sums { first: vec4f, second: vec4f }

fn sums(t: u32, group: u32, mean: f32) -> Sums {
  let cells = p.cells / 4u;
  let own = ownChannels(group) * cells;
  var sums = sumsOwn(t, 0u, own, planeOwn(group) * cells, mean);
  if (BESIDE) {
    let more = sumsBeside(t, own, channelsOf() * cells, planeBeside(group) * cells, mean);
    sums.first += more.first;
    sums.second += more.second;
  }
  return sums;
}

// (mean, 1 / std) of a group, which are stored, too; biased variance, in two passes.
fn moments(t: u32, group: u32) -> vec2f {
  let size = f32(p.count);
  let mean = total(t, sums(t, group, 0.0).first, vec4f()).x / size;
  let found = sums(t, group, mean);
  // The first sum repairs the rounding of the mean.
  let both = total(t, found.first, found.second) / size;
  let result = vec2f(mean + both.x, 1.0 / sqrt(both.y - both.x * both.x + p.eps));
  if (t == 0u) { stats[2u * group] = result.x; stats[2u * group + 1u] = result.y; }
  return result;
}
