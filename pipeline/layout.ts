/**
 * Layout JSON -> checked regions. Boxes on a grid are in `raster.ts`, re-exported here.
 *
 * @module
 */

import { checkMask, type Mask } from "./mask.ts";
import { nearest } from "./nearest.ts";
import { type Box, clampBox } from "./raster.ts";
import type { Shape } from "./shape.ts";

export {
  type Box,
  cellRange,
  logPrior,
  type PriorOptions,
  rasterize,
  rasterizeUnion,
  type RasterMode,
} from "./raster.ts";

/** A phrase of the prompt and where it should be. */
export interface Region {
  /** Words of the prompt; with `tokens` or `span` only a name. */
  readonly phrase: string;
  /** Where: one box, or several whose union counts. Boxes or a mask: one of the two. */
  readonly boxes?: readonly Box[];
  /** Where, as a picture. */
  readonly mask?: Mask;
  /** Which occurrence of the phrase, from 0 (the default), or all of them. */
  readonly occurrence?: number | "all";
  /** Token positions instead of the phrase; BOS is 0. */
  readonly tokens?: readonly number[];
  /** UTF-16 indices `[start, end)` of the prompt, in its template if there is one, instead of the phrase. */
  readonly span?: readonly [start: number, end: number];
  /** Factor of this region's energy, 0 or more; 1 if absent. */
  readonly weight?: number;
}

/** A region with boxes. */
export type BoxedRegion = Region & { readonly boxes: readonly Box[] };

/** A region that `checkLayout` has seen. */
export type CheckedRegion = Region & Shape;

const MAX_REGIONS = 32;
const MAX_BOXES = 32;
const MAX_PHRASE = 1000; // characters
const MAX_TOKENS = 4096; // the longest prompt of any tokenizer here
const KEYS = [
  "phrase",
  "boxes",
  "mask",
  "occurrence",
  "tokens",
  "span",
  "weight",
] as const;

/**
 * Check the `regions` of a request.
 *
 * Nothing is guessed: an unknown key, a wrong type or a box outside the image is an error. Only
 * a box that is partly outside is repaired, by clamping it to the image, and this is noted.
 *
 * @param value The parsed JSON: an array of 1 to 32 regions.
 * @param image `[width, height]` of the picture, whose proportions masks must have.
 * @returns Fresh regions with clamped boxes, and one note per clamped box.
 * @throws {TypeError} If something has the wrong type or a key is unknown.
 * @throws {RangeError} If a value is out of range. Both name the region and the box.
 */
export function checkLayout(
  value: unknown,
  image?: readonly [width: number, height: number],
): { regions: CheckedRegion[]; notes: string[] } {
  const list = arrayOf(value, "the layout", "regions", 1, MAX_REGIONS);
  const notes: string[] = [];
  return {
    regions: list.map((entry, i) => checkRegion(entry, i, notes, image)),
    notes,
  };
}

/**
 * Parse a command line's `phrase=x0,y0,x1,y1[;x0,y0,x1,y1...]`.
 *
 * The phrase may contain `=`: the last one counts. Only the form is checked here; pass the
 * region on to {@linkcode checkLayout}.
 *
 * @param flag The value of the option.
 * @returns A region with the numbers as given.
 * @throws {SyntaxError} If the form is wrong.
 *
 * @example
 * ```ts
 * import { parseBoxFlag } from "./layout.ts";
 *
 * const { phrase, boxes } = parseBoxFlag("red car=0.05,0.5,0.5,0.9");
 * if (phrase !== "red car" || boxes[0]?.[2] !== 0.5) throw new Error("wrong");
 * ```
 */
export function parseBoxFlag(flag: string): BoxedRegion {
  const fail = (why: string): SyntaxError =>
    new SyntaxError(
      `Cannot read box ${
        JSON.stringify(flag)
      }: ${why}; write "red car=0.05,0.5,0.5,0.9"`,
    );
  const at = flag.lastIndexOf("=");
  const phrase = flag.slice(0, Math.max(at, 0)).trim();
  if (phrase === "") {
    throw fail("it must be a phrase, an equals sign and four numbers");
  }
  const boxes = flag.slice(at + 1).split(";").map((text): Box => {
    const numbers = text.split(",").map((part) => {
      if (!/^\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?\s*$/i.test(part)) {
        throw fail(
          `every coordinate must be a number: current ${JSON.stringify(part)}`,
        );
      }
      return Number(part);
    });
    if (numbers.length !== 4) {
      throw fail(`every box must be four numbers: current ${numbers.length}`);
    }
    return numbers as unknown as Box;
  });
  return { phrase, boxes };
}

