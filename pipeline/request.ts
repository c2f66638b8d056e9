/** One request object for library, command line and PNG metadata: types, defaults and strict checks. */
import {
  WINWINLAY_DEFAULTS,
  type WinWinLayOptions,
} from "./guidance/winwinlay.ts";
import { type CheckedRegion, checkLayout, type Region } from "./layout.ts";
import type { MicroConditioning } from "./conditioning.ts";
import { nearest } from "./nearest.ts";
import { type Spacing, SPACINGS } from "./schedule_config.ts";
import { type SchedulerName, SCHEDULERS } from "./scheduler.ts";

/** How the layout guides: WinWinLay with some of its options, or not at all. */
export type GuidanceRequest =
  | { readonly method: "none" }
  | (
    & { readonly method?: "winwinlay" }
    & { readonly [K in keyof WinWinLayOptions]?: WinWinLayOptions[K] }
  );

/** What a user asks for. Only the prompt is needed. */
export interface GenerateRequest {
  /** What to paint. */
  readonly prompt: string;
  /** What to keep away from. Default empty. */
  readonly negativePrompt?: string;
  /** Text around the prompt, with `{}` where it goes, such as the paper's `A photo of {}` (A18). Default `{}`. */
  readonly template?: string;
  /** Phrases of the prompt and their boxes or masks. */
  readonly regions?: readonly Region[];
  /** Whole number from 0 to 2^53 - 1. Default 0. */
  readonly seed?: number;
  /**
   * So many seeds, from `seed` on, are tried, and the picture whose attention keeps best to the layout is
   * the result: see `layoutScore`. Default 1.
   */
  readonly bestOf?: number;
  /** Denoising steps. */
  readonly steps?: number;
  /** Sampler. Default `ddim`, the paper's. */
  readonly scheduler?: SchedulerName;
  /** How timesteps are spread; names are diffusers'. Default as the model's scheduler config says. */
  readonly spacing?: Spacing;
  /** Keep what fits of prompts that are too long, instead of an error. Default false. */
  readonly truncate?: boolean;
  /** SDXL: `[width, height]` before cropping and scaling that the model is told. Default the image's. */
  readonly originalSize?: readonly [number, number];
  /** SDXL: `[left, top]` of the crop that the model is told. Default `[0, 0]`. */
  readonly cropTopLeft?: readonly [number, number];
  /** SDXL: `[width, height]` of the result that the model is told. Default the image's. */
  readonly targetSize?: readonly [number, number];
  /** Classifier-free guidance scale. */
  readonly guidanceScale?: number;
  /** Image width in pixels. Default the model's own. */
  readonly width?: number;
  /** Image height in pixels. Default the model's own. */
  readonly height?: number;
  /** Settings to start from: the model's own (`model`, the default) or the paper's (`paper`). */
  readonly preset?: PresetName;
  /** Layout guidance; what is left out comes from the preset. */
  readonly guidance?: GuidanceRequest;
}

/** Names of presets. */
export type PresetName = "model" | "paper";

/** Defaults of a request. */
export interface Preset {
  /** Denoising steps. */
  readonly steps: number;
  /** Classifier-free guidance scale. */
  readonly guidanceScale: number;
  /** Layout guidance. */
  readonly guidance: WinWinLayOptions;
}

/** The settings of the paper: SD1.5, 50 DDIM steps, scale 7.5, 10 guided steps of 4 iterations. */
export const PAPER: Preset = {
  steps: 50,
  guidanceScale: 7.5,
  guidance: WINWINLAY_DEFAULTS,
};

/** A request with every default filled in: the same pixels again from it alone. */
export interface FullRequest {
  /** Name of the model. */
  readonly model: string;
  /** What to paint. */
  readonly prompt: string;
  /** What to keep away from. */
  readonly negativePrompt: string;
  /** Text around the prompt. */
  readonly template: string;
  /** Phrases and where they should be. */
  readonly regions: readonly CheckedRegion[];
  /** Of all noise. */
  readonly seed: number;
  /** Seeds to try, where they are more than one. A result has none: its seed is the best. */
  readonly bestOf?: number;
  /** Denoising steps. */
  readonly steps: number;
  /** Sampler. */
  readonly scheduler: SchedulerName;
  /** How timesteps are spread, where it was said. */
  readonly spacing?: Spacing;
  /** Whether texts may be cut. */
  readonly truncate: boolean;
  /** Classifier-free guidance scale. */
  readonly guidanceScale: number;
  /** SDXL only: see `GenerateRequest`. */
  readonly originalSize?: readonly [number, number];
  /** SDXL only. */
  readonly cropTopLeft?: readonly [number, number];
  /** SDXL only. */
  readonly targetSize?: readonly [number, number];
  /** Pixels. */
  readonly width: number;
  /** Pixels. */
  readonly height: number;
  /** Layout guidance with every option. */
  readonly guidance:
    | { readonly method: "none" }
    | ({ readonly method: "winwinlay" } & WinWinLayOptions);
}

