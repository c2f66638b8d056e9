/**
 * Adapters that multiply matrices of 16-bit numbers by themselves, as GPUs with tensor cores do: Dawn's experimental
 * `subgroup_matrix`. Products are some times faster and rounded to 16 bits before, so that somebody must ask for it
 * (`--kernels matrix`); probed attention and the VAE go on in 32 bits.
 */
import { NoDeviceError } from "./errors.ts";
import { constants } from "./write_wgsl.ts";

/** The feature of WebGPU, which Dawn offers behind `MATRIX_TOGGLES`. */
export const MATRIX_FEATURE = "chromium-experimental-subgroup-matrix";
/** Flags of Dawn's instance. */
export const MATRIX_TOGGLES: readonly string[] = [
  "enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia",
];
/** Features that the kernels need. */
const MATRIX_NEEDS: readonly string[] = [
  "shader-f16",
  "subgroups",
  MATRIX_FEATURE,
];

/** Sizes of what an adapter multiplies at once: `[M, K]` by `[K, N]`, f16, added up in f32. */
export interface MatrixUnits {
  /** Rows of the result. */
  readonly M: number;
  /** Its columns. */
  readonly N: number;
  /** Terms. */
  readonly K: number;
  /** Threads of a subgroup. */
  readonly subgroup: number;
  /** Bytes that a workgroup may share. */
  readonly memory: number;
}

/** Bytes that a workgroup of `matrix_product.wgsl` shares, at most. */
const LEAST_MEMORY = 22 * 1024;

/** One way to multiply, as Dawn lists them. */
interface MatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** What of `GPUAdapterInfo` says how matrices are multiplied. */
export interface MatrixInfo {
  /** Least and most threads of a subgroup. */
  readonly subgroupMinSize?: number;
  /** See `subgroupMinSize`. */
  readonly subgroupMaxSize?: number;
  /** Ways to multiply. */
  readonly subgroupMatrixConfigs?: Iterable<MatrixConfig>;
}

/**
 * The units of an adapter that the kernels can use.
 *
 * @param memory Bytes that a workgroup may share there: maxComputeWorkgroupStorageSize.
 * @throws {NoDeviceError} If there are none; says what is missing.
 */
export function matrixUnits(
  features: Iterable<string>,
  info: MatrixInfo,
  memory: number,
  where: string,
): MatrixUnits {
  const there = new Set(features);
  const absent = MATRIX_NEEDS.filter((name) => !there.has(name));
  if (absent.length) {
    throw new NoDeviceError(
      `Cannot multiply by matrix units on ${where}: the device must offer ${
        MATRIX_NEEDS.join(", ")
      }, as Dawn does on GPUs with tensor cores: current one lacks ${
        absent.join(", ")
      }; leave --kernels out`,
    );
  }
  const { subgroupMinSize: subgroup = 0, subgroupMaxSize } = info;
  const configs = [...info.subgroupMatrixConfigs ?? []];
  const fitting = configs.filter((c) => {
    const size = threads(c, subgroup);
    return c.componentType === "f16" && c.resultComponentType === "f32" &&
      [c.M, c.N, c.K].every((n) => 32 % n === 0) && c.N % 4 === 0 &&
      size <= 256 && size % 16 === 0;
  });
  // Larger ones read less.
  const [best] = fitting.sort((a, b) => b.M * b.N - a.M * a.N);
  if (!best || subgroup !== subgroupMaxSize) {
    const list = configs.map((c) =>
      `${c.componentType} x ${c.componentType} -> ${c.resultComponentType} ${c.M}x${c.N}x${c.K}`
    );
    throw new NoDeviceError(
      `Cannot multiply by matrix units on ${where}: it must have f16 x f16 -> f32 in tiles that divide 32 and subgroups of one size: current subgroups ${subgroup} to ${subgroupMaxSize}, current tiles ${
        list.join(", ") || "none"
      }; leave --kernels out`,
    );
  }
  if (memory < LEAST_MEMORY) {
    throw new NoDeviceError(
      `Cannot multiply by matrix units on ${where}: workgroups must share at least ${LEAST_MEMORY} bytes: current ${memory}; leave --kernels out`,
    );
  }
  const { M, N, K } = best;
  return { M, N, K, subgroup, memory };
}

/** Threads of a workgroup of `matrix_product.wgsl`, whatever its tile. */
function threads(
  { M, N }: Pick<MatrixUnits, "M" | "N">,
  subgroup: number,
): number {
  return 64 / (2 * M) * (64 / (2 * N)) * subgroup;
}

/** What WGSL for units begins with: what it needs, the units' sizes and others. */
export function unitsHeader(
  { M, N, K, subgroup }: MatrixUnits,
  sizes: Readonly<Record<string, number>>,
): string {
  return ["f16", "subgroups", "chromium_experimental_subgroup_matrix"]
    .map((extension) => `enable ${extension};\n`).join("") +
    constants({ FM: M, FN: N, FK: K, SUBGROUP: subgroup, ...sizes });
}

/** Their sizes in the name of a kernel. */
export function unitsName({ M, N, K, subgroup }: MatrixUnits): string {
  return `${M}x${N}x${K}_${subgroup}`;
}
