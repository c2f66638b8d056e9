/**
 * How long a user waits for the first step: the embedded model in a process of its own.
 *
 * Run as a program it opens the model, does one guided step, prints two numbers and ends.
 */
import process from "node:process";
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { open } from "../mod.ts";
import { benchRequest, type StartReport } from "./image.ts";
import { BACKEND_OPTIONS, type BackendFlags, openOptions } from "./flags.ts";
import { parseArgs } from "node:util";

/** Starts the process twice: as it is, and as if drivers had never compiled anything. */
export async function measureStart(flags: BackendFlags): Promise<StartReport> {
  const warm = await child(flags, {});
  const caches = await mkdtemp(join(tmpdir(), "winwinlay-caches-"));
  try {
    const cold = await child(flags, {
      MESA_SHADER_CACHE_DIR: caches,
      __GL_SHADER_DISK_CACHE_PATH: caches,
    });
    return {
      ...warm,
      withoutShaderCacheSeconds: cold.processToFirstStepSeconds,
    };
  } finally {
    await rm(caches, { recursive: true, force: true });
  }
}

async function child(
  flags: BackendFlags,
  env: Readonly<Record<string, string>>,
): Promise<Omit<StartReport, "withoutShaderCacheSeconds">> {
  const args = [
    ...(process.versions["deno"] ? ["run", "-A", "--no-check"] : []),
    fileURLToPath(import.meta.url),
    ...Object.entries(flags).flatMap(([name, value]) =>
      value === undefined ? [] : [`--${name}`, value]
    ),
  ];
  const start = performance.now();
  const run = spawn(process.execPath, args, {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "", seconds = 0;
  for await (const part of run.stdout) {
    text += part;
    seconds ||= (performance.now() - start) / 1000;
  }
  const found = JSON.parse(text || "null");
  if (!found) {
    throw new Error("Cannot measure the start: the child must print its times");
  }
  return { ...found, processToFirstStepSeconds: seconds };
}

if (import.meta.main) {
  const { values } = parseArgs({ options: BACKEND_OPTIONS });
  const start = performance.now();
  const model = await open("tiny-scenes", openOptions(values));
  const opened = performance.now();
  await model.generate(benchRequest({ steps: 1, guided: 1 }), {
    onStep: () => {
      const openSeconds = (opened - start) / 1000;
      const firstStepSeconds = (performance.now() - opened) / 1000;
      console.log(JSON.stringify({ openSeconds, firstStepSeconds }));
      process.exit(0);
    },
  });
}