/** What a request is checked against. */
export interface RequestLimits {
  /** The model's name, kept in the request. */
  readonly model: string;
  /** Own image size, `[width, height]`. */
  readonly size: readonly [number, number];
  /** Both sides must be multiples of it. */
  readonly multiple: number;
  /** Settings by name. */
  readonly presets: Readonly<Record<PresetName, Preset>>;
  /** Most denoising steps: the model's train timesteps. */
  readonly mostSteps: number;
  /** The model is told sizes, as SDXL is. */
  readonly takesSizes: boolean;
}

const KEYS = [
  "prompt",
  "negativePrompt",
  "template",
  "regions",
  "seed",
  "bestOf",
  "steps",
  "scheduler",
  "spacing",
  "truncate",
  "guidanceScale",
  "width",
  "height",
  "originalSize",
  "cropTopLeft",
  "targetSize",
  "preset",
  "guidance",
  "model",
] as const;

const MOST_PIXELS = 4096;
const MOST_CANDIDATES = 1000;

/**
 * Checks a request and fills in what it leaves out.
 *
 * @param value A `GenerateRequest`, or the `FullRequest` of an earlier result.
 * @returns The full request, and notes on what was repaired (clamped boxes).
 * @throws {TypeError | RangeError} With one message that names the key.
 */
export function checkRequest(
  value: unknown,
  limits: RequestLimits,
): { request: FullRequest; notes: string[] } {
  const input = object(value, "request", KEYS);
  const preset = oneOf(
    input.preset,
    "preset",
    ["model", "paper"] as const,
    "model",
  );
  const defaults = limits.presets[preset];
  if (input.model !== undefined && input.model !== limits.model) {
    throw new RangeError(
      `Cannot use request: its model must be the open one, "${limits.model}": current ${
        JSON.stringify(input.model)
      }`,
    );
  }
  const prompt = text(input.prompt, "prompt");
  if (prompt.trim() === "" && input.regions !== undefined) {
    throw new RangeError(
      `Cannot use request: a prompt with regions must not be empty: current ${
        JSON.stringify(prompt)
      }`,
    );
  }
  const template = text(input.template ?? "{}", "template");
  if (template.split("{}").length !== 2) {
    throw new RangeError(
      `Cannot use request: template must hold {} once: current ${
        JSON.stringify(template)
      }`,
    );
  }
  const side = (key: "width" | "height", own: number): number => {
    const pixels = whole(input[key] ?? own, key, limits.multiple, MOST_PIXELS);
    if (pixels % limits.multiple) {
      throw new RangeError(
        `Cannot use request: ${key} must be a multiple of ${limits.multiple}: current ${pixels}`,
      );
    }
    return pixels;
  };
  const width = side("width", limits.size[0]);
  const height = side("height", limits.size[1]);
  const { regions, notes } = isEmptyList(input.regions)
    ? { regions: [], notes: [] }
    : checkLayout(input.regions, [width, height]);
  const seed = whole(input.seed ?? 0, "seed", 0, Number.MAX_SAFE_INTEGER);
  const bestOf = whole(input.bestOf ?? 1, "bestOf", 1, MOST_CANDIDATES);
  if (bestOf > 1 && regions.length === 0) {
    throw new RangeError(
      `Cannot use request: bestOf above 1 must come with regions, which tell the better picture: current bestOf is ${bestOf} and regions are none`,
    );
  }
  if (seed > Number.MAX_SAFE_INTEGER - (bestOf - 1)) {
    throw new RangeError(
      `Cannot use request: the last of ${bestOf} seeds must be at most ${Number.MAX_SAFE_INTEGER}: current first is ${seed}`,
    );
  }
  return {
    notes,
    request: {
      model: limits.model,
      prompt,
      negativePrompt: text(input.negativePrompt ?? "", "negativePrompt"),
      template,
      regions,
      seed,
      ...(bestOf === 1 ? {} : { bestOf }),
      steps: whole(input.steps ?? defaults.steps, "steps", 1, limits.mostSteps),
      scheduler: oneOf(input.scheduler, "scheduler", SCHEDULERS, "ddim"),
      ...(input.spacing === undefined ? {} : {
        spacing: oneOf(input.spacing, "spacing", SPACINGS),
      }),
      truncate: flag(input.truncate ?? false, "truncate"),
      guidanceScale: real(
        input.guidanceScale ?? defaults.guidanceScale,
        "guidanceScale",
        0,
        100,
      ),
      width,
      height,
      ...checkSizes(input, limits, [width, height]),
      guidance: checkGuidance(input.guidance ?? {}, defaults.guidance),
    },
  };
}

