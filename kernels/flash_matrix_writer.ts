/**
 * The parts of the flash kernels of matrix units that have a variable for each fragment or thread's number: arrays of
 * these would not be in registers. Names of fragments end in their numbers down and across.
 */
import { type MatrixUnits, unitsHeader } from "./matrix_units.ts";
import { each, fill } from "./write_wgsl.ts";

/** How an attention is shared among workgroups. */
export interface FlashCut {
  /** Queries of a workgroup, or keys where gradients on these are made. */
  readonly OWN: number;
  /** The others that it has at a time. */
  readonly TILE: number;
  /** Fragments of a subgroup along its own. */
  readonly WN: number;
  /** The width in whole fragments. */
  readonly WIDTH: number;
}

/** Writes them for an adapter's units and a cut. Constants and variables are those of `flash_matrix_tile.wgsl`. */
export class FlashWriter {
  readonly #units: MatrixUnits;
  readonly #cut: FlashCut;

  /** Starts with nothing. */
  constructor(units: MatrixUnits, cut: FlashCut) {
    this.#units = units;
    this.#cut = cut;
  }

  /** The whole WGSL: `text` with its parts. */
  source(text: string, parts: Readonly<Record<string, string>>): string {
    return unitsHeader(this.#units, { ...this.#cut }) + fill(text, parts);
  }

  /** Fragments of the workgroup's own, as right matrices; `eight` reads them. */
  ownFragments(name: string, eight: string): string {
    const { N, K } = this.#units;
    const { OWN, WN } = this.#cut;
    const inLine = OWN / 8;
    return this.#chunks((first, count) =>
      `workgroupBarrier();
      for (var i = t; i < ${count * inLine}u; i += THREADS) {
        let d = i / ${inLine}u;
        let n = i % ${inLine}u * 8u;
        put(WEIGHTS + d * ACROSS + n, ${eight}(z, ${first}u + d, n0 + n));
      }
      workgroupBarrier();
      ${
        each(count / K, (f) =>
          each(WN, (w) =>
            `let ${name}${
              first / K + f
            }_${w} = subgroupMatrixLoad<Right, row_major>(&halves, WEIGHTS + ${
              f * K
            }u * ACROSS + strip + ${w * N}u, ACROSS);`))
      }`
    );
  }

  /** Results `[WIDTH][OWN]`, of zeros. */
  sums(name: string): string {
    return this.#down((m, w) => `var ${name}${m}_${w}: Sums;`);
  }

  /** Reads both tiles of the others from y0 on. */
  read(first: string, second: string): string {
    const { inLine, turns, threads } = this.#eights();
    return each(turns, (i) =>
      `let i${i} = t + ${i * threads}u;
      let d${i} = i${i} / ${inLine}u;
      let e${i} = i${i} % ${inLine}u * 8u;
      let first${i} = ${first}(z, d${i}, y0 + e${i});
      let second${i} = ${second}(z, d${i}, y0 + e${i});`);
  }

  /** Puts them where fragments are loaded from. */
  write(): string {
    return each(
      this.#eights().turns,
      (i) =>
        `if (i${i} < EIGHTS) {
        put(d${i} * LINE + e${i}, first${i});
        put(SECOND + d${i} * LINE + e${i}, second${i});
      }`,
    );
  }

  /**
   * area = tile^T own, of the first tile or the second. Sums must be set to zero in so many words: on lavapipe those
   * of a loop's body otherwise keep what they had in the turn before.
   */
  products(own: string, second: boolean): string {
    const { M, N, K } = this.#units;
    const { TILE, WN, WIDTH } = this.#cut;
    const from = second ? "SECOND + " : "";
    return each(TILE / M, (i) =>
      `{
      ${each(WN, (w) => `var sums${w} = Sums();`)}
      ${
        each(WIDTH / K, (f) =>
          `{ let left = subgroupMatrixLoad<Left, col_major>(&halves, ${from}${
            f * K
          }u * LINE + ${i * M}u, LINE);
          ${
            each(
              WN,
              (w) =>
                `sums${w} = subgroupMatrixMultiplyAccumulate(left, ${own}${f}_${w}, sums${w});`,
            )
          } }`)
      }
      ${
        each(
          WN,
          (w) =>
            `subgroupMatrixStore<row_major>(&area, ${
              i * M
            }u * ACROSS + strip + ${w * N}u, sums${w}, ACROSS);`,
        )
      }
      }`);
  }

