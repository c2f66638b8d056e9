// float_formats: 16-bit floats -> float32, exact for every one of the 65536 patterns.
// Written as bits, so that a NaN keeps its payload.

/**
 * IEEE 754 binary16 to binary32.
 *
 * Normal: the exponent bias moves from 15 to 127, `bits = (em << 13) + (112 << 23)`.
 * Subnormal: the value is `em * 2^-24`, which float32 holds as a normal number.
 *
 * @param halves Bit patterns, `[n]`.
 * @returns The same values, `[n]` float32.
 */
export function float16ToFloat32(
  halves: Uint16Array,
): Float32Array<ArrayBuffer> {
  const floats = new Float32Array(halves.length);
  const bits = new Uint32Array(floats.buffer);
  for (let i = 0; i < halves.length; i++) {
    const half = halves[i]!;
    const sign = (half & 0x8000) << 16;
    const em = half & 0x7fff; // exponent and mantissa
    if (em >= 0x7c00) { // infinity or NaN: the exponent field is all ones
      bits[i] = sign | 0x7f800000 | ((em & 0x3ff) << 13);
    } else if (em >= 0x0400) {
      bits[i] = sign | ((em << 13) + 0x38000000);
    } else {
      floats[i] = em * 2 ** -24;
      bits[i] = bits[i]! | sign;
    }
  }
  return floats;
}

/**
 * bfloat16 to float32: the upper half of the word.
 *
 * @param halves Bit patterns, `[n]`.
 * @returns The same values, `[n]` float32.
 */
export function bfloat16ToFloat32(
  halves: Uint16Array,
): Float32Array<ArrayBuffer> {
  const bits = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) bits[i] = halves[i]! << 16;
  return new Float32Array(bits.buffer);
}

/**
 * The elements of a tensor as float32.
 *
 * @param dtype As safetensors names it.
 * @param buffer Its little-endian elements; float32 is not copied.
 * @returns The same values, or `undefined` for a dtype that is not F32, F16 or BF16.
 */
export function floatsOf(
  dtype: string,
  buffer: ArrayBuffer,
): Float32Array<ArrayBuffer> | undefined {
  if (dtype === "F32") return new Float32Array(buffer);
  if (dtype === "F16") return float16ToFloat32(new Uint16Array(buffer));
  if (dtype === "BF16") return bfloat16ToFloat32(new Uint16Array(buffer));
  return undefined;
}
