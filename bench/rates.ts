/** What an adapter can do at most, measured: multiply-adds in registers, and bytes copied. */
import copyWgsl from "./copy.wgsl" with { type: "text" };
import multiplyAddWgsl from "./multiply_add.wgsl" with { type: "text" };
import {
  type Backend,
  elementGroups,
  type Kernel,
  type Tensor,
} from "../kernels/backend.ts";
import { rand } from "../tests/compare.ts";
import { runsPerSample, timer } from "./contender.ts";

const MULTIPLY_ADD: Kernel = {
  name: "multiply_add",
  wgsl: multiplyAddWgsl,
  bindings: "w",
  params: ["count", "steps", "a:f", "b:f"],
  ref: ([y], { count = 0, steps = 0, a = 0, b = 0 }) => {
    for (let i = 0; i < count; i++) {
      let sum = 0;
      for (let j = 0; j < 8; j++) {
        let x = j + i % 8;
        for (let s = 0; s < 8 * steps; s++) x = x * a + b;
        sum += x;
      }
      y![i] = sum;
    }
  },
};
const COPY: Kernel = {
  name: "copy",
  wgsl: copyWgsl,
  bindings: "rw",
  params: ["count"],
  ref: ([x, y]) => y!.set(x!),
};

const STEP_FLOPS = 128;
/**
 * A run of the multiply-adds. On a GPU 34 GFLOP, half a millisecond of the fastest: a start costs several
 * microseconds, which would count as arithmetic.
 */
const ARITHMETIC = {
  software: { threads: 2 ** 16, steps: 64 },
  gpu: { threads: 2 ** 20, steps: 256 },
} as const;
const COPY_BYTES = 64 * 2 ** 20;

/** A sample per round of each. */
export interface AdapterRates {
  /** Multiplications and additions in float32, two for each multiply-add. */
  readonly arithmeticGflops: readonly number[];
  /** Bytes read and bytes written, together. */
  readonly copyGbytes: readonly number[];
}

/**
 * Measures both.
 *
 * @throws If the kernels do not give what they must.
 */
export async function measureRates(
  backend: Backend,
  { rounds, sampleSeconds }: {
    readonly rounds: number;
    readonly sampleSeconds: number;
  },
): Promise<AdapterRates> {
  const kind = backend.kind === "cpu" ? "software" : backend.family;
  const { threads, steps } = ARITHMETIC[kind];
  using y = backend.alloc([threads]);
  const source = rand(1, COPY_BYTES / 4);
  using from = backend.upload(source, [source.length]);
  using to = backend.alloc([source.length]);
  const arithmetic = timer(backend, () => multiplyAdd(y, steps));
  const copy = timer(backend, () =>
    backend.dispatch(COPY, {
      bind: [from, to],
      params: { count: source.length / 4 },
      groups: elementGroups(source.length / 4),
    }));
  const runs = [
    await runsPerSample(arithmetic, sampleSeconds),
    await runsPerSample(copy, sampleSeconds),
  ] as const;
  const [sums, copied] = await backend.read([y, to]);
  // x = x / 2 + 1 ends at 2, whatever it starts from.
  if (sums!.some((x) => Math.abs(x - 16) > 1e-3)) {
    throw new Error("Cannot trust the arithmetic rate: sums must be 16");
  }
  if (copied!.some((x, i) => x !== source[i])) {
    throw new Error("Cannot trust the copy rate: the copy must be equal");
  }
  const arithmeticGflops: number[] = [], copyGbytes: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const flops = runs[0] * threads * steps * STEP_FLOPS;
    arithmeticGflops.push(flops / await arithmetic(runs[0]) / 1e9);
    copyGbytes.push(runs[1] * 2 * COPY_BYTES / await copy(runs[1]) / 1e9);
  }
  return { arithmeticGflops, copyGbytes };
}

function multiplyAdd(y: Tensor, steps: number): void {
  y.backend.dispatch(MULTIPLY_ADD, {
    bind: [y],
    params: { count: y.size, steps, a: 0.5, b: 1 },
    groups: elementGroups(y.size),
  });
}
