// strict_json: JSON text -> value, refusing what JSON.parse lets pass unseen.
// JSON.parse keeps the last of two equal keys, so two readers of one file could
// see two different tensors; and its objects inherit from Object.prototype.
import { quote, WeightsError } from "./errors.ts";

/** A parsed JSON value. */
export type JsonValue =
  | null
  | boolean
  | number
  | string
  | readonly JsonValue[]
  | JsonObject;

/** A parsed JSON object. It has no prototype: every key in it came from the file. */
export interface JsonObject {
  /** Any key that the file has. */
  readonly [key: string]: JsonValue;
}

/** How {@linkcode parseStrictJson} reads. */
export interface StrictJsonOptions {
  /** The file or the part of it that error messages name. */
  readonly name: string;
  /** Allow `NaN`, `Infinity` and `-Infinity`, which Python writes into configs. */
  readonly pythonNumbers?: boolean;
  /** Refuse numbers with a fraction or an exponent. */
  readonly integersOnly?: boolean;
  /** Refuse the keys `__proto__`, `constructor` and `prototype`. */
  readonly refusePrototypeKeys?: boolean;
}

const MAX_DEPTH = 32; // configs nest 3 deep; this ends recursion before the stack does
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const PYTHON_NUMBER = /NaN|-?Infinity/y;
const WORDS = { true: true, false: false, null: null } as const;
const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  ["\\", "\\"],
  ["/", "/"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
]);
const PROTOTYPE_KEYS = ["__proto__", "constructor", "prototype"];

/**
 * Parses JSON (RFC 8259) with unique keys, into objects without prototypes.
 *
 * @param text The JSON text; space around the value is legal.
 * @param options What is allowed, and the name that errors carry.
 * @returns The value.
 * @throws {WeightsError} If the text is not such JSON.
 *
 * @example Equal keys are an error
 * ```ts
 * import { parseStrictJson } from "../weights/strict_json.ts";
 *
 * let refused = false;
 * try {
 *   parseStrictJson('{"a": 1, "a": 2}', { name: "config.json" });
 * } catch {
 *   refused = true;
 * }
 * if (!refused) throw new Error("Got a value");
 * ```
 */
export function parseStrictJson(
  text: string,
  options: StrictJsonOptions,
): JsonValue {
  let at = 0;
  const value = parseValue(0);
  skipSpace();
  if (at < text.length) fail("must end after one JSON value");
  return value;

  function fail(rule: string): never {
    const found = at < text.length
      ? quote(text.slice(at, at + 20))
      : "end of text";
    throw new WeightsError(
      `Cannot read ${options.name}: ${rule}: current ${found} at ${at}`,
    );
  }

  function skipSpace(): void {
    while (at < text.length && " \t\n\r".includes(text[at]!)) at++;
  }

  function parseValue(depth: number): JsonValue {
    if (depth > MAX_DEPTH) fail(`JSON must nest at most ${MAX_DEPTH} deep`);
    skipSpace();
    switch (text[at]) {
      case "{":
        return parseObject(depth);
      case "[":
        return parseArray(depth);
      case '"':
        return parseString();
    }
    for (const [word, meaning] of Object.entries(WORDS)) {
      if (text.startsWith(word, at)) {
        at += word.length;
        return meaning;
      }
    }
    return parseNumber();
  }

  function parseNumber(): number {
    if (options.pythonNumbers) {
      PYTHON_NUMBER.lastIndex = at;
      const special = PYTHON_NUMBER.exec(text);
      if (special !== null) {
        at += special[0].length;
        return Number(special[0]);
      }
    }
    NUMBER.lastIndex = at;
    const match = NUMBER.exec(text);
    if (match === null) fail("it must be JSON");
    if (options.integersOnly && (match[1] ?? match[2]) !== undefined) {
      fail("numbers must be whole, without fraction or exponent");
    }
    at += match[0].length;
    return Number(match[0]);
  }

  function parseObject(depth: number): JsonObject {
    const object: Record<string, JsonValue> = Object.create(null);
    at++;
    skipSpace();
    if (text[at] === "}") {
      at++;
      return object;
    }
    while (true) {
      skipSpace();
      if (text[at] !== '"') fail("it must be JSON, with a quoted key here");
      const keyAt = at;
      const key = parseString();
      if (key in object) {
        at = keyAt;
        fail("each key must occur once");
      }
      if (options.refusePrototypeKeys && PROTOTYPE_KEYS.includes(key)) {
        at = keyAt;
        fail(`no key may be one of ${PROTOTYPE_KEYS.join(", ")}`);
      }
      skipSpace();
      if (text[at] !== ":") fail("it must be JSON, with a colon here");
      at++;
      object[key] = parseValue(depth + 1);
      skipSpace();
      const next = text[at];
      if (next !== "," && next !== "}") {
        fail("it must be JSON, with a comma or brace here");
      }
      at++;
      if (next === "}") return object;
    }
  }

  function parseArray(depth: number): JsonValue[] {
    const array: JsonValue[] = [];
    at++;
    skipSpace();
    if (text[at] === "]") {
      at++;
      return array;
    }
    while (true) {
      array.push(parseValue(depth + 1));
      skipSpace();
      const next = text[at];
      if (next !== "," && next !== "]") {
        fail("it must be JSON, with a comma or bracket here");
      }
      at++;
      if (next === "]") return array;
    }
  }

  function parseString(): string {
    const start = at;
    let plain = ++at; // start of the run not yet copied
    let out = "";
    while (true) {
      const code = text.charCodeAt(at); // NaN at the end
      if (code === 0x22) break;
      if (!(code >= 0x20)) {
        fail("it must be JSON, with strings closed on their line");
      }
      if (code !== 0x5c) {
        at++;
        continue;
      }
      out += text.slice(plain, at) + parseEscape();
      plain = at;
    }
    out += text.slice(plain, at++);
    if (/[\ud800-\udfff]/.test(out) && !out.isWellFormed()) {
      at = start;
      fail("strings must be Unicode, without lone surrogates");
    }
    return out;
  }

  function parseEscape(): string {
    const letter = text[at + 1] ?? "";
    const simple = ESCAPES.get(letter);
    if (simple !== undefined) {
      at += 2;
      return simple;
    }
    const hex = text.slice(at + 2, at + 6);
    if (letter !== "u" || !/^[0-9a-fA-F]{4}$/.test(hex)) {
      fail("it must be JSON, with known escapes");
    }
    at += 6;
    return String.fromCharCode(parseInt(hex, 16));
  }
}

/**
 * Tells an object from the other JSON values.
 *
 * @param value A JSON value, or what a missing key gives.
 * @returns Whether it is an object.
 */
export function isJsonObject(
  value: JsonValue | undefined,
): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
