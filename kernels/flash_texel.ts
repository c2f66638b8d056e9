/**
 * Attention of the software family where queries come in fours: no scores are stored, which costs adapters that are
 * processors more than computing them. Wide heads go in chunks; see `attention.ts`.
 *
 * @see Dao et al. 2022, arXiv:2205.14135.
 */
import wgsl from "./flash_texel.wgsl" with { type: "text" };
import gradWgsl from "./flash_texel_grad.wgsl" with { type: "text" };
import texelWgsl from "./texel.wgsl" with { type: "text" };
import { attentionRows } from "./attention_rows.ts";
import {
  type Backend,
  type Kernel,
  type Params,
  STAGE_SIZE,
  type StageName,
  type Tensor,
} from "./backend.ts";
import type { FlashBack, FlashShape } from "./flash_attention.ts";
import { flashAttentionRef, flashGradRef } from "./flash_attention_ref.ts";
import { headNames, headParams, type Heads, wholeHeads } from "./heads.ts";
import { fours, packedPair, packLines } from "./pack_lines.ts";
import { constants, each, fill, once } from "./write_wgsl.ts";

/** Dimensions of a head at most: it holds a number of each. */
const WIDTH = 64;
/**
 * Dimensions up to which it is taken for any work, there and back; for wider heads pipelines compile for seconds, which
 * only large images are worth. Seen on lavapipe: 0.5 s for 16 dimensions, 1.2 s for 64, 2.6 s for 48 on the way back.
 */
const NARROW = { there: 48, back: 16 } as const;
/** Multiplications of a product from which on it is taken for wider ones. */
const MUCH_WORK = 2 ** 27;
/** Dimensions up to which gradients on keys and values are faster than by products. */
const KEYS_WIDTH = 48;
/** Queries of a workgroup, or keys where it makes gradients on these: four of each thread. */
const COLUMNS = 32;

/** Sizes of one attention. */
export interface TexelShape extends Omit<FlashShape, "exact"> {
  /** Multiplications of a product of one batch element: what is chosen must not depend on what is beside it. */
  readonly work: number;
}

/** Whether the kernels can and should run an attention to these keys and values. */
export function fitsFlashTexel(
  backend: Backend,
  [q, k]: readonly [Heads, Heads, Heads],
  shape: TexelShape,
): boolean {
  const { queries, keys, width, causal } = shape;
  const pitch = Math.max(k.pitch, 2 * width); // as they are, or packed
  return backend.family === "software" && backend.kind !== "cpu" && !causal &&
    queries % 4 === 0 && isWorth("there", shape) &&
    // On the way back queries have a gradient beside them.
    Math.max((q.pitch + width) * queries, pitch * fours(keys)) <=
      STAGE_SIZE.f32;
}

/**
 * `out = softmax(q^T k / sqrt(width)) v`.
 *
 * @param q Lines of queries.
 * @param k Lines of keys.
 * @param v Like `k`.
 * @param stats Written: `[heads, 2, queries]`, the largest score and one over the sum.
 * @param out Written: `[heads, width, queries]`, in any shape.
 */
export function flashTexel(
  [q, k, v]: readonly [Heads, Heads, Heads],
  shape: TexelShape,
  { stats, out }: { readonly stats: Tensor; readonly out: Tensor },
): void {
  const { heads, queries, keys, width } = shape;
  const line = fours(keys);
  using pair = pairOf(k, v, shape, keys);
  const [key, value] = pair.parts;
  inPieces(
    heads,
    { a: [q.tensor, q.pitch * queries], b: [pair.tensor, key.pitch * line] },
    (head, here) =>
      out.backend.dispatch(forward(width), {
        bind: [q.tensor, pair.tensor, stats, out],
        params: {
          heads: here,
          queries,
          keys,
          line,
          width,
          scale: 1 / Math.sqrt(width),
          head,
          ...headParams({ q, k: key, v: value }),
        },
        groups: [Math.ceil(queries / COLUMNS), here, 1],
      }),
  );
}

/** Whether `flashTexelGrad` makes these gradients, if `fitsFlashTexel`. */
export function fitsFlashTexelGrad(
  { h }: Pick<FlashBack, "h">,
  shape: TexelShape,
  [, dk, dv]: readonly (Heads | undefined)[],
): boolean {
  const { keys, width } = shape;
  if (!isWorth("back", shape)) return false;
  if (!dk && !dv) return true;
  return !h && width <= KEYS_WIDTH && keys % 4 === 0 && dk !== undefined &&
    (dv === undefined || dv.tensor === dk.tensor);
}

