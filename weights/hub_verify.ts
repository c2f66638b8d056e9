// hub_verify: is what the cache holds what the hub meant? Every byte is read.
import { createHash } from "node:crypto";
import { lstat, open, realpath } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { ReadOptions } from "./byte_source.ts";
import type { CachedFile, CachedRevision } from "./hub_cache.ts";
import { Safetensors } from "./safetensors.ts";
import { openSource } from "./source.ts";

/** What was found of one file. */
export interface VerifiedFile {
  /** The file. */
  readonly file: CachedFile;
  /** Why it is not right, or undefined. */
  readonly problem: string | undefined;
  /** Whether a hash was known to compare with. */
  readonly hashed: boolean;
}

/** Checks every file of a snapshot, one after the other. */
export async function* verifyRevision(
  { files, path }: CachedRevision,
  options: ReadOptions = {},
): AsyncGenerator<VerifiedFile> {
  const blobs = await realpath(join(path, "..", "..", "blobs"))
    .catch(() => "");
  for (const file of files) {
    options.signal?.throwIfAborted();
    yield await verifyFile(file, blobs, options);
  }
}

async function verifyFile(
  file: CachedFile,
  blobs: string,
  { signal }: ReadOptions,
): Promise<VerifiedFile> {
  const { path, name, size } = file;
  if (size === undefined) {
    return { file, problem: "its blob is missing", hashed: false };
  }
  const real = await realpath(path);
  if (
    dirname(real) !== blobs && (await lstat(path)).isSymbolicLink()
  ) {
    return {
      file,
      problem: "its link does not lead to a blob of its repository",
      hashed: false,
    };
  }
  const etag = basename(real);
  const kind = /^[0-9a-f]{64}$/.test(etag)
    ? "sha256"
    : /^[0-9a-f]{40}$/.test(etag)
    ? "sha1"
    : undefined;
  if (kind !== undefined) {
    const hash = createHash(kind);
    if (kind === "sha1") hash.update(`blob ${size}\0`);
    const handle = await open(path);
    try {
      const buffer = new Uint8Array(4 * 2 ** 20);
      for (;;) {
        signal?.throwIfAborted();
        const { bytesRead } = await handle.read(buffer, 0, buffer.length);
        if (bytesRead === 0) break;
        hash.update(buffer.subarray(0, bytesRead));
      }
    } finally {
      await handle.close();
    }
    const hex = hash.digest("hex");
    if (hex !== etag) {
      return {
        file,
        problem: `its ${kind === "sha1" ? "git hash" : "sha256"} is ${hex}`,
        hashed: true,
      };
    }
  }
  if (name.endsWith(".safetensors")) {
    try {
      await using _file = await Safetensors.open(
        await openSource(path, { signal }),
      );
    } catch (error) {
      signal?.throwIfAborted();
      return {
        file,
        problem: (error as Error).message,
        hashed: kind !== undefined,
      };
    }
  }
  return { file, problem: undefined, hashed: kind !== undefined };
}
