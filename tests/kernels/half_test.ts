import { strict as assert } from "node:assert";
import { test } from "node:test";
import { halfToNumber, numberToHalf, toHalves } from "../../kernels/half.ts";
import { rand } from "../compare.ts";

test("halfToNumber() and numberToHalf() are inverse for every pattern", () => {
  for (let bits = 0; bits < 65536; bits++) {
    const value = halfToNumber(bits);
    if (Number.isNaN(value)) {
      assert.ok(Number.isNaN(halfToNumber(numberToHalf(value))));
    } else {assert.equal(
        numberToHalf(value),
        bits,
        `pattern ${bits}, value ${value}`,
      );}
  }
});

test("halfToNumber() knows the values of the standard", () => {
  const table = [
    [0x3c00, 1],
    [0xc000, -2],
    [0x7bff, 65504],
    [0x0400, 2 ** -14],
    [0x0001, 2 ** -24],
    [0x3555, 0.333251953125],
  ];
  for (const [bits, value] of table) assert.equal(halfToNumber(bits!), value);
  assert.equal(halfToNumber(0x7c00), Infinity);
});

test("numberToHalf() takes the nearest, ties to even", () => {
  const halves = Array.from(
    { length: 0x7c00 },
    (_, bits) => halfToNumber(bits),
  ); // rising
  const check = (value: number) => {
    const found = numberToHalf(value);
    const size = Math.abs(value);
    let best = 0;
    for (let lo = 0, hi = halves.length - 1; lo <= hi;) {
      const middle = (lo + hi) >> 1;
      if (halves[middle]! <= size) {
        best = middle;
        lo = middle + 1;
      } else hi = middle - 1;
    }
    const up = best + 1 < halves.length ? halves[best + 1]! : 65536;
    const below = size - halves[best]!, above = up - size;
    const nearest = below < above || (below === above && best % 2 === 0)
      ? best
      : best + 1;
    assert.equal(found & 0x7fff, nearest, `${value}`);
    assert.equal(found >> 15, value < 0 || Object.is(value, -0) ? 1 : 0);
  };
  for (const scale of [1e-8, 6e-8, 1e-6, 6e-5, 1, 300, 65504]) {
    for (const value of rand(scale * 1e9, 500, scale)) check(value);
  }
  for (let i = 0; i < halves.length - 1; i += 7) {
    check((halves[i]! + halves[i + 1]!) / 2);
  }
  check(2 ** -25);
  check(-0);
  assert.equal(numberToHalf(65519.996), 0x7bff);
  assert.equal(numberToHalf(65520), 0x7c00);
  assert.equal(numberToHalf(-1e30), 0xfc00);
  assert.deepEqual([...toHalves(Float32Array.of(1, -2))], [0x3c00, 0xc000]);
});