/**
 * Gradients on q, k and v.
 *
 * @param grads Written, those that are there; the one on v takes `go`.
 */
export function flashTexelGrad(
  { q, k, v, out, stats, go, h, probed }: FlashBack,
  shape: TexelShape,
  [dq, dk, dv]: readonly (Heads | undefined)[],
): void {
  const { heads, queries, keys, width } = shape;
  const { backend } = out;
  const tokens = h && probed ? probed.size : 0;
  using rows = attentionRows({ out, stats, go, h }, heads, tokens);
  using ofQueries = pairOf(q, go ? wholeHeads(go, width) : q, shape, queries);
  using ofKeys = pairOf(k, v, shape, keys);
  const run = (
    kind: "queries" | "keys",
    grad: Heads,
    values: Heads | undefined,
  ): void => {
    const byQuery = kind === "queries";
    const [own, others] = byQuery ? [queries, keys] : [keys, queries];
    const mine = byQuery ? ofQueries : ofKeys;
    const theirs = byQuery ? ofKeys : ofQueries;
    const [a, ga] = mine.parts;
    const [b, gb] = theirs.parts;
    inPieces(
      heads,
      {
        a: [ofQueries.tensor, ofQueries.parts[0].pitch * queries],
        b: [ofKeys.tensor, ofKeys.parts[0].pitch * fours(keys)],
      },
      (head, here) =>
        backend.dispatch(backward(width, kind), {
          bind: [
            mine.tensor,
            theirs.tensor,
            rows,
            h ?? rows,
            probed ?? rows,
            grad.tensor,
          ],
          params: {
            heads: here,
            own,
            others,
            line: fours(others),
            width,
            products: 2 + Number(!!go) + Number(!!values),
            columns: own / 4,
            steps: fours(others) / 4,
            tokens,
            scale: 1 / Math.sqrt(width),
            head,
            ...headParams({ a, ga, b, gb, out: grad, values: values ?? grad }),
          },
          constants: {
            BY_QUERY: Number(byQuery),
            OUTPUT: Number(!!go),
            PROBE: Number(!!h && byQuery),
            VALUES: Number(!!values),
          },
          groups: [Math.ceil(own / COLUMNS), here, 1],
        }),
    );
  };
  if (dq) run("queries", dq, undefined);
  if (dk) run("keys", dk, dv);
}

function isWorth(
  way: keyof typeof NARROW,
  { width, work }: TexelShape,
): boolean {
  return width <= NARROW[way] || width <= WIDTH && work >= MUCH_WORK;
}

/** Two sets of lines that one stage holds. */
interface Pair extends Disposable {
  /** Has lines of both. */
  readonly tensor: Tensor;
  /** Where they are in it. */
  readonly parts: readonly [Heads, Heads];
}

/** Lines where a stage can take them from: as they are, or copies of them. */
function pairOf(
  x: Heads,
  y: Heads,
  { heads, width }: TexelShape,
  cells: number,
): Pair {
  if (x.tensor === y.tensor && x.pitch === y.pitch && cells % 4 === 0) {
    return { tensor: x.tensor, parts: [x, y], [Symbol.dispose]() {} };
  }
  const tensor = packLines(x, y, { heads, width, cells });
  return {
    tensor,
    parts: packedPair(tensor, width),
    [Symbol.dispose]: () => tensor.dispose(),
  };
}

/**
 * Runs something for so many heads at a time as the stages hold.
 *
 * @param stages What each of them takes, and how many numbers a head has there.
 */
function inPieces(
  heads: number,
  stages: Readonly<Record<StageName, readonly [Tensor, number]>>,
  run: (head: number, heads: number) => void,
): void {
  const { a, b } = stages;
  const most = Math.floor(STAGE_SIZE.f32 / Math.max(a[1], b[1]));
  for (let head = 0; head < heads; head += most) {
    const here = Math.min(most, heads - head);
    for (const name of ["a", "b"] as const) {
      const [tensor, size] = stages[name];
      tensor.backend.stage(name, tensor, head * size, here * size);
    }
    run(head, here);
  }
}

