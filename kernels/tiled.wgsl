// The main function of gemm_tiled and conv_tiled, whose source stands before it: they say where numbers lie and what is
// done with a sum. tiled.ts writes the sizes of a tile, STEP and BLOCK, and what is in braces with an @: sums are
// registers, and what a thread copies is read at once.
//   a: array<Words>, as tiled_words.wgsl or tiled_halves.wgsl has them, with what reads it and the type of a tile of A
//   begin(w, thread); placeOfA(i), placeOfB(i): the quad of rows or columns, from the tile's first on, and the k of what
//   a thread copies i-th; readA(m, k): A[m to m + 3, k], or A[m, k to k + 3] if A_LINES, where placeOfA gives a row;
//   readB(k, n): B[k, n to n + 3]; put(m, n, sums)
override A_LINES: bool = false; // A has contiguous k, all aligned to 4
override LONG: bool = false; // K is longer than a block
const ACROSS_A = TM / 4u + 1u; // one quad more than is used, against conflicts of memory banks
const ACROSS_B = TN / 4u + 1u;
var<workgroup> rows: array<QuadOfA, STEP * ACROSS_A>; // [STEP][ACROSS_A], each 4 rows of one k
var<workgroup> columns: array<vec4f, STEP * ACROSS_B>;

@compute @workgroup_size(TX, TY)
fn main(
  @builtin(workgroup_id) w: vec3u,
  @builtin(local_invocation_id) l: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let m0 = w.y * TM;
  let n0 = w.x * TN;
  begin(w, thread);
  let part = w.z % p.parts;
  let end = min(p.K, (part + 1u) * p.each);
  {@ sums}
  for (var first = part * p.each; first < end; first += STEP) {
    {@ read}
    workgroupBarrier();
    {@ write}
    workgroupBarrier();
    // Past K all is 0.
    for (var k = 0u; k < STEP; k++) {
      {@ multiply}
    }
    if (LONG && (first + STEP) % BLOCK == 0u) {
      {@ block}
    }
  }
  {@ put}
}
