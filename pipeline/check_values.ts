/** Checks of single values of a request; each error names the key and shows the value. */
import { nearest } from "./nearest.ts";

/**
 * An object with known keys only.
 *
 * @param name What it is, for the message.
 * @returns Its own keys; one that is there but undefined is one left out.
 */
export function checkObject(
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
  return Object.fromEntries(
    Object.entries(value).filter(([, v]) => v !== undefined),
  );
}

/** A string. */
export function checkText(value: unknown, key: string): string {
  if (typeof value !== "string") {
    throw new TypeError(
      `Cannot use request: ${key} must be a string: current ${
        JSON.stringify(value) ?? "nothing"
      }`,
    );
  }
  return value;
}

/** A boolean. */
export function checkFlag(value: unknown, key: string): boolean {
  if (typeof value !== "boolean") {
    throw new TypeError(
      `Cannot use request: ${key} must be true or false: current ${
        JSON.stringify(value)
      }`,
    );
  }
  return value;
}

/** A number from `least` to `most`. */
export function checkReal(
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

/** A whole number from `least` to `most`. */
export function checkWhole(
  value: unknown,
  key: string,
  least: number,
  most: number,
): number {
  const number = checkReal(value, key, least, most);
  if (!Number.isInteger(number)) {
    throw new RangeError(
      `Cannot use request: ${key} must be a whole number: current ${number}`,
    );
  }
  return number;
}

/** One of some names. */
export function checkOneOf<T extends string>(
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
