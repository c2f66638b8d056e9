/** Runs the command line, in this process or as a child, and makes model folders with a fault. */
import { spawn } from "node:child_process";
import { mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { main } from "../../cli.ts";
import {
  encodeSafetensors,
  type TensorData,
} from "../weights/encode_safetensors.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const MODEL = join(ROOT, "weights", "tiny-scenes");

/** What a command line did. */
export interface Outcome {
  readonly code: number | null;
  /** Lines of stdout. */
  readonly out: string[];
  /** Lines of stderr. */
  readonly err: string[];
}

/** Runs a command line in this process, with no terminal. */
export async function run(
  args: readonly string[],
  signal: AbortSignal = new AbortController().signal,
): Promise<Outcome> {
  const out: string[] = [];
  const err: string[] = [];
  const code = await main(args, {
    out: (line) => void out.push(line),
    say: (line) => void err.push(line),
    columns: 80,
    colour: false,
    signal,
  });
  return { code, out, err };
}

/** Runs a command line as a child of the same runtime. `onLine` is called once, after the first line of stdout. */
export function runChild(
  args: readonly string[],
  options: {
    readonly cwd?: string;
    readonly script?: string;
    readonly flags?: readonly string[];
    readonly onLine?: (kill: (signal: NodeJS.Signals) => void) => void;
  } = {},
): Promise<Outcome> {
  const { cwd = ROOT, script = join(ROOT, "cli.ts"), flags = [] } = options;
  const deno = "Deno" in globalThis ? ["run", "-A", ...flags] : [];
  const child = spawn(process.execPath, [...deno, script, ...args], {
    cwd,
    env: { ...process.env, NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [out, err] = ["", ""];
  let { onLine } = options;
  child.stdout.on("data", (chunk) => {
    out += chunk;
    if (!out.includes("\n")) return;
    // Not `child.kill`: Deno then gives no exit code, whatever the child does.
    onLine?.((signal) => process.kill(child.pid!, signal));
    onLine = undefined; // a second Ctrl+C would not wait
  });
  child.stderr.on("data", (chunk) => err += chunk);
  const lines = (text: string) =>
    text.split("\n").filter((line) => line !== "");
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on(
      "close",
      (code) => resolve({ code, out: lines(out), err: lines(err) }),
    );
  });
}

/** Every file below a folder, sorted. */
export async function filesIn(folder: string): Promise<string[]> {
  return (await readdir(folder, { recursive: true })).toSorted();
}

/**
 * A copy of the embedded model, by links, with some files changed.
 *
 * @param changes By path: new content, or null for no such file.
 */
export async function modelWith(
  folder: string,
  changes: Readonly<Record<string, string | Uint8Array | null>>,
): Promise<string> {
  const names = await readdir(MODEL, { recursive: true, withFileTypes: true });
  for (const entry of names) {
    if (!entry.isFile()) continue;
    const from = join(entry.parentPath, entry.name);
    const name = from.slice(MODEL.length + 1);
    const to = join(folder, name);
    await mkdir(dirname(to), { recursive: true });
    if (!Object.hasOwn(changes, name)) await symlink(from, to);
  }
  for (const [name, content] of Object.entries(changes)) {
    if (content !== null) await writeFile(join(folder, name), content);
  }
  return folder;
}

/** A JSON file of the embedded model with some keys changed. */
export async function jsonWith(
  name: string,
  changes: Readonly<Record<string, unknown>>,
): Promise<string> {
  const text = await readFile(join(MODEL, name), "utf8");
  return JSON.stringify({ ...JSON.parse(text), ...changes });
}

/** The bytes of a file of the embedded model. */
export async function bytesOf(name: string): Promise<Uint8Array> {
  return await readFile(join(MODEL, name));
}

/** A safetensors file of the embedded model after a change of its tensors. */
export async function tensorsWith(
  name: string,
  change: (tensors: Map<string, TensorData>) => void,
): Promise<Uint8Array> {
  const bytes = await bytesOf(name);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const start = 8 + Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
  const tensors = new Map<string, TensorData>();
  for (const [key, value] of Object.entries(header)) {
    if (key === "__metadata__") continue;
    const { dtype, shape, data_offsets: [from, to] } = value as {
      dtype: string;
      shape: number[];
      data_offsets: [number, number];
    };
    tensors.set(key, {
      dtype,
      shape,
      data: bytes.slice(start + from, start + to),
    });
  }
  change(tensors);
  return encodeSafetensors(tensors);
}
