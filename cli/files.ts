/** Where results go: checked first, written whole or not at all. */
import {
  link,
  lstat,
  open,
  rename,
  rm,
  stat,
  writeFile,
} from "node:fs/promises";
import { dirname } from "node:path";
import process from "node:process";
import { UsageError } from "./flags.ts";

/** A file to write. */
export interface NewFile {
  /** Path as the user gave it. */
  readonly path: string;
  /** Its content. */
  readonly bytes: Uint8Array;
}

/** `picture.png` and `.boxes` -> `picture.boxes.png`. */
export function withSuffix(path: string, suffix: string): string {
  return path.replace(/\.(?:png|svg)$/i, `${suffix}$&`);
}

/** Another process may be writing a file of the same name. */
function partialOf(path: string): string {
  return `${path}.${process.pid}.partial`;
}

/**
 * Checks that a folder is there, and makes a file in it for a moment: nothing else tells whether one can.
 *
 * @param path What is to be written into it.
 * @throws {UsageError} If it is missing, or nothing can be written.
 */
export async function targetFolder(
  folder: string,
  path: string,
): Promise<void> {
  if (!(await stat(folder).catch(() => undefined))?.isDirectory()) {
    throw new UsageError(
      `Cannot write ${path}: its folder must exist: current ${folder} is none`,
    );
  }
  const partial = partialOf(path);
  try {
    await (await open(partial, "w")).close();
  } catch (cause) {
    throw new UsageError(
      `Cannot write ${path}: it must be possible: current error is ${
        (cause as Error).message
      }`,
      { cause },
    );
  } finally {
    await rm(partial, { force: true }).catch(() => {});
  }
}

/**
 * Checks that files can be written, before anything is computed.
 *
 * @param options.force Whether files that are there may be replaced.
 * @param options.type What their names must end in.
 * @throws {UsageError} If a folder is missing or a file is there.
 */
export async function checkTargets(
  paths: readonly string[],
  options: { readonly force: boolean; readonly type?: "png" | "svg" },
): Promise<void> {
  const { type = "png" } = options;
  for (const path of paths) {
    if (!new RegExp(`[^/\\\\]\\.${type}$`, "i").test(path)) {
      throw new UsageError(
        `Cannot write ${
          JSON.stringify(path)
        }: its name must end in .${type}: current one does not`,
      );
    }
    await targetFolder(dirname(path), path);
    // A link to nothing is there, too.
    const info = await lstat(path).catch(() => undefined);
    const folder = info?.isDirectory() ?? false;
    if (info !== undefined && (!options.force || folder)) {
      throw new UsageError(
        `Cannot write ${path}: it must not be there yet: current path is a ${
          folder ? "folder" : "file; choose another -o, or --force"
        }`,
      );
    }
  }
}

/**
 * Writes files under other names and gives them their own once all are whole.
 *
 * @param options.force Replace files that are there; else one that has come in the meantime is an error.
 */
export async function writeFiles(
  files: readonly NewFile[],
  signal: AbortSignal,
  options: { readonly force: boolean },
): Promise<void> {
  const partial = ({ path }: NewFile) => partialOf(path);
  try {
    for (const file of files) await writeFile(partial(file), file.bytes);
    signal.throwIfAborted();
    for (const file of files) {
      await place(partial(file), file.path, options.force);
    }
  } catch (cause) {
    for (const file of files) await rm(partial(file), { force: true });
    if (signal.aborted) throw cause;
    throw new Error(
      `Cannot write ${files.map((f) => f.path).join(", ")}: ${
        (cause as Error).message
      }`,
      { cause },
    );
  }
}

/** A rename that replaces nothing unless it may. */
async function place(from: string, to: string, force: boolean): Promise<void> {
  if (!force) {
    try {
      await link(from, to);
      await rm(from);
      return;
    } catch (error) {
      if ((error as { code?: string }).code === "EEXIST") throw error;
      // A file system without links.
    }
  }
  await rename(from, to);
}
