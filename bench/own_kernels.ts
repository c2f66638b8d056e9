/** The cases through our own operations, on any backend. */
import { attention } from "../kernels/attention.ts";
import type { Backend, Floats, Tensor } from "../kernels/backend.ts";
import { conv3x3, prefersWinograd, winogradWeight } from "../kernels/conv.ts";
import { gemm } from "../kernels/gemm.ts";
import { Tape } from "../kernels/tape.ts";
import { type Contender, finished, type Prepared } from "./contender.ts";
import {
  type AttentionCase,
  attentionInputs,
  type ConvCase,
  convInputs,
  type KernelCase,
  type MatmulCase,
  matmulInputs,
} from "./kernel_cases.ts";

/** A run in two parts. */
interface Run {
  /** What a gradient needs and what its time leaves out: the recorded forward pass. */
  readonly before?: () => Tape;
  /** What is timed. New tensors, whose numbers one after the other are the result. */
  run(tape: Tape | undefined): readonly Tensor[];
  /** To free at the end. */
  readonly held: readonly Tensor[];
}

/** Our kernels as a contender; on the cpu backend its results are the reference of all others. */
export function ownKernels(
  backend: Backend,
  { name }: { readonly name: string },
): Contender {
  return {
    name,
    version: "this",
    where: backend.kind === "cpu" ? "cpu" : "adapter",
    prepare: (kernel) =>
      Promise.resolve(prepared(backend, start(backend, kernel))),
  };
}

function prepared(backend: Backend, { before, run, held }: Run): Prepared {
  return {
    async time(times) {
      const tapes = Array.from({ length: times }, () => before?.());
      await finished(backend);
      const start = performance.now();
      for (const tape of tapes) for (const y of run(tape)) y.dispose();
      await finished(backend);
      return (performance.now() - start) / 1000;
    },
    async result() {
      const found = run(before?.());
      const numbers = await backend.read(found);
      for (const y of found) y.dispose();
      return joined(numbers);
    },
    dispose() {
      for (const x of held) x.dispose();
    },
  };
}

function start(backend: Backend, c: KernelCase): Run {
  switch (c.kind) {
    case "matmul":
      return matmul(backend, c);
    case "conv":
    case "conv gradient":
      return conv(backend, c);
    default:
      return attend(backend, c);
  }
}

function matmul(backend: Backend, c: MatmulCase): Run {
  const { m, n, k } = c;
  const inputs = matmulInputs(c);
  const a = backend.upload(inputs.a, [m, k]);
  const b = backend.upload(inputs.b, [k, n]);
  return {
    held: [a, b],
    run() {
      const y = backend.alloc([m, n]);
      gemm(
        [m, n, k],
        { tensor: a, stride: k },
        { tensor: b, stride: n },
        { tensor: y, stride: n },
      );
      return [y];
    },
  };
}

function conv(backend: Backend, c: ConvCase): Run {
  const { from, to, side } = c;
  const inputs = convInputs(c);
  const x = backend.upload(inputs.x, [1, from, side, side]);
  const seed = backend.upload(inputs.seed, [1, to, side, side]);
  using raw = backend.upload(inputs.weight, [to, from, 3, 3]);
  const weight = prefersWinograd(backend, [to, from]) // as at load
    ? winogradWeight(raw)
    : raw.retain();
  const held = [x, seed, weight];
  if (c.kind === "conv") return { held, run: () => [conv3x3(x, weight)] };
  return {
    held,
    ...gradient(backend, [x], seed, () => conv3x3(x, weight)),
  };
}

function attend(backend: Backend, c: AttentionCase): Run {
  const { heads, width, queries, keys } = c;
  const inputs = attentionInputs(c);
  const tensor = (data: Float32Array, cells: number): Tensor =>
    backend.upload(data, [1, heads * width, cells]);
  const q = tensor(inputs.q, queries), seed = tensor(inputs.seed, queries);
  const k = tensor(inputs.k, keys), v = tensor(inputs.v, keys);
  const held = [q, k, v, seed];
  const forward = (): Tensor => attention(q, k, v, { heads }).out;
  if (c.kind === "attention") return { held, run: () => [forward()] };
  return { held, ...gradient(backend, [q, k, v], seed, forward) };
}

/** The way back of `forward`, which is recorded before the time is taken. */
function gradient(
  backend: Backend,
  leaves: readonly Tensor[],
  seed: Tensor,
  forward: () => Tensor,
): Pick<Run, "before" | "run"> {
  const outputs = new WeakMap<Tape, Tensor>();
  return {
    before() {
      const tape = new Tape(backend, leaves);
      outputs.set(tape, tape.run(forward));
      return tape;
    },
    run(tape) {
      using y = outputs.get(tape!)!;
      return tape!.backward([[y, seed]]);
    },
  };
}

function joined(parts: readonly Floats[]): Floats {
  const out = new Float64Array(parts.reduce((n, x) => n + x.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
