/** Guidance methods by name: those that come with the library, and those that a program adds. */
import { checkObject, checkOneOf } from "../check_values.ts";
import type { UnetConfig } from "../unet_config.ts";
import {
  ATTENTION_REFOCUSING,
  type AttentionRefocusingOptions,
} from "./attention_refocusing.ts";
import { BOXDIFF, type BoxDiffOptions } from "./boxdiff.ts";
import { CSG, type CsgOptions } from "./csg.ts";
import { LAYOUT_CONTROL, type LayoutControlOptions } from "./layout_control.ts";
import type { GuidanceMethod, MethodSpec } from "./method.ts";
import type { Option } from "./options.ts";
import { RNB, type RnbOptions } from "./rnb.ts";
import { WINWINLAY, type WinWinLayOptions } from "./winwinlay.ts";

/**
 * Options by method. A program that adds a method may add its own to this interface, by
 * `declare module`, so that requests for it are typed.
 */
export interface GuidanceOptions {
  /** See `WinWinLayOptions`. */
  readonly winwinlay: WinWinLayOptions;
  /** See `LayoutControlOptions`. */
  readonly "layout-control": LayoutControlOptions;
  /** See `AttentionRefocusingOptions`. */
  readonly "attention-refocusing": AttentionRefocusingOptions;
  /** See `RnbOptions`. */
  readonly rnb: RnbOptions;
  /** See `CsgOptions`. */
  readonly csg: CsgOptions;
  /** See `BoxDiffOptions`. */
  readonly boxdiff: BoxDiffOptions;
}

/** Values by method that go over its own defaults, such as step sizes that suit a model. */
export type MethodPresets = {
  readonly [M in keyof GuidanceOptions]?: Partial<GuidanceOptions[M]>;
};

/** A method with every option, or none. */
export type FullGuidance =
  | { readonly method: "none" }
  | {
    [M in keyof GuidanceOptions]: { readonly method: M } & GuidanceOptions[M];
  }[keyof GuidanceOptions];

/** How the layout guides: a method with some of its options, or not at all. Default WinWinLay. */
export type GuidanceRequest =
  | { readonly method: "none" }
  | { readonly method?: "winwinlay" } & Partial<WinWinLayOptions>
  | {
    [M in keyof GuidanceOptions]:
      & { readonly method: M }
      & Partial<GuidanceOptions[M]>;
  }[keyof GuidanceOptions];

const METHODS = new Map<string, MethodSpec>();

/**
 * Adds a method, so that requests and the command line know it by its name.
 *
 * @throws {RangeError} If the name is taken or cannot be one.
 *
 * @example A method that pushes half as much
 * ```ts
 * import { methodNames, registerMethod, WINWINLAY } from "../../mod.ts";
 *
 * registerMethod({
 *   ...WINWINLAY,
 *   name: "gentle",
 *   about: "WinWinLay with half the push",
 *   make: (options) => WINWINLAY.make({ ...options, snr: options.snr / 2 }),
 * });
 * if (!methodNames().includes("gentle")) throw new Error("not there");
 * ```
 */
export function registerMethod<O extends object>(spec: MethodSpec<O>): void {
  const { name, options } = spec;
  if (!/^[a-z][a-z0-9-]*$/.test(name) || name === "none" || METHODS.has(name)) {
    throw new RangeError(
      `Cannot add guidance method ${
        JSON.stringify(name)
      }: its name must be new, of lower-case letters, digits and dashes: current names are none, ${
        methodNames().join(", ")
      }`,
    );
  }
  if (Object.hasOwn(options, "method")) {
    throw new RangeError(
      `Cannot add guidance method "${name}": its options must not be called "method": current are ${
        Object.keys(options).join(", ")
      }`,
    );
  }
  METHODS.set(name, spec);
}

const BUILT_IN: readonly MethodSpec[] = [
  WINWINLAY,
  LAYOUT_CONTROL,
  ATTENTION_REFOCUSING,
  RNB,
  CSG,
  BOXDIFF,
];
for (const spec of BUILT_IN) registerMethod(spec);

/** Names of the methods that there are. */
export function methodNames(): string[] {
  return [...METHODS.keys()];
}

/** A method by name. */
export function methodNamed(name: string): MethodSpec | undefined {
  return METHODS.get(name);
}

/** The method of a checked request; undefined for `none`. */
export function methodOf(guidance: FullGuidance): GuidanceMethod | undefined {
  if (guidance.method === "none") return undefined;
  const { method, ...options } = guidance;
  return METHODS.get(method)!.make(options);
}

/**
 * Checks the guidance of a request and fills in what it leaves out.
 *
 * @param presets By method: values that go over its own defaults.
 * @param config The network, whose family may have other defaults.
 * @throws {TypeError | RangeError} With one message that names the option.
 */
export function checkGuidance(
  value: unknown,
  presets: MethodPresets = {},
  config?: UnetConfig,
): FullGuidance {
  const input = value as { method?: unknown } | null;
  const named = typeof input === "object" && input !== null &&
    !Array.isArray(input);
  const name = checkOneOf(
    named ? input.method : undefined,
    "guidance.method",
    [...METHODS.keys(), "none"],
    "winwinlay",
  );
  const spec = METHODS.get(name);
  if (spec === undefined) {
    const others = Object.keys(input!).filter((key) => key !== "method");
    if (others.length) {
      throw new RangeError(
        `Cannot use request: guidance "none" takes no options: current ${
          others.join(", ")
        }`,
      );
    }
    return { method: "none" };
  }
  const table: Readonly<Record<string, Option<unknown>>> = spec.options;
  const given: Readonly<Record<string, unknown>> = {
    ...config && spec.defaultsFor?.(config),
    ...presets[name as keyof GuidanceOptions],
    ...checkObject(value, "guidance", ["method", ...Object.keys(table)]),
  };
  const full: Record<string, unknown> = { method: name };
  for (const [key, option] of Object.entries(table)) {
    const own = Object.hasOwn(given, key) ? given[key] : option.fallback;
    full[key] = option.check(own, `guidance.${key}`);
  }
  return full as unknown as FullGuidance;
}

/** Most guided passes of a run of `steps` denoising steps. */
export function guidedPasses(guidance: FullGuidance, steps: number): number {
  const method = methodOf(guidance);
  if (!method) return 0;
  const guided = steps - Number(method.placement === "after_step");
  let passes = 0;
  for (let i = 0; i < guided; i++) passes += method.iterations(i, steps);
  return passes;
}
