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
  cachedSnapshot,
  hubCacheFolder,
  hubHome,
  type HubName,
  linkBlob,
  repoFolder,
  safeJoin,
  writeRef,
} from "./hub_cache.ts";
import { LockedError, takeLock } from "./lock_file.ts";
import {
  isJsonObject,
  type JsonObject,
  parseStrictJson,
} from "./strict_json.ts";

/** A file of a repository. */
export interface HubFile {
  /** Name in the repository. */
  readonly name: string;
  /** Bytes, where the hub says it. */
  readonly size: number | undefined;
}

/** A revision of a repository as the hub has it. */
export interface HubRevision {
  /** `owner/name`. */
  readonly repo: string;
  /** Commit. */
  readonly commit: string;
  /** Every file. */
  readonly files: readonly HubFile[];
}

/** How the hub is reached. */
export interface HubOptions
  extends Pick<DownloadOptions, "signal" | "attempts" | "sleep"> {
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
  /** Its files. */
  readonly files: readonly string[];
  /** Bytes that were fetched now. */
  readonly fetchedBytes: number;
}

const PARTS = ["unet", "vae", "text_encoder", "text_encoder_2"];
const SMALL = ["scheduler", "tokenizer", "tokenizer_2"];

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

/** `HF_TOKEN`, or the file that `HF_TOKEN_PATH` or the login command left. */
async function tokenHeaders(
  env: Readonly<Record<string, string | undefined>>,
): Promise<Record<string, string>> {
  const path = env["HF_TOKEN_PATH"] || join(hubHome(env), "token");
  const token = env["HF_TOKEN"] || await readFile(path, "utf8").catch(() => "");
  return token.trim() ? { authorization: `Bearer ${token.trim()}` } : {};
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
  const { signal, env = process.env } = options;
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
      const response = await request(url, {}, { signal, headers });
      return await response.text().catch((error) => {
        throw new RetryError(
          `Cannot read ${url.pathname}: the hub must send it whole: current ${
            (error as Error).message
          }`,
          undefined,
        );
      });
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
    safeJoin("", name);
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
 * The files of a pipeline that we read: configs, tokenizers, and the weights of each network in one
 * form; plain before fp16 unless `variant` asks for fp16.
 *
 * @throws {WeightsError} If it is no pipeline, or a network has no safetensors.
 */
export function pipelineFiles(
  { repo, files }: HubRevision,
  variant?: "fp16",
): string[] {
  const names = files.map(({ name }) => name);
  if (!names.includes("model_index.json")) {
    const single = names.filter((name) =>
      name.endsWith(".safetensors") && !name.includes("/")
    );
    throw new WeightsError(
      `Cannot pull ${repo}: it must hold model_index.json: current repository has none${
        single.length
          ? `; name one of its files: ${single.slice(0, 5).join(", ")}`
          : ""
      }`,
    );
  }
  const wanted = ["model_index.json"];
  for (const part of SMALL) {
    wanted.push(
      ...names.filter((name) =>
        name.startsWith(`${part}/`) && /\.(?:json|txt)$/.test(name)
      ),
    );
  }
  for (const part of PARTS) {
    const own = names.filter((name) => name.startsWith(`${part}/`));
    if (own.length === 0) continue;
    wanted.push(...own.filter((name) => name === `${part}/config.json`));
    const half = own.filter((name) =>
      /\.fp16(?:-\d{5}-of-\d{5})?\.safetensors$|-\d{5}-of-\d{5}\.fp16\.safetensors$|index\.fp16\.json$/
        .test(name)
    );
    const plain = own.filter((name) =>
      !half.includes(name) &&
      /(?:^|\/)(?:model|diffusion_pytorch_model)(?:-\d{5}-of-\d{5})?\.safetensors$|\.safetensors\.index\.json$/
        .test(name)
    );
    const [first, second] = variant === "fp16" ? [half, plain] : [plain, half];
    const chosen = first.length || variant === "fp16" ? first : second;
    if (chosen.length === 0) {
      throw new WeightsError(
        `Cannot pull ${repo}: ${part} must have ${
          variant ? `${variant} ` : ""
        }safetensors: current files are ${own.slice(0, 5).join(", ")}`,
      );
    }
    wanted.push(...chosen);
  }
  return wanted;
}

/** Files by name or pattern. */
function namedFiles(
  { repo, files }: HubRevision,
  patterns: readonly string[],
): string[] {
  return patterns.flatMap((pattern) => {
    const match = new RegExp(
      `^${
        pattern.replace(/[.+?^${}()|[\]\\]/g, "\\$&").replaceAll("*", "[^/]*")
      }$`,
    );
    const found = files.filter(({ name }) => match.test(name));
    if (found.length === 0) {
      throw new MissingFileError(
        `Cannot pull ${
          quote(pattern)
        } of ${repo}: the repository must have it: current files are ${
          files.slice(0, 8).map(({ name }) => name).join(", ")
        }`,
      );
    }
    return found.map(({ name }) => name);
  });
}

/**
 * Brings a repository's files into the cache. What is there is not fetched again; what was cut is
 * resumed; the revision is noted only when all of it is there.
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
  const files = [
    ...new Set(
      options.files?.length
        ? namedFiles(revision, options.files)
        : pipelineFiles(revision, options.variant),
    ),
  ];
  const folder = repoFolder(cache, repo);
  const headers = await tokenHeaders(env);
  let fetchedBytes = 0;
  for (const [i, file] of files.entries()) {
    signal?.throwIfAborted();
    const url = new URL(
      `${repo}/resolve/${commit}/${encoded(file)}`,
      endpointOf(options),
    );
    const { etag, expected } = await retrying(
      options,
      () => fileFacts(url, { signal, headers }),
    );
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
        await download(url, blob, expected, {
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
  await writeRef(folder, name.revision, commit);
  const path = (await cachedSnapshot(name, cache))!;
  return { path, commit, files, fetchedBytes };
}

async function sizeOf(path: string): Promise<number | undefined> {
  return await stat(path).then((s) => s.size, () => undefined);
}

/** Size and hash of a file, from the hub itself: the host that stores it may say something else. */
async function fileFacts(
  url: URL,
  options: Pick<DownloadOptions, "signal" | "headers">,
): Promise<{ etag: string; expected: Expected }> {
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
