/** A folder that one process at a time writes results into. */
import { mkdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Lock, LockedError, takeLock } from "../mod.ts";
import { UsageError } from "./flags.ts";

/**
 * Makes the folder if it is not there, and takes its lock.
 *
 * @param command Whose it is, for the lock's name and messages.
 * @throws {UsageError} If it cannot be, or the same command is at work in it.
 */
export async function lockFolder(path: string, command: string): Promise<Lock> {
  const parent = dirname(path);
  if (!(await stat(parent).catch(() => undefined))?.isDirectory()) {
    throw new UsageError(
      `Cannot write into ${path}: its folder must exist: current ${parent} is none`,
    );
  }
  try {
    await mkdir(path, { recursive: true });
  } catch (cause) {
    throw new UsageError(
      `Cannot write into ${path}: it must be a folder: current error is ${
        (cause as Error).message
      }`,
      { cause },
    );
  }
  try {
    return await takeLock(join(path, `.${command}.lock`));
  } catch (cause) {
    if (!(cause instanceof LockedError)) throw cause;
    throw new UsageError(
      `Cannot write into ${path}: no other ${command} may be at work in it: current lock is ${
        cause.message.split(": current is ").at(-1)
      }`,
      { cause },
    );
  }
}