/** The sizes that SDXL is told; for other models they are an error. */
function checkSizes(
  input: Readonly<Record<string, unknown>>,
  { takesSizes, model }: RequestLimits,
  image: readonly [number, number],
): Partial<MicroConditioning> {
  const keys = ["originalSize", "cropTopLeft", "targetSize"] as const;
  if (!takesSizes) {
    const given = keys.find((key) => input[key] !== undefined);
    if (given === undefined) return {};
    throw new RangeError(
      `Cannot use request: ${given} goes with SDXL models: current model is "${model}"`,
    );
  }
  const pair = (key: typeof keys[number]): readonly [number, number] => {
    const value = input[key] ?? (key === "cropTopLeft" ? [0, 0] : image);
    if (!Array.isArray(value) || value.length !== 2) {
      throw new TypeError(
        `Cannot use request: ${key} must be two whole numbers: current ${
          JSON.stringify(value)
        }`,
      );
    }
    const least = key === "cropTopLeft" ? 0 : 1;
    return [
      whole(value[0], key, least, 65_536),
      whole(value[1], key, least, 65_536),
    ];
  };
  return {
    originalSize: pair("originalSize"),
    cropTopLeft: pair("cropTopLeft"),
    targetSize: pair("targetSize"),
  };
}

/** Checks guidance options on top of defaults. */
export function checkGuidance(
  value: unknown,
  defaults: WinWinLayOptions,
): FullRequest["guidance"] {
  const input = object(value, "guidance", [
    "method",
    ...Object.keys(WINWINLAY_DEFAULTS),
  ]);
  if (
    oneOf(
      input.method,
      "guidance.method",
      ["winwinlay", "none"] as const,
      "winwinlay",
    ) === "none"
  ) {
    const others = Object.keys(input).filter((key) => key !== "method");
    if (others.length) {
      throw new RangeError(
        `Cannot use request: guidance "none" takes no options: current ${
          others.join(", ")
        }`,
      );
    }
    return { method: "none" };
  }
  const g = { ...defaults, ...input };
  const key = (name: string): string => `guidance.${name}`;
  const { sites, nu, rho } = g;
  if (
    !(Array.isArray(rho) && rho.length === 2 &&
      rho.every((x) => typeof x === "number" && x >= 0 && x <= 1e6))
  ) {
    throw new RangeError(
      `Cannot use request: guidance.rho must be two numbers from 0: current ${
        JSON.stringify(rho)
      }`,
    );
  }
  if (
    Array.isArray(sites) &&
    !(sites.length > 0 && sites.every((s) => typeof s === "string") &&
      new Set(sites).size === sites.length)
  ) {
    throw new RangeError(
      `Cannot use request: guidance.sites must be different names: current ${
        JSON.stringify(sites)
      }`,
    );
  }
  const optional = (x: unknown, name: string): number | null =>
    x === null ? null : real(x, key(name), 0, 1e6);
  return {
    method: "winwinlay",
    lambda: real(g.lambda, key("lambda"), 0, 1e6),
    units: oneOf(g.units, key("units"), ["unit", "cells", "pixels"] as const),
    distance: oneOf(
      g.distance,
      key("distance"),
      ["paper", "scale_invariant"] as const,
    ),
    divergence: oneOf(
      g.divergence,
      key("divergence"),
      ["forward", "reverse"] as const,
    ),
    heads: oneOf(g.heads, key("heads"), ["mean_energy", "mean_map"] as const),
    tokens: oneOf(
      g.tokens,
      key("tokens"),
      ["mean_energy", "mean_map", "last"] as const,
    ),
    reduction: oneOf(g.reduction, key("reduction"), ["mean", "sum"] as const),
    priors: oneOf(
      g.priors,
      key("priors"),
      ["per_box", "union_mixture"] as const,
    ),
    raster: oneOf(
      g.raster,
      key("raster"),
      ["nearest", "trunc", "half_even_512", "coverage"] as const,
    ),
    steps: whole(g.steps, key("steps"), 0, 1000),
    iterations: whole(g.iterations, key("iterations"), 1, 1000),
    snr: real(g.snr, key("snr"), 0, 10),
    rho: [rho[0] as number, rho[1] as number],
    rhoSchedule: oneOf(
      g.rhoSchedule,
      key("rhoSchedule"),
      ["guided_steps", "all_steps", "exclusive_end", "constant"] as const,
    ),
    sites: Array.isArray(sites) ? sites as string[] : oneOf(
      sites,
      key("sites"),
      ["middle_and_first_up", "first_up_only"] as const,
    ),
    score: oneOf(g.score, key("score"), ["cond", "uncond", "cfg"] as const),
    placement: oneOf(
      g.placement,
      key("placement"),
      ["before_step", "after_step"] as const,
    ),
    nu: typeof nu === "number"
      ? real(nu, key("nu"), 0, 1e12)
      : oneOf(nu, key("nu"), ["per_iteration", "per_step"] as const),
    nuFactor: real(g.nuFactor, key("nuFactor"), 0, 1e6),
    noise: oneOf(
      g.noise,
      key("noise"),
      ["always", "not_last", "never"] as const,
    ),
    noiseNorm: oneOf(
      g.noiseNorm,
      key("noiseNorm"),
      ["drawn", "expected"] as const,
    ),
    guard: real(g.guard, key("guard"), 1e-6, 1e6),
    stopBelow: optional(g.stopBelow, "stopBelow"),
    energyFloor: optional(g.energyFloor, "energyFloor"),
  };
}

