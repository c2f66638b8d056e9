/** TensorFlow.js on its WebGPU backend: eager operations, gradients by its tape. */
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
import { concatenated, transposed } from "../transpose.ts";
import { queueWait } from "./gpu_wait.ts";
import { loadPackage } from "./load.ts";

const VERSION = "4.22.0";

interface Value {
  data(): Promise<Float32Array>;
  dispose(): void;
}

type Shape = readonly number[];

/** The part of TensorFlow.js that is used. */
interface Tf {
  setBackend(name: string): Promise<boolean>;
  backend(): {
    readonly device: GPUDevice;
    /** Null where nothing is recorded; then there is nothing to submit. */
    readonly commandEncoder: GPUCommandEncoder | null;
    endComputePassEncoder(): void;
    submitQueue(): void;
  };
  env(): { set(flag: string, value: boolean): void };
  tensor(data: Float32Array, shape: Shape): Value;
  tidy<T>(f: () => T): T;
  matMul(a: Value, b: Value, transposeA?: boolean, transposeB?: boolean): Value;
  softmax(x: Value): Value;
  mul(x: Value, factor: number): Value;
  conv2d(x: Value, filter: Value, strides: number, padding: "same"): Value;
  conv2dTranspose(
    x: Value,
    filter: Value,
    shape: Shape,
    strides: number,
    padding: "same",
  ): Value;
  grads(
    f: (...inputs: Value[]) => Value,
  ): (inputs: readonly Value[], seed: Value) => Value[];
}

/** Loads it. */
export async function tensorFlowJs(): Promise<Contender> {
  const tf = await loadPackage("@tensorflow/tfjs", VERSION) as Tf;
  await loadPackage("@tensorflow/tfjs-backend-webgpu", VERSION);
  if (!await tf.setBackend("webgpu")) {
    throw new Error("its WebGPU backend does not start");
  }
  return {
    name: "tfjs WebGPU",
    version: VERSION,
    where: "adapter",
    prepare: (kernel) => prepare(tf, kernel),
  };
}

async function prepare(tf: Tf, c: KernelCase): Promise<Prepared> {
  switch (c.kind) {
    case "matmul":
      return matmul(tf, c);
    case "conv":
      return conv(tf, c);
    case "conv gradient":
      return await fasterOf([conv(tf, c, false), conv(tf, c, true)]);
    default:
      return attention(tf, c);
  }
}

function prepared(
  tf: Tf,
  inputs: readonly Value[],
  run: () => readonly Value[],
  order: (outputs: readonly Float32Array[]) => Float32Array,
): Prepared {
  const wait = queueWait(tf.backend().device);
  const finish = async (): Promise<void> => {
    const backend = tf.backend();
    if (backend.commandEncoder) {
      backend.endComputePassEncoder();
      backend.submitQueue();
    }
    await wait();
  };
  const once = (): readonly Value[] => tf.tidy(run);
  return {
    async time(times) {
      await finish();
      const start = performance.now();
      for (let i = 0; i < times; i++) {
        for (const y of once()) y.dispose();
      }
      await finish();
      return (performance.now() - start) / 1000;
    },
    async result() {
      const outputs: Float32Array[] = [];
      for (const y of once()) {
        outputs.push(await y.data());
        y.dispose();
      }
      return order(outputs);
    },
    dispose() {
      for (const x of inputs) x.dispose();
    },
  };
}

function matmul(tf: Tf, c: MatmulCase): Prepared {
  const { m, n, k } = c;
  const inputs = matmulInputs(c);
  const a = tf.tensor(inputs.a, [m, k]), b = tf.tensor(inputs.b, [k, n]);
  return prepared(tf, [a, b], () => [tf.matMul(a, b)], ([y]) => y!);
}

/**
 * `[1, side, side, channels]` and `[3, 3, from, to]`: it has no other order on WebGPU.
 *
 * @param naive Which of its two kernels for the gradient.
 */
function conv(tf: Tf, c: ConvCase, naive = true): Prepared {
  const { from, to, side } = c;
  const { x, weight, seed } = convInputs(c);
  const cells = side * side;
  const filter = tf.tensor(filterOf(weight, c), [3, 3, from, to]);
  const image = (data: Float32Array, channels: number): Value =>
    tf.tensor(transposed(data, [1, channels, cells]), [
      1,
      side,
      side,
      channels,
    ]);
  const back = (channels: number) => ([y]: readonly Float32Array[]) =>
    transposed(y!, [1, cells, channels]);
  if (c.kind === "conv") {
    const input = image(x, from);
    return prepared(
      tf,
      [input, filter],
      () => [tf.conv2d(input, filter, 1, "same")],
      back(to),
    );
  }
  // The gradient's own kernel; by the tape the forward pass would run too.
  const input = image(seed, to);
  return prepared(
    tf,
    [input, filter],
    () => {
      tf.env().set("WEBGPU_USE_NAIVE_CONV2D_TRANSPOSE", naive);
      return [
        tf.conv2dTranspose(input, filter, [1, side, side, from], 1, "same"),
      ];
    },
    back(from),
  );
}

/** `[to, from, 9]` -> `[9, from, to]`. */
function filterOf(weight: Float32Array, { from, to }: ConvCase): Float32Array {
  const out = new Float32Array(weight.length);
  for (let o = 0; o < to; o++) {
    for (let i = 0; i < from; i++) {
      for (let t = 0; t < 9; t++) {
        out[(t * from + i) * to + o] = weight[(o * from + i) * 9 + t]!;
      }
    }
  }
  return out;
}

/** Over `[heads, tokens, width]`. The tape of the gradient runs the forward pass each time. */
function attention(tf: Tf, c: AttentionCase): Prepared {
  const { heads, width, queries, keys } = c;
  const inputs = attentionInputs(c);
  const value = (data: Float32Array, cells: number): Value =>
    tf.tensor(transposed(data, [heads, width, cells]), [heads, cells, width]);
  const restored = (data: Float32Array, cells: number): Float32Array =>
    transposed(data, [heads, cells, width]);
  const q = value(inputs.q, queries);
  const k = value(inputs.k, keys), v = value(inputs.v, keys);
  const forward = (a: Value, b: Value, d: Value): Value => {
    const scores = tf.mul(tf.matMul(a, b, false, true), 1 / Math.sqrt(width));
    return tf.matMul(tf.softmax(scores), d);
  };
  if (c.kind === "attention") {
    return prepared(
      tf,
      [q, k, v],
      () => [forward(q, k, v)],
      ([y]) => restored(y!, queries),
    );
  }
  const seed = value(inputs.seed, queries);
  const back = tf.grads(forward as (...inputs: Value[]) => Value);
  return prepared(
    tf,
    [q, k, v, seed],
    () => back([q, k, v], seed),
    ([dq, dk, dv]) =>
      concatenated([
        restored(dq!, queries),
        restored(dk!, keys),
        restored(dv!, keys),
      ]),
  );
}
