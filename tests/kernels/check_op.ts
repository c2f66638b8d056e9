/**
 * One check for every op: values, gradients, lifetimes.
 *
 * On `cpu` the float64 reference is compared with an independent formula, and its gradients with
 * central differences. On a device values and gradients are compared with the reference's.
 */
import { strict as assert } from "node:assert";
import {
  type Backend,
  type Floats,
  sizeOf,
  type Tensor,
} from "../../kernels/backend.ts";
import { Cpu } from "../../kernels/cpu.ts";
import { halfToNumber, toHalves } from "../../kernels/half.ts";
import { Tape } from "../../kernels/tape.ts";
import { testBackend } from "../backend.ts";
import { assertClose, type Bounds, rand } from "../compare.ts";

/** Data of one input tensor. */
export interface Input {
  readonly data: Floats;
  readonly shape: readonly number[];
  /** Stored as f16; the numbers must be exact in it. */
  readonly half?: boolean;
}

/** What is run. */
export interface Op {
  readonly inputs: readonly Input[];
  /** Runs the op; the outputs are new or retained, what lies between is disposed. */
  readonly forward: (...inputs: Tensor[]) => readonly Tensor[];
  /** Inputs whose gradients are wanted, by number. Default none. */
  readonly wrt?: readonly number[];
  /** Outputs that get a gradient, by number. Default all. */
  readonly seeded?: readonly number[];
  /** Where `forward` leaves tensors that must live until the way back is done, as weights do. */
  readonly held?: Tensor[];
}

/** What must hold. A list has one entry per output or gradient. */
export interface Expectations {
  /** Bound on the values on a device. */
  readonly values: number | Bounds | readonly (number | Bounds)[];
  /** Bound on the gradients on a device. */
  readonly grads?: number | Bounds | readonly (number | Bounds)[];
  /** The values by a formula that shares no code with the reference. */
  readonly formula?: () => readonly (Floats | undefined)[];
  /** Whether to check the reference's gradients by central differences. Default true. */
  readonly numeric?: boolean;
}

/** Values and gradients of one run. */
export interface Result {
  readonly values: readonly Floats[];
  readonly grads: readonly Floats[];
}

/** Uniform data of a shape, shifted by `mean`. */
export function input(
  seed: number,
  shape: readonly number[],
  scale = 1,
  mean = 0,
): Input {
  const data = rand(seed, sizeOf(shape), scale);
  return { data: mean ? data.map((x) => x + mean) : data, shape };
}

/** The first channels of `[batch, channels, ...space]`, and the others. */
export function apart(x: Input, own: number): [Input, Input] {
  const [batch = 0, channels = 0, ...space] = x.shape;
  const cells = sizeOf(space);
  const part = (first: number, count: number): Input => ({
    shape: [batch, count, ...space],
    data: Float64Array.from({ length: batch * count * cells }, (_, i) => {
      const b = Math.floor(i / (count * cells));
      return x.data[(b * channels + first) * cells + i % (count * cells)]!;
    }),
  });
  return [part(0, own), part(own, channels - own)];
}

/** Data that f16 holds exactly, stored as f16: what is compared is then the same as for f32. */
export function halfInput(
  seed: number,
  shape: readonly number[],
  scale = 1,
): Input {
  const data = Float32Array.from(
    toHalves(rand(seed, sizeOf(shape), scale)),
    halfToNumber,
  );
  return { data, shape, half: true };
}

function upload(backend: Backend, { data, shape, half }: Input): Tensor {
  if (!half) return backend.upload(data, shape);
  const x = backend.alloc(shape, "f16");
  backend.writeHalf(x, toHalves(Float32Array.from(data)));
  return x;
}

/** Checks an op on the configured backend. */
export async function checkOp(
  label: string,
  op: Op,
  expected: Expectations,
): Promise<void> {
  const backend = await testBackend();
  const found = await runOp(backend, op);
  if (backend.kind === "cpu") {
    expected.formula?.().forEach((formula, i) => {
      // 1e-12: float64 sums in another order, with room for cancellation.
      if (formula) {
        assertClose(
          found.values[i]!,
          formula,
          { relL2: 1e-12 },
          `${label}: reference of output ${i}`,
        );
      }
    });
    if (op.wrt && expected.numeric !== false) {
      checkNumeric(backend, label, op, found.grads);
    }
    return;
  }
  using cpu = new Cpu();
  const reference = await runOp(cpu, op);
  reference.values.forEach((values, i) =>
    assertClose(
      found.values[i]!,
      values,
      bounds(expected.values, i),
      `${label}: output ${i}`,
    )
  );
  reference.grads.forEach((grads, i) =>
    assertClose(
      found.grads[i]!,
      grads,
      bounds(expected.grads ?? 0, i),
      `${label}: gradient of input ${op.wrt![i]}`,
    )
  );
}

function bounds(
  given: number | Bounds | readonly (number | Bounds)[],
  i: number,
): Bounds {
  const one = Array.isArray(given) ? given[i] : given;
  return typeof one === "number" ? { relL2: one } : one;
}

/**
 * Values and gradients of an op. Before the way back the differentiated inputs and the outputs are
 * disposed and their memory is overwritten: what a vjp needs, the tape must have kept.
 */
