/**
 * Options of a method as a table: each entry checks a request's value, reads a command line's text, and
 * says what it is for. One table serves library, command line, help and PNG.
 */
import {
  checkFlag,
  checkOneOf,
  checkReal,
  checkWhole,
} from "../check_values.ts";
import type { RasterMode } from "../raster.ts";
import { SITE_SETS, type SiteChoice } from "./sites.ts";

/** One option of type `T`. */
export interface Option<T> {
  /** What it is for, in a few words. */
  readonly help: string;
  /** Its value where nothing else is said. */
  readonly fallback: T;
  /** How the help shows a value, such as `N` or `on|off`. */
  readonly value: string;
  /** What a value must be, for messages: "it must be ...". */
  readonly expects: string;
  /** The only names there are, if it takes names. */
  readonly choices?: readonly string[];
  /**
   * Checks a value of a request.
   *
   * @param key Its name, for the message.
   * @throws {TypeError | RangeError} If it cannot be used.
   */
  check(value: unknown, key: string): T;
  /** A command line's text as a value, to be checked; undefined if it has no such form. */
  read(text: string): unknown;
}

/** An option for every key of `O`. */
export type OptionTable<O> = {
  readonly [K in keyof O]-?: Option<O[K]>;
};

/** Bounds of a number, both included. */
export interface Bounds {
  /** The smallest. */
  readonly least?: number;
  /** The largest. */
  readonly most?: number;
}

/** A number, from 0 unless `least` says otherwise. */
export function real(
  fallback: number,
  help: string,
  { least = 0, most = 1e6 }: Bounds = {},
): Option<number> {
  return {
    help,
    fallback,
    value: "X",
    expects: "a number",
    check: (value, key) => checkReal(value, key, least, most),
    read: readNumber,
  };
}

/** A whole number, from 0 to 1000 unless the bounds say otherwise. */
export function whole(
  fallback: number,
  help: string,
  { least = 0, most = 1000 }: Bounds = {},
): Option<number> {
  return {
    ...real(fallback, help),
    value: "N",
    expects: "a whole number",
    check: (value, key) => checkWhole(value, key, least, most),
  };
}

/** One of some names. */
export function choice<const T extends string>(
  names: readonly T[],
  fallback: NoInfer<T>,
  help: string,
): Option<T> {
  return {
    help,
    fallback,
    value: names.join("|"),
    expects: names.join(" or "),
    choices: names,
    check: (value, key) => checkOneOf(value, key, names),
    read: (text) => text,
  };
}

/** True or false; `on` or `off` on a command line. */
export function flag(fallback: boolean, help: string): Option<boolean> {
  return {
    help,
    fallback,
    value: "on|off",
    expects: "on or off",
    choices: ["on", "off"],
    check: checkFlag,
    read: (text) => text === "on",
  };
}

/** A number, or null for "never"; `none` on a command line. */
export function orNone(
  fallback: number | null,
  help: string,
  bounds: Bounds = {},
): Option<number | null> {
  const number = real(0, help, bounds);
  return {
    ...number,
    fallback,
    value: "X|none",
    expects: "a number or none",
    check: (value, key) => value === null ? null : number.check(value, key),
    read: (text) => text === "none" ? null : readNumber(text),
  };
}

/** A name or a number. */
export function nameOrNumber<const T extends string>(
  names: readonly T[],
  fallback: NoInfer<T> | number,
  help: string,
  { least = 0, most = 1e12 }: Bounds = {},
): Option<T | number> {
  return {
    help,
    fallback,
    value: "NAME|X",
    expects: `${names.join(", ")} or a number`,
    check: (value, key) =>
      typeof value === "number"
        ? checkReal(value, key, least, most)
        : checkOneOf(value, key, names),
    read: (text) =>
      (names as readonly string[]).includes(text) ? text : readNumber(text),
  };
}

/** Two numbers from 0. */
export function pair(
  fallback: readonly [number, number],
  help: string,
): Option<readonly [number, number]> {
  return {
    help,
    fallback,
    value: "X,Y",
    expects: `two numbers, such as ${fallback}`,
    check(value, key) {
      const good = Array.isArray(value) && value.length === 2 &&
        value.every((x) => typeof x === "number" && x >= 0 && x <= 1e6);
      if (good) return [value[0], value[1]];
      throw new RangeError(
        `Cannot use request: ${key} must be two numbers from 0: current ${
          JSON.stringify(value)
        }`,
      );
    },
    read(text) {
      const numbers = text.split(",").map(readNumber);
      return numbers.length === 2 && !numbers.includes(undefined)
        ? numbers
        : undefined;
    },
  };
}

/** Attention sites: a set by name, or paths. */
export function siteChoice(
  fallback: SiteChoice,
  help = `attention layers by path, or ${SITE_SETS.join(", ")}`,
): Option<SiteChoice> {
  return {
    help,
    fallback,
    value: "NAME|A,B,...",
    expects: "a set's name or paths",
    check(value, key) {
      if (typeof value === "string" && value.includes(".")) return [value];
      if (!Array.isArray(value)) return checkOneOf(value, key, SITE_SETS);
      const good = value.length > 0 &&
        value.every((s) => typeof s === "string") &&
        new Set(value).size === value.length;
      if (good) return value as string[];
      throw new RangeError(
        `Cannot use request: ${key} must be different names: current ${
          JSON.stringify(value)
        }`,
      );
    },
    read(text) {
      const names = text.split(",").map((name) => name.trim());
      return names.length === 1 ? names[0] : names;
    },
  };
}

/** How boxes become cells. */
export function rasterChoice(fallback: RasterMode): Option<RasterMode> {
  return choice(
    ["nearest", "trunc", "half_even_512", "coverage"],
    fallback,
    "how boxes become cells",
  );
}

/** The fallbacks of a table. */
export function fallbacks<O>(table: OptionTable<O>): O {
  return Object.fromEntries(
    Object.entries<Option<unknown>>(table).map(([key, o]) => [key, o.fallback]),
  ) as O;
}

function readNumber(text: string): number | undefined {
  return /^\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?\s*$/i.test(text)
    ? Number(text)
    : undefined;
}
