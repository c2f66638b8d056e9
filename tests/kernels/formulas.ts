/** Formulas that share no code with the references of the kernels. */

/** `1 / (1 + exp(-x))`, from the side that cannot overflow. */
export function sigmoid(x: number): number {
  const e = Math.exp(-Math.abs(x));
  return (x < 0 ? e : 1) / (1 + e);
}

/** `x Phi(x)`. */
export function gelu(x: number): number {
  return 0.5 * x * erfc(-x * Math.SQRT1_2);
}

/** `1 - erf(x)`: near 0 by the series of erf, whose terms are all positive, else by a continued fraction. */
function erfc(x: number): number {
  const y = Math.abs(x);
  const gauss = Math.exp(-y * y) / Math.sqrt(Math.PI);
  if (y < 2) {
    let term = x, sum = 0;
    for (let n = 1; Math.abs(term) > 1e-20 * Math.abs(sum); n++) {
      sum += term;
      term *= 2 * x * x / (2 * n + 1);
    }
    return 1 - 2 * gauss * sum;
  }
  let below = y;
  for (let n = 200; n > 0; n--) below = y + n / 2 / below;
  return x > 0 ? gauss / below : 2 - gauss / below;
}

/** Mean and `1 / sqrt(variance + eps)`, biased. */
export function moments(
  values: readonly number[],
  eps: number,
): [mean: number, inverse: number] {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const variance = values.reduce((a, b) => a + (b - mean) * (b - mean), 0) /
    values.length;
  return [mean, 1 / Math.sqrt(variance + eps)];
}

/** Group normalisation of `[batch, channels, cells]`, with SiLU behind it or not. */
export function groupNormed(
  x: ArrayLike<number>,
  [batch, channels, cells]: readonly [number, number, number],
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
  { groups, eps, silu }: {
    readonly groups: number;
    readonly eps: number;
    readonly silu: boolean;
  },
): Float64Array {
  const y = Float64Array.from(x);
  const count = channels / groups * cells;
  for (let block = 0; block < batch * groups; block++) {
    const part = y.subarray(block * count, (block + 1) * count);
    const [middle, inverse] = moments([...part], eps);
    part.forEach((v, i) => {
      const channel = block % groups * (channels / groups) +
        Math.floor(i / cells);
      const z = (v - middle) * inverse * weight[channel]! + bias[channel]!;
      part[i] = silu ? z * sigmoid(z) : z;
    });
  }
  return y;
}
