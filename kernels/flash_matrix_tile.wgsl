// What flash_matrix and flash_matrix_grad have in common. A workgroup makes what belongs to OWN queries (or keys) and
// goes over the others, TILE at a time; each of its subgroups has a strip of these OWN, WN fragments across, whose
// scores no other subgroup sees. flash_matrix.ts writes what stands before this: FM, FN, FK and SUBGROUP, the sizes
// that the adapter has, OWN, TILE, WN, and WIDTH, the width in whole fragments; and what is in braces with an @,
// with a variable for each fragment, since arrays of them would not be in registers.
const STRIP = WN * FN;
const PER = SUBGROUP / STRIP; // threads that share a column of scores
const THREADS = OWN / STRIP * SUBGROUP;
// Lines are 8 longer, against conflicts of memory banks.
const LINE = TILE + 8u;
const ACROSS = OWN + 8u;
const SECOND = WIDTH * LINE; // where in `halves` the second tile begins
const WEIGHTS = 2u * SECOND; // and the weights
const EIGHTS = WIDTH * TILE / 8u; // of a tile
// What is in workgroup memory must have multiples of 16 bytes: fragments are loaded from such, and NVIDIA's driver
// puts one variable right behind the other. One of 4 bytes before these, and results are wrong.
var<workgroup> halves: array<f16, WEIGHTS + TILE * ACROSS>; // two tiles [WIDTH][TILE], weights [TILE][OWN]
var<workgroup> area: array<f32, TILE * ACROSS>; // [TILE][OWN]: scores, or TILE lines of results

alias Left = subgroup_matrix_left<f16, FK, FM>;
alias Right = subgroup_matrix_right<f16, FN, FK>;
alias Sums = subgroup_matrix_result<f32, FN, FM>;

const LOG2E = 1.44269504;

fn put(at: u32, eight: vec4u) {
  let a = bitcast<vec2<f16>>(eight.x);
  let b = bitcast<vec2<f16>>(eight.y);
  let c = bitcast<vec2<f16>>(eight.z);
  let d = bitcast<vec2<f16>>(eight.w);
  halves[at] = a.x; halves[at + 1u] = a.y;
  halves[at + 2u] = b.x; halves[at + 3u] = b.y;
  halves[at + 4u] = c.x; halves[at + 5u] = c.y;
  halves[at + 6u] = d.x; halves[at + 7u] = d.y;
}
