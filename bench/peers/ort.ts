/** ONNX Runtime Web: on WebGPU, and on WebAssembly with one thread. It has no gradients. */
import { type Contender, fasterOf, type Prepared } from "../contender.ts";
import {
  type AttentionCase,
  attentionInputs,
  type ConvCase,
  convInputs,
  type KernelCase,
  type MatmulCase,
  matmulInputs,
} from "../kernel_cases.ts";
import { transposed } from "../transpose.ts";
import { queueWait } from "./gpu_wait.ts";
import { loadPackage } from "./load.ts";
import { type OnnxGraph, onnxModel, type OnnxNode } from "./onnx_model.ts";

const VERSION = "1.30.0";

/** The part of onnxruntime-web that is used. */
interface Ort {
  readonly env: {
    readonly wasm: { numThreads?: number };
    readonly webgpu: { readonly device: Promise<GPUDevice> | GPUDevice };
    logLevel?: string;
  };
  readonly InferenceSession: {
    create(
      bytes: Uint8Array,
      options: {
        executionProviders: readonly string[];
        preferredOutputLocation?: string;
      },
    ): Promise<Session>;
  };
  readonly Tensor: {
    new (type: string, data: Float32Array, dims: readonly number[]): Value;
    fromGpuBuffer(
      buffer: GPUBuffer,
      options: { dataType: string; dims: readonly number[] },
    ): Value;
  };
}

interface Value {
  getData(): Promise<Float32Array>;
  dispose(): void;
}

interface Session {
  run(feeds: Record<string, Value>): Promise<Record<string, Value>>;
  release(): Promise<void>;
}

/** A network, what it is fed, and how its output becomes the layout of the case. */
interface Job {
  readonly graph: OnnxGraph;
  readonly feeds: Readonly<Record<string, Float32Array>>;
  readonly order?: (y: Float32Array) => Float32Array;
}

/** Loads it for an execution provider. */
export async function onnxRuntimeWeb(
  provider: "webgpu" | "wasm",
): Promise<Contender> {
  const ort = await loadPackage("onnxruntime-web", VERSION, `/${provider}`) as
    & Ort
    & { readonly default?: Ort };
  ort.env.wasm.numThreads = 1; // more do not start outside browsers
  ort.env.logLevel = "error";
  return {
    name: provider === "webgpu" ? "ORT WebGPU" : "ORT wasm",
    version: VERSION,
    where: provider === "webgpu" ? "adapter" : "cpu",
    async prepare(kernel) {
      const jobs = jobsOf(kernel);
      if (jobs.length === 0) return undefined;
      const ways: Prepared[] = [];
      for (const job of jobs) ways.push(await prepared(ort, provider, job));
      return ways.length === 1 ? ways[0]! : await fasterOf(ways);
    },
  };
}

async function prepared(
  ort: Ort,
  provider: "webgpu" | "wasm",
  { graph, feeds, order = (y) => y }: Job,
): Promise<Prepared> {
  const session = await ort.InferenceSession.create(onnxModel(graph), {
    executionProviders: [provider],
    ...(provider === "webgpu" ? { preferredOutputLocation: "gpu-buffer" } : {}),
  });
  const device = provider === "webgpu"
    ? await ort.env.webgpu.device
    : undefined;
  const buffers: GPUBuffer[] = [];
  const values: Record<string, Value> = {};
  for (const { name, dims } of graph.inputs) {
    const data = feeds[name]!;
    if (!device) {
      values[name] = new ort.Tensor("float32", data, dims);
      continue;
    }
    const buffer = uploaded(device, data);
    buffers.push(buffer);
    values[name] = ort.Tensor.fromGpuBuffer(buffer, {
      dataType: "float32",
      dims,
    });
  }
  const output = graph.outputs[0]!.name;
  const wait = device ? queueWait(device) : () => Promise.resolve();
  return {
    async time(times) {
      await wait();
      const start = performance.now();
      for (let i = 0; i < times; i++) {
        (await session.run(values))[output]!.dispose();
      }
      await wait();
      return (performance.now() - start) / 1000;
    },
    async result() {
      const y = (await session.run(values))[output]!;
      const numbers = order(Float32Array.from(await y.getData()));
      y.dispose();
      return numbers;
    },
    dispose() {
      for (const buffer of buffers) buffer.destroy();
      void session.release();
    },
  };
}

