/** Writes a checkpoint of a full-size architecture with random fp16 weights: a diffusers folder. */
import { Buffer } from "node:buffer";
import { cp, mkdir, open, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { halfToNumber, toHalves } from "../kernels/half.ts";
import { Plan } from "../kernels/plan.ts";
import type { WeightSource } from "../pipeline/weight_source.ts";
import { loadTextEncoder } from "../pipeline/text_encoder.ts";
import { loadUnet } from "../pipeline/unet.ts";
import { loadVae } from "../pipeline/vae.ts";
import { FULL_CONFIGS } from "./full_configs.ts";

type Shapes = Map<string, readonly number[]>;

/** CLIP's own tokenizer. */
const TOKENIZER = fileURLToPath(
  new URL(
    "../tests/fixtures/golden/tiny-random-pipeline/tokenizer",
    import.meta.url,
  ),
);

/** Names and shapes of every tensor of a component, asked from our own networks. */
export async function componentShapes(
  name: string,
  config: Readonly<Record<string, unknown>>,
): Promise<Shapes> {
  const shapes: Shapes = new Map();
  const source: WeightSource & { config: typeof config } = {
    name,
    config,
    tensors: new Map(),
    read: () => Promise.reject(new Error("there is nothing to read")),
    collect: (tensor, shape) => void shapes.set(tensor, shape),
  };
  using plan = new Plan();
  using _network = name === "unet"
    ? await loadUnet(plan, source)
    : name === "vae"
    ? await loadVae(plan, source, { encoder: true })
    : await loadTextEncoder(plan, source, {
      projection: name === "text_encoder_2",
    });
  return shapes;
}

/** A component with random fp16 weights that are made when they are read: nothing touches the disk. */
export async function randomComponent(
  name: string,
  config: Readonly<Record<string, unknown>>,
): Promise<
  WeightSource & { readonly config: Readonly<Record<string, unknown>> }
> {
  const shapes = await componentShapes(name, config);
  const halves = (tensor: string): Uint16Array<ArrayBuffer> =>
    tensorOf(tensor, shapes.get(tensor)!, new Random(`${name} ${tensor}`));
  return {
    name,
    config,
    tensors: new Map(
      [...shapes].map(([tensor, shape]) => [tensor, { shape, dtype: "F16" }]),
    ),
    read: (tensor) =>
      Promise.resolve(Float32Array.from(halves(tensor), halfToNumber)),
    readBytes: (tensor) =>
      Promise.resolve(new Uint8Array(halves(tensor).buffer)),
  };
}

/**
 * Writes the folder, unless it is there.
 *
 * @param model Which of `FULL_CONFIGS`.
 * @returns Bytes of the weight files, and seconds it took to write them.
 */
export async function writeRandomCheckpoint(
  model: keyof typeof FULL_CONFIGS,
  folder: string,
): Promise<{ bytes: number; seconds: number }> {
  const { index, parts, scheduler } = FULL_CONFIGS[model];
  const start = performance.now();
  let bytes = 0;
  for (const [part, config] of Object.entries(parts)) {
    await mkdir(join(folder, part), { recursive: true });
    await json(join(folder, part, "config.json"), config);
    const file = part.startsWith("text_encoder")
      ? "model.fp16.safetensors"
      : "diffusion_pytorch_model.fp16.safetensors";
    const path = join(folder, part, file);
    const there = await stat(path).catch(() => undefined);
    bytes += there?.size ??
      await writeTensors(path, await componentShapes(part, config), part);
  }
  for (const name of Object.keys(index)) {
    if (name.startsWith("tokenizer")) {
      await cp(TOKENIZER, join(folder, name), { recursive: true });
    }
  }
  await mkdir(join(folder, "scheduler"), { recursive: true });
  await json(join(folder, "scheduler/scheduler_config.json"), scheduler);
  await json(join(folder, "model_index.json"), index);
  return { bytes, seconds: (performance.now() - start) / 1000 };
}

async function writeTensors(
  path: string,
  shapes: Shapes,
  seed: string,
): Promise<number> {
  const header: Record<string, unknown> = {};
  let size = 0;
  for (const [name, shape] of shapes) {
    const bytes = 2 * shape.reduce((a, b) => a * b, 1);
    const data_offsets = [size, size += bytes];
    header[name] = { dtype: "F16", shape, data_offsets };
  }
  const text = Buffer.from(JSON.stringify(header));
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(text.length));
  const handle = await open(`${path}.partial`, "w");
  try {
    await handle.write(head);
    await handle.write(text);
    const random = new Random(seed);
    for (const [name, shape] of shapes) {
      const halves = tensorOf(name, shape, random);
      await handle.write(new Uint8Array(halves.buffer));
    }
  } finally {
    await handle.close();
  }
  await rename(`${path}.partial`, path);
  return head.length + text.length + size;
}

/** Norms are ones and zeros; matrices keep the size of what passes through them. */
function tensorOf(
  name: string,
  shape: readonly number[],
  random: Random,
): Uint16Array<ArrayBuffer> {
  const size = shape.reduce((a, b) => a * b, 1);
  if (name.endsWith("bias")) return new Uint16Array(size);
  if (shape.length === 1) return new Uint16Array(size).fill(0x3c00); // 1
  const table = name.includes("embedding")
    ? 0.02
    : 1 / Math.sqrt(size / shape[0]!);
  return random.halves(size, table * Math.sqrt(3));
}

/** xorshift32: two numbers from a table of uniform halves per draw. */
class Random {
  #state: number;

  constructor(seed: string) {
    this.#state = 2463534242;
    for (const char of seed) this.#state ^= char.charCodeAt(0) * 2654435761;
  }

  halves(size: number, most: number): Uint16Array<ArrayBuffer> {
    const table = toHalves(
      Float32Array.from(
        { length: 65536 },
        (_, i) => ((i + 0.5) / 32768 - 1) * most,
      ),
    );
    const out = new Uint16Array(size);
    let x = this.#state;
    for (let i = 0; i < size; i += 2) {
      x ^= x << 13;
      x ^= x >>> 17;
      x ^= x << 5;
      out[i] = table[x & 65535]!;
      if (i + 1 < size) out[i + 1] = table[x >>> 16]!;
    }
    this.#state = x;
    return out;
  }
}

async function json(path: string, value: unknown): Promise<void> {
  await writeFile(path, JSON.stringify(value, null, 2));
}
