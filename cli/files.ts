/** Where results go: checked first, written whole or not at all. */
import {
  access,
  constants,
  link,
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

/**
 * Checks that a folder is there and can be written to.
 *
 * @param path What is to be written into it, for the message; the folder itself if left out.
 * @throws {UsageError} If it is missing, or is not ours to write to.
 */
export async function targetFolder(
  folder: string,
  path = folder,
): Promise<void> {
  if (!(await stat(folder).catch(() => undefined))?.isDirectory()) {
    throw new UsageError(
      `Cannot write ${path}: its folder must exist: current ${folder} is none`,
    );
  }
  try {
    await access(folder, constants.W_OK);
  } catch (cause) {
    throw cannotWrite(path, cause);
  }
}

function cannotWrite(path: string, cause: unknown): UsageError {
  return new UsageError(
    `Cannot write ${path}: it must be possible: current error is ${
      (cause as Error).message
    }`,
    { cause },
  );
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
    const info = await stat(path).catch((error) => {
      if (error.code === "ENOENT") return undefined;
      throw cannotWrite(path, error);
    });
    if (info !== undefined && (!options.force || !info.isFile())) {
      throw new UsageError(
        `Cannot write ${path}: it must not be there yet: current path is a ${
          info.isFile() ? "file; choose another -o, or --force" : "folder"
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
  // Another process may be writing a file of the same name.
  const partial = ({ path }: NewFile) => `${path}.${process.pid}.partial`;
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
