// open_checkpoint: a location -> a checkpoint, whether folder or single file.
import type { Checkpoint } from "./checkpoint.ts";
import { WeightsError } from "./errors.ts";
import { openFolder } from "./folder.ts";
import { displayName } from "./location.ts";
import { openSingleFile, type SingleFileOptions } from "./single_file.ts";

/** Options of {@linkcode openCheckpoint}: what only a single file needs is refused for a folder. */
export type CheckpointOptions = SingleFileOptions;

/**
 * Opens a `.safetensors` file, or a folder in diffusers' layout.
 *
 * @param location Path or URL; a name ending in `.safetensors` is a single file.
 * @returns The checkpoint. The caller closes it.
 * @throws {WeightsError} If it is neither, or damaged.
 */
export async function openCheckpoint(
  location: string | URL,
  options: CheckpointOptions = {},
): Promise<Checkpoint> {
  const name = displayName(location); // without the query of a URL
  if (/\.safetensors$/i.test(name)) {
    return await openSingleFile(location, options);
  }
  if (/\.(ckpt|pt|pth|bin|pickle)$/i.test(name)) {
    throw new WeightsError(
      `Cannot open model ${name}: it must be a .safetensors file or a diffusers folder: current one is a pickle file, which is not read because loading one runs code from it; convert it to safetensors`,
    );
  }
  const { signal, prediction, configOverrides } = options;
  if (prediction !== undefined || configOverrides !== undefined) {
    throw new WeightsError(
      `Cannot open model ${name}: prediction and configOverrides must be for a single file: current one is a folder, whose configs say them`,
    );
  }
  return await openFolder(location, { signal });
}