/** Reads a preset file of a model: guidance options and sampler settings over the paper's. */
export function checkPreset(value: unknown, name: string): Preset {
  try {
    const input = object(value, "preset", [
      "steps",
      "guidanceScale",
      "guidance",
    ]);
    const guidance = checkGuidance(input.guidance ?? {}, PAPER.guidance);
    if (guidance.method === "none") {
      throw new RangeError(
        `Cannot use preset: its guidance must not be "none"`,
      );
    }
    const { method: _, ...options } = guidance;
    return {
      steps: whole(input.steps ?? PAPER.steps, "steps", 1, 1000),
      guidanceScale: real(
        input.guidanceScale ?? PAPER.guidanceScale,
        "guidanceScale",
        0,
        100,
      ),
      guidance: options,
    };
  } catch (cause) {
    throw new SyntaxError(`Cannot read ${name}: ${(cause as Error).message}`, {
      cause,
    });
  }
}

function isEmptyList(value: unknown): boolean {
  return value === undefined || (Array.isArray(value) && value.length === 0);
}

function object(
  value: unknown,
  name: string,
  keys: readonly string[],
): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new TypeError(
      `Cannot use ${name}: it must be an object: current ${
        JSON.stringify(value)
      }`,
    );
  }
  for (const key of Object.keys(value)) {
    if (!keys.includes(key)) {
      throw new TypeError(
        `Cannot use ${name}: keys must be ${keys.join(", ")}: current ${
          JSON.stringify(key)
        }; did you mean "${nearest(key, keys)}"?`,
      );
    }
  }
  // Own keys only, and a key that is there but undefined is a key left out.
  return Object.fromEntries(
    Object.entries(value).filter(([, v]) => v !== undefined),
  );
}

function text(value: unknown, key: string): string {
  if (typeof value !== "string") {
    throw new TypeError(
      `Cannot use request: ${key} must be a string: current ${
        JSON.stringify(value) ?? "nothing"
      }`,
    );
  }
  return value;
}

function flag(value: unknown, key: string): boolean {
  if (typeof value !== "boolean") {
    throw new TypeError(
      `Cannot use request: ${key} must be true or false: current ${
        JSON.stringify(value)
      }`,
    );
  }
  return value;
}

function real(
  value: unknown,
  key: string,
  least: number,
  most: number,
): number {
  if (typeof value !== "number") {
    throw new TypeError(
      `Cannot use request: ${key} must be a number: current ${
        JSON.stringify(value)
      }`,
    );
  }
  if (!(value >= least && value <= most)) {
    throw new RangeError(
      `Cannot use request: ${key} must be from ${least} to ${most}: current ${value}`,
    );
  }
  return value;
}

function whole(
  value: unknown,
  key: string,
  least: number,
  most: number,
): number {
  const number = real(value, key, least, most);
  if (!Number.isInteger(number)) {
    throw new RangeError(
      `Cannot use request: ${key} must be a whole number: current ${number}`,
    );
  }
  return number;
}

function oneOf<T extends string>(
  value: unknown,
  key: string,
  allowed: readonly T[],
  fallback?: T,
): T {
  if (value === undefined && fallback !== undefined) return fallback;
  if (!allowed.includes(value as T)) {
    throw new RangeError(
      `Cannot use request: ${key} must be ${allowed.join(" or ")}: current ${
        JSON.stringify(value)
      }${
        typeof value === "string"
          ? `; did you mean "${nearest(value, allowed)}"?`
          : ""
      }`,
    );
  }
  return value as T;
}
