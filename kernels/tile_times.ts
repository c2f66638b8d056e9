/** Which tiles of 16-bit weights are faster on an adapter: those in 16 bits or those in 32. */
import type { Backend } from "./backend.ts";
import { gemm } from "./gemm.ts";

/** What was found. */
export interface TileTimes {
  /** Seconds of a product with tiles in 32 bits. */
  readonly f32: number;
  /** Seconds of the same with tiles in 16 bits. */
  readonly f16: number;
}

/** A projection of SD1.5 at 512 pixels. */
const SIZE = [320, 4096, 320] as const;
/** Seconds that a sample takes at least: some runtimes ask once a millisecond whether it is done. */
const SAMPLE = 10e-3;
const MOST_RUNS = 512;
const SAMPLES = 5;
/** Tiles in 16 bits must take less than this of the time: what is within noise stays as it is. */
const GAIN = 0.95;

/**
 * Times one product both ways, in turn. The backend's `halfTiles` is afterwards what it was.
 *
 * @param backend One of the gpu family, on a device with shader-f16.
 * @param size Rows, columns and terms of the product.
 * @returns Medians.
 */
export async function tileTimes(
  backend: Backend,
  [M, N, K]: readonly [number, number, number] = SIZE,
): Promise<TileTimes> {
  const before = backend.halfTiles;
  using a = backend.alloc([M, K], "f16");
  backend.writeHalf(a, new Uint16Array(M * K));
  using b = backend.upload(new Float32Array(K * N), [K, N]);
  using c = backend.alloc([M, N]);
  using end = backend.upload([0], [1]);
  const seconds = async (halfTiles: boolean, runs: number): Promise<number> => {
    const start = performance.now();
    backend.halfTiles = halfTiles;
    for (let i = 0; i < runs; i++) {
      gemm(
        [M, N, K],
        { tensor: a, stride: K },
        { tensor: b, stride: N },
        { tensor: c, stride: N },
      );
    }
    backend.halfTiles = before;
    await backend.read([end]);
    return (performance.now() - start) / 1000 / runs;
  };
  for (const half of [false, true]) await seconds(half, 1); // compiles
  let runs = 1;
  while (runs < MOST_RUNS && runs * await seconds(false, runs) < SAMPLE) {
    runs *= 2;
  }
  const samples: [f32: number, f16: number][] = [];
  for (let i = 0; i < SAMPLES; i++) {
    samples.push([await seconds(false, runs), await seconds(true, runs)]);
  }
  const middle = (which: 0 | 1): number =>
    samples.map((times) => times[which]).sort((x, y) => x - y)[SAMPLES >> 1]!;
  return { f32: middle(0), f16: middle(1) };
}

/** Whether tiles in 16 bits are worth it. */
export function prefersHalfTiles({ f32, f16 }: TileTimes): boolean {
  return f16 < GAIN * f32;
}

/** Times and choice, for people. */
export function describeTiles(times: TileTimes): string {
  const { f32, f16 } = times;
  const ms = (seconds: number): string => (1000 * seconds).toFixed(2);
  return `tiles of 16-bit weights: ${
    prefersHalfTiles(times) ? "f16" : "f32"
  } (f32 ${ms(f32)}, f16 ${ms(f16)} ms)`;
}