function checkRegion(
  value: unknown,
  index: number,
  notes: string[],
  image: readonly [number, number] | undefined,
): CheckedRegion {
  const name = `region ${index}`;
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new TypeError(
      `Cannot use ${name}: it must be an object: current ${show(value)}`,
    );
  }
  for (const key of Object.keys(value)) {
    if (!(KEYS as readonly string[]).includes(key)) {
      throw new TypeError(
        `Cannot use ${name}: keys must be ${KEYS.join(", ")}: current ${
          show(key)
        }; did you mean ${show(nearest(key, KEYS))}?`,
      );
    }
  }
  const { phrase, boxes, mask, occurrence, tokens, span, weight } =
    value as Record<string, unknown>;
  if (typeof phrase !== "string") {
    throw new TypeError(
      `Cannot use ${name}: phrase must be a text: current ${show(phrase)}`,
    );
  }
  const full = `${name} ${show(phrase)}`;
  if (phrase.trim() === "" || phrase.length > MAX_PHRASE) {
    throw new RangeError(
      `Cannot use ${full}: phrase must have 1 to ${MAX_PHRASE} characters: current ${phrase.length}`,
    );
  }
  const given = Object.entries({ occurrence, tokens, span }).filter(([, v]) =>
    v !== undefined
  );
  if (given.length > 1) {
    throw new TypeError(
      `Cannot use ${full}: at most one of occurrence, tokens and span must be given: current ${
        given.map(([key]) => key).join(" and ")
      }`,
    );
  }
  const numbers = (
    v: unknown,
    key: string,
    min: number,
    max: number,
  ): number[] =>
    arrayOf(v, full, key, min, max).map((n, i) =>
      whole(n, full, `${key} ${i}`)
    );
  if (
    weight !== undefined &&
    !(typeof weight === "number" && weight >= 0 && weight < Infinity)
  ) {
    const Kind = typeof weight === "number" ? RangeError : TypeError;
    throw new Kind(
      `Cannot use ${full}: weight must be a number, 0 or more: current ${
        show(weight)
      }`,
    );
  }
  if (boxes !== undefined && mask !== undefined) {
    throw new TypeError(
      `Cannot use ${full}: it must have either boxes or a mask: current has both`,
    );
  }
  return {
    phrase,
    ...(mask === undefined
      ? {
        boxes: arrayOf(boxes, full, "boxes", 1, MAX_BOXES).map((box, i) =>
          checkBox(box, full, i, notes)
        ),
      }
      : { mask: checkMask(mask, full, image) }),
    ...(occurrence === undefined ? {} : {
      occurrence: occurrence === "all"
        ? "all" as const
        : whole(occurrence, full, "occurrence"),
    }),
    ...(tokens === undefined
      ? {}
      : { tokens: numbers(tokens, "tokens", 1, MAX_TOKENS) }),
    ...(span === undefined
      ? {}
      : { span: numbers(span, "span", 2, 2) as [number, number] }),
    ...(weight === undefined ? {} : { weight }),
  };
}

function checkBox(
  value: unknown,
  region: string,
  index: number,
  notes: string[],
): Box {
  const key = `box ${index}`;
  const list = arrayOf(value, region, key, 4, 4);
  if (list.some((v) => typeof v !== "number")) {
    throw new TypeError(
      `Cannot use ${region}: ${key} must be four numbers: current ${
        show(list)
      }`,
    );
  }
  const box = list as unknown as Box;
  const clamped = clampBox(box, `${region}, ${key}`);
  if (clamped.some((v, i) => v !== box[i])) {
    notes.push(
      `${region}: ${key} [${box}] reaches outside the image and is cut to [${clamped}]`,
    );
  }
  return clamped;
}

function arrayOf(
  value: unknown,
  name: string,
  key: string,
  min: number,
  max: number,
): unknown[] {
  if (!Array.isArray(value)) {
    throw new TypeError(
      `Cannot use ${name}: ${key} must be an array: current ${show(value)}`,
    );
  }
  if (value.length < min || value.length > max) {
    const range = min === max ? `${min}` : `${min} to ${max}`;
    throw new RangeError(
      `Cannot use ${name}: ${key} must have ${range} entries: current ${value.length}`,
    );
  }
  return Array.from(value); // a hole becomes undefined, and then an error
}

function whole(value: unknown, name: string, key: string): number {
  if (typeof value !== "number") {
    throw new TypeError(
      `Cannot use ${name}: ${key} must be a number: current ${show(value)}`,
    );
  }
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(
      `Cannot use ${name}: ${key} must be a whole number from 0: current ${value}`,
    );
  }
  return value;
}

function show(value: unknown): string {
  if (typeof value === "number" || typeof value === "bigint") {
    return String(value);
  }
  const text =
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? "an object"
      : JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
