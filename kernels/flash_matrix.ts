/**
 * Attention by matrix units: what `flash_attention.ts` does, with scores and sums of products of 16-bit numbers. Queries,
 * keys and values are copied in 16 bits first; gradients on the result, too, scaled by a power of two.
 */
import scaleWgsl from "./half_scale.wgsl" with { type: "text" };
import wgsl from "./flash_matrix.wgsl" with { type: "text" };
import gradWgsl from "./flash_matrix_grad.wgsl" with { type: "text" };
import rowsWgsl from "./flash_matrix_rows.wgsl" with { type: "text" };
import tileWgsl from "./flash_matrix_tile.wgsl" with { type: "text" };
import { elementGroups, type Kernel, type Tensor } from "./backend.ts";
import type { FlashBack, FlashShape } from "./flash_attention.ts";
import {
  flashMatrixGradRef,
  flashMatrixRef,
  flashRowsRef,
} from "./flash_matrix_ref.ts";
import { type FlashCut, FlashWriter } from "./flash_matrix_writer.ts";
import { halve, inEights } from "./halve.ts";
import { headNames, headParams, type Heads, wholeHeads } from "./heads.ts";
import { largest } from "./largest.ts";
import { type MatrixUnits, unitsName } from "./matrix_units.ts";
import { once } from "./write_wgsl.ts";

const ROWS: Kernel = {
  name: "flash_matrix_rows",
  wgsl: rowsWgsl,
  bindings: "rrrw",
  params: ["count", "queries", "width", "wide"],
  ref: flashRowsRef,
};

/** Own of a workgroup; many of them read less. */
const FEW = 64, MANY = 128;
/** Own from which on `MANY` still give a large GPU enough workgroups. */
const LONG = 2048;
/** Others at a time, the first for which there is memory. */
const TILES = [32, 16];
/** Bytes of a workgroup at most, though there may be more: several share a multiprocessor. */
const MOST_MEMORY = 40 * 1024;
/** The largest width of which a kernel has both the sums for keys and those for values in registers. */
const BOTH_WIDTH = 80;

/**
 * How matrix units make an attention.
 *
 * @param own Queries, or keys where gradients on these are made.
 * @returns Undefined where they cannot, or would hardly be used.
 */
function cutFor(
  { M, N, K, subgroup, memory }: MatrixUnits,
  own: number,
  width: number,
): FlashCut | undefined {
  const WN = 1;
  const per = subgroup / (WN * N); // threads of a column of scores
  const WIDTH = Math.ceil(width / Math.max(M, K)) * Math.max(M, K);
  for (const OWN of own < LONG ? [FEW] : [MANY, FEW]) {
    for (const TILE of TILES) {
      const bytes = 2 * 2 * WIDTH * (TILE + 8) + 6 * TILE * (OWN + 8) +
        8 * TILE;
      if (
        bytes <= Math.min(memory, MOST_MEMORY) &&
        OWN / (WN * N) * subgroup <= 256 &&
        TILE % M === 0 && TILE % K === 0 &&
        per >= 1 && TILE % (4 * per) === 0
      ) return { OWN, TILE, WN, WIDTH };
    }
  }
  return undefined;
}

/**
 * Whether an attention, and the way back from its result, go by matrix units: where the backend has some and may round
 * to 16 bits, and there are queries enough for a workgroup. Causal ones are short; they do without.
 */
export function fitsMatrix(
  { backend, size }: Tensor,
  { queries, keys, width, causal, exact }: FlashShape,
): boolean {
  const { matrix, halfProducts } = backend;
  return matrix !== undefined && halfProducts && !causal && !exact &&
    queries >= FEW &&
    size % 4 === 0 && // for `largest`
    cutFor(matrix, queries, width) !== undefined &&
    cutFor(matrix, keys, width) !== undefined;
}

/** Copies in 16 bits, one of each tensor. */
class Halves implements Disposable {
  readonly #made = new Map<Tensor, Tensor>();

  /** Heads in the copy of their tensor, which is made unless it is there. */
  of({ tensor, pitch, first }: Heads, cells: number, peaks?: Tensor): Heads {
    let made = this.#made.get(tensor);
    if (!made) {
      const lines = [1, tensor.size / cells, cells] as const;
      made = halve({ tensor, stride: cells }, lines, peaks);
      this.#made.set(tensor, made);
    }
    return { tensor: made, pitch, first };
  }

