/** Command line words -> flags: one table per command gives the parser and the help. */
import { parseArgs } from "node:util";
import { nearest } from "../mod.ts";

/** The user asked for something that cannot be: exit code 2. */
export class UsageError extends Error {
  /** The class name. */
  override readonly name = "UsageError";
}

/** One option of a command. */
export interface Flag {
  /** Without the dashes. */
  readonly name: string;
  /** One letter. */
  readonly short?: string;
  /** What stands for the value in the help; a switch has none. */
  readonly value?: string;
  /** The only values there are. */
  readonly choices?: readonly string[];
  /** May be given more than once. */
  readonly many?: boolean;
  /** One line. */
  readonly help: string;
}

/** What was given on the command line. */
export class Flags {
  /** Words that are no options. */
  readonly words: readonly string[];
  readonly #values: ReadonlyMap<string, readonly string[]>;

  /** Use `parseFlags`. */
  constructor(
    values: ReadonlyMap<string, readonly string[]>,
    words: readonly string[],
  ) {
    this.#values = values;
    this.words = words;
  }

  /** What was given. */
  get names(): readonly string[] {
    return [...this.#values.keys()];
  }

  /** Whether it was given. */
  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** Its value. */
  text(name: string): string | undefined {
    return this.#values.get(name)?.[0];
  }

  /** All its values. */
  texts(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }

  /** The same flags with one option set, or not given. */
  with(name: string, value: string | undefined): Flags {
    const values = new Map(this.#values);
    if (value === undefined) values.delete(name);
    else values.set(name, [value]);
    return new Flags(values, this.words);
  }

  /** Its value as a number. */
  number(name: string): number | undefined {
    const text = this.text(name);
    return text === undefined ? undefined : readNumber(text, name);
  }

  /** Its value as one of the choices that the flag listed. */
  choice<T extends string>(name: string): T | undefined {
    return this.text(name) as T | undefined;
  }
}

/**
 * Reads a command's words.
 *
 * @param command Its name, for messages.
 * @param mostWords How many words without dashes it takes.
 * @throws {UsageError} With one message that names the option.
 */
export function parseFlags(
  args: readonly string[],
  command: string,
  flags: readonly Flag[],
  mostWords = 0,
): Flags {
  // Not strict: its messages differ between runtimes, and ours name the nearest option.
  const { tokens } = parseArgs({
    args: [...args],
    strict: false,
    allowPositionals: true,
    tokens: true,
    options: Object.fromEntries(flags.map(({ name, short, value }) => [name, {
      type: value === undefined ? "boolean" : "string",
      multiple: true,
      ...(short === undefined ? {} : { short }),
    }])),
  });
  const values = new Map<string, string[]>();
  const words: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") words.push(token.value);
    if (token.kind !== "option") continue;
    const flag = flags.find(({ name }) => name === token.name);
    if (flag === undefined) throw unknown(token.rawName, command, flags);
    const given = values.get(flag.name) ?? [];
    given.push(valueOf(flag, token));
    if (given.length > 1 && !flag.many) {
      throw new UsageError(
        `Cannot use --${flag.name} ${given.length} times: it must be given once`,
      );
    }
    values.set(flag.name, given);
  }
  if (words.length > mostWords) {
    throw new UsageError(
      `Cannot use ${JSON.stringify(words[mostWords])}: ${command} takes ${
        mostWords || "no"
      } ${
        mostWords === 1 ? "word" : "words"
      } without an option; put texts with spaces in quotes`,
    );
  }
  return new Flags(values, words);
}

function valueOf(
  flag: Flag,
  token: {
    readonly rawName: string;
    readonly value?: string | undefined;
    readonly inlineValue?: boolean | undefined;
  },
): string {
  const { value, inlineValue } = token;
  if (flag.value === undefined) {
    if (value === undefined) return "";
    throw new UsageError(
      `Cannot use ${token.rawName}: it takes no value: current ${
        JSON.stringify(value)
      }`,
    );
  }
  // `--prompt --box ...` has forgotten the prompt; `--seed -1` has not.
  if (value === undefined || (!inlineValue && /^-(-|[a-z]$)/i.test(value))) {
    throw new UsageError(
      `Cannot use ${token.rawName}: it must have a value, ${flag.value}: current ${
        value === undefined ? "line ends" : `next word is ${value}`
      }`,
    );
  }
  if (flag.choices !== undefined && !flag.choices.includes(value)) {
    throw new UsageError(
      `Cannot use ${token.rawName}: it must be ${
        flag.choices.join(" or ")
      }: current ${JSON.stringify(value)}; did you mean ${
        nearest(value, flag.choices)
      }?`,
    );
  }
  return value;
}

function unknown(
  rawName: string,
  command: string,
  flags: readonly Flag[],
): UsageError {
  const long = rawName.startsWith("--");
  const names = flags.flatMap(({ name, short }) => long ? [name] : short ?? []);
  const typed = rawName.replace(/^-+/, "");
  const other = names.find((name) => name.startsWith(typed)) ??
    nearest(typed, names);
  return new UsageError(
    `Cannot use ${rawName}: ${command} has no such option; did you mean ${
      long ? "--" : "-"
    }${other}?`,
  );
}

/** A number as people write it. */
export function readNumber(text: string, name: string): number {
  if (!/^\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?\s*$/i.test(text)) {
    throw new UsageError(
      `Cannot use --${name}: it must be a number: current ${
        JSON.stringify(text)
      }`,
    );
  }
  return Number(text);
}

/** Runs a check of the library: what it refuses is the user's mistake. */
export function asUsage<T>(check: () => T): T {
  try {
    return check();
  } catch (cause) {
    const user = cause instanceof TypeError || cause instanceof RangeError ||
      cause instanceof SyntaxError;
    throw user ? new UsageError(cause.message, { cause }) : cause;
  }
}

/** The options as help text, a line each. */
export function flagHelp(flags: readonly Flag[]): string {
  const left = flags.map(({ name, short, value, choices }) => {
    const shown = choices?.join("|") ?? value;
    return `  ${short === undefined ? "" : `-${short}, `}--${name}${
      shown === undefined ? "" : ` ${shown}`
    }`;
  });
  const room = 30;
  return flags.map(({ help, many }, i) => {
    const text = many ? `${help}; repeatable` : help;
    return left[i]!.length < room - 1
      ? left[i]!.padEnd(room) + text
      : `${left[i]}\n${" ".repeat(room)}${text}`;
  }).join("\n");
}
