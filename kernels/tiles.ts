/** How a matrix `[M, N]` is cut into workgroups. */

/** Threads of a workgroup, and what it makes: `4 TY` rows by `4 TX QUADS` columns. */
export interface Tile {
  /** Threads along the columns. */
  readonly TX: number;
  /** Threads along the rows. */
  readonly TY: number;
  /** Quads of columns that a thread holds. */
  readonly QUADS: number;
}

/** Largest first: they read least. */
const TILES: readonly Tile[] = [
  { TX: 16, TY: 16, QUADS: 2 }, // 64 x 128
  { TX: 8, TY: 16, QUADS: 2 }, // 64 x 64
  { TX: 8, TY: 8, QUADS: 1 }, // 32 x 32
];
/** For a few columns, such as one vector per picture: 128 x 8. */
const NARROW: Tile = { TX: 2, TY: 32, QUADS: 1 };
/** Workgroups that keep a large GPU busy; with fewer, smaller tiles are taken. An estimate. */
const ENOUGH = 128;

/** The largest tile of which not half is idle and that gives enough workgroups, else the smallest. */
export function tileFor(M: number, N: number, batch: number): Tile {
  if (N <= 8) return NARROW;
  return TILES.find((tile) => {
    const [x, y] = tileGroups(tile, M, N);
    return columns(tile) < 2 * N && rows(tile) < 2 * M &&
      x * y * batch >= ENOUGH;
  }) ?? TILES.at(-1)!;
}

/** Workgroups along columns and rows. */
export function tileGroups(tile: Tile, M: number, N: number): [number, number] {
  return [Math.ceil(N / columns(tile)), Math.ceil(M / rows(tile))];
}

function columns({ TX, QUADS }: Tile): number {
  return 4 * TX * QUADS;
}

function rows({ TY }: Tile): number {
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
