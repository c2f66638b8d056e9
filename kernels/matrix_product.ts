/**
 * Products by matrix units: both operands in 16 bits, sums in 32. A comes as it is stored, B as a copy of
 * `halve.ts`; a 3x3 convolution is a product whose B are the copies of its input.
 */
import scaleWgsl from "./half_scale.wgsl" with { type: "text" };
import wgsl from "./matrix_product.wgsl" with { type: "text" };
import type { Kernel, Tensor } from "./backend.ts";
import type { GemmOptions, Matrix } from "./gemm.ts";
import { matrixProductRef } from "./matrix_product_ref.ts";
import { type MatrixUnits, unitsHeader, unitsName } from "./matrix_units.ts";
import { splitSum } from "./split_sum.ts";
import { cutForMatrix, type MatrixCut, type MatrixTile } from "./tiles.ts";
import { each, fill, once } from "./write_wgsl.ts";

const PARAMS = [
  "M",
  "N",
  "K",
  "lda",
  "ldb",
  "ldc",
  "sa",
  "sb",
  "sc",
  "oa",
  "oc",
  "plane",
  "planes",
  "wide",
  "width",
  "cells",
  "shiftFirst",
  "shiftStride",
  "parts",
  "each",
  "alpha:f",
];

/** Columns of a product of matrices, which no line ends: more than a tensor has. */
const ENDLESS = 2 ** 31;

/** Of k that are in workgroup memory at a time. */
const STEP = 32;

/** The kernel for an adapter's units, a tile and A with contiguous k or contiguous m. */
function kernelFor(
  units: MatrixUnits,
  tile: MatrixTile,
  aRow: boolean,
): Kernel {
  const order = aRow ? "row" : "column";
  const name = `matrix_product_${order}_${tile.TM}x${tile.TN}_${
    unitsName(units)
  }`;
  return once(name, () => ({
    wgsl: source(units, tile, aRow),
    bindings: "rrrrrrw",
    params: PARAMS,
    ref: (bind, params, constants) =>
      matrixProductRef(bind, params, { ...constants, A_ROW: Number(aRow) }),
    flops: ({ M, cells, K, Z }) => 2 * M! * cells! * K! * Z!,
  }));
}

/** The WGSL, with a variable for each fragment. */
function source(units: MatrixUnits, tile: MatrixTile, aRow: boolean): string {
  const { M, N, K, subgroup } = units;
  const { TM, TN, WM, WN } = tile;
  const lefts = (k: number) =>
    each(WM, (i) => {
      const [order, at] = aRow
        ? ["row_major", `(m + ${i * M}u) * LEFT + ${k}u`]
        : ["col_major", `${k}u * LEFT + m + ${i * M}u`];
      return `let a${i} = subgroupMatrixLoad<Left, ${order}>(&left, ${at}, LEFT);`;
    });
  const step = (k: number) =>
    `{ ${lefts(k)}\n${
      each(WN, (j) =>
        `{ let b = subgroupMatrixLoad<Right, row_major>(&right, ${k}u * RIGHT + n + ${
          j * N
        }u, RIGHT);\n${
          each(WM, (i) =>
            `s${i}_${j} = subgroupMatrixMultiplyAccumulate(a${i}, b, s${i}_${j});`)
        } }`)
    } }`;
  const handOut = (i: number, j: number) =>
    `subgroupMatrixStore<row_major>(&results, slot, s${i}_${j}, FN);
    subgroupMatrixStore<row_major>(&results, slot + FM * FN, s${i}_${
      j + 1
    }, FN);
    handOut(z, part, group, lane, m0 + m + ${i * M}u, n0 + n + ${
      j * N
    }u, factor);`;
  const threads = TM / (WM * M) * (TN / (WN * N)) * subgroup;
  // Of the eights that a thread copies, number i: which, of lines of `count`.
  const place = (i: number, count: number): [string, string] => {
    const which = `(t + ${i * threads}u)`;
    return [`${which} / ${count}u`, `${which} % ${count}u * 8u`];
  };
  const inLine = (aRow ? STEP : TM) / 8;
  const eightsOfA = TM * STEP / 8 / threads;
  const eightsOfB = STEP * TN / 8 / threads;
  const read = (i: number): string => {
    const [line, at] = place(i, inLine);
    const [m, k] = aRow ? [line, at] : [at, line];
    return `let x${i} = octetOfA(startA, m0 + ${m}, first + ${k});`;
  };
  const readB = (i: number): string => {
    const [line, at] = place(i, TN / 8);
    return `let y${i} = octetOfB(z, first + ${line}, n0 + ${at});`;
  };
  const write = (to: string, width: string, from: string, i: number) => {
    const [line, at] = place(i, to === "left" ? inLine : TN / 8);
    return `{ let at = ${line} * ${width} + ${at};\n${
      each(4, (j) =>
        `let p${j} = bitcast<vec2<f16>>(${from}${i}[${j}]);
        ${to}[at + ${2 * j}u] = p${j}.x; ${to}[at + ${2 * j + 1}u] = p${j}.y;`)
    } }`;
  };
  return unitsHeader(units, { ...tile, STEP }) + `const A_ROW = ${aRow};\n` +
    scaleWgsl + fill(wgsl, {
      sums: each(WM, (i) => each(WN, (j) => `var s${i}_${j}: Sums;`)),
      read: each(eightsOfA, read) + each(eightsOfB, readB),
      write: each(eightsOfA, (i) => write("left", "LEFT", "x", i)) +
        each(eightsOfB, (i) => write("right", "RIGHT", "y", i)),
      multiply: each(STEP / K, (i) => step(i * K)),
      handOut: each(WM, (i) => each(WN / 2, (j) => handOut(i, 2 * j))),
    });
}