export async function runOp(backend: Backend, op: Op): Promise<Result> {
  const before = backend.memory.liveBytes;
  const wrt = op.wrt ?? [];
  const inputs = op.inputs.map((x) => upload(backend, x));
  const leaves = wrt.map((i) => inputs[i]!);
  using tape = new Tape(backend, leaves);
  const outputs = tape.run(() => op.forward(...inputs));
  const values = await backend.read(outputs);
  let grads: Floats[] = [];
  if (wrt.length) {
    const seeds = seedsOf(op, values).map(([i, data]) =>
      [outputs[i]!, backend.upload(data, outputs[i]!.shape)] as const
    );
    const gone = [...leaves, ...outputs];
    for (const x of gone) x.dispose();
    const poison = gone.map((x) =>
      backend.upload(new Float32Array(x.size).fill(1e30), x.shape)
    );
    const results = tape.backward(seeds);
    grads = await backend.read(results);
    for (const x of [...results, ...poison]) x.dispose();
    for (const [, seed] of seeds) seed.dispose();
    inputs.forEach((x, i) => wrt.includes(i) || x.dispose());
  } else {
    for (const x of [...inputs, ...outputs]) x.dispose();
  }
  release(op);
  assert.equal(
    backend.memory.liveBytes,
    before,
    "bytes alive before and after the op",
  );
  return { values, grads };
}

/**
 * Checks that every item of a batch has the values and gradients, to the bit, that it has alone: a
 * picture must not depend on what is made beside it.
 *
 * @param inputs What is run on; the first has the batch.
 * @param forward The op, one output of the same batch.
 */
export async function checkBatch(
  [x, ...others]: readonly [Input, ...Input[]],
  forward: (...inputs: Tensor[]) => Tensor,
): Promise<void> {
  const backend = await testBackend();
  const run = async (
    data: Floats,
    batch: number,
    seed?: Floats,
  ): Promise<Floats[]> => {
    const inputs = [{ data, shape: [batch, ...x.shape.slice(1)] }, ...others]
      .map((x) => upload(backend, x));
    using tape = new Tape(backend, [inputs[0]!]);
    const y = tape.run(() => forward(...inputs));
    const given = backend.upload(seed ?? rand(1000, y.size), y.shape);
    const [grad] = tape.backward([[y, given]]);
    const found = await backend.read([y, grad!, given]);
    for (const x of [...inputs, y, grad!, given]) x.dispose();
    return found;
  };
  const batch = x.shape[0]!;
  const whole = await run(x.data, batch);
  for (let i = 0; i < batch; i++) {
    const item = (all: Floats) =>
      all.slice(i * all.length / batch, (i + 1) * all.length / batch);
    const alone = await run(item(x.data), 1, item(whole[2]!));
    ["values", "gradient"].forEach((name, k) => {
      const beside = item(whole[k]!);
      const at = alone[k]!.findIndex((v, j) => v !== beside[j]);
      assert.equal(at, -1, `first ${name} of item ${i} that differs`);
    });
  }
}

function release({ held }: Op): void {
  for (const x of held?.splice(0) ?? []) x.dispose();
}

function seedsOf(
  op: Op,
  values: readonly Floats[],
): (readonly [output: number, data: Float32Array])[] {
  return (op.seeded ?? values.map((_, i) => i)).map((i) =>
    [i, rand(1000 + i, values[i]!.length)] as const
  );
}

/** Gradients against central differences along a random direction and three coordinates. */
function checkNumeric(
  backend: Backend,
  label: string,
  op: Op,
  grads: readonly Floats[],
): void {
  const loss = (data: readonly Floats[]): number => {
    const inputs = op.inputs.map((x, i) =>
      upload(backend, { ...x, data: data[i]! })
    );
    const outputs = op.forward(...inputs);
    const values = outputs.map((y) => y.storage as Float64Array);
    let sum = 0;
    for (const [i, seed] of seedsOf(op, values)) {
      for (let j = 0; j < seed.length; j++) sum += seed[j]! * values[i]![j]!;
    }
    for (const x of [...inputs, ...outputs]) x.dispose();
    release(op);
    return sum;
  };
  const step = 1e-5;
  const data = op.inputs.map((x) => Float64Array.from(x.data));
  op.wrt!.forEach((at, index) => {
    const grad = grads[index]!;
    const length = Math.hypot(...[...grad].map(Number));
    const check = (direction: Float64Array, name: string): void => {
      const moved = (t: number) =>
        loss(
          data.map((x, i) =>
            i === at ? x.map((v, j) => v + t * direction[j]!) : x
          ),
        );
      const numeric = (moved(step) - moved(-step)) / (2 * step);
      let analytic = 0, power = 0;
      for (let j = 0; j < grad.length; j++) {
        analytic += grad[j]! * direction[j]!;
        power += direction[j]! ** 2;
      }
      // A direction may happen to be orthogonal to the gradient: then its usual size counts.
      const usual = length * Math.sqrt(power / grad.length);
      const scale = Math.max(Math.abs(analytic), usual, 1e-3);
      assert.ok(
        Math.abs(numeric - analytic) <= 1e-6 * scale,
        `${label}: gradient of input ${at} along ${name}: ${analytic}, by differences ${numeric}`,
      );
    };
    check(Float64Array.from(rand(77 + at, grad.length)), "a direction");
    const places = new Set([0, grad.length >> 1, grad.length - 1]);
    for (const place of places) {
      const direction = new Float64Array(grad.length);
      direction[place] = 1;
      check(direction, `coordinate ${place}`);
    }
  });
}
