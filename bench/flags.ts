/** How a benchmark is told where to run: the flags that choose our backend, in one place. */
import type { DeviceChoice, OpenOptions } from "../mod.ts";

/** For `parseArgs`. Whatever else chooses how our kernels run (such as a family of them) belongs here. */
export const BACKEND_OPTIONS = {
  backend: { type: "string" },
  device: { type: "string" },
} as const;

/** What the flags say. */
export interface BackendFlags {
  /** `auto`, `webgpu` or `cpu`. */
  readonly backend?: string | undefined;
  /** `native` or `dawn`. */
  readonly device?: string | undefined;
}

/**
 * The options of `open` and `openBackend`.
 *
 * @throws {RangeError} If a flag has a value that is not known.
 */
export function openOptions(
  { backend = "auto", device }: BackendFlags,
): Pick<OpenOptions, "backend" | "device"> {
  expectOneOf("--backend", backend, ["auto", "webgpu", "cpu"]);
  if (device !== undefined) expectOneOf("--device", device, ["native", "dawn"]);
  return {
    backend: backend as "auto" | "webgpu" | "cpu",
    device: device as DeviceChoice | undefined,
  };
}

/** Throws unless a flag's value is one of a list. */
export function expectOneOf(
  flag: string,
  value: string,
  known: readonly string[],
): void {
  if (!known.includes(value)) {
    throw new RangeError(
      `Cannot run the benchmark: ${flag} must be ${
        known.join(" or ")
      }: current value is "${value}"`,
    );
  }
}
