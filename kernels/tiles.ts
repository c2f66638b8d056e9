/** How a matrix `[M, N]` is cut into workgroups. */
import type { Backend } from "./backend.ts";

/** Threads of a workgroup, and what it makes: `4 TY` rows by `4 TX QUADS` columns. */
export interface Tile {
  /** Threads along the columns. */
  readonly TX: number;
  /** Threads along the rows. */
  readonly TY: number;
  /** Quads of columns that a thread holds, of 4 rows. */
  readonly QUADS: number;
}

/**
 * Few rows, so that there are many workgroups. Seen on an H200, in the products of SD1.5 at 512 pixels with parts as
 * below: 25 ms for one picture, 4 % above the best of eight tiles for each; 64 x 128 takes 28.
 */
const WIDE: Tile = { TX: 16, TY: 8, QUADS: 2 }; // 32 x 128
/** For up to 64 columns. */
const SQUARE: Tile = { TX: 8, TY: 8, QUADS: 1 }; // 32 x 32
/** What a workgroup makes by matrix units, and each of its subgroups of that, in fragments. */
export interface MatrixTile {
  /** Rows. */
  readonly TM: number;
  /** Columns. */
  readonly TN: number;
  /** Fragments of a subgroup along the rows. */
  readonly WM: number;
  /** Along the columns; even. */
  readonly WN: number;
}

/**
 * Seen on an H200, in the products of SD1.5 at 512 pixels and parts as below: together 9 ms for one picture, 16 for
 * two; tiles of 128 x 128 take 10 and 18, of 64 x 64 alone 10 and 19.
 */
const WIDE_MATRIX: MatrixTile = { TM: 64, TN: 128, WM: 2, WN: 4 };
/** For few columns. */
const SQUARE_MATRIX: MatrixTile = { TM: 64, TN: 64, WM: 2, WN: 2 };
/** Workgroups that cutting sums is to give, and of k that a part has at least, with matrix units. */
const MATRIX_PARTS = { wanted: 240, least: 512 };
/** For a few columns, such as one vector per picture: 128 x 8. */
const NARROW: Tile = { TX: 2, TY: 32, QUADS: 1 };
/** Workgroups that cutting sums is to give: an H200 has 132 multiprocessors, which take several each. */
const WANTED = 480;
/** Of k that a part has at least: adding up parts costs time, too. */
const LEAST_PART = 256;
const MOST_PARTS = 16;
/** Parts start at multiples of it, and so of the kernels' `STEP`. */
const STEP = 32;

/** How a product is shared among workgroups. */
export interface Cut {
  /** Of the result. */
  readonly tile: Tile;
  /** Workgroups that share the sum of a tile. */
  readonly parts: number;
  /** Of k in each part but the last, which may have less. */
  readonly each: number;
}

/**
 * The tile for a product, with sums cut along k where that gives too few workgroups. Cut sums are added up in another
 * order, so sizes are those of one element of a batch: what comes out for it must not depend on the others.
 */
export function cutFor(M: number, N: number, K: number): Cut {
  const tile = N <= columns(NARROW) ? NARROW : N <= 64 ? SQUARE : WIDE;
  const [x, y] = tileGroups(tile, M, N);
  return { tile, ...inParts(x * y, K, { wanted: WANTED, least: LEAST_PART }) };
}

/** The cut on a backend: the references of the cpu backend add up whole sums. */
export function cutOn(
  { kind }: Pick<Backend, "kind">,
  M: number,
  N: number,
  K: number,
): Cut {
  const found = cutFor(M, N, K);
  return kind === "cpu" ? { ...found, parts: 1, each: K } : found;
}

/** How a product by matrix units is shared among workgroups. */
export type MatrixCut = Omit<Cut, "tile"> & { readonly tile: MatrixTile };

/** The same for matrix units. */
export function cutForMatrix(M: number, N: number, K: number): MatrixCut {
  const tile = N > SQUARE_MATRIX.TN ? WIDE_MATRIX : SQUARE_MATRIX;
  const tiles = Math.ceil(M / tile.TM) * Math.ceil(N / tile.TN);
  return { tile, ...inParts(tiles, K, MATRIX_PARTS) };
}

/** How sums over K are cut where there are so many tiles. */
function inParts(
  tiles: number,
  K: number,
  { wanted, least }: { readonly wanted: number; readonly least: number },
): Omit<Cut, "tile"> {
  const most = Math.min(
    Math.floor(wanted / tiles),
    MOST_PARTS,
    Math.floor(K / least),
  );
  if (most < 2) return { parts: 1, each: K };
  const each = Math.ceil(K / most / STEP) * STEP;
  return { parts: Math.ceil(K / each), each };
}

/** Workgroups along columns and rows. */
export function tileGroups(tile: Tile, M: number, N: number): [number, number] {
  return [Math.ceil(N / columns(tile)), Math.ceil(M / rows(tile))];
}

/** Columns of a tile. */
export function columns({ TX, QUADS }: Tile): number {
  return 4 * TX * QUADS;
}

/** Rows of a tile. */
export function rows({ TY }: Tile): number {
  return 4 * TY;
}

/**
 * Threads of a workgroup along n, the others along m: what leaves fewest without work.
 *
 * @param size Rows and columns of the result.
 * @param threads Of a workgroup.
 * @param held Rows and columns that a thread holds.
 * @param choices The first wins where several are equal.
 */
export function threadsAcross(
  [M, N]: readonly [number, number],
  threads: number,
  [rows, columns]: readonly [number, number],
  choices: readonly number[],
): number {
  const covered = (size: number, by: number): number =>
    Math.ceil(size / by) * by;
  const cells = (across: number): number =>
    covered(N, columns * across) * covered(M, rows * threads / across);
  return choices.reduce((best, across) =>
    cells(across) < cells(best) ? across : best
  );
}
