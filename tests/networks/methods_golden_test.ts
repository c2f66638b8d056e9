/**
 * Losses of every method on one synthetic attention tensor: values that the official codes give for it, and
 * the norms of their gradients on the scores. Made once with those codes in float64 (R&B's in float32),
 * independently of this library.
 */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { attention } from "../../kernels/attention.ts";
import type { Backend, Tensor } from "../../kernels/backend.ts";
import { Tape } from "../../kernels/tape.ts";
import type { Subject } from "../../pipeline/energy.ts";
import type {
  EnergyContext,
  EnergyReport,
} from "../../pipeline/guidance/method.ts";
import {
  checkGuidance,
  type GuidanceRequest,
  methodOf,
} from "../../pipeline/guidance/methods.ts";
import { attentionSites, unetConfig } from "../../pipeline/unet_config.ts";
import { BACKEND, testBackend } from "../backend.ts";
import { U } from "../compare.ts";

const HEADS = 2;
const TEXT = 77;
/** Rows of queries and keys: a power of 4 that holds 77 tokens and 256 cells. */
const WIDTH = 256;

const CONFIG = unetConfig({
  block_out_channels: [320, 640, 1280, 1280],
  down_block_types: [
    "CrossAttnDownBlock2D",
    "CrossAttnDownBlock2D",
    "CrossAttnDownBlock2D",
    "DownBlock2D",
  ],
  up_block_types: [
    "UpBlock2D",
    "CrossAttnUpBlock2D",
    "CrossAttnUpBlock2D",
    "CrossAttnUpBlock2D",
  ],
}, "SD1.5");

const A: Subject = { name: "a", tokens: [2], boxes: [[0.1, 0.2, 0.5, 0.8]] };
const B: Subject = {
  name: "b",
  tokens: [5],
  boxes: [[0.55, 0.45, 0.95, 0.9]],
};

/** Scores `[heads, keys, cells]` of a site on a grid of `n x n`; `l` counts cross-attention sites. */
function scores(kind: "cross" | "self", l: number, n: number): Float64Array {
  const cells = n * n;
  const keys = kind === "cross" ? TEXT : cells;
  const at = (
    u: number,
  ) => [(u % n + 0.5) / n * 16, (Math.floor(u / n) + 0.5) / n * 16];
  const out = new Float64Array(HEADS * keys * cells);
  let i = 0;
  for (let h = 0; h < HEADS; h++) {
    for (let j = 0; j < keys; j++) {
      for (let u = 0; u < cells; u++) {
        const [x = 0, y = 0] = at(u);
        if (kind === "self") {
          const [a = 0, b = 0] = at(j);
          out[i++] = -((x - a) ** 2 + (y - b) ** 2) / 32 +
            0.2 * Math.sin(0.3 * l + 0.9 * h + 0.05 * u - 0.03 * j);
          continue;
        }
        const spot = j === 2 ? [4, 5] : j === 5 ? [11, 10] : undefined;
        out[i++] = 0.3 * Math.sin(
              0.7 * l + 1.3 * h + 0.11 * x * (j + 1) - 0.07 * y + 0.5 * j,
            ) +
          (spot
            ? 2 *
              Math.exp(-((x - spot[0]!) ** 2 + (y - spot[1]!) ** 2) / 18)
            : 0);
      }
    }
  }
  return out;
}

/** Scores as queries: with `k = 16 I` of width 256 they come out of `q^T k / 16` without a rounding. */
function place(backend: Backend, id: string): { q: Tensor; k: Tensor } {
  const cross = attentionSites(CONFIG).filter(({ kind }) => kind === "cross");
  const kind = id.endsWith("attn1") ? "self" : "cross";
  const l = cross.findIndex((site) => site.id.slice(0, -1) === id.slice(0, -1));
  const n = 64 / 2 ** cross[l]!.level;
  const keys = kind === "cross" ? TEXT : n * n;
  const own = scores(kind, l, n);
  const q = new Float64Array(HEADS * WIDTH * n * n);
  const k = new Float64Array(HEADS * WIDTH * keys);
  const size = keys * n * n;
  for (let h = 0; h < HEADS; h++) {
    q.set(own.subarray(h * size, (h + 1) * size), h * WIDTH * n * n);
    for (let j = 0; j < keys; j++) k[(h * WIDTH + j) * keys + j] = 16;
  }
  return {
    q: backend.upload(q, [1, HEADS * WIDTH, n, n]),
    k: backend.upload(k, [1, HEADS * WIDTH, keys]),
  };
}

