/** Typed reading of a component's `config.json`: a value that is not supported is an error that names its key. */
import { WeightsError } from "../weights/errors.ts";

/** Reads the keys of one config. */
export interface ConfigReader {
  /** A number. */
  number(key: string, fallback?: number): number;
  /** A positive whole number. */
  integer(key: string, fallback?: number): number;
  /** True or false. */
  boolean(key: string, fallback?: boolean): boolean;
  /** A string. */
  string(key: string, fallback?: string): string;
  /** A list of positive whole numbers. */
  integers(key: string): number[];
  /** A list of `count` whole numbers, or one for all. */
  integersOrOne(key: string, count: number, fallback: number): number[];
  /** A list of `count` strings out of `allowed`. */
  strings(key: string, allowed: readonly string[], count: number): string[];
  /** Insists on one of some values; `undefined` stands for a missing key. */
  only(key: string, allowed: readonly unknown[]): void;
}

/**
 * Starts reading.
 *
 * @param name Of the component, for messages.
 */
export function readConfig(
  config: Readonly<Record<string, unknown>>,
  name: string,
): ConfigReader {
  const fail = (key: string, must: string): never => {
    throw new WeightsError(
      `Cannot use ${name}: config key "${key}" must be ${must}: current ${
        JSON.stringify(config[key]) ?? "config has none"
      }`,
    );
  };
  const whole = (x: unknown): x is number =>
    Number.isInteger(x) && (x as number) > 0;
  const reader: ConfigReader = {
    number(key, fallback) {
      const value = config[key] ?? fallback;
      return typeof value === "number" && Number.isFinite(value)
        ? value
        : fail(key, "a number");
    },
    integer(key, fallback) {
      const value = config[key] ?? fallback;
      return whole(value) ? value : fail(key, "a positive whole number");
    },
    boolean(key, fallback) {
      const value = config[key] ?? fallback;
      return typeof value === "boolean" ? value : fail(key, "true or false");
    },
    string(key, fallback) {
      const value = config[key] ?? fallback;
      return typeof value === "string" ? value : fail(key, "a string");
    },
    integers(key) {
      const value = config[key];
      return Array.isArray(value) && value.length > 0 && value.every(whole)
        ? value
        : fail(key, "a list of positive whole numbers");
    },
    integersOrOne(key, count, fallback) {
      const value = config[key] ?? fallback;
      if (whole(value)) return Array.from({ length: count }, () => value);
      return Array.isArray(value) && value.length === count &&
          value.every(whole)
        ? value
        : fail(key, `a positive whole number or a list of ${count}`);
    },
    strings(key, allowed, count) {
      const value = config[key];
      return Array.isArray(value) && value.length === count &&
          value.every((x) => allowed.includes(x))
        ? value
        : fail(key, `a list of ${count} out of ${allowed.join(", ")}`);
    },
    only(key, allowed) {
      if (!allowed.includes(config[key])) {
        fail(
          key,
          allowed.filter((x) => x !== undefined).map((x) => JSON.stringify(x))
            .join(" or "),
        );
      }
    },
  };
  return reader;
}
