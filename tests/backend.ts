/** The backend that the environment asks for: every kernel and network test runs on it. */
import process from "node:process";
import type { DeviceChoice } from "../kernels/adapter.ts";
import type { Backend, KernelFamily } from "../kernels/backend.ts";
import { Cpu } from "../kernels/cpu.ts";
import { KERNEL_CHOICES, type KernelChoice } from "../kernels/family.ts";
import { WebGpu } from "../kernels/webgpu.ts";

/** `WINWINLAY_TEST_BACKEND`: which backend, default `cpu`. */
export const BACKEND: "cpu" | "webgpu" = choose(
  "WINWINLAY_TEST_BACKEND",
  ["cpu", "webgpu"],
  "cpu",
);

/** `WINWINLAY_TEST_DEVICE`: which WebGPU, default the runtime's choice. */
export const DEVICE: DeviceChoice | undefined = choose<DeviceChoice, undefined>(
  "WINWINLAY_TEST_DEVICE",
  ["native", "dawn"],
  undefined,
);

/** `WINWINLAY_TEST_KERNELS`: which kernels, default what suits the adapter. */
export const KERNELS: KernelChoice = choose(
  "WINWINLAY_TEST_KERNELS",
  KERNEL_CHOICES,
  "auto",
);

/** The references of one family. */
function openCpu(): Backend {
  const family: KernelFamily = KERNELS === "gpu" ? "gpu" : "software";
  return new Cpu(family);
}

let opened: Promise<Backend> | undefined;

/** The configured backend, opened once per process. Not for the caller to dispose. */
export function testBackend(): Promise<Backend> {
  opened ??= BACKEND === "cpu"
    ? Promise.resolve(openCpu())
    : WebGpu.open({ device: DEVICE, kernels: KERNELS });
  return opened;
}

function choose<T extends string, D>(
  name: string,
  known: readonly T[],
  otherwise: D,
): T | D {
  const value = process.env[name];
  if (value === undefined) return otherwise;
  const found = known.find((choice) => choice === value);
  if (found === undefined) {
    throw new RangeError(
      `Cannot choose a backend: ${name} must be one of ${known}: current "${value}"`,
    );
  }
  return found;
}
