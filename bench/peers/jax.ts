/** jax-js: jitted functions, gradients by `vjp`. */
import type { Contender, Prepared } from "../contender.ts";
import {
  type AttentionCase,
  attentionInputs,
  type ConvCase,
  convInputs,
  type KernelCase,
  type MatmulCase,
  matmulInputs,
} from "../kernel_cases.ts";
import { fasterOf } from "../contender.ts";
import { concatenated, transposed } from "../transpose.ts";
import { queueWait } from "./gpu_wait.ts";
import { loadPackage } from "./load.ts";

const VERSION = "0.1.25";

/** An array of jax-js: passing it to an operation gives it away, `ref` keeps it. */
interface Value {
  readonly ref: Value;
  reshape(shape: readonly number[]): Value;
  mul(factor: number): Value;
  data(): Promise<Float32Array>;
  gpuBufferSync(): GPUBuffer;
  dispose(): void;
}

type Pure = (...inputs: Value[]) => Value | Value[];

/** The part of jax-js that is used. */
interface Jax {
  init(device: string): Promise<readonly string[]>;
  defaultDevice(device: string): string;
  getWebGPUDevice(): GPUDevice;
  blockUntilReady(x: Value): Promise<Value>;
  jit(f: Pure): Pure;
  vjp(f: Pure, inputs: readonly Value[]): [Value, (seed: Value) => Value[]];
  readonly numpy: {
    array(data: Float32Array, options: { shape: readonly number[] }): Value;
    matmul(a: Value, b: Value): Value;
    einsum(subscripts: string, a: Value, b: Value): Value;
  };
  readonly lax: {
    convGeneralDilated(
      x: Value,
      weight: Value,
      strides: readonly number[],
      padding: string,
    ): Value;
  };
  readonly nn: {
    softmax(x: Value, axis: number): Value;
    dotProductAttention(q: Value, k: Value, v: Value): Value;
  };
}

/** Loads it. */
export async function jaxJs(): Promise<Contender> {
  const jax = await loadPackage("@jax-js/jax", VERSION) as Jax;
  const devices = await jax.init("webgpu");
  if (!devices.includes("webgpu")) {
    throw new Error(`it found no WebGPU adapter, only ${devices}`);
  }
  jax.defaultDevice("webgpu");
  return {
    name: "jax-js",
    version: VERSION,
    where: "adapter",
    prepare: (kernel) => prepare(jax, kernel),
  };
}

async function prepare(jax: Jax, c: KernelCase): Promise<Prepared> {
  switch (c.kind) {
    case "matmul":
      return await matmul(jax, c);
    case "conv":
    case "conv gradient":
      return await conv(jax, c);
    default:
      return await fasterOf([
        await attention(jax, c, "tokens"),
        await attention(jax, c, "heads"),
      ]);
  }
}

async function ready(
  jax: Jax,
  data: Float32Array,
  shape: readonly number[],
): Promise<Value> {
  return await jax.blockUntilReady(jax.numpy.array(data, { shape }));
}

/** Times and runs a jitted function. */
function prepared(
  jax: Jax,
  f: Pure,
  inputs: readonly Value[],
  order: (outputs: readonly Float32Array[]) => Float32Array,
): Prepared {
  const jitted = jax.jit(f);
  const wait = queueWait(jax.getWebGPUDevice());
  const run = (): Value[] => [jitted(...inputs.map((x) => x.ref))].flat();
  return {
    async time(times) {
      await wait();
      const start = performance.now();
      for (let i = 0; i < times; i++) {
        for (const y of run()) y.gpuBufferSync(); // submits, and gives y away
      }
      await wait();
      return (performance.now() - start) / 1000;
    },
    async result() {
      const outputs: Float32Array[] = [];
      for (const y of run()) outputs.push(await y.data());
      return order(outputs);
    },
    dispose() {
      for (const x of inputs) x.dispose();
    },
  };
}

async function matmul(jax: Jax, c: MatmulCase): Promise<Prepared> {
  const { m, n, k } = c;
  const { a, b } = matmulInputs(c);
  const inputs = [await ready(jax, a, [m, k]), await ready(jax, b, [k, n])];
  return prepared(
    jax,
    (x, y) => jax.numpy.matmul(x!, y!),
    inputs,
    ([y]) => y!,
  );
}

async function conv(jax: Jax, c: ConvCase): Promise<Prepared> {
  const { from, to, side } = c;
  const { x, weight, seed } = convInputs(c);
  const forward: Pure = (a, w) =>
    jax.lax.convGeneralDilated(a!, w!, [1, 1], "SAME");
  const inputs = [
    await ready(jax, x, [1, from, side, side]),
    await ready(jax, weight, [to, from, 3, 3]),
  ];
  if (c.kind === "conv") return prepared(jax, forward, inputs, ([y]) => y!);
  const back: Pure = (a, w, g) => {
    const [y, vjp] = jax.vjp((z) => forward(z!, w!), [a!]);
    y.dispose();
    return vjp(g!);
  };
  inputs.push(await ready(jax, seed, [1, to, side, side]));
  return prepared(jax, back, inputs, ([y]) => y!);
}

/**
 * Two ways: jax-js's own attention, which wants `[tokens, heads, width]`, and products over
 * `[heads, tokens, width]`.
 */
async function attention(
  jax: Jax,
  c: AttentionCase,
  layout: "tokens" | "heads",
): Promise<Prepared> {
  const { heads, width, queries, keys } = c;
  const { q, k, v, seed } = attentionInputs(c);
  const value = async (data: Float32Array, cells: number): Promise<Value> =>
    layout === "tokens"
      ? await ready(jax, transposed(data, [1, heads * width, cells]), [
        1,
        cells,
        heads,
        width,
      ])
      : await ready(jax, transposed(data, [heads, width, cells]), [
        heads,
        cells,
        width,
      ]);
  const restored = (data: Float32Array, cells: number): Float32Array =>
    layout === "tokens"
      ? transposed(data, [1, cells, heads * width])
      : transposed(data, [heads, cells, width]);
  const { numpy, nn } = jax;
  const forward: Pure = layout === "tokens"
    ? (a, b, d) => nn.dotProductAttention(a!, b!, d!)
    : (a, b, d) => {
      const scores = numpy.einsum("hnd,hmd->hnm", a!, b!)
        .mul(1 / Math.sqrt(width));
      return numpy.einsum("hnm,hmd->hnd", nn.softmax(scores, -1), d!);
    };
  const inputs = [
    await value(q, queries),
    await value(k, keys),
    await value(v, keys),
  ];
  if (c.kind === "attention") {
    return prepared(jax, forward, inputs, ([y]) => restored(y!, queries));
  }
  const back: Pure = (a, b, d, g) => {
    const [y, vjp] = jax.vjp(forward, [a!, b!, d!]);
    y.dispose();
    return vjp(g!);
  };
  inputs.push(await value(seed, queries));
  return prepared(
    jax,
    back,
    inputs,
    ([dq, dk, dv]) =>
      concatenated([
        restored(dq!, queries),
        restored(dk!, keys),
        restored(dv!, keys),
      ]),
  );
}
