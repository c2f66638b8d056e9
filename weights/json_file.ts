// json_file: the small JSON files of a model folder.
import type { ReadOptions } from "./byte_source.ts";
import { isAbsent, quote, WeightsError } from "./errors.ts";
import { displayName, joinLocation } from "./location.ts";
import { readText } from "./source.ts";
import {
  isJsonObject,
  type JsonObject,
  type JsonValue,
  parseStrictJson,
} from "./strict_json.ts";

/**
 * Reads a JSON file of a model folder; Python's `NaN` and `Infinity` are legal in it.
 *
 * @param location Path or URL of the folder.
 * @param relativePath Names separated by `/`.
 * @returns The value; its objects have no prototype.
 * @throws {MissingFileError} If there is no such file.
 * @throws {WeightsError} If it is not JSON with unique keys.
 */
export async function readJson(
  location: string | URL,
  relativePath: string,
  options: ReadOptions,
): Promise<JsonValue> {
  const file = joinLocation(location, relativePath);
  const text = await readText(file, { signal: options.signal });
  return parseStrictJson(text, {
    name: displayName(file),
    pythonNumbers: true,
  });
}

/**
 * The same as {@linkcode readJson}, for a file that must hold an object.
 *
 * @param location Path or URL of the folder.
 * @param relativePath Names separated by `/`.
 * @returns The object.
 * @throws {MissingFileError} If there is no such file.
 * @throws {WeightsError} If it holds anything else.
 */
export async function readJsonObject(
  location: string | URL,
  relativePath: string,
  options: ReadOptions,
): Promise<JsonObject> {
  return asJsonObject(
    await readJson(location, relativePath, options),
    displayName(joinLocation(location, relativePath)),
  );
}

/**
 * Insists on an object.
 *
 * @param name Of the file, for the message.
 * @throws {WeightsError} If it is anything else.
 */
export function asJsonObject(value: JsonValue, name: string): JsonObject {
  if (isJsonObject(value)) return value;
  throw new WeightsError(
    `Cannot read ${name}: it must hold a JSON object: current ${quote(value)}`,
  );
}

/**
 * Turns a missing file, or one that a server denies, into `undefined`.
 *
 * @param result What is being read.
 * @returns Its value, or `undefined` after a MissingFileError or a DeniedFileError.
 */
export async function unlessMissing<T>(
  result: Promise<T>,
): Promise<T | undefined> {
  try {
    return await result;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}
