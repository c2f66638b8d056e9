// location: a model lies at a path, a file: URL or an http(s): URL.
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { quote, WeightsError } from "./errors.ts";

/**
 * Names a file inside a folder.
 *
 * @param folder Path or URL of the folder, with or without a slash at its end.
 * A query of a URL is kept, since it may carry an access token.
 * @param relative Names separated by `/`, without `..`, `\` or a slash in front.
 * @returns A path where `folder` is a path, else a URL.
 * @throws {RangeError} If `relative` could leave the folder.
 */
export function joinLocation(folder: string | URL, relative: string): string {
  const parts = relative.split("/");
  if (
    parts.some((part) => /^\.{0,2}$|[\\\p{Cc}]|^[A-Za-z]:/u.test(part))
  ) {
    throw new RangeError(
      `Cannot join ${
        displayName(folder)
      }: the relative path must be plain names: current ${quote(relative)}`,
    );
  }
  const url = asUrl(folder);
  if (url === undefined) return join(String(folder), ...parts);
  const joined = new URL(url);
  joined.hash = "";
  joined.pathname = `${url.pathname.replace(/\/*$/, "/")}${
    parts.map(encodeURIComponent).join("/")
  }`;
  return joined.href;
}

/**
 * The name of a location in messages: a path as given, a URL without password and query.
 *
 * @param location Path or URL.
 * @returns Text that is safe to print.
 */
export function displayName(location: string | URL): string {
  const url = asUrl(location);
  if (url === undefined || url.protocol === "file:") return String(location);
  return `${url.protocol}//${url.host}${url.pathname}`;
}

/**
 * The path on this machine, where there is one.
 *
 * @param location Path or URL.
 * @returns The path, or `undefined` for an `http(s):` URL.
 */
export function localPath(location: string | URL): string | undefined {
  const url = asUrl(location);
  if (url === undefined) return String(location);
  return url.protocol === "file:" ? filePath(url) : undefined;
}

/**
 * The URL that a location is, if it is one.
 *
 * @param location Path or URL; a scheme has two letters at least, so `C:\` is a path.
 * @returns A `file:`, `http:` or `https:` URL, or `undefined` for a path.
 * @throws {WeightsError} If the URL is not valid or has another scheme.
 */
export function asUrl(location: string | URL): URL | undefined {
  const text = String(location);
  if (
    !(location instanceof URL) && !/^([a-z][a-z0-9+.-]+:\/\/|file:)/i.test(text)
  ) {
    return undefined;
  }
  let url: URL;
  try {
    url = new URL(text);
  } catch (cause) {
    throw new WeightsError(
      `Cannot open ${quote(text)}: the URL must be valid: current one is not`,
      {
        cause,
      },
    );
  }
  if (!["file:", "http:", "https:"].includes(url.protocol)) {
    throw new WeightsError(
      `Cannot open ${
        quote(text)
      }: it must be a path or a file:, http: or https: URL: current scheme is ${url.protocol}`,
    );
  }
  return url;
}

/**
 * The path of a `file:` URL.
 *
 * @param url The URL.
 * @returns A path of this machine.
 * @throws {WeightsError} If the URL names another machine.
 */
export function filePath(url: URL): string {
  try {
    return fileURLToPath(url);
  } catch (cause) {
    throw new WeightsError(
      `Cannot open ${url.href}: the file URL must name a file of this machine: current one does not`,
      { cause },
    );
  }
}
