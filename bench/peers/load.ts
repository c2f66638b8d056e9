/** Packages of the peers: for this benchmark only, loaded when it runs, never by the toolkit. */

/**
 * Loads a package of npm.
 *
 * @param path Of a module in it, such as `/webgpu`.
 * @throws If it cannot be had; on runtimes other than Deno it must be installed.
 */
export async function loadPackage(
  name: string,
  version: string,
  path = "",
): Promise<unknown> {
  // In a variable, so that no tool resolves it ahead of time.
  const specifier = "Deno" in globalThis
    ? `npm:${name}@${version}${path}`
    : `${name}${path}`;
  return await import(specifier);
}
