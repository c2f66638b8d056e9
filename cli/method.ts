/** The options of the method as flags: one typed table, so that none is forgotten. */
import { WINWINLAY_DEFAULTS, type WinWinLayOptions } from "../mod.ts";
import { type Flag, type Flags, readNumber, UsageError } from "./flags.ts";

/** A flag of the method and how its text becomes the option's value. */
interface MethodFlag extends Flag {
  readonly read: (text: string, name: string) => unknown;
}

const number = readNumber;
const orNone = (text: string, name: string) =>
  text === "none" ? null : readNumber(text, name);
const word = (text: string) => text;
const choose = (...choices: string[]) => ({
  value: "NAME",
  choices,
  read: word,
});

/** Every option of the method. The type makes a forgotten one an error. */
const METHOD: { readonly [K in keyof WinWinLayOptions]: MethodFlag } = {
  steps: {
    name: "guided-steps",
    value: "N",
    read: number,
    help: "guided denoising steps",
  },
  iterations: {
    name: "iterations",
    value: "N",
    read: number,
    help: "Langevin updates per guided step",
  },
  snr: {
    name: "snr",
    value: "X",
    read: number,
    help: "ratio of drift to noise",
  },
  rho: {
    name: "rho",
    value: "X,Y",
    read: (text, name) => {
      const pair = text.split(",").map((part) => readNumber(part, name));
      if (pair.length === 2) return pair;
      throw new UsageError(
        `Cannot use --rho: it must be two numbers, such as 5,0: current ${
          JSON.stringify(text)
        }`,
      );
    },
    help: "weight of the prior at its first and last step",
  },
  rhoSchedule: {
    name: "rho-schedule",
    ...choose("guided_steps", "all_steps", "exclusive_end", "constant"),
    help: "over what rho falls",
  },
  lambda: {
    name: "lambda",
    value: "X",
    read: number,
    help: "peakedness of the prior",
  },
  units: {
    name: "units",
    ...choose("unit", "cells", "pixels"),
    help: "unit of the prior's distances",
  },
  distance: {
    name: "distance",
    ...choose("paper", "scale_invariant"),
    help: "the prior's distance",
  },
  divergence: {
    name: "divergence",
    ...choose("forward", "reverse"),
    help: "KL(attention, prior), or the other way round",
  },
  heads: {
    name: "heads",
    ...choose("mean_energy", "mean_map"),
    help: "an energy per head, or one of their mean map",
  },
  tokens: {
    name: "tokens",
    ...choose("mean_energy", "mean_map", "last"),
    help: "an energy per token of a phrase, of their mean map, or the last's",
  },
  reduction: {
    name: "reduction",
    ...choose("mean", "sum"),
    help: "over attention sites and phrases",
  },
  priors: {
    name: "priors",
    ...choose("per_box", "union_mixture"),
    help: "several boxes of a phrase",
  },
  raster: {
    name: "raster",
    ...choose("nearest", "trunc", "half_even_512", "coverage"),
    help: "how boxes become cells",
  },
  sites: {
    name: "sites",
    value: "NAME|A,B,...",
    read: (text) => {
      const names = text.split(",").map((name) => name.trim());
      const set = names.length === 1 && !names[0]!.includes(".");
      return set ? names[0] : names;
    },
    help: "middle_and_first_up, first_up_only, or attention layers by path",
  },
  score: {
    name: "score",
    ...choose("cond", "uncond", "cfg"),
    help: "which prediction is the score",
  },
  placement: {
    name: "placement",
    ...choose("before_step", "after_step"),
    help: "refine before or after the denoising step",
  },
  nu: {
    name: "nu",
    value: "NAME|X",
    read: (text) =>
      /^per_(iteration|step)$/.test(text) ? text : readNuNumber(text),
    help: "balance of the forces: per_iteration, per_step or a number",
  },
  nuFactor: {
    name: "nu-factor",
    value: "X",
    read: number,
    help: "factor on nu",
  },
  noise: {
    name: "noise",
    ...choose("always", "not_last", "never"),
    help: "when Langevin noise is added",
  },
  noiseNorm: {
    name: "noise-norm",
    ...choose("drawn", "expected"),
    help: "norm of the noise in the step size",
  },
  guard: {
    name: "guard",
    value: "X",
    read: number,
    help: "smallest drift as a share of the score",
  },
  stopBelow: {
    name: "stop-below",
    value: "X|none",
    read: orNone,
    help: "end a step's iterations below this energy",
  },
  energyFloor: {
    name: "energy-floor",
    value: "X|none",
    read: orNone,
    help: "a phrase below this energy stops pushing",
  },
};

/** Every option of the method as a flag, with the paper's value. */
export const METHOD_FLAGS: readonly Flag[] = Object.entries(METHOD).map(
  ([key, { read: _, ...flag }]) => {
    const value = WINWINLAY_DEFAULTS[key as keyof WinWinLayOptions];
    return { ...flag, help: `${flag.help} (${value ?? "none"})` };
  },
);

/** The options that were given. */
export function readMethod(flags: Flags): Record<string, unknown> {
  const given: Record<string, unknown> = {};
  for (const [key, { name, read }] of Object.entries(METHOD)) {
    const text = flags.text(name);
    if (text !== undefined) given[key] = read(text, name);
  }
  return given;
}

function readNuNumber(text: string): number {
  if (/^[a-z_]/i.test(text)) {
    throw new UsageError(
      `Cannot use --nu: it must be per_iteration, per_step or a number: current ${
        JSON.stringify(text)
      }`,
    );
  }
  return readNumber(text, "nu");
}
