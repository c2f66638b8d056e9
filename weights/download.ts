// download: one file over http, resumed where it was cut, hashed while it streams.
// The file gets its name only when size and hash are right; until then it is `name.partial`.
import { createHash, type Hash } from "node:crypto";
import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { MissingFileError, quote, WeightsError } from "./errors.ts";
import { chunksOf, fetchWithin } from "./idle_limit.ts";

/** What a file must be. */
export interface Expected {
  /** Bytes. */
  readonly size: number;
  /** `sha256`, 64 hex digits; or `git`, sha1 of `blob <size>\0` and the content; or undefined where nobody knows. */
  readonly hash:
    | { readonly kind: "sha256" | "git"; readonly hex: string }
    | undefined;
}

/** How it is fetched. */
export interface DownloadOptions {
  /** Cancels; what was fetched stays for the next time. */
  readonly signal?: AbortSignal | undefined;
  /** Sent to the host of `url` and to no other. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Called with bytes that are there and bytes in all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  /** Attempts in a row that bring nothing before it gives up. Default 5. */
  readonly attempts?: number | undefined;
  /** Milliseconds that the server may send nothing before it is asked again. Default 60,000. */
  readonly idleMs?: number | undefined;
  /** Waits between attempts, for tests. */
  readonly sleep?:
    | ((ms: number, signal?: AbortSignal) => Promise<void>)
    | undefined;
}

/** The server cannot be asked again with hope. */
class FinalError extends WeightsError {
  override name = "WeightsError";
}

const MOST_REDIRECTS = 5;
const MOST_WAIT_MS = 60_000;
const CHUNK = 4 * 2 ** 20; // read at once to hash what is there

/**
 * Fetches a file.
 *
 * @param url Where it is.
 * @param path Where it goes; its folder is made.
 * @throws {MissingFileError} If the server says 404.
 * @throws {WeightsError} If it cannot be had, or is not what it must be. Nothing is at `path` then.
 */
export async function download(
  url: URL,
  path: string,
  expected: Expected,
  options: DownloadOptions = {},
): Promise<void> {
  const { signal, attempts = 5, sleep = wait } = options;
  await mkdir(dirname(path), { recursive: true }).catch((cause) => {
    throw writeError(path, cause);
  });
  const partial = `${path}.partial`;
  for (let useless = 0, most = 0, restarted = false;;) {
    signal?.throwIfAborted();
    const before = useless;
    await using file = await PartialFile.open(partial, expected, signal);
    const resumed = file.done;
    most = Math.max(most, resumed);
    try {
      if (file.done < expected.size || expected.size === 0) {
        await fetchInto(file, url, expected, options);
      }
      if (file.done < expected.size) {
        throw new WeightsError(
          `Cannot download ${
            show(url)
          }: ${expected.size} bytes must come: current connection ended after ${file.done}`,
        );
      }
      const wrong = file.check();
      if (wrong === undefined) {
        await file.finish(path);
        return;
      }
      await file.discard();
      // What an earlier run left may have been another's; what came whole from the server is its word.
      if (resumed === 0 || restarted) {
        throw new FinalError(
          `Cannot download ${show(url)}: ${wrong}; nothing of it was kept`,
        );
      }
      restarted = true;
      most = 0; // once: nothing of those bytes is there any more
      continue;
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (error instanceof FinalError || error instanceof MissingFileError) {
        throw error;
      }
      if (!(error instanceof RetryError || error instanceof WeightsError)) {
        throw error;
      }
      // Against the most there ever was: a server that ignores Range may be cut here and there for ever.
      useless = file.done > most ? 0 : useless + 1;
      most = Math.max(most, file.done);
      if (useless >= attempts) {
        throw error instanceof RetryError
          ? new WeightsError(error.message, { cause: error })
          : error;
      }
      const backoff = Math.min(MOST_WAIT_MS, 500 * 2 ** before);
      const asked = error instanceof RetryError ? error.waitMs : undefined;
      await sleep(Math.min(MOST_WAIT_MS, asked ?? backoff), signal);
    }
  }
}

/** The server may do better later. */
export class RetryError extends Error {
  /** What the server asked for. */
  readonly waitMs: number | undefined;
  /** With what the server asked for. */
  constructor(message: string, waitMs: number | undefined) {
    super(message);
    this.waitMs = waitMs;
  }
}

