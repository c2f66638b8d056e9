/**
 * Devices beside another that compile for it. The driver of a processor compiles for a device one kernel after the
 * other, but for several side by side, and keeps what it made for all of them on disk.
 */
import type { Backend, PlannedKernel } from "./backend.ts";

/** Devices that compile at the same time, at most, as each takes some 70 MB, and kernels that are worth another one. */
const MOST = 4;
const WORTH = 4;

/** What compiles: a device whose `prepare` does so by itself. */
export type Compiler = Pick<Backend, "prepare" | "read"> & Disposable;

/** Those that are at work. */
export class Compilers implements Disposable {
  readonly #compilers: Compiler[] = [];

  /**
   * Opens as many as there are processors for and gives each its share, which it begins with at once.
   *
   * @param open Opens one.
   * @param threads How many the machine runs at once.
   * @returns What is left to the device itself, and what they compile.
   */
  async share(
    kernels: readonly PlannedKernel[],
    open: () => Promise<Compiler>,
    threads: number = globalThis.navigator?.hardwareConcurrency ?? 1,
  ): Promise<readonly [own: PlannedKernel[], theirs: PlannedKernel[]]> {
    const count = Math.min(threads, MOST, Math.floor(kernels.length / WORTH));
    const shares: PlannedKernel[][] = [[]];
    for (let i = 1; i < count; i++) shares.push([]);
    for (const [i, kernel] of kernels.entries()) {
      shares[i % shares.length]!.push(kernel);
    }
    const [own, ...theirs] = shares as [PlannedKernel[], ...PlannedKernel[][]];
    for (const share of theirs) {
      const compiler = await open();
      this.#compilers.push(compiler);
      await compiler.prepare(share);
    }
    return [own, theirs.flat()];
  }

  /** Waits until they are done, and closes them. */
  async done(): Promise<void> {
    for (const compiler of this.#compilers.splice(0)) {
      using _ = compiler;
      await compiler.read([]).catch(() => {}); // whatever it was, the device itself will meet it, too
    }
  }

  /** Closes those that are at work. */
  [Symbol.dispose](): void {
    for (const compiler of this.#compilers.splice(0)) {
      compiler[Symbol.dispose]();
    }
  }
}
