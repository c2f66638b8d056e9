/** Gradients of attention on keys and values: sums over the queries, chunk by chunk. */
import type { Tensor } from "./backend.ts";
import { gemm } from "./gemm.ts";
import { headMatrix, type Heads } from "./heads.ts";
import { transposeInto } from "./transpose.ts";

/** Sums over the queries, chunk by chunk: `grad[z, d, j] = sum_n x[z, d, n] m[z, j, n]`. */
export interface KeySums extends Disposable {
  /** Adds the queries from `first` of `m` `[z, keys, columns]`, times `alpha`. */
  add(m: Tensor, first: number, columns: number, alpha: number): void;
  /** Completes the gradient. */
  finish?(): void;
}

/** Sizes of the sums. */
export interface KeySumSizes {
  /** Heads of the whole batch. */
  readonly z: number;
  /** Dimensions of each. */
  readonly width: number;
  /** Queries of each. */
  readonly queries: number;
  /** Keys of each. */
  readonly keys: number;
  /** Queries added at once. */
  readonly chunk: number;
  /** Multiplications of one batch element. */
  readonly work: number;
}

/**
 * How sums over the queries are made.
 *
 * @param x Lines of queries.
 * @param grad Lines of keys.
 */
export function keySums(x: Heads, grad: Heads, sizes: KeySumSizes): KeySums {
  const { z, width, queries, keys, chunk, work } = sizes;
  // gemm_texel reads matrices along either axis.
  const inFours = [queries, keys, chunk].every((n) => n % 4 === 0);
  if (!(inFours && keys >= 32 && width >= 16)) {
    return new TransposedSums(x, grad, sizes);
  }
  return {
    add: (m, first, columns, alpha) =>
      gemm(
        [width, keys, columns],
        headMatrix(x, queries, first),
        { tensor: m, stride: columns, batchStride: keys * columns },
        headMatrix(grad, keys),
        { batch: z, b: "column", alpha, accumulate: first > 0, work },
      ),
    [Symbol.dispose]() {},
  };
}

/**
 * The sums made transposed, `dV^T = P go^T`: queries are the axis along which P and dS lie, and the
 * kernels other than gemm_texel want both matrices along their rows.
 */
class TransposedSums implements KeySums {
  readonly #x: Tensor; // [z, queries, width]
  readonly #sums: Tensor; // [z, keys, width]
  readonly #grad: Heads;
  readonly #sizes: KeySumSizes;

  /**
   * Starts with nothing.
   *
   * @param grad Written by `finish`.
   */
  constructor(x: Heads, grad: Heads, sizes: KeySumSizes) {
    const { z, width, queries, keys } = sizes;
    const { backend } = x.tensor;
    this.#x = backend.alloc([z, queries, width]);
    this.#sums = backend.alloc([z, keys, width]);
    this.#grad = grad;
    this.#sizes = sizes;
    transposeInto(
      headMatrix(x, queries),
      { tensor: this.#x, batchStride: queries * width },
      [z, width, queries],
    );
  }

  /** See `KeySums`. */
  add(m: Tensor, first: number, columns: number, alpha: number): void {
    const { z, width, queries, keys, work } = this.#sizes;
    gemm(
      [keys, width, columns],
      { tensor: m, stride: columns, batchStride: keys * columns },
      {
        tensor: this.#x,
        stride: width,
        batchStride: queries * width,
        offset: first * width,
      },
      { tensor: this.#sums, stride: width, batchStride: keys * width },
      { batch: z, alpha, accumulate: first > 0, work },
    );
  }

  /** Writes the gradient. */
  finish(): void {
    const { z, width, keys } = this.#sizes;
    transposeInto(
      { tensor: this.#sums, batchStride: keys * width },
      headMatrix(this.#grad, keys),
      [z, keys, width],
    );
  }

  /** Frees the transposed copies. */
  [Symbol.dispose](): void {
    this.#x.dispose();
    this.#sums.dispose();
  }
}
