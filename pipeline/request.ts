/** One request object for library, command line and PNG metadata: types, defaults and strict checks. */
import {
  checkFlag,
  checkObject,
  checkOneOf,
  checkReal,
  checkText,
  checkWhole,
} from "./check_values.ts";
import {
  checkGuidance,
  type FullGuidance,
  type GuidanceRequest,
  methodNamed,
  methodNames,
  type MethodPresets,
} from "./guidance/methods.ts";
import {
  WINWINLAY_DEFAULTS,
  type WinWinLayOptions,
} from "./guidance/winwinlay.ts";
import { type CheckedRegion, checkLayout, type Region } from "./layout.ts";
import type { MicroConditioning } from "./conditioning.ts";
import { type Spacing, SPACINGS } from "./schedule_config.ts";
import { type SchedulerName, SCHEDULERS } from "./scheduler.ts";
import type { UnetConfig } from "./unet_config.ts";

/** What a user asks for. Only the prompt is needed. */
export interface GenerateRequest {
  /** What to paint. */
  readonly prompt: string;
  /** What to keep away from. Default empty. */
  readonly negativePrompt?: string | undefined;
  /** Text around the prompt, with `{}` where it goes, such as the paper's `A photo of {}` (A18). Default `{}`. */
  readonly template?: string | undefined;
  /** Phrases of the prompt and their boxes or masks. */
  readonly regions?: readonly Region[] | undefined;
  /** Whole number from 0 to 2^53 - 1. Default 0. */
  readonly seed?: number | undefined;
  /**
   * So many seeds, from `seed` on, are tried, and the picture whose attention keeps best to the layout is
   * the result: see `layoutScore`. Default 1.
   */
  readonly bestOf?: number | undefined;
  /** Denoising steps. */
  readonly steps?: number | undefined;
  /** Sampler. Default `ddim`, the paper's. */
  readonly scheduler?: SchedulerName | undefined;
  /** How timesteps are spread; names are diffusers'. Default as the model's scheduler config says. */
  readonly spacing?: Spacing | undefined;
  /** Keep what fits of prompts that are too long, instead of an error. Default false. */
  readonly truncate?: boolean | undefined;
  /** SDXL: `[width, height]` before cropping and scaling that the model is told. Default the image's. */
  readonly originalSize?: readonly [number, number] | undefined;
  /** SDXL: `[left, top]` of the crop that the model is told. Default `[0, 0]`. */
  readonly cropTopLeft?: readonly [number, number] | undefined;
  /** SDXL: `[width, height]` of the result that the model is told. Default the image's. */
  readonly targetSize?: readonly [number, number] | undefined;
  /** Classifier-free guidance scale. */
  readonly guidanceScale?: number | undefined;
  /** Image width in pixels. Default the model's own. */
  readonly width?: number | undefined;
  /** Image height in pixels. Default the model's own. */
  readonly height?: number | undefined;
  /** Settings to start from: the model's own (`model`, the default) or the paper's (`paper`). */
  readonly preset?: PresetName | undefined;
  /** Layout guidance; what is left out comes from the preset. */
  readonly guidance?: GuidanceRequest | undefined;
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
  /** The same for other methods, where they need values of their own. */
  readonly methods?: MethodPresets;
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
  readonly guidance: FullGuidance;
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
  /** The network, whose family a method may have defaults for. */
  readonly unet?: UnetConfig;
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
  const input = checkObject(value, "request", KEYS);
  const preset = checkOneOf(
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
  const prompt = checkText(input.prompt, "prompt");
  if (prompt.trim() === "" && !isEmptyList(input.regions)) {
    throw new RangeError(
      `Cannot use request: a prompt with regions must not be empty: current ${
        JSON.stringify(prompt)
      }`,
    );
  }
  const template = checkText(input.template ?? "{}", "template");
  if (template.split("{}").length !== 2) {
    throw new RangeError(
      `Cannot use request: template must hold {} once: current ${
        JSON.stringify(template)
      }`,
    );
  }
  const side = (key: "width" | "height", own: number): number => {
    const pixels = checkWhole(
      input[key] ?? own,
      key,
      limits.multiple,
      MOST_PIXELS,
    );
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
  const seed = checkWhole(input.seed ?? 0, "seed", 0, Number.MAX_SAFE_INTEGER);
  const bestOf = checkWhole(input.bestOf ?? 1, "bestOf", 1, MOST_CANDIDATES);
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
      negativePrompt: checkText(input.negativePrompt ?? "", "negativePrompt"),
      template,
      regions,
      seed,
      ...(bestOf === 1 ? {} : { bestOf }),
      steps: checkWhole(
        input.steps ?? defaults.steps,
        "steps",
        1,
        limits.mostSteps,
      ),
      scheduler: checkOneOf(input.scheduler, "scheduler", SCHEDULERS, "ddim"),
      ...(input.spacing === undefined ? {} : {
        spacing: checkOneOf(input.spacing, "spacing", SPACINGS),
      }),
      truncate: checkFlag(input.truncate ?? false, "truncate"),
      guidanceScale: checkReal(
        input.guidanceScale ?? defaults.guidanceScale,
        "guidanceScale",
        0,
        100,
      ),
      width,
      height,
      ...checkSizes(input, limits, [width, height]),
      guidance: checkGuidance(
        input.guidance ?? {},
        { ...defaults.methods, winwinlay: defaults.guidance },
        preset === "paper" ? undefined : limits.unet,
      ),
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
      checkWhole(value[0], key, least, 65_536),
      checkWhole(value[1], key, least, 65_536),
    ];
  };
  return {
    originalSize: pair("originalSize"),
    cropTopLeft: pair("cropTopLeft"),
    targetSize: pair("targetSize"),
  };
}

/**
 * Reads a preset file of a model.
 *
 * @param base What it leaves out.
 */
export function checkPreset(
  value: unknown,
  name: string,
  base: Preset = PAPER,
): Preset {
  try {
    const input = checkObject(value, "preset", [
      "steps",
      "guidanceScale",
      "guidance",
      "methods",
    ]);
    const others = methodNames().filter((method) => method !== "winwinlay");
    const methods = checkObject(input.methods ?? {}, "methods", others);
    for (const [method, options] of Object.entries(methods)) {
      const keys = Object.keys(methodNamed(method)!.options);
      checkGuidance({ ...checkObject(options, method, keys), method });
    }
    const guidance = checkGuidance(input.guidance ?? {}, {
      winwinlay: base.guidance,
    });
    if (guidance.method !== "winwinlay") {
      throw new RangeError(
        `Cannot use preset: its guidance must be winwinlay's: current ${
          JSON.stringify(guidance.method)
        }`,
      );
    }
    const { method: _, ...options } = guidance;
    return {
      steps: checkWhole(input.steps ?? base.steps, "steps", 1, 1000),
      guidanceScale: checkReal(
        input.guidanceScale ?? base.guidanceScale,
        "guidanceScale",
        0,
        100,
      ),
      guidance: options,
      methods: methods as MethodPresets,
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
