/**
 * Products of the gpu family in 32 bits: tiles that the threads of a workgroup share through its memory. Those of
 * weights that are stored in 16 bits may be kept so, which takes half the bytes and a conversion; see `halfTiles`.
 */
import halvesWgsl from "./tiled_halves.wgsl" with { type: "text" };
import wgsl from "./tiled.wgsl" with { type: "text" };
import wordsWgsl from "./tiled_words.wgsl" with { type: "text" };
import type { Kernel, Params, Tensor } from "./backend.ts";
import { columns, rows, type Tile } from "./tiles.ts";
import { constants, each, fill, once } from "./write_wgsl.ts";

/** Of k that are in workgroup memory at a time. */
const STEP = 16;
/** Sums of so many k are added up by themselves: rounding grows with their number, and with that of blocks. */
const BLOCK = 128;

/** The `LONG` of sums over K: those of one block need no second set of registers. */
export function isLong(K: number): number {
  return Number(K > BLOCK);
}

/**
 * A kernel for a tile, and the constants that say how A is stored.
 *
 * @param kernel Its `wgsl` is what the main function calls.
 * @param a The left matrix.
 */
export function tiledKernel(
  kernel: Kernel,
  tile: Tile,
  { type, backend }: Pick<Tensor, "type" | "backend">,
): { readonly kernel: Kernel; readonly constants: Params } {
  const name = `${kernel.name}_${rows(tile)}x${columns(tile)}`;
  if (type === "f16" && backend.halfTiles) {
    const half = once(`${name}_half`, () => ({
      ...kernel,
      wgsl: "enable f16;\n" + halvesWgsl + write(kernel.wgsl, tile),
    }));
    return { kernel: half, constants: {} };
  }
  return {
    kernel: once(name, () => ({
      ...kernel,
      wgsl: wordsWgsl + write(kernel.wgsl, tile),
    })),
    constants: { A_HALF: Number(type === "f16") },
  };
}

/** The WGSL, with a variable for each sum. */
function write(load: string, tile: Tile): string {
  const { TX, TY, QUADS } = tile;
  const [TM, TN, threads] = [rows(tile), columns(tile), TX * TY];
  const sums = (line: (r: number, q: number) => string): string =>
    each(4, (r) => each(QUADS, (q) => line(r, q)));
  // Of STEP lines of A or B; what is left over is for the first threads alone.
  const copy = (
    quads: number,
    line: (i: number, at: string) => string,
  ): string => {
    const total = STEP * quads;
    return each(
      Math.ceil(total / threads),
      (i) => line(i, `(thread + ${i * threads}u)`),
    );
  };
  const some = (quads: number, i: number, at: string, what: string): string =>
    STEP * quads < (i + 1) * threads
      ? `if (${at} < ${STEP * quads}u) { ${what} }`
      : what;
  return constants({ TX, TY, TM, TN, STEP, BLOCK }) + load + fill(wgsl, {
    sums: sums((r, q) => `var c${r}_${q} = vec4f(); var t${r}_${q} = vec4f();`),
    read: copy(TM / 4, (i, at) =>
      `let ma${i} = placeOfA(${at});
      let xa${i} = readA(m0 + select(4u, 1u, A_LINES) * ma${i}.x, first + ma${i}.y);`) +
      copy(TN / 4, (i, at) =>
        `let nb${i} = placeOfB(${at});
      let xb${i} = readB(first + nb${i}.y, n0 + 4u * nb${i}.x);`),
    write: copy(
      TM / 4,
      (i, at) =>
        some(
          TM / 4,
          i,
          at,
          `if (A_LINES) { ${
            each(
              4,
              (j) =>
                `rows[(ma${i}.y + ${j}u) * ACROSS_A + ma${i}.x / 4u][ma${i}.x % 4u] = xa${i}[${j}];`,
            )
          } } else { rows[ma${i}.y * ACROSS_A + ma${i}.x] = xa${i}; }`,
        ),
    ) +
      copy(TN / 4, (i, at) =>
        some(
          TN / 4,
          i,
          at,
          `columns[nb${i}.y * ACROSS_B + nb${i}.x] = xb${i};`,
        )),
    multiply: "let a = vec4f(rows[k * ACROSS_A + l.y]);\n" +
      each(
        QUADS,
        (q) => `let b${q} = columns[k * ACROSS_B + l.x + ${q * TX}u];`,
      ) +
      sums((r, q) => `c${r}_${q} += a[${r}] * b${q};`),
    block: sums((r, q) => `t${r}_${q} += c${r}_${q}; c${r}_${q} = vec4f();`),
    put: sums((r, q) =>
      `put(m0 + 4u * l.y + ${r}u, n0 + 4u * (l.x + ${
        q * TX
      }u), t${r}_${q} + c${r}_${q});`
    ),
  });
}
