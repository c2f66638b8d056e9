/** Definition of the counter-based normal generator: Philox 4x32-10 and Box-Muller in float64. */
import type { Params } from "./backend.ts";

/** Philox 4x32-10: four words from a counter and a key. Salmon et al. 2011, Random123. */
export function philox(
  counter: readonly number[],
  key: readonly number[],
): [number, number, number, number] {
  let [x = 0, y = 0, z = 0, w = 0] = counter;
  let [k0 = 0, k1 = 0] = key;
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = multiply(0xD2511F53, x);
    const [high1, low1] = multiply(0xCD9E8D57, z);
    [x, y, z, w] = [(high1 ^ y ^ k0) >>> 0, low1, (high0 ^ w ^ k1) >>> 0, low0];
    k0 = (k0 + 0x9E3779B9) >>> 0;
    k1 = (k1 + 0xBB67AE85) >>> 0;
  }
  return [x, y, z, w];
}

function multiply(a: number, b: number): [high: number, low: number] {
  const product = BigInt(a) * BigInt(b);
  return [Number(product >> 32n), Number(product & 0xffffffffn)];
}

/** Binding out. 23 bits make the radius, 24 the angle. */
export function normalRef([out]: readonly Float64Array[], p: Params): void {
  const {
    count = 0,
    key0 = 0,
    key1 = 0,
    stream0 = 0,
    stream1 = 0,
    stream2 = 0,
  } = p;
  for (let i = 0; 4 * i < count; i++) {
    const words = philox([i, stream0, stream1, stream2], [key0, key1]);
    for (let j = 0; j < 4 && 4 * i + j < count; j++) {
      const [a, b] = j < 2 ? [words[0], words[1]] : [words[2], words[3]];
      const radius = Math.sqrt(-2 * Math.log(((a >>> 9) + 0.5) * 2 ** -23));
      const angle = 2 * Math.PI * (b >>> 8) * 2 ** -24;
      out![4 * i + j] = radius * (j % 2 ? Math.sin(angle) : Math.cos(angle));
    }
  }
}