/** One request; ends early without an error where the connection does. */
async function fetchInto(
  file: PartialFile,
  url: URL,
  { size }: Expected,
  options: DownloadOptions,
): Promise<void> {
  const response = await request(url, {
    "accept-encoding": "identity", // ranges count bytes of what is sent
    ...(file.done > 0 ? { range: `bytes=${file.done}-` } : {}),
  }, options);
  const fail = async (rule: string, current: string): Promise<never> => {
    await response.body?.cancel().catch(() => {});
    throw new FinalError(
      `Cannot download ${show(url)}: ${rule}: current ${current}`,
    );
  };
  const encoding = response.headers.get("content-encoding") ?? "identity";
  if (encoding !== "identity") {
    await fail(
      "it must come without compression",
      `Content-Encoding is ${quote(encoding)}`,
    );
  }
  if (response.status === 206) {
    const text = response.headers.get("content-range") ?? "none";
    const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/.exec(text);
    const [, first, last, total] = match ?? [];
    if (
      Number(first) !== file.done || Number(last) !== size - 1 ||
      (total !== "*" && Number(total) !== size)
    ) {
      await fail(
        `Content-Range must be "bytes ${file.done}-${size - 1}/${size}"`,
        `answer has ${quote(text)}`,
      );
    }
  } else if (response.status === 416) {
    await response.body?.cancel().catch(() => {});
    await file.restart();
    throw new RetryError(
      `Cannot download ${
        show(url)
      }: the server must give bytes from ${file.done}: current answer is 416`,
      0,
    );
  } else {
    const length = response.headers.get("content-length");
    if (length !== null && Number(length) !== size) {
      await fail(`it must have ${size} bytes`, `answer has ${quote(length)}`);
    }
    // The server ignored Range, or none was asked for: from the start.
    await file.restart();
  }
  // A cut connection, or one that sends nothing: what came before it is kept.
  const cut = (cause: unknown): RetryError =>
    new RetryError(
      `Cannot download ${show(url)}: the server must send it whole: current ${
        (cause as Error).message
      } after ${file.done} of ${size} bytes`,
      undefined,
    );
  for await (const chunk of chunksOf(response, options, cut)) {
    if (file.done + chunk.length > size) {
      await file.discard();
      throw new FinalError(
        `Cannot download ${
          show(url)
        }: it must have ${size} bytes: current body is longer`,
      );
    }
    await file.append(chunk);
    options.onProgress?.(file.done, size);
  }
}

/**
 * A GET that follows redirects itself, so that headers such as a token go to the first host alone.
 *
 * @throws {MissingFileError} On 404; other errors say whether to ask again.
 */
export async function request(
  url: URL,
  headers: Readonly<Record<string, string>>,
  options: Pick<DownloadOptions, "signal" | "headers" | "idleMs">,
  method: "GET" | "HEAD" = "GET",
  follow = true,
): Promise<Response> {
  let at = url;
  for (let hops = 0; hops <= MOST_REDIRECTS; hops++) {
    let response: Response;
    try {
      response = await fetchWithin(at, {
        method,
        redirect: "manual",
        headers: {
          ...headers,
          ...(at.host === url.host && at.protocol === url.protocol
            ? options.headers ?? {}
            : {}),
        },
      }, options);
    } catch (cause) {
      options.signal?.throwIfAborted();
      throw new RetryError(
        `Cannot reach ${show(at)}: the server must answer: current ${
          (cause as Error).message
        }`,
        undefined,
      );
    }
    const { status } = response;
    const location = response.headers.get("location");
    if (status >= 300 && status < 400 && location !== null) {
      const next = new URL(location, at);
      if (!follow && next.host !== at.host) return response;
      await response.body?.cancel().catch(() => {});
      if (!["http:", "https:"].includes(next.protocol)) {
        throw new FinalError(
          `Cannot download ${
            show(url)
          }: it must lead to http: or https:: current redirect is to ${next.protocol}`,
        );
      }
      at = next;
      continue;
    }
    if (status === 200 || status === 206 || status === 416) return response;
    await response.body?.cancel().catch(() => {});
    throw statusError(at, response);
  }
  throw new FinalError(
    `Cannot download ${
      show(url)
    }: it must be there after ${MOST_REDIRECTS} redirects: current answer is another`,
  );
}

