/** Options of guidance methods on the command line, made from the methods' own tables. */
import {
  methodNamed,
  methodNames,
  type MethodSpec,
  nearest,
  type Option,
  WINWINLAY,
} from "../mod.ts";
import { type Flag, type Flags, UsageError } from "./flags.ts";

/** Every option of WinWinLay as a flag, with the paper's value; other methods know some of them too. */
export const METHOD_FLAGS: readonly Flag[] = [
  ...Object.entries<Option<unknown>>(WINWINLAY.options).map((
    [key, { value, help, fallback }],
  ) => ({ name: flagOf(key), value, help: `${help} (${show(fallback)})` })),
  {
    name: "guidance",
    value: "KEY=VALUE",
    many: true,
    help:
      "an option of the chosen method; the command methods lists them for each",
  },
];

/** `--method`, whose choices are asked for when it is read: a program may have added one. */
export const METHOD_FLAG: Flag = {
  name: "method",
  value: "NAME",
  get choices() {
    return [...methodNames(), "none"];
  },
  help: "how boxes guide (winwinlay)",
};

/** How an option is called as a flag. */
export function flagOf(key: string): string {
  // --steps are the denoising steps.
  return key === "steps"
    ? "guided-steps"
    : key.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`);
}

/** A value as a command line takes it. */
export function show(value: unknown): string {
  return value === null
    ? "none"
    : typeof value === "boolean"
    ? (value ? "on" : "off")
    : String(value);
}

/**
 * The options that were given, for a method.
 *
 * @param method Its name; options of one that is not known are read as WinWinLay's.
 * @throws {UsageError} If the method has no such option, or a text is no value of it.
 */
export function readMethod(
  flags: Flags,
  method: string,
): Record<string, unknown> {
  const spec = methodNamed(method) ?? WINWINLAY;
  const given: Record<string, unknown> = {};
  const add = (key: string, text: string, flag: string): void => {
    if (Object.hasOwn(given, key)) {
      throw new UsageError(
        `Cannot use ${flag}: ${key} must be given once: current is twice`,
      );
    }
    given[key] = readOption(optionOf(spec, key, flag), text, flag);
  };
  for (const { name } of METHOD_FLAGS) {
    const text = name === "guidance" ? undefined : flags.text(name);
    if (text !== undefined) add(keyOf(spec, name), text, `--${name}`);
  }
  for (const text of flags.texts("guidance")) {
    const at = text.indexOf("=");
    if (at < 1) {
      throw new UsageError(
        `Cannot use --guidance: it must be KEY=VALUE, such as iterations=3: current ${
          JSON.stringify(text)
        }`,
      );
    }
    const key = keyOf(spec, text.slice(0, at).trim());
    add(key, text.slice(at + 1), `--guidance ${key}`);
  }
  return given;
}

/** The option's key for a name as people write it: `stop-below`, `guided-steps` or `stopBelow`. */
function keyOf({ options }: MethodSpec, name: string): string {
  return Object.keys(options).find((key) =>
    key === name || flagOf(key) === name
  ) ?? name;
}

function optionOf(
  { name, options }: MethodSpec,
  key: string,
  flag: string,
): Option<unknown> {
  if (Object.hasOwn(options, key)) return options[key]!;
  const keys = Object.keys(options);
  throw new UsageError(
    `Cannot use ${flag}: ${name} has no such option: current ones are ${
      keys.join(", ")
    }; did you mean ${nearest(key, keys)}?`,
  );
}

function readOption(
  option: Option<unknown>,
  text: string,
  flag: string,
): unknown {
  const { choices, expects } = option;
  const known = choices === undefined || choices.includes(text);
  const value = known ? option.read(text) : undefined;
  if (value !== undefined) return value;
  throw new UsageError(
    `Cannot use ${flag}: it must be ${expects}: current ${
      JSON.stringify(text)
    }${choices ? `; did you mean ${nearest(text, choices)}?` : ""}`,
  );
}
