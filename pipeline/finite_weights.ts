/** Weights that are infinite, not a number, or too large for f16 are refused when they are read. */
import { halfToNumber, toHalves } from "../kernels/half.ts";
import { WeightsError } from "../weights/errors.ts";

/** Refuses numbers that are not finite. */
export function checkFloats(data: Float32Array, what: string): void {
  for (let i = 0; i < data.length; i++) {
    if (!Number.isFinite(data[i])) throw notFinite(what, i, data[i]!);
  }
}

/** Refuses halves that are not finite. */
export function checkHalves(bits: Uint16Array, what: string): void {
  if (allFinite(bits)) return;
  const at = bits.findIndex((x) => (x & 0x7c00) === 0x7c00);
  throw notFinite(what, at, halfToNumber(bits[at]!));
}

function notFinite(what: string, at: number, value: number): WeightsError {
  return new WeightsError(
    `${what} must be finite: current value ${at} is ${value}`,
  );
}

/** Float32 to f16, nearest. What f16 cannot hold is an error, not an infinity. */
export function narrow(data: Float32Array, what: string): Uint16Array {
  const bits = toHalves(data);
  if (!allFinite(bits)) {
    const at = bits.findIndex((x) => (x & 0x7c00) === 0x7c00);
    throw new WeightsError(
      `${what} must fit f16, at most 65504: current value ${at} is ${
        data[at]
      }; keep weights in f32`,
    );
  }
  return bits;
}

/** Whether no half is infinite or NaN: none has an exponent of all ones. Two at a time. */
function allFinite(bits: Uint16Array): boolean {
  const even = bits.byteOffset % 4 === 0;
  const pairs = even
    ? new Uint32Array(bits.buffer, bits.byteOffset, bits.length >> 1)
    : new Uint32Array(0);
  let found = 0;
  for (let i = 0; i < pairs.length; i++) {
    // All ones plus one carries into the place of the sign, which the mask has cleared.
    found |= (pairs[i]! & 0x7c007c00) + 0x04000400;
  }
  if (found & 0x80008000) return false;
  return bits.subarray(2 * pairs.length).every((x) => (x & 0x7c00) !== 0x7c00);
}