function statusError(url: URL, response: Response): Error {
  const { status } = response;
  const code = response.headers.get("x-error-code");
  const answer = `current answer is ${status}${code ? ` (${code})` : ""}`;
  const what = `Cannot download ${show(url)}`;
  if (status === 401) {
    return new FinalError(
      `${what}: the server must let you in: ${answer}; the name may be wrong, or it is private: set HF_TOKEN`,
    );
  }
  if (status === 403) {
    return new FinalError(
      `${what}: the server must let you in: ${answer}; accept its terms on its web page, with the account of HF_TOKEN`,
    );
  }
  if (status === 404 || status === 410) {
    return new MissingFileError(`${what}: it must be there: ${answer}`);
  }
  if (status === 408 || status === 429 || status >= 500) {
    const after = response.headers.get("retry-after");
    const seconds = after === null
      ? NaN
      : /^\d+$/.test(after)
      ? Number(after)
      : (Date.parse(after) - Date.now()) / 1000;
    return new RetryError(
      `${what}: the server must answer: ${answer}`,
      Number.isFinite(seconds) ? Math.max(0, 1000 * seconds) : undefined,
    );
  }
  return new FinalError(
    `${what}: the server must answer 200 or 206: ${answer}`,
  );
}

function show(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`;
}

function writeError(path: string, cause: unknown): WeightsError {
  const { code, message } = cause as { code?: string; message: string };
  const why = code === "ENOSPC"
    ? "disk is full"
    : code === "EACCES" || code === "EPERM"
    ? "folder may not be written"
    : message;
  return new WeightsError(
    `Cannot write ${path}: there must be room and the right to write: current ${why}`,
    { cause },
  );
}

/** The file that grows, and the hash of what is in it. */
class PartialFile implements AsyncDisposable {
  readonly #path: string;
  readonly #expected: Expected;
  #handle: FileHandle;
  #hash: Hash | undefined;
  /** Bytes in it. */
  done = 0;

  private constructor(path: string, expected: Expected, handle: FileHandle) {
    this.#path = path;
    this.#expected = expected;
    this.#handle = handle;
    this.#begin();
  }

  /** Opens what an earlier run left, hashing it, or starts anew. */
  static async open(
    path: string,
    expected: Expected,
    signal: AbortSignal | undefined,
  ): Promise<PartialFile> {
    let handle: FileHandle | undefined;
    try {
      handle = await open(path, "r+").catch((error) => {
        if (error.code === "ENOENT") return undefined;
        throw error;
      }) ?? await open(path, "w+");
      const file = new PartialFile(path, expected, handle);
      const { size } = await handle.stat();
      // Without a hash nobody would see that two parts are of different files.
      if (size > expected.size || !expected.hash) await file.restart();
      else await file.#hashWhatIsThere(size, signal);
      return file;
    } catch (cause) {
      await handle?.close().catch(() => {});
      signal?.throwIfAborted();
      throw writeError(path, cause);
    }
  }

  async #hashWhatIsThere(
    size: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const buffer = new Uint8Array(Math.min(CHUNK, Math.max(1, size)));
    while (this.done < size) {
      signal?.throwIfAborted();
      const { bytesRead } = await this.#handle.read(
        buffer,
        0,
        buffer.length,
        this.done,
      );
      if (bytesRead === 0) break;
      this.#hash?.update(buffer.subarray(0, bytesRead));
      this.done += bytesRead;
    }
  }

  #begin(): void {
    const { hash, size } = this.#expected;
    this.done = 0;
    this.#hash = hash && createHash(hash.kind === "git" ? "sha1" : "sha256");
    if (hash?.kind === "git") this.#hash!.update(`blob ${size}\0`);
  }

  /** Forgets what is in it. */
  async restart(): Promise<void> {
    await this.#handle.truncate(0);
    this.#begin();
  }

  /** Adds bytes at the end. */
  async append(bytes: Uint8Array): Promise<void> {
    try {
      for (let at = 0; at < bytes.length;) {
        const { bytesWritten } = await this.#handle.write(
          bytes,
          at,
          bytes.length - at,
          this.done + at,
        );
        at += bytesWritten;
      }
    } catch (cause) {
      throw new FinalError(writeError(this.#path, cause).message, { cause });
    }
    this.#hash?.update(bytes);
    this.done += bytes.length;
  }

  /** Why it is not what it must be, or undefined. */
  check(): string | undefined {
    const hex = this.#hash?.digest("hex");
    const { hash } = this.#expected;
    return hash === undefined || hex === hash.hex
      ? undefined
      : `its ${
        hash.kind === "git" ? "git hash" : "sha256"
      } must be ${hash.hex}: current one is ${hex}`;
  }

  /** Gives it its name. */
  async finish(path: string): Promise<void> {
    try {
      await this.#handle.sync();
      await this.#handle.close();
      await rename(this.#path, path);
    } catch (cause) {
      throw new FinalError(writeError(path, cause).message, { cause });
    }
  }

  /** Removes it. */
  async discard(): Promise<void> {
    await this.#handle.close().catch(() => {});
    await rm(this.#path, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close().catch(() => {});
  }
}

/** Waits, unless told to stop. */
export function wait(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
