/** One adapter, three runtimes: the same request gives the same pixels, and the same PNG bytes. */
import { strict as assert } from "node:assert";
import { execFile } from "node:child_process";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { BACKEND, DEVICE } from "../backend.ts";

const script = fileURLToPath(new URL("./pixels.ts", import.meta.url));
const bun = process.env.WINWINLAY_TEST_BUN; // set by tests/run.ts where Bun is to be tested

// Starts every other runtime itself, so once is enough; it must be under Deno.
if (BACKEND === "webgpu" && DEVICE === "native") {
  const runs: [string, string, string[]][] = [
    ["Deno with its own WebGPU", process.execPath, [
      "run",
      "-A",
      "--no-check",
      script,
      "native",
    ]],
    ["Deno with Dawn", process.execPath, [
      "run",
      "-A",
      "--no-check",
      script,
      "dawn",
    ]],
    ...(bun
      ? [["Bun with Dawn", bun, [script, "dawn"]] as [string, string, string[]]]
      : []),
  ];
  test(`generate() gives the same pixels twice in a row and on ${runs.map(([name]) => name).join(", ")}`, async () => {
    const hashes = new Map<string, string[]>();
    for (const [name, program, args] of runs) {
      const { stdout } = await promisify(execFile)(program, args, {
        env: process.env,
      });
      hashes.set(
        name,
        stdout.split("\n").filter((line) => line.startsWith("PIXELS")),
      );
    }
    const all = [...hashes.values()].flat();
    assert.equal(
      all.length,
      2 * runs.length,
      "every run must print two hashes",
    );
    assert.equal(
      new Set(all).size,
      1,
      JSON.stringify(Object.fromEntries(hashes), null, 2),
    );
  });
}
