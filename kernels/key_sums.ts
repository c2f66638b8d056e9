/** Gradients of attention on keys and values: sums over the queries, chunk by chunk. */
import type { Tensor } from "./backend.ts";
import { gemm } from "./gemm.ts";
import { transposeInto } from "./transpose.ts";

/** Sums over the queries, chunk by chunk: `grad[z, d, j] = sum_n x[z, d, n] m[z, j, n]`. */
export interface KeySums extends Disposable {
  /** Adds the queries from `first` of `m` `[z, keys, columns]`, times `alpha`. */
  add(m: Tensor, first: number, columns: number, alpha: number): void;
  /** Completes the gradient. */
  finish?(): void;
}

/**
 * How sums over the queries are made.
 *
 * @param x `[z width, queries]`.
 * @param grad `[z width, keys]`.
 * @param sizes.chunk Queries added at once.
 * @param sizes.work Multiplications of one batch element.
 */
export function keySums(
  x: Tensor,
  grad: Tensor,
  { z, width, chunk, work }: {
    readonly z: number;
    readonly width: number;
    readonly chunk: number;
    readonly work: number;
  },
): KeySums {
  const queries = x.size / z / width, keys = grad.size / z / width;
  // gemm_texel reads matrices along either axis.
  const inFours = [queries, keys, chunk].every((n) => n % 4 === 0);
  if (!(inFours && keys >= 32 && width >= 16)) {
    return new TransposedSums(x, grad, z, width, work);
  }
  return {
    add: (m, first, columns, alpha) =>
      gemm(
        [width, keys, columns],
        {
          tensor: x,
          stride: queries,
          batchStride: width * queries,
          offset: first,
        },
        { tensor: m, stride: columns, batchStride: keys * columns },
        { tensor: grad, stride: keys, batchStride: width * keys },
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
  readonly #grad: Tensor;
  readonly #z: number;
  readonly #width: number;
  readonly #work: number;

  /**
   * Starts with nothing.
   *
   * @param x `[z width, queries]`.
   * @param grad `[z width, keys]`, written by `finish`.
   */
  constructor(
    x: Tensor,
    grad: Tensor,
    z: number,
    width: number,
    work: number,
  ) {
    this.#work = work;
    const { backend } = x;
    this.#x = backend.alloc([z, x.size / z / width, width]);
    this.#sums = backend.alloc([z, grad.size / z / width, width]);
    this.#grad = grad;
    this.#z = z;
    this.#width = width;
    transposeInto(x, this.#x, z, width);
  }

  /** See `KeySums`. */
  add(m: Tensor, first: number, columns: number, alpha: number): void {
    const [z, width] = [this.#z, this.#width];
    const [, queries = 0] = this.#x.shape;
    const [, keys = 0] = this.#sums.shape;
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
      { batch: z, alpha, accumulate: first > 0, work: this.#work },
    );
  }

  /** Writes the gradient. */
  finish(): void {
    const [, keys = 0] = this.#sums.shape;
    transposeInto(this.#sums, this.#grad, this.#z, keys);
  }

  /** Frees the transposed copies. */
  [Symbol.dispose](): void {
    this.#x.dispose();
    this.#sums.dispose();
  }
}
