// hub_state: what a snapshot in the cache holds, by the names of its files, whoever pulled them.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { CachedRevision } from "./hub_cache.ts";
import { PARTS, SMALL } from "./hub_files.ts";

/**
 * Whether a snapshot is a whole pipeline. Its ref does not tell: other tools write it before the files, and
 * a commit has none.
 *
 * @param path Its folder.
 * @param names Of its files.
 * @returns As {@linkcode CachedRevision} says.
 */
export async function snapshotState(
  path: string,
  names: readonly string[],
): Promise<CachedRevision["state"]> {
  if (!names.includes("model_index.json")) return "single files";
  let index: Record<string, unknown>;
  try {
    const text = await readFile(join(path, "model_index.json"), "utf8");
    index = { ...JSON.parse(text) };
  } catch { // its blob is missing
    return "no finished pull";
  }
  const isPart = (folder: string): boolean => {
    const entry = index[folder]; // [library, class], both null for none
    return Array.isArray(entry) && typeof entry[1] === "string";
  };
  const filesOf = (folder: string): string[] =>
    names.filter((name) => name.startsWith(`${folder}/`));
  const whole = SMALL.filter(isPart).every((part) => filesOf(part).length) &&
    PARTS.every((part) => {
      const folders = part === "vae" ? ["vae", "vae_decoder"] : [part];
      return !folders.some(isPart) || hasWeights(folders.flatMap(filesOf));
    });
  return whole ? "complete" : "no finished pull";
}

/** Whether there is a weight file, or all shards of one. */
function hasWeights(names: readonly string[]): boolean {
  return names.some((name) => {
    if (!/\.(?:safetensors|onnx)$/.test(name)) return false;
    const count = Number(/-\d{5}-of-(\d{5})/.exec(name)?.[1] ?? 0);
    return Array.from(
      { length: count },
      (_, i) =>
        name.replace(/-\d{5}-of-/, `-${String(i + 1).padStart(5, "0")}-of-`),
    ).every((shard) => names.includes(shard));
  });
}
