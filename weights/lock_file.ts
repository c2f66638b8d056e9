// lock_file: one process at a time, by a file that only one can create.
// The lock of a process that is gone is taken over; that of another machine is not.
import { randomUUID } from "node:crypto";
import { link, readFile, rm, stat, writeFile } from "node:fs/promises";
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

/** Older than this, a file that stands while a lock is put aside has been left behind. */
const ASIDE_MS = 10_000;

let serial = 0;
const held = new Set<string>(); // paths that this process holds or asks for

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
  const busy = (who: string): LockedError =>
    new LockedError(`Cannot take ${path}: no other ${who}`);
  // A number of before a restart may be another program's now.
  const advice = `remove ${path} if that one is gone or another program`;
  // Before the first wait: others of this process see it at once.
  if (held.has(path)) {
    throw busy(`process may hold it: current is process ${process.pid}`);
  }
  held.add(path);
  const mine = `${path}.${randomUUID().slice(0, 8)}`;
  try {
    await writeFile(mine, own);
    for (let attempt = 0; attempt < 3; attempt++) {
      if (await create(path, mine, own)) {
        return {
          path,
          [Symbol.asyncDispose]: async () => {
            const now = await readFile(path, "utf8").catch(() => "");
            if (now === own) await rm(path, { force: true });
            held.delete(path);
          },
        };
      }
      const text = await readFile(path, "utf8").catch(() => undefined);
      if (text === undefined) continue; // let go in between
      const holder = holderIn(text);
      if (holder !== undefined) {
        throw busy(`process may hold it: current is ${holder}; ${advice}`);
      }
      await putAside(path, text);
    }
    throw busy("process may hold it: current is one that keeps coming back");
  } catch (error) {
    held.delete(path);
    throw error;
  } finally {
    await rm(mine, { force: true });
  }
}

/**
 * Who holds a lock, for messages.
 *
 * @returns Undefined if nobody does, it is this process, or the process is gone.
 */
export async function lockHolder(path: string): Promise<string | undefined> {
  return holderIn(await readFile(path, "utf8").catch(() => ""));
}

function holderIn(text: string): string | undefined {
  const { pid, host } = parse(text);
  if (host === undefined) return undefined;
  if (host !== hostname()) return `process ${pid} of ${host}`;
  return pid !== process.pid && alive(pid) ? `process ${pid}` : undefined;
}

/** Makes the lock with its text in it, in one step: an empty one would look like a killed process's. */
async function create(
  path: string,
  mine: string,
  own: string,
): Promise<boolean> {
  try {
    await link(mine, path);
    return true;
  } catch (error) {
    if ((error as { code?: string }).code === "EEXIST") return false;
  }
  try { // a file system without links
    await writeFile(path, own, { flag: "wx" });
    return await readFile(path, "utf8") === own;
  } catch (error) {
    if ((error as { code?: string }).code === "EEXIST") return false;
    throw error;
  }
}

/**
 * Removes the lock of a process that is gone, under a second lock: who has read it
 * before somebody else did the same would remove the next one's.
 */
async function putAside(path: string, text: string): Promise<void> {
  const aside = `${path}.aside`;
  try {
    await writeFile(aside, "", { flag: "wx" });
  } catch (error) {
    if ((error as { code?: string }).code !== "EEXIST") throw error;
    const since = await stat(aside).then(
      ({ mtimeMs }) => mtimeMs,
      () => Infinity,
    );
    // Held for two calls: this one's process was killed between them
    if (Date.now() - since > ASIDE_MS) await rm(aside, { force: true });
    return;
  }
  try {
    const now = await readFile(path, "utf8").catch(() => undefined);
    if (now === text) await rm(path, { force: true });
  } finally {
    await rm(aside, { force: true });
  }
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
