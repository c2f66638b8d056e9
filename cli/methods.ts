/** `methods`: the guidance methods and their options. */
import { methodNamed, methodNames, nearest, type Option } from "../mod.ts";
import { type Flags, UsageError } from "./flags.ts";
import type { Io } from "./io.ts";
import { flagOf, show } from "./method.ts";

/** Lists all methods, or one with its options. */
export function methods(flags: Flags, io: Io): Promise<number> {
  const [asked] = flags.words;
  const names = methodNames();
  if (asked !== undefined && !names.includes(asked)) {
    throw new UsageError(
      `Cannot show method ${JSON.stringify(asked)}: it must be ${
        names.join(" or ")
      }; did you mean ${nearest(asked, names)}?`,
    );
  }
  for (const name of asked === undefined ? names : [asked]) {
    const { about, source, options } = methodNamed(name)!;
    const list = Object.entries<Option<unknown>>(options);
    if (flags.has("json")) {
      io.out(JSON.stringify({
        name,
        about,
        source,
        options: list.map(([key, { help, value, fallback }]) => ({
          key,
          value,
          default: fallback,
          help,
        })),
      }));
      continue;
    }
    io.out(`${name}: ${about} (${source})`);
    for (const [key, { help, value, fallback }] of list) {
      io.out(
        `  ${`${flagOf(key)}=${value}`.padEnd(34)} ${help} (${show(fallback)})`,
      );
    }
    if (asked === undefined && name !== names.at(-1)) io.out("");
  }
  return Promise.resolve(0);
}