  /** sums += tile weights, of the first tile or the second. */
  addUp(sums: string, second: boolean): string {
    const { M, N, K } = this.#units;
    const { TILE, WN, WIDTH } = this.#cut;
    const from = second ? "SECOND + " : "";
    return each(TILE / K, (f) =>
      `{
      ${
        each(WN, (w) =>
          `let right${w} = subgroupMatrixLoad<Right, row_major>(&halves, WEIGHTS + ${
            f * K
          }u * ACROSS + strip + ${w * N}u, ACROSS);`)
      }
      ${
        each(WIDTH / M, (m) =>
          `{ let left = subgroupMatrixLoad<Left, row_major>(&halves, ${from}${
            m * M
          }u * LINE + ${f * K}u, LINE);
          ${
            each(
              WN,
              (w) =>
                `${sums}${m}_${w} = subgroupMatrixMultiplyAccumulate(left, right${w}, ${sums}${m}_${w});`,
            )
          } }`)
      }
      }`);
  }

  /**
   * Calls `line` for each four numbers that a thread has in its column of the area, with their lines from `row` on:
   * pairs, so that threads of a subgroup read from other memory banks.
   */
  fours(line: (i: number, rows: readonly number[]) => string): string {
    const per = this.#per();
    return each(
      this.#cut.TILE / per / 4,
      (i) =>
        line(i, [0, 1, 2 * per, 2 * per + 1].map((row) => 4 * per * i + row)),
    );
  }

  /** Names the thread's numbers in the area, in fours. */
  take(name: string): string {
    return this.fours((i, rows) =>
      `var ${name}${i} = vec4f(${
        rows.map((row) => `area[own + ${row}u * ACROSS]`)
      });`
    );
  }

  /** Makes a four the thread's weights. */
  keep(rows: readonly number[], value: string): string {
    return rows.map((row, i) =>
      `halves[WEIGHTS + own + ${row}u * ACROSS] = ${value}.${"xyzw"[i]};`
    ).join("\n");
  }

  /** Calls `line` with how to read a variable of other threads, until all of a column have met. */
  overColumn(line: (from: (variable: string) => string) => string): string {
    const { subgroup } = this.#units;
    const lines: string[] = [];
    for (let by = subgroup / this.#per(); by < subgroup; by *= 2) {
      lines.push(line((variable) => `subgroupShuffleXor(${variable}, ${by}u)`));
    }
    return lines.join("\n");
  }

  /** Multiplies each column of results by its thread's `factor`. */
  scaleColumns(sums: string, factor: string): string {
    return this.#chunks((first, count) =>
      this.#eachLine(sums, first, count, `area[at] *= ${factor};`) +
      `workgroupBarrier();
      ${
        this.#downChunk(first, count, (m, w, at) =>
          `${sums}${m}_${w} = subgroupMatrixLoad<Sums, row_major>(&area, ${at}, ACROSS);`)
      }`
    );
  }

  /** Runs `line` for numbers [d, n] of the results, which are `area[at]`, where they are below width and `end`. */
  handOut(sums: string, end: string, line: string): string {
    return this.#chunks((first, count) =>
      this.#eachLine(
        sums,
        first,
        count,
        `let d = ${first}u + r; if (d < p.width && n < ${end}) { ${line} }`,
      )
    );
  }

  /** Stores lines of results in the area and runs `line` for the thread's part of them. */
  #eachLine(sums: string, first: number, count: number, line: string): string {
    return `workgroupBarrier();
      ${
      this.#downChunk(first, count, (m, w, at) =>
        `subgroupMatrixStore<row_major>(&area, ${at}, ${sums}${m}_${w}, ACROSS);`)
    }
      workgroupBarrier();
      for (var r = lane / STRIP; r < ${count}u; r += PER) {
        let at = r * ACROSS + column;
        ${line}
      }\n`;
  }

  /** Runs of the width's lines that the area holds. */
  #chunks(text: (first: number, count: number) => string): string {
    const { TILE, WIDTH } = this.#cut;
    return each(
      Math.ceil(WIDTH / TILE),
      (i) => text(i * TILE, Math.min(TILE, WIDTH - i * TILE)),
    );
  }

  #down(text: (m: number, w: number) => string): string {
    const { WN, WIDTH } = this.#cut;
    return each(WIDTH / this.#units.M, (m) => each(WN, (w) => text(m, w)));
  }

  #downChunk(
    first: number,
    count: number,
    text: (m: number, w: number, at: string) => string,
  ): string {
    const { M, N } = this.#units;
    return each(count / M, (m) =>
      each(this.#cut.WN, (w) =>
        text(
          first / M + m,
          w,
          `${m * M}u * ACROSS + strip + ${w * N}u`,
        )));
  }

  /** Threads that share a column. */
  #per(): number {
    return this.#units.subgroup / (this.#cut.WN * this.#units.N);
  }

  /** How threads copy a tile. */
  #eights() {
    const { OWN, TILE, WN, WIDTH } = this.#cut;
    const threads = OWN / (WN * this.#units.N) * this.#units.subgroup;
    const inLine = TILE / 8;
    return { inLine, threads, turns: Math.ceil(WIDTH * inLine / threads) };
  }
}
