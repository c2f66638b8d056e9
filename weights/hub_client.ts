// hub_client: a repository of a Hugging Face hub -> its files in the shared cache.
import { mkdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import {
  download,
  type DownloadOptions,
  type Expected,
  request,
  RetryError,
  wait,
} from "./download.ts";
import { MissingFileError, quote, WeightsError } from "./errors.ts";
import {
  cachedFiles,
  cachedSnapshot,
  hubCacheFolder,
  hubHome,
  type HubName,
  linkBlob,
  repoFolder,
  safeJoin,
  writeRef,
} from "./hub_cache.ts";
import {
  type HubFile,
  type HubRevision,
  namedFiles,
  pipelineFiles,
} from "./hub_files.ts";
import { chunksOf } from "./idle_limit.ts";
import { LockedError, takeLock } from "./lock_file.ts";
import {
  isJsonObject,
  type JsonObject,
  parseStrictJson,
} from "./strict_json.ts";

export type { HubFile, HubRevision } from "./hub_files.ts";

/** How the hub is reached. */
export interface HubOptions
  extends Pick<DownloadOptions, "signal" | "attempts" | "sleep" | "idleMs"> {
  /** The hub. Default `HF_ENDPOINT`, else `https://huggingface.co`. */
  readonly endpoint?: string | undefined;
  /** The cache. Default as `hubCacheFolder` says. */
  readonly cache?: string | undefined;
  /** Environment. Default the process's. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
}

/** What `pull` tells while it runs. */
export interface PullProgress {
  /** Name in the repository. */
  readonly file: string;
  /** Bytes of the file that are there. */
  readonly done: number;
  /** Bytes of the file. */
  readonly size: number;
  /** From 1. */
  readonly index: number;
  /** Number of files. */
  readonly count: number;
}

/** Which files are wanted. */
export interface PullOptions extends HubOptions {
  /** Read the fp16 files where there are some. */
  readonly variant?: "fp16" | undefined;
  /** These files instead of those of a pipeline; `*` stands for anything but `/`. */
  readonly files?: readonly string[] | undefined;
  /** Called as files come. */
  readonly onProgress?: ((progress: PullProgress) => void) | undefined;
}

/** What `pull` did. */
export interface Pulled {
  /** The folder to open. */
  readonly path: string;
  /** Commit. */
  readonly commit: string;
  /**
   * Whether the name of the revision stands for that commit in the cache now. After a pull of named files
   * it stays with an earlier commit where that has others here which this one changed.
   */
  readonly named: boolean;
  /** Its files. */
  readonly files: readonly string[];
  /** Bytes that were fetched now. */
  readonly fetchedBytes: number;
}

function endpointOf({ endpoint, env = process.env }: HubOptions): URL {
  const text = endpoint ?? (env["HF_ENDPOINT"] || "https://huggingface.co");
  try {
    const url = new URL(text.replace(/\/*$/, "/"));
    if (["http:", "https:"].includes(url.protocol)) return url;
  } catch { /* said below */ }
  throw new WeightsError(
    `Cannot use endpoint ${
      quote(text)
    }: it must be an http: or https: URL: current one is not`,
  );
}

/**
 * `HF_TOKEN`, or the file that `HF_TOKEN_PATH` or the login command left.
 *
 * @throws {WeightsError} If no header can hold it: `fetch` would say so with the token in its message.
 */
async function tokenHeaders(
  env: Readonly<Record<string, string | undefined>>,
): Promise<Record<string, string>> {
  const path = env["HF_TOKEN_PATH"] || join(hubHome(env), "token");
  const own = env["HF_TOKEN"];
  const token = (own || await readFile(path, "utf8").catch(() => "")).trim();
  if (token === "") return {};
  if (!/^[\x21-\x7e]+$/.test(token)) {
    throw new WeightsError(
      `Cannot use the token of ${
        own ? "HF_TOKEN" : path
      }: it must be ASCII letters, digits and signs: current one has other characters`,
    );
  }
  return { authorization: `Bearer ${token}` };
}

/** Names as path segments of a URL. */
function encoded(name: string): string {
  return name.split("/").map(encodeURIComponent).join("/");
}

/**
 * Asks the hub what a revision holds.
 *
 * @throws {MissingFileError} If there is no such repository or revision.
 * @throws {WeightsError} If the hub cannot be asked, or answers nonsense.
 */
export async function hubRevision(
  { repo, revision }: HubName,
  options: HubOptions = {},
): Promise<HubRevision> {
  const { env = process.env } = options;
  // The values that huggingface_hub takes for yes.
  if (/^(?:1|on|yes|true)$/i.test(env["HF_HUB_OFFLINE"] ?? "")) {
    throw new WeightsError(
      `Cannot ask for ${repo}: the hub must be reachable: current environment has HF_HUB_OFFLINE`,
    );
  }
  const url = new URL(
    `api/models/${repo}/revision/${encodeURIComponent(revision)}`,
    endpointOf(options),
  );
  url.searchParams.set("blobs", "true");
  let text: string;
  try {
    text = await retrying(options, async () => {
      const headers = await tokenHeaders(env);
      const response = await request(url, {}, { ...options, headers });
      const cut = (cause: unknown): RetryError =>
        new RetryError(
          `Cannot read ${url.pathname}: the hub must send it whole: current ${
            (cause as Error).message
          }`,
          undefined,
        );
      const decoder = new TextDecoder();
      let text = "";
      for await (const chunk of chunksOf(response, options, cut)) {
        text += decoder.decode(chunk, { stream: true });
      }
      return text + decoder.decode();
    });
  } catch (cause) {
    if (!(cause instanceof MissingFileError)) throw cause;
    throw new MissingFileError(
      `Cannot find ${repo}@${revision}: the hub must have it: ${
        cause.message.split(": ").at(-1)
      }; check owner, name and revision`,
      { cause },
    );
  }
  const value = parseStrictJson(text, { name: url.pathname });
  const siblings = isJsonObject(value) ? value["siblings"] : undefined;
  const commit = isJsonObject(value) ? value["sha"] : undefined;
  if (
    typeof commit !== "string" || !/^[0-9a-f]{40}$/.test(commit) ||
    !Array.isArray(siblings)
  ) {
    throw new WeightsError(
      `Cannot read ${url.pathname}: it must have a commit as sha and a list of siblings: current answer is ${
        quote(text)
      }`,
    );
  }
  const files = siblings.map((sibling: JsonObject): HubFile => {
    const name = sibling["rfilename"];
    const size = sibling["size"];
    if (typeof name !== "string") {
      throw new WeightsError(
        `Cannot read ${url.pathname}: each sibling must have a name: current ${
          quote(sibling)
        }`,
      );
    }
    return {
      name,
      size: Number.isSafeInteger(size) ? size as number : undefined,
    };
  });
  return { repo, commit, files };
}

/** Calls again while the server says that it may do better later. */
async function retrying<T>(
  { attempts = 5, sleep = wait, signal }: HubOptions,
  call: () => Promise<T>,
): Promise<T> {
  for (let attempt = 1;; attempt++) {
    try {
      return await call();
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (!(error instanceof RetryError)) throw error;
      if (attempt >= attempts) {
        throw new WeightsError(error.message, { cause: error });
      }
      const ms = Math.min(60_000, error.waitMs ?? 500 * 2 ** attempt);
      await sleep(ms, signal);
    }
  }
}

/**
 * Brings a repository's files into the cache. What is there is not fetched again; what was cut is
 * resumed; the revision is noted only when all of it is there, and after named files only where its name
 * opens all that it did before.
 *
 * @throws {WeightsError} If something cannot be had or is not what it must be.
 */
export async function pull(
  name: HubName,
  options: PullOptions = {},
): Promise<Pulled> {
  const { signal, env = process.env } = options;
  const cache = options.cache ?? hubCacheFolder(env);
  const revision = await hubRevision(name, options);
  const { repo, commit } = revision;
  const named = Boolean(options.files?.length);
  const files = [
    ...new Set(
      named
        ? namedFiles(revision, options.files!)
        : pipelineFiles(revision, options.variant),
    ),
  ];
  for (const file of files) safeJoin("", file);
  const folder = repoFolder(cache, repo);
  const headers = await tokenHeaders(env);
  const urlOf = (file: string): URL =>
    new URL(`${repo}/resolve/${commit}/${encoded(file)}`, endpointOf(options));
  const factsOf = (file: string): Promise<FileFacts> =>
    retrying(
      options,
      () => fileFacts(urlOf(file), { ...options, headers }),
    );
  let fetchedBytes = 0;
  for (const [i, file] of files.entries()) {
    signal?.throwIfAborted();
    const { etag, expected } = await factsOf(file);
    const blob = join(folder, "blobs", etag);
    const progress = (done: number): void =>
      options.onProgress?.({
        file,
        done,
        size: expected.size,
        index: i + 1,
        count: files.length,
      });
    if (await sizeOf(blob) !== expected.size) {
      await using _lock = await lockBlob(cache, repo, etag);
      // Another pull may have brought it since.
      if (await sizeOf(blob) !== expected.size) {
        await download(urlOf(file), blob, expected, {
          ...options,
          headers,
          // All of it is there when its hash is right too: said below, once.
          onProgress: (done) => done < expected.size && progress(done),
        });
        fetchedBytes += expected.size;
      }
    }
    progress(expected.size);
    await linkBlob(folder, commit, file, etag);
  }
  const before = named ? await cachedSnapshot(name, cache) : undefined;
  const moves = before === undefined ||
    await bringAlong(before, folder, revision, factsOf);
  if (moves) await writeRef(folder, name.revision, commit);
  const path = join(folder, "snapshots", commit);
  return { path, commit, named: moves, files, fetchedBytes };
}

/**
 * Links what the snapshot `before` has beside the files pulled now into another commit, where it is the
 * same in both: a name that moves there then opens all that it opened before. Nothing is fetched.
 *
 * @returns False, and nothing is linked, where something is another in the commit or is gone.
 */
async function bringAlong(
  before: string,
  folder: string,
  { commit, files }: HubRevision,
  factsOf: (file: string) => Promise<FileFacts>,
): Promise<boolean> {
  const path = join(folder, "snapshots", commit);
  const same: [name: string, etag: string][] = [];
  for (const { name, size } of await cachedFiles(before)) {
    // A model is opened with these; a readme of another commit is no loss.
    const opened = /\.(?:safetensors|onnx|onnx_data|json|txt)$/.test(name);
    if (!opened || size === undefined) continue;
    if (await sizeOf(join(path, name)) !== undefined) continue;
    if (!files.some((file) => file.name === name)) return false;
    const { etag, expected } = await factsOf(name);
    if (await sizeOf(join(folder, "blobs", etag)) !== expected.size) {
      return false;
    }
    same.push([name, etag]);
  }
  for (const [name, etag] of same) await linkBlob(folder, commit, name, etag);
  return true;
}

async function sizeOf(path: string): Promise<number | undefined> {
  return await stat(path).then((s) => s.size, () => undefined);
}

interface FileFacts {
  readonly etag: string;
  readonly expected: Expected;
}

/** Size and hash of a file, from the hub itself: the host that stores it may say something else. */
async function fileFacts(
  url: URL,
  options: Pick<DownloadOptions, "signal" | "headers" | "idleMs">,
): Promise<FileFacts> {
  const response = await request(
    url,
    { "accept-encoding": "identity" },
    options,
    "HEAD",
    false,
  );
  await response.body?.cancel().catch(() => {});
  const { headers } = response;
  const tag = headers.get("x-linked-etag") ?? headers.get("etag") ?? "";
  const etag = tag.replace(/^W\//, "").replace(/^"(.*)"$/, "$1");
  const size = Number(
    headers.get("x-linked-size") ?? headers.get("content-length") ?? NaN,
  );
  if (
    !/^[0-9A-Za-z._-]{1,128}$/.test(etag) || etag.includes("..") ||
    !Number.isSafeInteger(size)
  ) {
    throw new WeightsError(
      `Cannot download ${url.pathname}: the hub must say its ETag and size: current ones are ${
        quote(tag)
      } and ${headers.get("x-linked-size") ?? headers.get("content-length")}`,
    );
  }
  const kind = /^[0-9a-f]{64}$/.test(etag)
    ? "sha256"
    : /^[0-9a-f]{40}$/.test(etag)
    ? "git"
    : undefined;
  return { etag, expected: { size, hash: kind && { kind, hex: etag } } };
}

/** Two pulls do not write one blob. */
async function lockBlob(
  cache: string,
  repo: string,
  etag: string,
): Promise<AsyncDisposable> {
  const folder = join(cache, ".locks", `models--${repo.replaceAll("/", "--")}`);
  await mkdir(folder, { recursive: true }).catch((cause) => {
    throw new WeightsError(
      `Cannot write ${folder}: the cache must be writable: current ${
        (cause as Error).message
      }`,
      { cause },
    );
  });
  try {
    // Not `.lock`, which Python's tools lock in another way and leave behind.
    return await takeLock(join(folder, `${etag}.winwinlay`));
  } catch (cause) {
    if (!(cause instanceof LockedError)) throw cause;
    throw new WeightsError(
      `Cannot pull ${repo}: no other pull may be at work on the same file: current lock is ${
        cause.message.split(": current is ").at(-1)
      }`,
      { cause },
    );
  }
}
