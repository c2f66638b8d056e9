/** What takes part in a comparison: somebody who can prepare a case, run it many times and show the result. */
import type { Backend, Floats } from "../kernels/backend.ts";
import type { KernelCase } from "./kernel_cases.ts";

/** A case whose inputs are where they are used, compiled and ready. */
export interface Prepared {
  /**
   * Seconds for `times` runs in a row and one wait for the last: a wait costs 10 ms on Deno, whoever
   * asks for it.
   */
  time(times: number): Promise<number>;
  /** Numbers of one run, in the layout that the case states. */
  result(): Promise<Floats>;
  /** Frees what was prepared. */
  dispose(): void;
}

/** An implementation of the cases: ours or a peer. */
export interface Contender {
  /** Column title. */
  readonly name: string;
  /** Of its package. */
  readonly version: string;
  /** Where it runs: only those on the GPU's adapter are compared with us there. */
  readonly where: "adapter" | "cpu";
  /** Undefined where it has no such operation. */
  prepare(kernel: KernelCase): Promise<Prepared | undefined>;
}

/** A contender that cannot take part, and why. */
export interface Absent {
  /** Who. */
  readonly name: string;
  /** In one line. */
  readonly reason: string;
}

/** Of several ways to do the same, the one that is fastest in one run after a first; frees the others. */
export async function fasterOf(ways: readonly Prepared[]): Promise<Prepared> {
  let best: { way: Prepared; seconds: number } | undefined;
  for (const way of ways) {
    await way.time(1);
    const seconds = await way.time(3);
    if (!best || seconds < best.seconds) {
      best?.way.dispose();
      best = { way, seconds };
    } else way.dispose();
  }
  return best!.way;
}

/**
 * Runs per sample, so that a sample takes at least `least` seconds.
 *
 * @param time Seconds of so many runs; called with growing numbers, the first of which compiles.
 */
export async function runsPerSample(
  time: (times: number) => Promise<number>,
  least: number,
): Promise<number> {
  await time(1);
  for (let times = 1;;) {
    const seconds = await time(times);
    if (seconds >= least) return times;
    const wanted = Math.ceil(1.2 * times * least / seconds);
    times = Math.min(Math.max(2 * times, wanted), 16 * times);
  }
}

/**
 * Waits until a backend has done what was recorded. By reading a number: Dawn answers at once where
 * nothing was copied to what is read.
 */
export async function finished(backend: Backend): Promise<void> {
  using one = backend.alloc([1]);
  await backend.read([one]);
}

/**
 * Times something on a backend.
 *
 * @returns Seconds of `times` runs and one wait.
 */
export function timer(
  backend: Backend,
  run: () => void | Promise<void>,
): (times: number) => Promise<number> {
  return async (times) => {
    await finished(backend);
    const start = performance.now();
    for (let i = 0; i < times; i++) await run();
    await finished(backend);
    return (performance.now() - start) / 1000;
  };
}
