// embedded: the models that come with the code, from disk or over http alike.

/** The names {@linkcode embeddedModel} knows. */
export const EMBEDDED_MODELS = ["tiny-scenes"] as const;

/**
 * Where an embedded model lies.
 *
 * @param name One of {@linkcode EMBEDDED_MODELS}.
 * @returns The URL of a diffusers folder beside this file, or `undefined` for another name.
 */
export function embeddedModel(name: string): URL | undefined {
  return (EMBEDDED_MODELS as readonly string[]).includes(name)
    ? new URL(`./${name}/`, import.meta.url)
    : undefined;
}