/** A method's energy on the synthetic maps, and its gradient on all their scores. */
async function evaluate(
  guidance: GuidanceRequest,
  subjects: readonly Subject[],
  step = 0,
): Promise<EnergyReport & { readonly gradient: Float64Array }> {
  const backend = await testBackend();
  const context: EnergyContext = {
    backend,
    config: CONFIG,
    subjects,
    image: [512, 512],
    grid: [64, 64],
    textLength: TEXT,
    promptLength: TEXT,
    seed: 0,
  };
  using energy = methodOf(checkGuidance(guidance))!.energy(context);
  const placed = [...energy.probes].map(([id, probe]) => ({
    id,
    probe,
    ...place(backend, id),
  }));
  using tape = new Tape(backend, placed.map(({ q }) => q));
  const maps = tape.run(() =>
    placed.map(({ id, probe, q, k }) => {
      const { out, logProbs } = attention(q, k, k, { heads: HEADS, probe });
      out.dispose();
      return energy.reduce(logProbs!, id);
    })
  );
  const { seeds, terms, report } = await energy.evaluate(maps, {
    step,
    steps: 50,
    iteration: 0,
  });
  const grads = tape.backward(seeds);
  const numbers = await backend.read([...terms, ...grads]);
  const own = report(numbers.splice(0, terms.length));
  for (const x of [...terms, ...grads, ...maps, ...seeds.map(([, h]) => h)]) {
    x.dispose();
  }
  for (const { q, k } of placed) {
    q.dispose();
    k.dispose();
  }
  return {
    ...own,
    gradient: Float64Array.from(numbers.flatMap((x) => [...x])),
  };
}

/** The tolerances that come with the values: parts of the codes, and our priors, are float32. */
const VALUE = 1e-6;
const ABSOLUTE = BACKEND === "cpu" ? 0 : 2e-7;
/** A KL is a mean of differences of two logarithms of at most 4, each of which float32 rounds by 2^-24 of it. */
const KL = BACKEND === "cpu" ? 0 : 2 * 4 * U;
/** Six digits are printed; sums over up to a million float32 scores keep five. */
const NORM = BACKEND === "cpu" ? 5e-6 : 2e-5;

function near(
  actual: number | undefined,
  expected: number,
  what: string,
  bound = VALUE,
  absolute = ABSOLUTE,
): void {
  const error = Math.abs(actual! - expected);
  assert.ok(
    error <= Math.max(bound * Math.abs(expected), absolute),
    `${what}: ${actual}, expected ${expected}`,
  );
}

function nearNorm(
  gradient: ArrayLike<number>,
  expected: number,
): void {
  const norm = Math.sqrt(
    Array.from(gradient, (g) => g * g).reduce((a, b) => a + b, 0),
  );
  assert.ok(
    Math.abs(norm - expected) <= NORM * expected,
    `|gradient|: ${norm}, expected ${expected}`,
  );
}

test("the synthetic tensor is the one that the values were made with", () => {
  const probability = (
    kind: "cross" | "self",
    [l, n, h, u, j]: readonly [number, number, number, number, number],
  ): number => {
    const all = scores(kind, l, n);
    const cells = n * n;
    const keys = all.length / HEADS / cells;
    const row = Array.from(
      { length: keys },
      (_, i) => Math.exp(all[(h * keys + i) * cells + u]!),
    );
    return row[j]! / row.reduce((a, b) => a + b, 0);
  };
  near(probability("cross", [7, 16, 0, 100, 2]), 0.081184217, "P7", 1e-7);
  near(probability("cross", [6, 8, 1, 20, 5]), 0.024065589, "P6", 1e-7);
  near(probability("cross", [12, 32, 0, 500, 76]), 0.015021919, "P12", 1e-7);
  near(probability("self", [7, 16, 1, 37, 90]), 0.006050658, "Self7", 1e-7);
});

