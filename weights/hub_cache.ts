// hub_cache: the cache folder that Hugging Face's tools share, as huggingface_hub documents it.
//
//   models--owner--name/
//     blobs/<etag>                 files by content: sha256 of large ones, git's sha1 of small ones
//     refs/<revision>              the commit that a branch or tag named when it was pulled
//     snapshots/<commit>/<path>    links into blobs
import { randomUUID } from "node:crypto";
import {
  access,
  copyFile,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, relative, resolve, sep } from "node:path";
import process from "node:process";
import { quote, WeightsError } from "./errors.ts";
import { snapshotState } from "./hub_state.ts";

/** A repository with a revision: a branch, a tag or a commit. */
export interface HubName {
  /** `owner/name`. */
  readonly repo: string;
  /** `main` if none was said. */
  readonly revision: string;
}

const PART = "[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?";
const NAME = new RegExp(
  `^(${PART}/${PART})(?:@([A-Za-z0-9][\\w./-]{0,199}))?$`,
);

/**
 * Reads `owner/name` or `owner/name@revision`.
 *
 * @returns Undefined if it is neither.
 */
export function parseHubName(text: string): HubName | undefined {
  const match = NAME.exec(text);
  if (!match || /\.\.|--|\/\//.test(text) || match[2]?.endsWith("/")) {
    return undefined;
  }
  return { repo: match[1]!, revision: match[2] ?? "main" };
}

/**
 * The folder of the cache: `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, else `hub` in `HF_HOME`, else in
 * `huggingface` in `XDG_CACHE_HOME` or `~/.cache`.
 */
export function hubCacheFolder(
  env: Readonly<Record<string, string | undefined>> = process.env,
): string {
  const explicit = env["HF_HUB_CACHE"] || env["HUGGINGFACE_HUB_CACHE"];
  if (explicit) return expand(explicit);
  return join(hubHome(env), "hub");
}

/** `HF_HOME`, or where it is by default. */
export function hubHome(
  env: Readonly<Record<string, string | undefined>> = process.env,
): string {
  return env["HF_HOME"] ? expand(env["HF_HOME"]) : join(
    env["XDG_CACHE_HOME"]
      ? expand(env["XDG_CACHE_HOME"])
      : join(homedir(), ".cache"),
    "huggingface",
  );
}

function expand(path: string): string {
  return resolve(path.replace(/^~(?=$|[/\\])/, homedir()));
}

/** The folder of one repository in the cache. */
export function repoFolder(cache: string, repo: string): string {
  return join(cache, `models--${repo.replaceAll("/", "--")}`);
}

/**
 * The snapshot of a repository in the cache.
 *
 * @returns Its folder, or undefined if that revision was never pulled.
 */
export async function cachedSnapshot(
  { repo, revision }: HubName,
  cache: string = hubCacheFolder(),
): Promise<string | undefined> {
  const folder = repoFolder(cache, repo);
  const ref = await readFile(join(folder, "refs", revision), "utf8")
    .catch(() => undefined);
  const commit = ref?.trim() ?? revision;
  if (!/^[\w.-]+$/.test(commit) || commit.includes("..")) return undefined;
  const snapshot = join(folder, "snapshots", commit);
  return await stat(snapshot).then((s) => s.isDirectory(), () => false)
    ? snapshot
    : undefined;
}

/** `owner/name` of a snapshot's folder in a cache; undefined for any other path. */
export function repoOfSnapshot(path: string): string | undefined {
  const match = /[/\\]models--([^/\\]+)[/\\]snapshots[/\\][^/\\]+[/\\]?$/
    .exec(path);
  return match?.[1]?.replace("--", "/");
}

/**
 * A file name inside a repository as a path below a folder.
 *
 * @throws {WeightsError} If it could lead out of the folder.
 */
export function safeJoin(folder: string, name: string): string {
  const parts = name.split("/");
  const bad = (part: string): boolean =>
    /^\.{0,2}$|[\\:\p{Cc}]/u.test(part) || part.endsWith(" ");
  if (name.length > 500 || parts.some(bad)) {
    throw new WeightsError(
      `Cannot use file name ${
        quote(name)
      }: it must stay inside its repository: current name does not`,
    );
  }
  return join(folder, ...parts);
}

