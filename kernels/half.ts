/** IEEE 754 binary16 on the host: the storage of f16 weights. */

/** The value of 16 bits. */
export function halfToNumber(bits: number): number {
  const exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return exponent === 0
    ? sign * mantissa * 2 ** -24
    : sign * (1024 + mantissa) * 2 ** (exponent - 25);
}

const float = new Float32Array(1);
const word = new Uint32Array(float.buffer);

/**
 * The bits of the nearest half, ties to even. What is 65520 or more in size becomes infinite, which
 * the caller must refuse or keep in float32.
 */
export function numberToHalf(value: number): number {
  float[0] = value;
  const bits = word[0]!;
  const sign = bits >>> 16 & 0x8000;
  const size = bits & 0x7fffffff;
  if (size >= 0x7f800000) return sign | 0x7c00 | (size > 0x7f800000 ? 512 : 0);
  if (size >= 0x477ff000) return sign | 0x7c00; // rounds to 65536
  if (size < 0x38800000) { // below 2^-14: subnormal, in steps of 2^-24
    if (size < 0x33000000) return sign; // below half of the least
    const shift = 126 - (size >>> 23);
    const mantissa = size & 0x7fffff | 0x800000;
    return sign | roundShift(mantissa, shift);
  }
  return sign | roundShift(size - 0x38000000, 13);
}

/** `value / 2^shift`, rounded to nearest, ties to even. */
function roundShift(value: number, shift: number): number {
  const whole = value >>> shift;
  const rest = value & (2 ** shift - 1);
  const tie = 2 ** (shift - 1);
  return rest > tie || (rest === tie && whole & 1) ? whole + 1 : whole;
}

/** Halves nearest to float32 numbers. */
export function toHalves(values: Float32Array): Uint16Array<ArrayBuffer> {
  const out = new Uint16Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = numberToHalf(values[i]!);
  return out;
}
