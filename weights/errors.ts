// errors: what callers act on when a model's files are not usable.

/**
 * The weights of a model are missing, damaged or not supported.
 *
 * The command line exits with code 3 on it. Messages follow
 * `Cannot <do> <thing>: <what must hold>: current <value>`.
 */
export class WeightsError extends Error {
  /** Always `"WeightsError"` or the name of a subclass. */
  override name = "WeightsError";
}

/** A file of a model does not exist; loaders act on it by trying the next name. */
export class MissingFileError extends WeightsError {
  /** Always `"MissingFileError"`. */
  override name = "MissingFileError";
}

/**
 * A server answers 403. One that may not list what it has, such as a bucket of S3, says so of a file that
 * does not exist.
 */
export class DeniedFileError extends WeightsError {
  /** Always `"WeightsError"`: outside of the loaders it is one like others. */
  override name = "WeightsError";
}

/** Whether an error means that a file which may be missing is not there. */
export function isAbsent(error: unknown): boolean {
  return error instanceof MissingFileError || error instanceof DeniedFileError;
}

/**
 * Quotes a value that came from outside for an error message, at most 80 characters.
 *
 * @param value Anything JSON can write.
 * @returns One line of printable text.
 */
export function quote(value: unknown): string {
  const text =
    JSON.stringify(typeof value === "string" ? value.slice(0, 100) : value) ??
      String(value);
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`;
}