  /** For `using`. */
  [Symbol.dispose](): void {
    for (const x of this.#made.values()) x.dispose();
  }
}

/** See `flashAttention`. */
export function flashMatrix(
  [q, k, v]: readonly [Heads, Heads, Heads],
  { heads, queries, keys, width }: FlashShape,
  { stats, out }: { readonly stats: Tensor; readonly out: Tensor },
): void {
  const { backend } = out;
  using halves = new Halves();
  const operands = {
    q: halves.of(q, queries),
    k: halves.of(k, keys),
    v: halves.of(v, keys),
  };
  const units = backend.matrix!;
  const cut = cutFor(units, queries, width)!;
  backend.dispatch(forward(units, cut), {
    bind: [
      operands.q.tensor,
      operands.k.tensor,
      operands.v.tensor,
      stats,
      out,
    ],
    params: {
      heads,
      queries,
      keys,
      width,
      scale: 1 / Math.sqrt(width),
      wideQueries: inEights(queries),
      wideKeys: inEights(keys),
      ...headParams(operands),
    },
    groups: [Math.ceil(queries / cut.OWN), heads, 1],
  });
}

/** See `flashAttentionGrad`; there is a gradient on the result, and none on probes. */
export function flashMatrixGrad(
  { q, k, v, out, stats, go }:
    & Omit<FlashBack, "go" | "h" | "probed">
    & { readonly go: Tensor },
  { heads, queries, keys, width }: FlashShape,
  [dq, dk, dv]: readonly (Heads | undefined)[],
): void {
  const { backend } = out;
  const units = backend.matrix!;
  using peaks = largest(go);
  using inputs = new Halves();
  using seeds = new Halves();
  const hq = inputs.of(q, queries);
  const hk = inputs.of(k, keys);
  const hv = inputs.of(v, keys);
  const hg = seeds.of(wholeHeads(go, width), queries, peaks);
  using rows = backend.alloc([heads, 2, queries]);
  const count = heads * queries;
  backend.dispatch(ROWS, {
    bind: [hg.tensor, out, stats, rows],
    params: { count, queries, width, wide: inEights(queries) },
    groups: elementGroups(count),
  });
  const run = (
    operands: Readonly<Record<"a" | "b" | "ga" | "gb", Heads>>,
    [own, others]: readonly [number, number],
    byQuery: boolean,
    slopes: Heads | undefined,
    values: Heads | undefined,
  ): void => {
    const { a, b, ga, gb } = operands;
    const some = (slopes ?? values)!;
    const cut = cutFor(units, own, width)!;
    const flags = {
      BY_QUERY: byQuery,
      SLOPES: slopes !== undefined,
      VALUES: values !== undefined,
    };
    backend.dispatch(grad(units, cut, flags), {
      bind: [
        a.tensor,
        b.tensor,
        ga.tensor,
        gb.tensor,
        rows,
        peaks,
        some.tensor,
      ],
      params: {
        heads,
        own,
        others,
        width,
        scale: 1 / Math.sqrt(width),
        wideOwn: inEights(own),
        wideOthers: inEights(others),
        products: 1 + (slopes ? 2 : 0) + (values ? 1 : 0),
        ...headParams({
          ...operands,
          slopes: slopes ?? some,
          values: values ?? some,
        }),
      },
      groups: [Math.ceil(own / cut.OWN), heads, 1],
    });
  };
  if (dq) {
    const operands = { a: hq, b: hk, ga: hg, gb: hv };
    run(operands, [queries, keys], true, dq, undefined);
  }
  const byKey = { a: hk, b: hq, ga: hv, gb: hg };
  const sizes = [keys, queries] as const;
  // A kernel writes to one tensor only: two bindings of the same one are forbidden.
  if (dk && dv && dk.tensor === dv.tensor && width <= BOTH_WIDTH) {
    run(byKey, sizes, false, dk, dv);
    return;
  }
  if (dk) run(byKey, sizes, false, dk, undefined);
  if (dv) run(byKey, sizes, false, undefined, dv);
}

function nameOf(units: MatrixUnits, cut: FlashCut): string {
  const { OWN, TILE, WN, WIDTH } = cut;
  return `${WIDTH}_${OWN}x${TILE}x${WN}_${unitsName(units)}`;
}

function forward(units: MatrixUnits, cut: FlashCut): Kernel {
  return once(`flash_matrix_${nameOf(units, cut)}`, () => {
    const write = new FlashWriter(units, cut);
    return {
      wgsl: write.source(tileWgsl + wgsl, {
        ownFragments: write.ownFragments("q", "eightOfQ"),
        sums: write.sums("o"),
        read: write.read("eightOfK", "eightOfV"),
        write: write.write(),
        scores: write.products("q", false),
        take: write.take("s"),
        mask: write.fours((i, rows) =>
          `s${i} = select(vec4f(LOWEST), s${i}, vec4u(${rows}) + row < vec4u(p.keys - y0));`
        ),
        most: write.fours((i) =>
          `{ let two = max(s${i}.xy, s${i}.zw); most = max(most, max(two.x, two.y)); }`
        ),
        mostOfAll: write.overColumn((from) =>
          `most = max(most, ${from("most")});`
        ),
        shrink: write.scaleColumns("o", "shrink"),
        probabilities: `let cBase = c * base;\n${
          write.fours((i, rows) =>
            `{ let p = exp2(c * s${i} - cBase);
            sum += (p.x + p.y) + (p.z + p.w);
            let h = vec4<f16>(p);
            ${write.keep(rows, "h")} }`
          )
        }`,
        values: write.addUp("o", true),
        sumOfAll: write.overColumn((from) => `sum += ${from("sum")};`),
        handOut: write.handOut(
          "o",
          "p.queries",
          "out[(z * p.width + d) * p.queries + n] = inverse * area[at];",
        ),
      }),
      bindings: "rrrww",
      params: [
        "queries",
        "keys",
        "width",
        "scale:f",
        "wideQueries",
        "wideKeys",
        ...headNames("q", "k", "v"),
      ],
      ref: flashMatrixRef,
      flops: ({ heads, queries, keys, width }) =>
        4 * heads! * queries! * keys! * width!,
    };
  });
}

/** Which gradients a kernel makes; see the WGSL. */
interface Flags {
  readonly BY_QUERY: boolean;
  readonly SLOPES: boolean;
  readonly VALUES: boolean;
}

function grad(units: MatrixUnits, cut: FlashCut, flags: Flags): Kernel {
  const { BY_QUERY, SLOPES, VALUES } = flags;
  const kind = `${BY_QUERY ? "query" : "key"}${SLOPES ? "_slopes" : ""}${
    VALUES ? "_values" : ""
  }`;
  return once(`flash_matrix_grad_${kind}_${nameOf(units, cut)}`, () => {
    const write = new FlashWriter(units, cut);
    const ofQuery = (rows: readonly number[], part: "x" | "y") =>
      BY_QUERY
        ? `vec4f(query.${part})`
        : `vec4f(${rows.map((r) => `queries[row + ${r}u].${part}`)})`;
    const handOut = (sums: string, name: string, factor: string) =>
      write.handOut(
        sums,
        "p.own",
        `out[(z * p.${name}Pitch + p.${name}First + d) * p.own + n] = ${factor} * back * area[at];`,
      );
    return {
      wgsl: write.source(
        scaleWgsl + tileWgsl +
          `const BY_QUERY = ${BY_QUERY};\n` + gradWgsl,
        {
          ownFragments: write.ownFragments("a", "eightOfA") +
            (SLOPES ? write.ownFragments("g", "eightOfGa") : ""),
          sums: (SLOPES ? write.sums("o") : "") +
            (VALUES ? write.sums("v") : ""),
          read: write.read("eightOfB", "eightOfGb"),
          write: write.write(),
          scores: write.products("a", false),
          probabilities: write.take("s") +
            write.fours((i, rows) =>
              `let p${i} = probability(c, s${i}, ${ofQuery(rows, "x")});` +
              (VALUES
                ? `{ let h = vec4<f16>(MANY * p${i}); ${
                  write.keep(rows, "h")
                } }`
                : "")
            ),
          values: VALUES ? write.addUp("v", true) : "",
          slopes: SLOPES
            ? `${write.products("g", true)}
            workgroupBarrier();
            ${write.take("g")}
            ${
              write.fours((i, rows) =>
                `{ let h = slope(p${i}, g${i}, ${ofQuery(rows, "y")}); ${
                  write.keep(rows, "h")
                } }`
              )
            }
            workgroupBarrier();
            ${write.addUp("o", false)}`
            : "",
          handOut: (SLOPES ? handOut("o", "slopes", "p.scale / MORE") : "") +
            (VALUES ? handOut("v", "values", "1.0 / MANY") : ""),
        },
      ),
      bindings: "rrrrrrw",
      params: [
        "own",
        "others",
        "width",
        "scale:f",
        "wideOwn",
        "wideOthers",
        ...headNames("a", "b", "ga", "gb", "slopes", "values"),
      ],
      ref: (bind, params) =>
        flashMatrixGradRef(bind, params, {
          BY_QUERY: Number(BY_QUERY),
          SLOPES: Number(SLOPES),
          VALUES: Number(VALUES),
        }),
      flops: ({ heads, own, others, width, products }) =>
        2 * products! * heads! * own! * others! * width!,
    };
  });
}
