/** Golden cases of kind `energy`: given attention scores -> energies and their gradients. */
import type { Floats, Tensor } from "../../kernels/backend.ts";
import { attention } from "../../kernels/attention.ts";
import { combine } from "../../kernels/combine.ts";
import { Tape } from "../../kernels/tape.ts";
import { LayoutEnergy } from "../../pipeline/energy.ts";
import { type GoldenCase, swapLast } from "./case.ts";
import { subjectsOf, type Variant, variantOf } from "./variant.ts";

interface Site {
  readonly heads: number;
  readonly hw: readonly [number, number];
}

/** One site's scores, put so that attention of `q` to `k` has them. */
interface Scores {
  readonly site: Site;
  readonly tokens: number;
  readonly width: number;
  readonly q: Tensor;
  readonly k: Tensor;
}

/** Large, so that in `E(rho) - E(0)` the share's energy is lost in rounding. */
const LARGE_RHO = 1024;

/** Runs a case of kind `energy`. */
export async function runEnergy(c: GoldenCase): Promise<void> {
  const sites: Scores[] = [];
  for (const [i, site] of (c.attributes.sites as Site[]).entries()) {
    sites.push(await placeScores(c, i, site));
  }
  sites.forEach((s, i) => {
    const all = [...Array(s.tokens).keys()];
    c.expectProbabilities(`probs.${i}`, c.own(probe(s, all)));
  });
  const names = c.expected();
  const done = new Set<string>();
  for (const name of names) {
    const [, energy] = name.match(
      /^(?:energy|grad_probs|grad_scores)\.(.*?)(?:\.\d+)?$/,
    ) ?? [];
    const variant = energy === undefined ? undefined : variantOf(energy);
    if (!energy || !variant || done.has(energy)) continue;
    done.add(energy);
    await evaluate(c, sites, energy, variant);
  }
}

/**
 * Scores as queries: with `k = s I` and width s^2, `q^T k / s` is `q` without a rounding.
 * The files have `[1, heads, cells, tokens]`, queries are `[1, heads width, height, width]`.
 */
async function placeScores(
  c: GoldenCase,
  index: number,
  site: Site,
): Promise<Scores> {
  const name = `input.scores.${index}`;
  const [batch, heads = 1, cells = 1, tokens = 1] = c.shape(name);
  if (batch !== 1) throw new Error("The energy takes a batch of 1");
  let width = 1;
  while (width < tokens) width *= 4;
  const scores = swapLast(await c.floats(name), cells, tokens);
  const q = new Float64Array(heads * width * cells);
  const k = new Float64Array(heads * width * tokens);
  for (let h = 0; h < heads; h++) {
    const size = tokens * cells;
    q.set(scores.subarray(h * size, (h + 1) * size), h * width * cells);
    for (let i = 0; i < tokens; i++) {
      k[(h * width + i) * tokens + i] = Math.sqrt(width);
    }
  }
  return {
    site,
    tokens,
    width,
    q: c.own(c.backend.upload(q, [1, heads * width, ...site.hw])),
    k: c.own(c.backend.upload(k, [1, heads * width, tokens])),
  };
}

/** Log-probabilities `[1, heads, tokens, height, width]`. */
function probe(
  { q, k, site: { heads } }: Scores,
  tokens: readonly number[],
): Tensor {
  const { out, logProbs } = attention(q, k, k, { heads, probe: tokens });
  out.dispose();
  return logProbs!;
}

/** The value of one energy, and its gradients on probabilities and scores. */
async function evaluate(
  c: GoldenCase,
  sites: readonly Scores[],
  name: string,
  variant: Variant,
): Promise<void> {
  const rho = variant.prior ? c.attributes.rho : 0;
  const alone = name.startsWith("nap.");
  using energy = new LayoutEnergy(
    c.backend,
    subjectsOf(c),
    sites.map((_, i) => `site ${i}`),
    [512, 512],
    variant.options,
  );
  const terms: Tensor[] = [];
  for (const [i, s] of sites.entries()) {
    /** The gradient on a map; that of the prior alone is `(h(rho) - h(0)) / rho`. */
    const gradient = (map: Tensor): Tensor => {
      const { h, terms: own } = energy.evaluate(map, alone ? LARGE_RHO : rho);
      terms[i] ??= c.own(own.retain());
      own.dispose();
      if (!alone) return h;
      const none = energy.evaluate(map, 0);
      using high = h;
      using low = none.h;
      none.terms.dispose();
      return combine(high, 1 / LARGE_RHO, low, -1 / LARGE_RHO);
    };
    {
      using tape = new Tape(c.backend, [s.q]);
      using map = tape.run(() => energy.reduce(probe(s, energy.probe)));
      using h = gradient(map);
      const [dq] = tape.backward([[map, h]]);
      const expected = `grad_scores.${name}.${i}`;
      c.own(dq!);
      if (c.has(`expected.${expected}`)) {
        c.expect(expected, dq!, (values) => scoresOf(s, values));
      }
    }
    const expected = `grad_probs.${name}.${i}`;
    if (c.has(`expected.${expected}`)) {
      using logProbs = probe(s, energy.probe);
      using tape = new Tape(c.backend, [logProbs]);
      using map = tape.run(() => energy.reduce(logProbs.retain()));
      using h = gradient(map);
      const [dLog] = tape.backward([[map, h]]);
      using grad = dLog!;
      const [g, log] = await c.backend.read([grad, logProbs]);
      c.expect(expected, probsOf(s, energy.probe, g!, log!));
    }
  }
  const report = energy.report(await c.backend.read(terms), rho);
  const naps = report.subjects.map(({ nap }) => nap);
  const nap = naps.reduce((a, b) => a + b, 0) / naps.length;
  if (c.has(`expected.energy.${name}`)) {
    c.expect(`energy.${name}`, [alone ? nap : report.energy]);
  }
}

/** Gradient on the queries `[heads, width, cells]` to that on the scores `[heads, cells, tokens]`. */
function scoresOf(
  { site: { heads }, tokens, width }: Scores,
  values: Floats,
): Float64Array<ArrayBuffer> {
  const cells = values.length / heads / width;
  const cut = new Float64Array(heads * tokens * cells);
  for (let h = 0; h < heads; h++) {
    const start = h * width * cells;
    cut.set(values.subarray(start, start + tokens * cells), h * tokens * cells);
  }
  return swapLast(cut, tokens, cells);
}

/** `dE/dp = (dE/d log p) / p` at the probed tokens, 0 elsewhere. */
function probsOf(
  { site: { heads }, tokens }: Scores,
  probed: readonly number[],
  grad: Floats,
  log: Floats,
): Float64Array<ArrayBuffer> {
  const cells = grad.length / heads / probed.length;
  const out = new Float64Array(heads * cells * tokens);
  for (let i = 0; i < grad.length; i++) {
    const token = probed[Math.floor(i / cells) % probed.length]!;
    const head = Math.floor(i / cells / probed.length);
    out[(head * cells + i % cells) * tokens + token]! += grad[i]! /
      Math.exp(log[i]!);
  }
  return out;
}
