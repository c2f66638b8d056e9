// softmax_texel: softmax_columns where the numbers of a key come in fours; one thread per four queries. The
// scores are read through a stage: adapters that are processors fetch four numbers of a texel at once.
struct Params { count: u32, keys: u32, columns: u32, queries: u32, first: u32, z: u32 } // z is the first of the stage
@group(0) @binding(0) var b: texture_storage_2d<rgba32float, read>; // [z, keys, columns], as s was
@group(0) @binding(1) var<storage, read_write> s: array<vec4f>; // [z, keys, columns]
@group(0) @binding(2) var<storage, read_write> stats: array<f32>; // [z, 2, queries]
@group(0) @binding(3) var<uniform> p: Params;

fn score(i: u32) -> vec4f { return textureLoad(b, place(i)); }

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) t: u32) {
  let step = p.columns / 4u;
  let n = w.x * THREADS + t; // in fours
  if (n >= step) { return; }
  let start = w.y * p.keys * step + n;
  let to = (p.z + w.y) * p.keys * step + n;
  var high = vec4f(-3.4e38);
  // Four at a time: their loads do not wait for each other.
  let whole = p.keys / 4u * 4u;
  for (var j = 0u; j < whole; j += 4u) {
    let k = start + j * step;
    let one = max(score(k), score(k + step));
    let two = max(score(k + 2u * step), score(k + 3u * step));
    high = max(high, max(one, two));
  }
  for (var j = whole; j < p.keys; j++) { high = max(high, score(start + j * step)); }
  var sum = vec4f();
  // In blocks: up to thousands of terms of one sign, whose rounding would not average out.
  for (var block = 0u; block < p.keys; block += 32u) {
    var part = vec4f();
    let end = min(block + 32u, p.keys);
    for (var j = block; j < end; j++) {
      let e = exp(score(start + j * step) - high);
      part += e;
      s[to + j * step] = e;
    }
    sum += part;
  }
  let at = (p.z + w.y) * 2u * p.queries + p.first + 4u * n;
  for (var i = 0u; i < 4u; i++) {
    stats[at + i] = high[i];
    stats[at + p.queries + i] = 1.0 / sum[i];
  }
}