/** The kernel for heads of a width. */
function forward(width: number): Kernel {
  return once(`flash_texel_${width}`, () => ({
    wgsl: texelWgsl + constants({ WIDTH: width }) + fill(wgsl, {
      start: each(
        width,
        (d) =>
          `let q${d} = scale * left(qLine + ${d}u * fours); var o${d} = vec4f();`,
      ),
      keys: each(width, (d) => `let k${d} = right(kLine + ${d}u * steps + j);`),
      scores: each(width, (d) => times("s", `k${d}`, `q${d}`)),
      values: each(
        width,
        (d) => `let v${d} = right(vLine + ${d}u * steps + j);`,
      ),
      sums: each(
        width,
        (d) => `o${d} = o${d} * shrink + ${sum(`v${d}`, "e")};`,
      ),
      results: names("o", width),
    }),
    bindings: "abww",
    params: [
      "queries",
      "keys",
      "line",
      "scale:f",
      "head",
      ...headNames("q", "k", "v"),
    ],
    ref: ([a, b, stats, out], params, flags) =>
      flashAttentionRef([a!, b!, b!, stats!, out!], params, flags),
    flops: ({ heads, queries, keys }) => 4 * heads! * queries! * keys! * width,
  }));
}

/** The kernel for gradients on queries or on keys and values; the stages are the other way round for these. */
function backward(width: number, kind: "queries" | "keys"): Kernel {
  return once(`flash_texel_grad_${kind}_${width}`, () => ({
    wgsl: texelWgsl + constants({ WIDTH: width }) + fill(gradWgsl, {
      start: each(
        width,
        (d) =>
          `let x${d} = scale * left(aLine + ${d}u * p.columns);
        let gx${d} = left(gaLine + ${d}u * p.columns);
        var r${d} = vec4f(); var rv${d} = vec4f();`,
      ),
      others: each(
        width,
        (d) =>
          `let y${d} = right(bLine + ${d}u * p.steps + j);
        let gy${d} = right(gbLine + ${d}u * p.steps + j);`,
      ),
      scores: each(width, (d) => times("s", `y${d}`, `x${d}`)),
      slopes: each(width, (d) => times("d", `gy${d}`, `gx${d}`)),
      sums: each(width, (d) => `r${d} += ${sum(`y${d}`, "d")};`),
      values: each(width, (d) => `rv${d} += ${sum(`gy${d}`, "e")};`),
      probes: each(
        width,
        (d) => `r${d} += slope * right(bLine + ${d}u * p.steps + j)[e];`,
      ),
      results: names("r", width),
      valueResults: names("rv", width),
    }),
    bindings: kind === "queries" ? "abrrrw" : "barrrw",
    params: [
      "columns",
      "steps",
      "tokens",
      "scale:f",
      "head",
      ...headNames("a", "ga", "b", "gb", "out", "values"),
    ],
    ref: gradRef,
    flops: ({ heads, own, others, products }) =>
      2 * products! * heads! * own! * others! * width,
  }));
}

/** Bindings a, b, rows, h, probed, out. */
function gradRef(
  [a, b, rows, h, probed, out]: readonly Float64Array[],
  p: Params,
  flags: Params,
): void {
  const bind = [a!, b!, a!, b!, rows!, h!, probed!, out!];
  flashGradRef(bind, p, { ...flags, VALUES: 0 });
  if (!flags["VALUES"]) return;
  const { valuesPitch = 1, valuesFirst = 0 } = p;
  const values = { ...p, outPitch: valuesPitch, outFirst: valuesFirst };
  flashGradRef(bind, values, flags);
}

/** Four products of a sum, for the four numbers of `x`. */
function times(sums: string, x: string, y: string): string {
  return [..."xyzw"].map((e, i) => `${sums}${i} += ${x}.${e} * ${y};`)
    .join(" ");
}

/** The four numbers of `x` times what belongs to each. */
function sum(x: string, y: string): string {
  const [one, two, three, four] = [..."xyzw"].map((e, i) =>
    `${x}.${e} * ${y}${i}`
  );
  return `((${one} + ${two}) + (${three} + ${four}))`;
}

/** What a loop writes in the end. */
function names(name: string, count: number): string {
  return Array.from({ length: count }, (_, d) => name + d).join(", ");
}
