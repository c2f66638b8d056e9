// What gemm_matrix and conv_matrix have in common: tiles of 64 x 64, made by subgroups that multiply fragments of
// 16-bit numbers and add them up in 32 bits. `FM`, `FN`, `FK` and `SUBGROUP`, the sizes that the adapter has, stand
// before it; what it calls stands behind it:
//   begin(w, n): workgroup w, whose thread copies the columns n to n + 3 of B
//   octet(m, k): A[m, k to k + 7], two to a word; quad(k): B[k, n to n + 3]; both 0 outside
//   keep(m, n, sums): C[m, n to n + 3]
const TILE = 64u;
const STEP = 32u; // of k that are in workgroup memory at a time; parts end where steps do
const ACROSS = TILE / (2u * FN); // subgroups along n; each makes 2 x 2 fragments
const SUBGROUPS = ACROSS * TILE / (2u * FM);
const THREADS = SUBGROUPS * SUBGROUP;
const LEFT = STEP + 8u; // distances between lines, against conflicts of memory banks
const RIGHT = TILE + 8u;
var<workgroup> left: array<f16, TILE * LEFT>; // [m][k]
var<workgroup> right: array<f16, STEP * RIGHT>; // [k][n]
var<workgroup> results: array<f32, SUBGROUPS * FM * FN>; // a fragment of each subgroup

alias Left = subgroup_matrix_left<f16, FK, FM>;
alias Right = subgroup_matrix_right<f16, FN, FK>;
alias Sums = subgroup_matrix_result<f32, FN, FM>;

fn copyLeft(t: u32, m0: u32, first: u32) {
  for (var i = t; i < TILE * STEP / 8u; i += THREADS) {
    let m = i / (STEP / 8u);
    let k = i % (STEP / 8u) * 8u;
    let eight = octet(m0 + m, first + k);
    let at = m * LEFT + k;
    for (var j = 0u; j < 4u; j++) {
      let two = bitcast<vec2<f16>>(eight[j]);
      left[at + 2u * j] = two.x;
      left[at + 2u * j + 1u] = two.y;
    }
  }
}

fn copyRight(t: u32, first: u32) {
  for (var k = t / (TILE / 4u); k < STEP; k += THREADS / (TILE / 4u)) {
    // What 16 bits cannot hold becomes their largest number, not infinite.
    let four = vec4<f16>(clamp(quad(first + k), vec4f(-65504.0), vec4f(65504.0)));
    let at = k * RIGHT + t % (TILE / 4u) * 4u;
    right[at] = four.x;
    right[at + 1u] = four.y;
    right[at + 2u] = four.z;
    right[at + 3u] = four.w;
  }
}

// What a subgroup left in `results`, whose upper left number is C[m, n].
fn give(group: u32, lane: u32, m: u32, n: u32) {
  for (var i = lane; i < FM * FN / 4u; i += SUBGROUP) {
    let at = group * FM * FN + 4u * i;
    let row = i / (FN / 4u);
    let column = i % (FN / 4u) * 4u;
    keep(m + row, n + column, vec4f(results[at], results[at + 1u], results[at + 2u], results[at + 3u]));
  }
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) w: vec3u,
  @builtin(local_invocation_index) t: u32,
  @builtin(subgroup_id) group: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let m0 = w.y * TILE;
  let n0 = w.x * TILE;
  begin(w, n0 + t % (TILE / 4u) * 4u);
  let part = w.z % p.parts;
  let end = min(p.K, (part + 1u) * p.each);
  let m = group / ACROSS * 2u * FM;
  let n = group % ACROSS * 2u * FN;
  var c00: Sums; var c01: Sums;
  var c10: Sums; var c11: Sums;
  for (var first = part * p.each; first < end; first += STEP) {
    workgroupBarrier();
    copyLeft(t, m0, first);
    copyRight(t, first);
    workgroupBarrier();
    for (var k = 0u; k < STEP; k += FK) {
      let a0 = subgroupMatrixLoad<Left, row_major>(&left, m * LEFT + k, LEFT);
      let a1 = subgroupMatrixLoad<Left, row_major>(&left, (m + FM) * LEFT + k, LEFT);
      let b0 = subgroupMatrixLoad<Right, row_major>(&right, k * RIGHT + n, RIGHT);
      let b1 = subgroupMatrixLoad<Right, row_major>(&right, k * RIGHT + n + FN, RIGHT);
      c00 = subgroupMatrixMultiplyAccumulate(a0, b0, c00);
      c01 = subgroupMatrixMultiplyAccumulate(a0, b1, c01);
      c10 = subgroupMatrixMultiplyAccumulate(a1, b0, c10);
      c11 = subgroupMatrixMultiplyAccumulate(a1, b1, c11);
    }
  }
  let slot = group * FM * FN;
  subgroupMatrixStore<row_major>(&results, slot, c00, FN);
  workgroupBarrier();
  give(group, lane, m0 + m, n0 + n);
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&results, slot, c01, FN);
  workgroupBarrier();
  give(group, lane, m0 + m, n0 + n + FN);
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&results, slot, c10, FN);
  workgroupBarrier();
  give(group, lane, m0 + m + FM, n0 + n);
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&results, slot, c11, FN);
  workgroupBarrier();
  give(group, lane, m0 + m + FM, n0 + n + FN);
}
