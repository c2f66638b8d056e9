/** `--methods`, `--variants` and `--preset` -> named guidance objects. What is in them is the request's matter. */
import { nearest } from "../mod.ts";
import { type Flags, UsageError } from "./flags.ts";
import { COMPARE_PRESETS } from "./presets.ts";
import { readInput } from "./request.ts";

/** The `guidance` of a request, not checked. */
export type Guidance = Readonly<Record<string, unknown>>;

/** A method with its options. */
export interface Variant {
  /** For people. */
  readonly name: string;
  /** For file names: small letters, digits and `+ - . _`. */
  readonly slug: string;
  /** What it puts into each request. */
  readonly guidance: Guidance;
}

/** What is compared, and with which of them. */
export interface Variants {
  /** In the order of the table. */
  readonly list: readonly Variant[];
  /** Name of the one that the differences are to. */
  readonly against: string;
}

const MOST = 100;

/**
 * Reads the methods.
 *
 * @throws {UsageError} If there are none, or one is not readable, or two have the same name.
 */
export async function readVariants(flags: Flags): Promise<Variants> {
  const given = ["methods", "variants", "preset"].filter((name) =>
    flags.has(name)
  );
  if (given.length !== 1) {
    throw new UsageError(
      `Cannot compare: one of --methods, --variants and --preset must say what: current ${
        given.map((name) => `--${name}`).join(" and ") || "none"
      }`,
    );
  }
  const preset = presetOf(flags.text("preset"));
  const methods = flags.text("methods");
  const named = preset
    ? Object.entries(preset.variants)
    : methods === undefined
    ? await fileVariants(flags.text("variants")!)
    : parseMethods(methods);
  const list = named.map(([name, guidance]): Variant => ({
    name,
    slug: slugOf(name),
    guidance,
  }));
  if (list.length > MOST) {
    throw new UsageError(
      `Cannot compare: there must be at most ${MOST} methods: current ${list.length}`,
    );
  }
  for (const [i, { name, slug }] of list.entries()) {
    const other = list.slice(0, i).find((v) => v.slug === slug);
    if (other) {
      throw new UsageError(
        `Cannot compare ${
          JSON.stringify(name)
        }: names must differ in letters and digits: current other is ${
          JSON.stringify(other.name)
        }`,
      );
    }
  }
  const against = flags.text("against") ?? preset?.against ?? list[0]!.name;
  checkAgainst(against, list.map(({ name }) => name));
  return { list, against };
}

/** @throws {UsageError} If the name is not one of the methods. */
export function checkAgainst(name: string, names: readonly string[]): void {
  if (names.includes(name)) return;
  throw new UsageError(
    `Cannot use --against: it must be one of ${names.join(", ")}: current ${
      JSON.stringify(name)
    }; did you mean ${nearest(name, names)}?`,
  );
}

function presetOf(name: string | undefined) {
  return name === undefined ? undefined : COMPARE_PRESETS[name];
}

/**
 * `none,winwinlay:snr=0.15,rho=0:0` -> two methods.
 *
 * After a comma, a word with `=` and no `:` in front of it goes on with the method's options. A value is
 * a number, true, false, null, a word, or several of these between colons.
 */
function parseMethods(text: string): [string, Guidance][] {
  const entries: string[][] = [];
  for (const word of text.split(",").map((part) => part.trim())) {
    const option = /^[^:=]+=/.test(word);
    if (option && entries.length) entries.at(-1)!.push(word);
    else entries.push([word]);
  }
  return entries.map((words) => {
    const name = words.join(",");
    const match = /^([A-Za-z][\w-]*)(?::(.+))?$/.exec(words[0]!);
    const options = [match?.[2], ...words.slice(1)].flatMap((x) => x ?? []);
    if (!match || !options.every((word) => /^[^=]+=[^=]+$/.test(word))) {
      throw new UsageError(
        `Cannot use --methods: each must be a method such as none or winwinlay:snr=0.15,rho=0:0: current ${
          JSON.stringify(name)
        }`,
      );
    }
    const pairs = options.map((word): [string, unknown] => {
      const [key, value] = word.split("=") as [string, string];
      const parts = value.split(":").map(parseValue);
      return [key, parts.length === 1 ? parts[0] : parts];
    });
    return [name, { method: match[1]!, ...Object.fromEntries(pairs) }];
  });
}

function parseValue(text: string): unknown {
  if (/^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i.test(text)) {
    return Number(text);
  }
  const words: Readonly<Record<string, unknown>> = {
    true: true,
    false: false,
    null: null,
    none: null,
  };
  return Object.hasOwn(words, text) ? words[text] : text;
}

async function fileVariants(path: string): Promise<[string, Guidance][]> {
  let value: unknown;
  try {
    value = JSON.parse(
      new TextDecoder("utf-8", { fatal: true }).decode(
        await readInput(path, "variants"),
      ),
    );
  } catch (cause) {
    if (cause instanceof UsageError) throw cause;
    throw new UsageError(
      `Cannot read variants ${path}: it must be JSON: current error is ${
        (cause as Error).message
      }`,
      { cause },
    );
  }
  const isObject = (x: unknown): x is Guidance =>
    typeof x === "object" && x !== null && !Array.isArray(x);
  const entries = isObject(value) ? Object.entries(value) : [];
  const odd = entries.find(([name, guidance]) =>
    name.trim() === "" || !isObject(guidance)
  );
  if (entries.length === 0 || odd) {
    throw new UsageError(
      `Cannot use variants ${path}: it must be names with guidance, such as {"mine": {"method": "winwinlay", "snr": 0.1}}: current ${
        odd
          ? `one is ${JSON.stringify(odd[0])}: ${JSON.stringify(odd[1])}`
          : "has none"
      }`,
    );
  }
  return entries as [string, Guidance][];
}

function slugOf(name: string): string {
  const slug = name.toLowerCase().replace(/[^a-z0-9.+_]+/g, "-")
    .replace(/^[-.]+|[-.]+$/g, "").slice(0, 60);
  if (slug !== "") return slug;
  throw new UsageError(
    `Cannot compare ${
      JSON.stringify(name)
    }: a name must have letters or digits`,
  );
}