/** The right matrices, in 16 bits. */
export interface Halves {
  /** From `halve`, `[batch, K, wide]`, or from `halveTaps`. */
  readonly tensor: Tensor;
  /** What it was scaled by. */
  readonly peaks?: Tensor | undefined;
  /** Columns that count in each line of an image, for `halveTaps`. */
  readonly width?: number;
}

/** What is added to a product, and how. */
export interface ProductOptions extends
  Pick<
    GemmOptions,
    "batch" | "a" | "alpha" | "bias" | "shift" | "residual" | "accumulate"
  > {
  /** How it is shared among workgroups, for tests. */
  readonly cut?: MatrixCut;
}

/**
 * `C = alpha A B (+ bias) (+ shift) (+ residual) (+ C)`.
 *
 * @param size M, N (columns of C) and K.
 */
export function matrixProduct(
  units: MatrixUnits,
  [M, N, K]: readonly [number, number, number],
  a: Matrix,
  b: Halves,
  c: Matrix,
  options: ProductOptions,
): void {
  const { batch = 1, alpha = 1, bias, shift, residual, accumulate = false } =
    options;
  const { backend } = c.tensor;
  const { tensor: halves, peaks, width } = b;
  const taps = width !== undefined;
  const [, lines = 0, rows = 0, wide = 0] = taps
    ? halves.shape
    : [1, ...halves.shape];
  const { tile, parts, each } = options.cut ?? cutForMatrix(M, N, K);
  using sums = parts > 1 ? backend.alloc([batch, parts, M, N]) : undefined;
  const columns = taps ? (rows - 2) * wide : N;
  const { stride: ldc, batchStride: sc = 0, offset: oc = 0 } = c;
  backend.dispatch(kernelFor(units, tile, options.a !== "column"), {
    bind: [
      a.tensor,
      halves,
      bias ?? a.tensor,
      shift?.tensor ?? a.tensor,
      residual ?? a.tensor,
      peaks ?? a.tensor,
      sums ?? c.tensor,
    ],
    params: {
      Z: batch,
      M,
      N: columns,
      K,
      lda: a.stride,
      ldb: wide,
      ldc,
      sa: a.batchStride ?? 0,
      sb: K * wide,
      sc,
      oa: a.offset ?? 0,
      oc,
      plane: rows * wide,
      planes: lines,
      wide: taps ? wide : ENDLESS,
      width: taps ? width : N,
      cells: N,
      shiftFirst: shift?.first ?? 0,
      shiftStride: shift?.stride ?? 0,
      parts,
      each,
      alpha,
    },
    constants: {
      A_HALF: Number(a.tensor.type === "f16"),
      TAPS: Number(taps),
      BIAS: Number(!sums && bias !== undefined),
      SHIFT: Number(!sums && shift !== undefined),
      RESIDUAL: Number(!sums && residual !== undefined),
      ACCUMULATE: Number(!sums && accumulate),
      SPLIT: Number(sums !== undefined),
      SCALED: Number(peaks !== undefined),
    },
    groups: [
      Math.ceil(columns / tile.TN),
      Math.ceil(M / tile.TM),
      batch * parts,
    ],
  });
  if (sums) {
    splitSum(sums, {
      c: c.tensor,
      ldc,
      sc,
      oc,
      alpha,
      bias,
      shift: shift?.tensor,
      shiftStride: shift?.stride ?? 0,
      shiftFirst: shift?.first ?? 0,
      residual,
      accumulate,
    });
  }
}
