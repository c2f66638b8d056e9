/** Float64 definition of `largest`. */

/** Bindings x, out: all in the first number, since only the largest of them counts. */
export function largestRef([x, out]: readonly Float64Array[]): void {
  out!.fill(0);
  for (const value of x!) out![0] = Math.max(out![0]!, Math.abs(value));
}