const CASES: readonly {
  readonly name: string;
  readonly guidance: GuidanceRequest;
  readonly subjects?: readonly Subject[];
  readonly step?: number;
  readonly value: number;
  readonly norm: number;
}[] = [
  {
    name: "layout-control",
    guidance: { method: "layout-control" },
    value: 0.28655383,
    norm: 1.35185e-2,
  },
  {
    name: "layout-control, two tokens and two boxes",
    guidance: { method: "layout-control" },
    subjects: [
      { ...A, tokens: [2, 3], boxes: [...A.boxes, [0.6, 0.05, 0.9, 0.3]] },
      B,
    ],
    value: 0.31859295,
    norm: 1.19327e-2,
  },
  {
    name: "boxdiff",
    guidance: { method: "boxdiff" },
    value: 1.0341785,
    norm: 8.68248e-2,
  },
  {
    name: "rnb",
    guidance: { method: "rnb" },
    value: 3.1350987,
    norm: 1.70136e-2,
  },
  {
    name: "rnb with the boxes exchanged, where edges count",
    guidance: { method: "rnb" },
    subjects: [{ ...A, boxes: B.boxes }, { ...B, boxes: A.boxes }],
    value: 4.6899457,
    norm: 1.49255e-2,
  },
  {
    name: "csg, cross",
    guidance: { method: "csg", subset: 1, selfWeight: 0 },
    value: 3.14040591,
    norm: 2.50065e-1,
  },
  {
    name: "csg, self",
    guidance: { method: "csg", subset: 1, crossWeight: 0 },
    value: 2.13364669,
    norm: 1.77126e-2,
  },
  {
    name: "attention-refocusing, CAR at step 0",
    guidance: { method: "attention-refocusing", lossScale: 1, sarWeight: 0 },
    value: 0.3146246,
    norm: 6.45262e-2,
  },
  {
    name: "attention-refocusing, CAR at step 20",
    guidance: { method: "attention-refocusing", lossScale: 4, sarWeight: 0 },
    step: 20, // where the scale is a quarter
    value: 0.2208600,
    norm: 5.27513e-2,
  },
  {
    name: "attention-refocusing, SAR",
    guidance: { method: "attention-refocusing", lossScale: 1, carWeight: 0 },
    value: 0.53541550,
    norm: 1.31995e-3,
  },
  {
    name: "winwinlay, without the prior",
    guidance: { energy: "aef" },
    value: 0.36269410,
    norm: 1.63254e-2,
  },
  {
    name: "winwinlay",
    guidance: {},
    value: 0.99949843,
    norm: 1.06276e-1,
  },
];

for (const { name, guidance, subjects = [A, B], step, value, norm } of CASES) {
  test(`loss and gradient on the synthetic tensor: ${name}`, async () => {
    const { energy, gradient } = await evaluate(guidance, subjects, step);
    near(energy, value, "value");
    nearNorm(gradient, norm);
  });
}

test("boxdiff gives the terms of its loss", async () => {
  const { subjects: [a, b] } = await evaluate({ method: "boxdiff" }, [A, B]);
  const expected = {
    inside: [1 - 0.811250, 1 - 0.836347],
    outside: [0.150185, 0.095199],
    cornerX: [0.103816, 0.103997],
    cornerY: [0.110480, 0.118099],
  };
  for (const [term, [first = 0, second = 0]] of Object.entries(expected)) {
    // Six decimals are printed.
    assert.ok(Math.abs(a![term]! - first) < 1e-6, `${term} of a: ${a![term]}`);
    assert.ok(Math.abs(b![term]! - second) < 1e-6, `${term} of b: ${b![term]}`);
  }
});

test("attention-refocusing finds the peaks inside and outside", async () => {
  const { subjects } = await evaluate({ method: "attention-refocusing" }, [
    A,
    B,
  ]);
  const inside = Math.min(...subjects.map((s) => s.inside!));
  const outside = Math.max(...subjects.map((s) => s.outside!));
  near(inside, 0.920381, "least inside");
  near(outside, 0.135802, "most outside", 5e-6);
});

test("winwinlay gives the terms of its energy for each reading", async () => {
  const mid = ["mid_block.attentions.0"];
  const up = ["up_blocks.1.attentions.0"];
  const cases: readonly (readonly [
    what: string,
    guidance: GuidanceRequest,
    subjects: readonly Subject[],
    aef: number,
    nap: number,
  ])[] = [
    ["all sites", {}, [A, B], 0.36269410, 0.12736087],
    ["site 6", { sites: mid }, [A], 0.42204076, 0.16240754],
    ["site 7", { sites: up }, [A], 0.30786762, 0.17799678],
    ["mean maps", { heads: "mean_map" }, [A, B], 0.36154147, 0.12398891],
    ["lambda 0", { lambda: 0 }, [A, B], 0.36269410, 0.14027680],
    ["lambda 1", { lambda: 1 }, [A, B], 0.36269410, 0.13408002],
    ["lambda 16", { lambda: 16 }, [A, B], 0.36269410, 0.25648619],
  ];
  const gradients: Float64Array[] = [];
  for (const [what, guidance, subjects, aef, nap] of cases) {
    const report = await evaluate(guidance, subjects);
    const mean = (term: "aef" | "nap"): number =>
      report.subjects.reduce((sum, s) => sum + s[term]!, 0) / subjects.length;
    near(mean("aef"), aef, `E_aef, ${what}`);
    near(mean("nap"), nap, `R_nap, ${what}`, VALUE, KL);
    gradients.push(report.gradient);
  }
  const plain = await evaluate({ energy: "aef" }, [A, B]);
  // rho is 5 in the first step.
  const prior = gradients[0]!.map((g, i) => (g - plain.gradient[i]!) / 5);
  nearNorm(prior, 2.21542e-2);
});
