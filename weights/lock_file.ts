// lock_file: one process at a time, by a file that only one can create.
// The lock of a process that is gone is taken over; that of another machine is not.
import { readFile, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import process from "node:process";

/** Somebody else holds the lock. */
export class LockedError extends Error {
  /** The class name, as it stands in front of the message. */
  override readonly name = "LockedError";
}

/** A held lock; dispose it to let others in. */
export interface Lock extends AsyncDisposable {
  /** The file. */
  readonly path: string;
}

let serial = 0;
const held = new Set<string>(); // paths that this process holds

/**
 * Takes a lock, or says who has it.
 *
 * @param path Of the lock file; its folder must exist.
 * @throws {LockedError} If a living process of this machine holds it, or another machine.
 */
export async function takeLock(path: string): Promise<Lock> {
  const own = JSON.stringify({
    pid: process.pid,
    host: hostname(),
    started: Date.now(),
    serial: ++serial,
  });
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      await writeFile(path, own, { flag: "wx" });
      // Two that took over one stale lock: the second removed the first's.
      if (await readFile(path, "utf8") === own) {
        held.add(path);
        return {
          path,
          [Symbol.asyncDispose]: async () => {
            held.delete(path);
            const now = await readFile(path, "utf8").catch(() => "");
            if (now === own) await rm(path, { force: true });
          },
        };
      }
    } catch (error) {
      if ((error as { code?: string }).code !== "EEXIST") throw error;
    }
    const { pid, host } = parse(await readFile(path, "utf8").catch(() => ""));
    if (
      host === hostname() && (pid === process.pid ? held.has(path) : alive(pid))
    ) {
      throw new LockedError(
        `Cannot take ${path}: no other process may hold it: current is process ${pid}`,
      );
    }
    if (host !== undefined && host !== hostname()) {
      throw new LockedError(
        `Cannot take ${path}: no other machine may hold it: current is ${host}; remove the file if that one is gone`,
      );
    }
    await rm(path, { force: true });
  }
  throw new LockedError(
    `Cannot take ${path}: no other process may hold it: current one keeps coming back`,
  );
}

/** A lock that a kill cut short has no owner. */
function parse(text: string): { pid: number; host: string | undefined } {
  try {
    const { pid, host } = JSON.parse(text) as { pid: number; host: string };
    return { pid, host };
  } catch {
    return { pid: 0, host: undefined };
  }
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as { code?: string }).code === "EPERM";
  }
}