/** Writes the commit that a revision names now, whole or not at all. */
export async function writeRef(
  folder: string,
  revision: string,
  commit: string,
): Promise<void> {
  if (revision === commit) return;
  const path = safeJoin(join(folder, "refs"), revision);
  await mkdir(dirname(path), { recursive: true });
  const partial = uniquePartial(path);
  await writeFile(partial, commit);
  await rename(partial, path);
}

/** Makes a snapshot's file show a blob: a relative link, or a copy where links cannot be made. */
export async function linkBlob(
  folder: string,
  commit: string,
  name: string,
  etag: string,
): Promise<void> {
  const path = safeJoin(join(folder, "snapshots", commit), name);
  const blob = join(folder, "blobs", etag);
  await mkdir(dirname(path), { recursive: true });
  const target = relative(dirname(path), blob).split(sep).join("/");
  if (await readlink(path).catch(() => undefined) === target) return;
  const partial = uniquePartial(path);
  try {
    await symlink(target, partial);
  } catch {
    await copyFile(blob, partial); // Windows without the right to make links
  }
  await rename(partial, path);
}

/** No two pulls share it: one that copied over another's link would empty the blob behind it. */
function uniquePartial(path: string): string {
  return `${path}.${randomUUID().slice(0, 8)}.partial`;
}

/** A file of a snapshot. */
export interface CachedFile {
  /** Name in the repository. */
  readonly name: string;
  /** On this machine. */
  readonly path: string;
  /** Bytes; undefined where the link leads nowhere. */
  readonly size: number | undefined;
}

/** The files of a snapshot, by name. */
export async function cachedFiles(path: string): Promise<CachedFile[]> {
  const files: CachedFile[] = [];
  for (const name of (await filesBelow(path)).sort()) {
    if (name.endsWith(".partial")) continue; // a killed pull's
    const own = join(path, name);
    const size = await stat(own).then((s) => s.size, () => undefined);
    files.push({ name, path: own, size });
  }
  return files;
}

/** A snapshot in the cache. */
export interface CachedRevision {
  /** `owner/name`. */
  readonly repo: string;
  /** Commit. */
  readonly commit: string;
  /** Branches and tags that named it. */
  readonly refs: readonly string[];
  /** Its folder. */
  readonly path: string;
  /** What is in it. */
  readonly files: readonly CachedFile[];
  /** `single files` without model_index.json; `no finished pull` where a part of that is not there. */
  readonly state: "complete" | "no finished pull" | "single files";
  /** Names of blobs of the repository that a pull has not finished. */
  readonly unfinished: readonly string[];
}

/** Every snapshot in the cache, by name. */
export async function listCache(
  cache: string = hubCacheFolder(),
): Promise<CachedRevision[]> {
  const found: CachedRevision[] = [];
  for (const entry of (await namesIn(cache)).sort()) {
    const match = /^models--(.+)$/.exec(entry);
    if (!match) continue;
    const folder = join(cache, entry);
    const refs = new Map<string, string>();
    for (const name of await filesBelow(join(folder, "refs"))) {
      if (name.endsWith(".partial")) continue;
      const commit = await readFile(join(folder, "refs", name), "utf8");
      refs.set(name, commit.trim());
    }
    const unfinished = (await namesIn(join(folder, "blobs"))).filter((name) =>
      /\.(?:partial|incomplete)$/.test(name)
    );
    for (const commit of (await namesIn(join(folder, "snapshots"))).sort()) {
      const path = join(folder, "snapshots", commit);
      const files = await cachedFiles(path);
      found.push({
        repo: match[1]!.replace("--", "/"),
        commit,
        refs: [...refs].filter(([, c]) => c === commit).map(([name]) => name),
        path,
        files,
        state: await snapshotState(path, files.map(({ name }) => name)),
        unfinished,
      });
    }
  }
  return found;
}

async function namesIn(folder: string): Promise<string[]> {
  return await readdir(folder).catch(() => []);
}

/** Files and links below a folder, by name with `/`. */
async function filesBelow(folder: string, prefix = ""): Promise<string[]> {
  const out: string[] = [];
  const entries = await readdir(folder, { withFileTypes: true }).catch(
    () => [],
  );
  for (const entry of entries) {
    const name = `${prefix}${entry.name}`;
    if (entry.isDirectory()) {
      out.push(...await filesBelow(join(folder, entry.name), `${name}/`));
    } else out.push(name);
  }
  return out;
}

/** Whether a path is there. */
export async function exists(path: string): Promise<boolean> {
  return await access(path).then(() => true, () => false);
}