function uploaded(device: GPUDevice, data: Float32Array): GPUBuffer {
  const buffer = device.createBuffer({
    size: Math.ceil(data.byteLength / 16) * 16,
    usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC |
      GPUBufferUsage.COPY_DST,
  });
  device.queue.writeBuffer(buffer, 0, data as Float32Array<ArrayBuffer>);
  return buffer;
}

function jobsOf(c: KernelCase): Job[] {
  switch (c.kind) {
    case "matmul":
      return [matmul(c)];
    case "conv":
      return [conv(c)];
    case "attention":
      return [attentionByHeads(c), attentionByTokens(c)];
    default:
      return [];
  }
}

function matmul(c: MatmulCase): Job {
  const { m, n, k } = c;
  const { a, b } = matmulInputs(c);
  return {
    graph: {
      nodes: [{ op: "MatMul", inputs: ["a", "b"], outputs: ["y"] }],
      constants: [{ name: "b", dims: [k, n], data: b }],
      inputs: [{ name: "a", dims: [m, k] }],
      outputs: [{ name: "y", dims: [m, n] }],
    },
    feeds: { a },
  };
}

function conv(c: ConvCase): Job {
  const { from, to, side } = c;
  const { x, weight } = convInputs(c);
  return {
    graph: {
      nodes: [{
        op: "Conv",
        inputs: ["x", "w"],
        outputs: ["y"],
        ints: { kernel_shape: [3, 3], pads: [1, 1, 1, 1], strides: [1, 1] },
      }],
      constants: [{ name: "w", dims: [to, from, 3, 3], data: weight }],
      inputs: [{ name: "x", dims: [1, from, side, side] }],
      outputs: [{ name: "y", dims: [1, to, side, side] }],
    },
    feeds: { x },
  };
}

/** Products over `[heads, tokens, width]`, with keys as they are multiplied. */
function attentionByHeads(c: AttentionCase): Job {
  const { heads, width, queries, keys } = c;
  const { q, k, v } = attentionInputs(c);
  const nodes: OnnxNode[] = [
    { op: "MatMul", inputs: ["q", "k"], outputs: ["s"] },
    { op: "Mul", inputs: ["s", "scale"], outputs: ["t"] },
    { op: "Softmax", inputs: ["t"], outputs: ["p"], ints: { axis: 2 } },
    { op: "MatMul", inputs: ["p", "v"], outputs: ["y"] },
  ];
  return {
    graph: {
      nodes,
      constants: [{
        name: "scale",
        dims: [1],
        data: Float32Array.of(1 / Math.sqrt(width)),
      }],
      inputs: [
        { name: "q", dims: [heads, queries, width] },
        { name: "k", dims: [heads, width, keys] },
        { name: "v", dims: [heads, keys, width] },
      ],
      outputs: [{ name: "y", dims: [heads, queries, width] }],
    },
    feeds: {
      q: transposed(q, [heads, width, queries]),
      k,
      v: transposed(v, [heads, width, keys]),
    },
    order: (y) => transposed(y, [heads, queries, width]),
  };
}

/** ONNX Runtime's own operation, over `[1, tokens, heads width]`. */
function attentionByTokens(c: AttentionCase): Job {
  const { heads, width, queries, keys } = c;
  const { q, k, v } = attentionInputs(c);
  const channels = heads * width;
  return {
    graph: {
      nodes: [{
        op: "MultiHeadAttention",
        domain: "com.microsoft",
        inputs: ["q", "k", "v"],
        outputs: ["y"],
        ints: { num_heads: heads },
      }],
      constants: [],
      inputs: [
        { name: "q", dims: [1, queries, channels] },
        { name: "k", dims: [1, keys, channels] },
        { name: "v", dims: [1, keys, channels] },
      ],
      outputs: [{ name: "y", dims: [1, queries, channels] }],
    },
    feeds: {
      q: transposed(q, [1, channels, queries]),
      k: transposed(k, [1, channels, keys]),
      v: transposed(v, [1, channels, keys]),
    },
    order: (y) => transposed(y, [1, queries, channels]),
  };
}
