/** Names of the golden energies -> options of ours. */
import {
  ENERGY_DEFAULTS,
  type EnergyOptions,
  type Subject,
} from "../../pipeline/energy.ts";
import type { WinWinLayOptions } from "../../pipeline/guidance/winwinlay.ts";
import type { GoldenCase } from "./case.ts";

/** What a name such as `naef.perhead-unit4-reverse` stands for. */
export interface Variant {
  /** The name without `aef.`, `nap.` or `naef.`; unique to one evaluation. */
  readonly key: string;
  /** Whether the prior takes part. */
  readonly prior: boolean;
  /** How the energy is read. */
  readonly options: EnergyOptions;
  /** Which sites. */
  readonly sites: WinWinLayOptions["sites"];
}

const NAME =
  /^(aef|nap|naef)\.((perhead|headmean)(-trunc)?(?:-(unit|cells)([\d.]+))?(-reverse)?(-sites-cheap)?)$/;

/** Takes the name of an energy apart; undefined if it is none. */
export function variantOf(name: string): Variant | undefined {
  const [, what, key, heads, trunc, units, lambda, reverse, cheap] =
    name.match(NAME) ?? [];
  if (!what || !key) return undefined;
  return {
    key,
    prior: what !== "aef",
    options: {
      ...ENERGY_DEFAULTS,
      heads: heads === "headmean" ? "mean_map" : "mean_energy",
      ...(trunc ? { raster: "trunc" } : {}),
      ...(units === "cells" || units === "unit"
        ? { units, lambda: Number(lambda) }
        : {}),
      ...(reverse ? { divergence: "reverse" } : {}),
    },
    sites: cheap ? "first_up_only" : "middle_and_first_up",
  };
}

/** `attributes.objects`, as the energy takes them. */
export function subjectsOf(c: GoldenCase): Subject[] {
  const { objects } = c.attributes as {
    objects: readonly Pick<Subject, "boxes" | "tokens">[];
  };
  return objects.map(({ boxes, tokens }, i) => ({
    name: `object ${i}`,
    boxes,
    tokens,
  }));
}
