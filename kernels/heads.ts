/** Attention heads in a tensor: by themselves, or those of queries, keys and values side by side. */
import type { Params, Tensor } from "./backend.ts";
import type { Matrix } from "./gemm.ts";

/** Where heads lie: dimension d of head z is line `pitch z + first + d`; a line has a number per cell. */
export interface Heads {
  /** The tensor that holds them. */
  readonly tensor: Tensor;
  /** Lines from one head to the next. */
  readonly pitch: number;
  /** The first line of the first one. */
  readonly first: number;
}

/** Heads that fill a tensor `[heads, width, cells]`. */
export function wholeHeads(tensor: Tensor, width: number): Heads {
  return { tensor, pitch: width, first: 0 };
}

/** Queries, keys and values of a tensor `[heads, 3, width, cells]`. */
export function packedHeads(
  tensor: Tensor,
  width: number,
): readonly [q: Heads, k: Heads, v: Heads] {
  const part = (i: number): Heads => ({
    tensor,
    pitch: 3 * width,
    first: i * width,
  });
  return [part(0), part(1), part(2)];
}

/** The heads as matrices `[width, cells]`, from cell `from` on. */
export function headMatrix(
  { tensor, pitch, first }: Heads,
  cells: number,
  from = 0,
): Required<Matrix> {
  return {
    tensor,
    stride: cells,
    batchStride: pitch * cells,
    offset: first * cells + from,
  };
}

/** Names of the params that `headParams` gives. */
export function headNames(...names: readonly string[]): string[] {
  return names.flatMap((name) => [`${name}Pitch`, `${name}First`]);
}

/** Params of a kernel by the names of its heads. */
export function headParams(heads: Readonly<Record<string, Heads>>): Params {
  return Object.fromEntries(
    Object.entries(heads).flatMap(([name, { pitch, first }]) => [
      [`${name}Pitch`, pitch],
      [`${name}First`, first],
    ]),
  );
}
