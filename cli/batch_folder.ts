/**
 * The folder of a batch: what is there already, and how a picture gets in, so that a run may be killed
 * at any point and started again: nothing double, nothing half.
 *
 * A picture is done when its PNG is there and carries the request. It is written under another name and
 * renamed; its line in results.jsonl follows. Starting again, a torn last line is cut off, a line
 * without its picture is dropped, and a picture without its line gets one.
 */
import { createHash } from "node:crypto";
import { appendFile, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  BEST_OF_KEY,
  decodePng,
  type Lock,
  readPngText,
  REQUEST_KEY,
  searchedRequest,
} from "../mod.ts";
import type { Job } from "./batch_jobs.ts";
import { UsageError } from "./flags.ts";
import { lockFolder } from "./locked_folder.ts";

/** One line of results.jsonl. */
export interface ResultLine {
  /** Name in the folder. */
  readonly file: string;
  /** Anything else about it. */
  readonly [key: string]: unknown;
}

const RESULTS = "results.jsonl";
const ERRORS = "errors.jsonl";

/** The open folder of a batch; closing it frees the lock. */
export class BatchFolder implements AsyncDisposable {
  readonly #path: string;
  readonly #lock: Lock;

  private constructor(path: string, lock: Lock) {
    this.#path = path;
    this.#lock = lock;
  }

  /**
   * Makes the folder if it is not there, and takes its lock.
   *
   * @throws {UsageError} If it cannot be, or another batch is at work in it.
   */
  static async open(path: string): Promise<BatchFolder> {
    return new BatchFolder(path, await lockFolder(path, "batch"));
  }

  /**
   * Brings results.jsonl and the pictures into line.
   *
   * @param force Paint again what is there for another request, instead of an error.
   * @returns The jobs that are left.
   * @throws {UsageError} If a picture is there that belongs to another request.
   */
  async reconcile(
    jobs: readonly Job[],
    force: boolean,
  ): Promise<{ readonly left: Job[]; readonly done: Job[] }> {
    const left: Job[] = [], done: Job[] = [];
    for (const job of jobs) {
      await rm(`${job.path}.partial`, { force: true });
      const found = await requestIn(job.path);
      if (found === undefined) left.push(job);
      else if (found === JSON.stringify(job.request)) done.push(job);
      else if (force) left.push(job);
      else {
        throw new UsageError(
          `Cannot paint line ${job.line}: ${job.path} must not be there for another request: current file ${
            found === "" ? "is no picture of ours" : "has another"
          }; choose another id or -o, or --force`,
        );
      }
    }
    await this.#mendResults(left, done);
    await this.#forgetErrors([...left, ...done]);
    return { left, done };
  }

  /** Puts a painted picture and its line into the folder. */
  async add(job: Job, png: Uint8Array, more: object): Promise<ResultLine> {
    const partial = `${job.path}.partial`;
    try {
      await writeFile(partial, png);
      await rename(partial, job.path);
    } catch (cause) {
      await rm(partial, { force: true }).catch(() => {}); // the first error counts
      throw new Error(
        `Cannot write ${job.path}: ${(cause as Error).message}`,
        { cause },
      );
    }
    const line = lineOf(job, more);
    await appendFile(join(this.#path, RESULTS), `${JSON.stringify(line)}\n`);
    return line;
  }

  /** Notes a picture that could not be painted, in errors.jsonl. */
  async addError(job: Job, error: Error): Promise<void> {
    const { message } = error;
    const line = JSON.stringify({ ...lineOf(job, {}), error: message });
    await appendFile(join(this.#path, ERRORS), `${line}\n`);
  }

  /** Frees the lock. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lock[Symbol.asyncDispose]();
  }

  async #mendResults(
    left: readonly Job[],
    done: readonly Job[],
  ): Promise<void> {
    const path = join(this.#path, RESULTS);
    const text = await readFile(path, "utf8").catch((error) => {
      if (error.code === "ENOENT") return "";
      throw error;
    });
    const gone = new Set(left.map(nameOf));
    const kept: string[] = [];
    const seen = new Set<string>();
    const lines = text.split("\n");
    for (const [i, line] of lines.entries()) {
      if (line === "") continue;
      let file: unknown;
      try {
        ({ file } = JSON.parse(line) as { file?: unknown });
      } catch (cause) {
        // Only the last can be one that a kill cut short.
        if (i === lines.length - 1) continue;
        throw new UsageError(
          `Cannot go on in ${this.#path}: line ${
            i + 1
          } of ${RESULTS} must be JSON: current ${
            JSON.stringify(line.slice(0, 60))
          }`,
          { cause },
        );
      }
      if (typeof file !== "string" || gone.has(file) || seen.has(file)) {
        continue;
      }
      seen.add(file);
      kept.push(line);
    }
    for (const job of done) {
      if (seen.has(nameOf(job))) continue;
      kept.push(JSON.stringify(lineOf(job, { recovered: true })));
    }
    const mended = kept.map((line) => `${line}\n`).join("");
    if (mended === text) return;
    await writeFile(`${path}.partial`, mended);
    await rename(`${path}.partial`, path);
  }

  /** Drops what an earlier run said of pictures that are there now or tried again. */
  async #forgetErrors(jobs: readonly Job[]): Promise<void> {
    const path = join(this.#path, ERRORS);
    const text = await readFile(path, "utf8").catch(() => "");
    const again = new Set(jobs.map(nameOf));
    const kept = text.split("\n").filter((line) => {
      try {
        return !again.has(JSON.parse(line).file);
      } catch {
        return false; // empty, or cut short by a kill
      }
    });
    if (kept.length === 0) return await rm(path, { force: true });
    await writeFile(`${path}.partial`, kept.map((l) => `${l}\n`).join(""));
    await rename(`${path}.partial`, path);
  }
}

function nameOf({ id }: Job): string {
  return `${id}.png`;
}

function lineOf(job: Job, more: object): ResultLine {
  const { id, line, request, notes } = job;
  const hash = createHash("sha256").update(JSON.stringify(request));
  return {
    file: nameOf(job),
    id,
    line,
    seed: request.seed,
    request: hash.digest("hex").slice(0, 16),
    ...(notes.length ? { notes } : {}),
    ...more,
  };
}

/** The request behind a PNG, best of n as it was asked; "" if it is no whole PNG with one; undefined if there is no file. */
async function requestIn(path: string): Promise<string | undefined> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === "ENOENT") return undefined;
    if (code === "EISDIR") return "";
    throw error;
  }
  try {
    decodePng(bytes);
    const texts = readPngText(bytes);
    const request = texts.get(REQUEST_KEY) ?? "";
    const candidates = texts.get(BEST_OF_KEY);
    return candidates === undefined ? request : JSON.stringify(
      searchedRequest(JSON.parse(request), JSON.parse(candidates)),
    );
  } catch {
    return "";
  }
}
