import { strict as assert } from "node:assert";
import { test } from "node:test";
import {
  bfloat16ToFloat32,
  float16ToFloat32,
} from "../../weights/float_formats.ts";

const PATTERNS = Uint16Array.from({ length: 65536 }, (_, i) => i);

/** The definition: (-1)^s * 2^(e - bias) * 1.m, or 2^(1 - bias) * 0.m where e is 0. */
function decode(
  pattern: number,
  exponentBits: number,
  mantissaBits: number,
): number {
  const sign = pattern >> 15 ? -1 : 1;
  const bias = 2 ** (exponentBits - 1) - 1;
  const exponent = (pattern >> mantissaBits) & (2 ** exponentBits - 1);
  const mantissa = (pattern & (2 ** mantissaBits - 1)) / 2 ** mantissaBits;
  if (exponent === 2 ** exponentBits - 1) {
    return mantissa === 0 ? sign * Infinity : NaN;
  }
  return exponent === 0
    ? sign * 2 ** (1 - bias) * mantissa
    : sign * 2 ** (exponent - bias) * (1 + mantissa);
}

for (
  const { name, convert, exponentBits, mantissaBits } of [
    {
      name: "float16ToFloat32",
      convert: float16ToFloat32,
      exponentBits: 5,
      mantissaBits: 10,
    },
    {
      name: "bfloat16ToFloat32",
      convert: bfloat16ToFloat32,
      exponentBits: 8,
      mantissaBits: 7,
    },
  ]
) {
  test(`${name}() equals the definition for all 65536 patterns`, () => {
    const floats = convert(PATTERNS);
    const bits = new Uint32Array(floats.buffer);
    let wrong = 0;
    for (const pattern of PATTERNS) {
      const want = decode(pattern, exponentBits, mantissaBits);
      // Object.is tells the zeros apart; a NaN keeps its sign bit
      if (
        !Object.is(floats[pattern], want) ||
        bits[pattern]! >>> 31 !== pattern >> 15
      ) wrong++;
    }
    assert.equal(wrong, 0);
    assert.equal(convert(new Uint16Array(0)).length, 0);
  });
}
