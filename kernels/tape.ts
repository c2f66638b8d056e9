/**
 * Reverse-mode differentiation: ops note how to go back while a tape records, so that a network is
 * written once, as a forward pass.
 */
import { combine } from "./combine.ts";
import type { Backend, Recorder, Tensor, Vjp } from "./backend.ts";

interface Node {
  readonly outputs: readonly Tensor[];
  readonly inputs: readonly Tensor[];
  readonly saved: readonly Tensor[];
  readonly vjp: Vjp;
  readonly halfProducts: boolean;
}

/**
 * Records ops that depend on a watched tensor. Only what a vjp needs is kept alive.
 *
 * @example The gradient of the sum of 2 x + 3 x
 * ```ts
 * import { combine, Cpu, Tape } from "../mod.ts";
 *
 * using backend = new Cpu();
 * using x = backend.upload([1, 2, 3], [3]);
 * using tape = new Tape(backend, [x]);
 * using y = tape.run(() => combine(x, 2, x, 3));
 * using seed = backend.upload([1, 1, 1], [3]);
 * const [grad] = tape.backward([[y, seed]]);
 * const [values] = await backend.read([grad!]);
 * if (values![2] !== 5) throw new Error(String(values));
 * grad!.dispose();
 * ```
 */
export class Tape implements Recorder, Disposable {
  readonly #backend: Backend;
  readonly #leaves: readonly Tensor[];
  readonly #tracked = new Set<Tensor>();
  #nodes: Node[] = [];

  /**
   * Does not record yet; see `run`.
   *
   * @param backend Where the ops run.
   * @param leaves Tensors whose gradient is wanted.
   */
  constructor(backend: Backend, leaves: readonly Tensor[]) {
    this.#backend = backend;
    this.#leaves = leaves;
    for (const leaf of leaves) this.#tracked.add(leaf);
  }

  /** Number of recorded ops. */
  get length(): number {
    return this.#nodes.length;
  }

  /** Runs `forward` while recording. `stop()` inside ends the recording early. */
  run<T>(forward: () => T): T {
    const outer = this.#backend.tape;
    this.#backend.tape = this;
    try {
      return forward();
    } finally {
      this.#backend.tape = outer;
    }
  }

  /** Ends the recording: what runs after it is computed but not differentiated. */
  stop(): void {
    if (this.#backend.tape === this) this.#backend.tape = undefined;
  }

  /** Whether a gradient reaches `x`. */
  tracks(x: Tensor): boolean {
    return this.#tracked.has(x);
  }

  /**
   * Notes an op. Does nothing unless an input is tracked.
   *
   * @param outputs What the op made.
   * @param inputs What it read, in the order of the vjp's results.
   * @param saved Tensors the vjp reads; the tape keeps them alive.
   * @param vjp Returns new tensors, or retained ones.
   */
  record(
    outputs: readonly Tensor[],
    inputs: readonly Tensor[],
    saved: readonly Tensor[],
    vjp: Vjp,
  ): void {
    if (!inputs.some((x) => this.#tracked.has(x))) return;
    for (const s of saved) s.retain();
    for (const y of outputs) this.#tracked.add(y);
    const { halfProducts } = this.#backend;
    this.#nodes.push({ outputs, inputs, saved, vjp, halfProducts });
  }

  /**
   * Walks back from gradients on any recorded values to the leaves, freeing as it goes.
   *
   * @param seeds Pairs of a recorded tensor and the gradient on it. Not consumed.
   * @returns The gradient on each leaf (zeros where nothing reaches it); the caller disposes them.
   * @throws {RangeError} If a seed was not recorded or has another size.
   */
  backward(
    seeds: readonly (readonly [value: Tensor, grad: Tensor])[],
  ): Tensor[] {
    const grads = new Map<Tensor, Tensor>();
    for (const [value, grad] of seeds) {
      if (!this.#tracked.has(value)) {
        throw new RangeError(
          `Cannot go back from tensor [${value.shape}]: it must depend on a watched tensor`,
        );
      }
      if (value.size !== grad.size) {
        throw new RangeError(
          `Cannot go back from tensor [${value.shape}]: its gradient must have the same size: current shape is [${grad.shape}]`,
        );
      }
    }
    for (const [value, grad] of seeds) {
      this.#accumulate(grads, value, grad.retain());
    }
    const nodes = this.#nodes;
    this.#nodes = [];
    for (let node = nodes.pop(); node; node = nodes.pop()) {
      const outputGrads = node.outputs.map((y) => grads.get(y));
      if (outputGrads.some((g) => g)) {
        const needs = node.inputs.map((x) => this.#tracked.has(x));
        const inputGrads = this.#vjp(node, outputGrads, needs);
        node.inputs.forEach((x, i) => {
          const grad = inputGrads[i];
          if (grad && needs[i]) this.#accumulate(grads, x, grad);
          else grad?.dispose();
        });
      }
      for (const y of node.outputs) {
        if (this.#leaves.includes(y)) continue;
        grads.get(y)?.dispose();
        grads.delete(y);
      }
      for (const s of node.saved) s.dispose();
    }
    // What was recorded is used up: going back from it again would give zeros.
    this.#tracked.clear();
    for (const leaf of this.#leaves) this.#tracked.add(leaf);
    return this.#leaves.map((leaf) => {
      const grad = grads.get(leaf);
      return grad ??
        this.#backend.upload(new Float32Array(leaf.size), leaf.shape);
    });
  }

  /** With products as on the way there. */
  #vjp(
    { vjp, halfProducts }: Node,
    grads: readonly (Tensor | undefined)[],
    needs: readonly boolean[],
  ): readonly (Tensor | undefined)[] {
    const backend = this.#backend;
    const before = backend.halfProducts;
    backend.halfProducts = halfProducts;
    try {
      return vjp(grads, needs);
    } finally {
      backend.halfProducts = before;
    }
  }

  #accumulate(grads: Map<Tensor, Tensor>, x: Tensor, grad: Tensor): void {
    const before = grads.get(x);
    if (!before) {
      grads.set(x, grad);
      return;
    }
    grads.set(x, combine(before, 1, grad, 1));
    before.dispose();
    grad.dispose();
  }

  /** Drops what is still saved. */
  [Symbol.dispose](): void {
    this.stop();
    for (const node of this.#nodes) for (const s of node.saved) s.dispose();
    this.#nodes = [];
  }
}
