/** How a benchmark is told where to run: the flags that choose our backend, in one place. */
import {
  type DeviceChoice,
  KERNEL_CHOICES,
  type KernelChoice,
  type OpenOptions,
} from "../mod.ts";

/** For `parseArgs`. Whatever else chooses how our kernels run belongs here. */
export const BACKEND_OPTIONS = {
  backend: { type: "string" },
  device: { type: "string" },
  kernels: { type: "string" },
} as const;

/** What the flags say. */
export interface BackendFlags {
  /** `auto`, `webgpu` or `cpu`. */
  readonly backend?: string | undefined;
  /** `native` or `dawn`. */
  readonly device?: string | undefined;
  /** `auto`, `software` or `gpu`. */
  readonly kernels?: string | undefined;
}

/**
 * The options of `open` and `openBackend`.
 *
 * @throws {RangeError} If a flag has a value that is not known.
 */
export function openOptions(
  { backend = "auto", device, kernels = "auto" }: BackendFlags,
): Pick<OpenOptions, "backend" | "device" | "kernels"> {
  expectOneOf("--backend", backend, ["auto", "webgpu", "cpu"]);
  if (device !== undefined) expectOneOf("--device", device, ["native", "dawn"]);
  expectOneOf("--kernels", kernels, KERNEL_CHOICES);
  return {
    backend: backend as "auto" | "webgpu" | "cpu",
    device: device as DeviceChoice | undefined,
    kernels: kernels as KernelChoice,
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
