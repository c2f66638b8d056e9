/** seed -> initial latent, the noise of each inner iteration, and that of ancestral samplers. */
import type { Backend, Tensor } from "../kernels/backend.ts";
import { normal } from "../kernels/normal.ts";

/** Where a run takes its noise from. Each call gives a new tensor of N(0, 1) numbers. */
export interface NoiseSource {
  /** The latent to start from. */
  initial(shape: readonly number[]): Tensor;
  /** The Langevin noise of inner iteration `k` of step `i`. */
  langevin(shape: readonly number[], i: number, k: number): Tensor;
  /** What an ancestral sampler adds after step `i`. */
  ancestral(shape: readonly number[], i: number): Tensor;
}

/** Streams of one seed; independent of each other and of batch packing. */
const STREAMS = { initial: 0, langevin: 1, ancestral: 2 } as const;

/** Noise from a seed by the counter-based generator. */
export function seededNoise(backend: Backend, seed: number): NoiseSource {
  return {
    initial: (shape) => normal(backend, shape, seed, [STREAMS.initial, 0, 0]),
    langevin: (shape, i, k) =>
      normal(backend, shape, seed, [STREAMS.langevin, i, k]),
    ancestral: (shape, i) =>
      normal(backend, shape, seed, [STREAMS.ancestral, i, 0]),
  };
}
