// source: a file or a web resource as bytes that are read by range.
// A checkpoint is larger than memory should be: nothing here reads a whole file,
// except a small one that is text or whose server cannot do ranges.
import type { ByteSource, ReadOptions } from "./byte_source.ts";
import { WeightsError } from "./errors.ts";
import { openFile } from "./file_source.ts";
import { openHttp } from "./http_source.ts";
import { asUrl, filePath } from "./location.ts";

export type { ByteSource, ReadOptions } from "./byte_source.ts";
export { displayName, joinLocation, localPath } from "./location.ts";

const TEXT_BYTES = 16 * 2 ** 20; // vocab.json of CLIP has 1 MB

/**
 * Opens a path, a `file:` URL or an `http(s):` URL for reading by range.
 *
 * @param location Path or URL; a string with a scheme is taken as a URL.
 * @returns The open source. The caller closes it.
 * @throws {MissingFileError} If it does not exist.
 * @throws {WeightsError} If it is not a readable file.
 */
export async function openSource(
  location: string | URL,
  options: ReadOptions = {},
): Promise<ByteSource> {
  options.signal?.throwIfAborted();
  const url = asUrl(location);
  if (url === undefined) {
    return await openFile(String(location), String(location));
  }
  if (url.protocol === "file:") return await openFile(filePath(url), url.href);
  return await openHttp(url, options);
}

/**
 * Reads a small UTF-8 text file.
 *
 * @param location Path or URL, as in {@linkcode openSource}.
 * @param options `maxBytes` is the size above which the file is refused, 16 MiB if left out.
 * @returns The text, without a byte order mark.
 * @throws {MissingFileError} If it does not exist.
 * @throws {WeightsError} If it is too large or not UTF-8.
 */
export async function readText(
  location: string | URL,
  options: ReadOptions & { readonly maxBytes?: number } = {},
): Promise<string> {
  const { signal, maxBytes = TEXT_BYTES } = options;
  await using source = await openSource(location, { signal });
  if (source.size > maxBytes) {
    throw new WeightsError(
      `Cannot read ${source.name}: it must have at most ${maxBytes} bytes: current size is ${source.size} bytes`,
    );
  }
  const bytes = await source.read(0, source.size, { signal });
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new WeightsError(
      `Cannot read ${source.name}: it must be UTF-8 text: current bytes are not`,
      { cause },
    );
  }
}
