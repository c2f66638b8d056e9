/** Axes for peers that want numbers in another order. */

/**
 * Swaps the last two axes.
 *
 * @param data `[batch, rows, columns]`.
 * @returns `[batch, columns, rows]`.
 */
export function transposed(
  data: ArrayLike<number>,
  [batch, rows, columns]: readonly [number, number, number],
): Float32Array<ArrayBuffer> {
  const out = new Float32Array(data.length);
  for (let b = 0; b < batch; b++) {
    const start = b * rows * columns;
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        out[start + c * rows + r] = data[start + r * columns + c]!;
      }
    }
  }
  return out;
}

/** Arrays one after the other. */
export function concatenated(
  parts: readonly ArrayLike<number>[],
): Float32Array<ArrayBuffer> {
  const out = new Float32Array(parts.reduce((n, x) => n + x.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
