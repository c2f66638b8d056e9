/**
 * How many bytes a device has left. WebGPU does not say; the system does for software adapters, for
 * AMD and for NVIDIA on Linux.
 */
import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { freemem } from "node:os";
import type { Backend } from "./backend.ts";
import { WebGpu } from "./webgpu.ts";

/** Bytes, and who said so. */
export interface DeviceMemory {
  /** Bytes that may still be taken. */
  readonly bytes: number;
  /** For people. */
  readonly source: string;
}

/**
 * Asks the system.
 *
 * @returns Undefined where nobody knows: say it with `--memory`.
 */
export async function deviceMemory(
  backend: Backend,
): Promise<DeviceMemory | undefined> {
  if (!(backend instanceof WebGpu)) return await systemMemory();
  const { info } = backend.adapter;
  if (info.isFallbackAdapter) return await systemMemory();
  const name = `${info.vendor} ${info.description} ${info.device}`
    .toLowerCase();
  if (name.includes("nvidia")) return await nvidiaMemory();
  if (/\bamd\b|radeon|advanced micro/.test(name)) return await amdMemory();
  return undefined;
}

/** What the system can give without swapping. */
async function systemMemory(): Promise<DeviceMemory | undefined> {
  const text = await readFile("/proc/meminfo", "utf8").catch(() => "");
  const available = /^MemAvailable:\s*(\d+) kB$/m.exec(text);
  if (available) {
    return { bytes: Number(available[1]) * 1024, source: "available memory" };
  }
  try {
    return { bytes: freemem(), source: "free memory" };
  } catch {
    return undefined; // Deno without --allow-sys
  }
}

async function nvidiaMemory(): Promise<DeviceMemory | undefined> {
  const text = await new Promise<string>((resolve) =>
    execFile(
      "nvidia-smi",
      ["--query-gpu=memory.free", "--format=csv,noheader,nounits"],
      { timeout: 5000 },
      (error, stdout) => resolve(error ? "" : String(stdout)),
    )
  );
  // Several cards: WebGPU does not say which it took, so the smallest counts.
  const megabytes = text.trim().split("\n").map(Number);
  const least = Math.min(...megabytes);
  return text.trim() !== "" && least > 0
    ? { bytes: least * 2 ** 20, source: "nvidia-smi" }
    : undefined;
}

async function amdMemory(): Promise<DeviceMemory | undefined> {
  const root = "/sys/class/drm";
  const free: number[] = [];
  for (const card of await readdir(root).catch(() => [])) {
    const read = async (file: string): Promise<number> =>
      Number(
        await readFile(`${root}/${card}/device/${file}`, "utf8").catch(() =>
          NaN
        ),
      );
    if (!/^card\d+$/.test(card)) continue;
    const bytes = await read("mem_info_vram_total") -
      await read("mem_info_vram_used");
    if (bytes > 0) free.push(bytes);
  }
  return free.length
    ? { bytes: Math.min(...free), source: "the amdgpu driver" }
    : undefined;
}
