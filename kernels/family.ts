/**
 * Which implementation of the matrix kernels runs: `software` keeps all in registers and multiplies
 * least, which is fast where every load costs the same; `gpu` shares tiles in workgroup memory, which
 * is fast where the arithmetic outruns the memory. `matrix` are those of `gpu`, with the
 * products of networks that bear it by matrix units.
 */
import type { AdapterInfo } from "./adapter.ts";
import type { KernelFamily } from "./backend.ts";

/**
 * A family by name, or `auto`: the one that suits the adapter. `matrix` is `gpu` with products of 16-bit numbers in
 * the UNet and its gradient, by what multiplies matrices in one instruction; see `matrixUnits`.
 */
export type KernelChoice = "auto" | KernelFamily | "matrix";

/** The names that `--kernels` and its like take. */
export const KERNEL_CHOICES: readonly KernelChoice[] = [
  "auto",
  "software",
  "gpu",
  "matrix",
];

/** A family, and why it was taken. */
export interface ChosenFamily {
  /** What runs. */
  readonly family: KernelFamily;
  /** For people. */
  readonly why: string;
}

/**
 * The family that an adapter gets.
 *
 * @throws {RangeError} If there is no such choice.
 */
export function chooseFamily(
  { isFallbackAdapter }: Pick<AdapterInfo, "isFallbackAdapter">,
  choice: KernelChoice = "auto",
): ChosenFamily {
  if (!KERNEL_CHOICES.includes(choice)) {
    throw new RangeError(
      `Cannot choose kernels: they must be one of ${
        KERNEL_CHOICES.join(", ")
      }: current ${JSON.stringify(choice)}`,
    );
  }
  if (choice === "matrix") {
    return { family: "gpu", why: "asked for, with matrix units" };
  }
  if (choice !== "auto") return { family: choice, why: "asked for" };
  return isFallbackAdapter
    ? { family: "software", why: "the adapter is a processor" }
    : { family: "gpu", why: "the adapter is a GPU" };
}
