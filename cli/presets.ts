/** The paper's tables and figures, and other choices of the method, as methods to compare: plain data. */
import type { Guidance } from "./variants.ts";

/** Methods to compare. */
export interface ComparePreset {
  /** One line. */
  readonly about: string;
  /** The method that the differences are to. */
  readonly against: string;
  /** Name of each row -> its guidance. */
  readonly variants: Readonly<Record<string, Guidance>>;
}

/** WinWinLay with the paper's numbers where the embedded model's preset has others. */
const PAPER = { method: "winwinlay", snr: 0.06, rho: [5, 0] } as const;

/** Plain gradient steps as Layout-Control takes them: the paper says nothing of their number (A21). */
const BACKPROP = { update: "backprop", iterations: 5, stopBelow: 0.2 } as const;

/** Rows that differ in one option. */
function sweep<T>(
  name: string,
  values: readonly T[],
  guidance: (value: T) => Guidance,
): Record<string, Guidance> {
  return Object.fromEntries(
    values.map((value) => [`${name} ${value ?? "none"}`, guidance(value)]),
  );
}

/** By the name that `compare --preset` takes. */
export const COMPARE_PRESETS: Readonly<Record<string, ComparePreset>> = {
  table1: {
    about: "Table 1: every method, in the paper's order",
    against: "winwinlay",
    variants: {
      "none": { method: "none" },
      "layout-control": { method: "layout-control" },
      "attention-refocusing": { method: "attention-refocusing" },
      "rnb": { method: "rnb" },
      "csg": { method: "csg" },
      "boxdiff": { method: "boxdiff" },
      "winwinlay": { method: "winwinlay" },
    },
  },
  table2: {
    about: "Table 2: energy with or without prior, update plain or adaptive",
    against: "NAEF + adaptive",
    variants: {
      "AEF + backprop": { ...PAPER, ...BACKPROP, energy: "aef" },
      "NAEF + backprop": { ...PAPER, ...BACKPROP, energy: "naef" },
      "AEF + adaptive": { ...PAPER, energy: "aef", update: "adaptive" },
      "NAEF + adaptive": { ...PAPER, energy: "naef", update: "adaptive" },
    },
  },
  fig6: {
    about: "Figure 6: weight of the prior, rho",
    against: "rho 5",
    variants: sweep(
      "rho",
      [0, 1, 2, 5, 10, 20],
      (rho) => ({ ...PAPER, rho: [rho, 0] }),
    ),
  },
  fig7: {
    about: "Figure 7: factor on nu, ratio of drift to noise r, updates O",
    against: "r 0.06",
    variants: {
      ...sweep(
        "nu x",
        [0.25, 0.5, 2, 4],
        (nuFactor) => ({ ...PAPER, nuFactor }),
      ),
      ...sweep(
        "r",
        [0.03, 0.06, 0.1, 0.15, 0.25],
        (snr) => ({ ...PAPER, snr }),
      ),
      ...sweep("O", [1, 2, 8], (iterations) => ({ ...PAPER, iterations })),
    },
  },
  lambda: {
    about: "peakedness of the prior, in image sides",
    against: "lambda 4",
    variants: sweep(
      "lambda",
      [0, 1, 4, 16],
      (lambda) => ({ ...PAPER, lambda, units: "unit" }),
    ),
  },
  score: {
    about: "which prediction stands for the score",
    against: "score cond",
    variants: sweep(
      "score",
      ["cond", "uncond", "cfg"],
      (score) => ({ method: "winwinlay", score }),
    ),
  },
  noise: {
    about: "when Langevin noise is added",
    against: "noise always",
    variants: sweep(
      "noise",
      ["always", "not_last", "never"],
      (noise) => ({ method: "winwinlay", noise }),
    ),
  },
  floor: {
    about: "energy below which a phrase stops pushing",
    against: "floor none",
    variants: sweep(
      "floor",
      [null, 0.001, 0.01, 0.04, 0.16],
      (energyFloor) => ({ method: "winwinlay", energyFloor }),
    ),
  },
};
