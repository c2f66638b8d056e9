/** The kernels that are compared: what they compute, on which numbers, and how many operations that is. */
import { rand } from "../tests/compare.ts";

/** `y[m,n] = sum_k a[m,k] b[k,n]`. */
export interface MatmulCase {
  /** Which. */
  readonly kind: "matmul";
  /** Rows of the result. */
  readonly m: number;
  /** Columns of the result. */
  readonly n: number;
  /** Length of the sums. */
  readonly k: number;
}

/**
 * 3x3 convolution, stride 1, padding 1: `x [1, from, side, side]`, `weight [to, from, 3, 3]`; or its
 * gradient on x from `seed [1, to, side, side]`.
 */
export interface ConvCase {
  /** Which. */
  readonly kind: "conv" | "conv gradient";
  /** Input channels. */
  readonly from: number;
  /** Output channels. */
  readonly to: number;
  /** Cells along a side. */
  readonly side: number;
}

/**
 * Attention: `q [heads, width, queries]`, `k` and `v [heads, width, keys]`; or its gradients on q, k and
 * v, one after the other, from `seed`, which is like q.
 */
export interface AttentionCase {
  /** Which. */
  readonly kind: "attention" | "attention gradient";
  /** Heads. */
  readonly heads: number;
  /** Channels of a head. */
  readonly width: number;
  /** Queries. */
  readonly queries: number;
  /** Keys. */
  readonly keys: number;
}

/** One operation with its sizes. */
export type KernelCase = MatmulCase | ConvCase | AttentionCase;

const CONVS = [[64, 64, 32], [320, 320, 16], [320, 320, 32]] as const;
const KEYS = [1024, 77];

/** Sizes of SD1.5's UNet, and the square product that everybody quotes. */
export const KERNEL_CASES: readonly KernelCase[] = [
  ...[[1024, 1024, 1024], [4096, 320, 320], [4096, 2560, 320], [
    256,
    1280,
    1280,
  ]].map(([m = 0, n = 0, k = 0]): KernelCase => ({ kind: "matmul", m, n, k })),
  ...CONVS.map(([from, to, side]): KernelCase => ({
    kind: "conv",
    from,
    to,
    side,
  })),
  ...KEYS.map((keys): KernelCase => ({
    kind: "attention",
    heads: 8,
    width: 40,
    queries: 1024,
    keys,
  })),
  ...CONVS.map(([from, to, side]): KernelCase => ({
    kind: "conv gradient",
    from,
    to,
    side,
  })),
  ...KEYS.map((keys): KernelCase => ({
    kind: "attention gradient",
    heads: 8,
    width: 40,
    queries: 1024,
    keys,
  })),
];

/** For tables. */
export function caseName(c: KernelCase): string {
  switch (c.kind) {
    case "matmul":
      return c.m === c.n && c.n === c.k
        ? `matmul ${c.m}^3`
        : `matmul ${c.m}x${c.n}x${c.k}`;
    case "conv":
    case "conv gradient":
      return `${c.kind} 3x3 ${c.from}->${c.to} @${c.side}^2`;
    default:
      return `${c.kind} ${c.queries}x${c.keys}`;
  }
}

/**
 * Operations of the definition, two per multiplication, whatever an implementation really does.
 *
 * The gradient of attention counts five products: scores again, and the gradients on values,
 * probabilities, queries and keys.
 */
export function caseFlops(c: KernelCase): number {
  switch (c.kind) {
    case "matmul":
      return 2 * c.m * c.n * c.k;
    case "conv":
    case "conv gradient":
      return 2 * 9 * c.from * c.to * c.side ** 2;
    case "attention":
      return 4 * c.heads * c.width * c.queries * c.keys;
    case "attention gradient":
      return 10 * c.heads * c.width * c.queries * c.keys;
  }
}

/** `a` and `b`. */
export function matmulInputs(
  { m, n, k }: MatmulCase,
): { a: Float32Array; b: Float32Array } {
  return { a: rand(1, m * k), b: rand(2, k * n) };
}

/** `x`, `weight` and `seed`. */
export function convInputs(
  { from, to, side }: ConvCase,
): { x: Float32Array; weight: Float32Array; seed: Float32Array } {
  return {
    x: rand(3, from * side * side),
    weight: rand(4, to * from * 9, 1 / Math.sqrt(9 * from)),
    seed: rand(5, to * side * side),
  };
}

/** `q`, `k`, `v` and `seed`. */
export function attentionInputs(
  { heads, width, queries, keys }: AttentionCase,
): {
  q: Float32Array;
  k: Float32Array;
  v: Float32Array;
  seed: Float32Array;
} {
  const channels = heads * width;
  return {
    // Scores of about 1: probabilities that are neither flat nor a single one.
    q: rand(6, channels * queries, 2),
    k: rand(7, channels * keys, 2),
    v: rand(8, channels * keys),
    seed: rand(9, channels * queries),
  };
}
