/** What a pass consists of: its matrix products, counted on a plan and run again alone on a device. */
import {
  type Backend,
  type Dispatch,
  type Kernel,
  sizeOf,
  storedBytes,
  type Tensor,
} from "../kernels/backend.ts";
import { toHalves } from "../kernels/half.ts";
import { Plan } from "../kernels/plan.ts";
import { rand } from "../tests/compare.ts";

/** Equal matrix products of a pass. */
export interface Product {
  /** Same for equal ones, of any pass. */
  readonly key: string;
  /** Kernel and sizes, for people. */
  readonly name: string;
  /** The kernel. */
  readonly kernel: Kernel;
  /** One of them. */
  readonly dispatch: Dispatch;
  /** How many. */
  readonly count: number;
  /** Operations of each. */
  readonly flops: number;
}

/** The work of a pass. */
export interface Work {
  /** Operations that its matrix products do. */
  readonly flops: number;
  /** Operations by the definition: convolutions by Winograd count 2.25 times what they do. */
  readonly directFlops: number;
  /** Bytes of the tensors that its kernels bind, each counted once per kernel run. */
  readonly bytes: number;
  /** Kernel runs. */
  readonly dispatches: number;
  /** Those with the most operations first. */
  readonly products: readonly Product[];
}

/** A plan that also notes which matrix products there are. */
export class WorkPlan extends Plan {
  readonly #products = new Map<string, { count: number } & Product>();
  #direct = 0;
  #bytes = 0;
  #dispatched = 0;
  #winograd = false;

  /** Operations so far by the definition; see `Work`. */
  get directFlops(): number {
    return this.#direct;
  }

  /** See `Backend`. */
  override dispatch(kernel: Kernel, what: Dispatch): void {
    const before = this.flops;
    super.dispatch(kernel, what);
    this.#dispatched++;
    for (const x of new Set(what.bind)) {
      this.#bytes += storedBytes(x.shape, x.type);
    }
    const flops = this.flops - before;
    // The product between the transforms of F(2x2, 3x3): 16 multiplications instead of 36.
    this.#direct += this.#winograd ? 2.25 * flops : flops;
    this.#winograd = kernel.name === "winograd_input";
    if (flops === 0) return;
    const { oa: _a, ob: _b, oc: _c, ...sizes } = what.params;
    const key = JSON.stringify([
      kernel.name,
      sizes,
      what.constants,
      what.bind.map((x) => what.bind.indexOf(x)),
    ]);
    const known = this.#products.get(key);
    if (known) {
      known.count++;
      return;
    }
    const { M, N, K, Z = 1 } = what.params;
    const { A_ROW = 1, A_HALF = 0, B_ROW = 0 } = what.constants ?? {};
    const flags = [
      A_ROW ? "" : " A^T",
      B_ROW ? " B^T" : "",
      A_HALF ? " f16" : "",
    ].join("");
    const name = `${kernel.name} ${
      Z > 1 ? `${Z} x ` : ""
    }${M}x${N}x${K}${flags}`;
    this.#products.set(key, {
      key,
      name,
      kernel,
      dispatch: what,
      count: 1,
      flops,
    });
  }

  /** Counts what `pass` does. */
  async count(pass: () => void | Promise<void>): Promise<Work> {
    this.#products.clear();
    this.#bytes = this.#dispatched = 0;
    const { flops, directFlops } = this;
    await pass();
    return {
      flops: this.flops - flops,
      directFlops: this.directFlops - directFlops,
      bytes: this.#bytes,
      dispatches: this.#dispatched,
      products: [...this.#products.values()].map((p) => ({ ...p })).sort(
        (a, b) => b.count * b.flops - a.count * a.flops,
      ),
    };
  }
}

/** The products, largest share first, that together make at least `share` of the operations. */
export function dominant({ products, flops }: Work, share: number): Product[] {
  const chosen: Product[] = [];
  let covered = 0;
  for (const product of products) {
    if (covered >= share * flops) break;
    chosen.push(product);
    covered += product.count * product.flops;
  }
  return chosen;
}

/** A product on a device, with tensors of its own full of random numbers. */
export function replay(
  backend: Backend,
  { kernel, dispatch }: Product,
): { readonly run: () => void; readonly dispose: () => void } {
  const copies = new Map<Tensor, Tensor>();
  const bind = dispatch.bind.map((x, i) => {
    let copy = copies.get(x);
    if (!copy) {
      copy = backend.alloc(x.shape, x.type);
      const numbers = rand(i, sizeOf(x.shape));
      if (x.type === "f16") backend.writeHalf(copy, toHalves(numbers));
      else backend.write(copy, numbers);
      copies.set(x, copy);
    }
    return copy;
  });
  return {
    run: () => backend.dispatch(kernel, { ...dispatch, bind }),
    dispose: () => {
      for (const x of copies.values()) x.dispose();
    },
  };
}
