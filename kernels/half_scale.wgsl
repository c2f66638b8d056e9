// The power of two that makes what `largest` found 64 to 128, so that 16 bits hold it and what is far smaller;
// its inverse is exact, too. 1 where there is nothing to scale.
fn halfScale() -> f32 {
  var four = peaks[0];
  for (var i = 1u; i < 16u; i++) { four = max(four, peaks[i]); }
  let exponent = bitcast<u32>(max(max(four.x, four.y), max(four.z, four.w))) >> 23u;
  if (exponent == 0u || exponent == 255u) { return 1.0; }
  return bitcast<f32>((min(260u, exponent + 253u) - exponent) << 23u);
}
