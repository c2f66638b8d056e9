/** What a pass consists of: its matrix products, counted on a plan and run again alone on a device. */
import {
  type Backend,
  type CopyRange,
  type Dispatch,
  type Kernel,
  sizeOf,
  type StageName,
  storedBytes,
  type Tensor,
} from "../kernels/backend.ts";
import { toHalves } from "../kernels/half.ts";
import { Plan } from "../kernels/plan.ts";
import { rand } from "../tests/compare.ts";

/** A copy to a stage that a product needs. */
export interface StageCopy {
  /** The stage. */
  readonly name: StageName;
  /** Which of the product's bindings is copied. */
  readonly binding: number;
  /** The first number. */
  readonly first: number;
  /** How many. */
  readonly count: number;
}

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
  /** What is copied before: a part of the product, as its norm and activation are not. */
  readonly copies: readonly StageCopy[];
  /** How many. */
  readonly count: number;
  /** Operations of each. */
  readonly flops: number;
}

/** The work of a pass. */
export interface Work {
  /** Operations that its matrix products do. */
  readonly flops: number;
  /** Operations by the definition, which either family has the same of; see `definedFlops`. */
  readonly directFlops: number;
  /** Bytes that its kernels and its copies to stages read and write; see `touchedBytes`. */
  readonly bytes: number;
  /** Kernel runs. */
  readonly dispatches: number;
  /** Those with the most operations first. */
  readonly products: readonly Product[];
}

/** Part of a tensor that a stage holds a copy of. */
interface Staged {
  readonly from: Tensor;
  readonly first: number;
  readonly count: number;
}

/** A plan that also notes which matrix products there are. */
export class WorkPlan extends Plan {
  readonly #products = new Map<string, { count: number } & Product>();
  readonly #staged = new Map<string, Staged>();
  /** What was copied since the last run, in order. */
  #copied: (Staged & { readonly name: StageName })[] = [];
  #direct = 0;
  #bytes = 0;
  #dispatched = 0;
  /** Operations by the definition over those done, between the transforms of a Winograd convolution; else 1. */
  #winograd = 1;

  /** Operations so far by the definition; see `Work`. */
  get directFlops(): number {
    return this.#direct;
  }

  /** See `Backend`; like a device it copies nothing that is there already. */
  override stage(
    name: StageName,
    from: Tensor,
    first: number,
    count: number,
  ): void {
    super.stage(name, from, first, count);
    const key = `${name} ${from.type}`;
    const held = this.#staged.get(key);
    if (held?.from === from && held.first === first && held.count >= count) {
      return;
    }
    this.#staged.set(key, { from, first, count });
    this.#copied.push({ name, from, first, count });
    this.#bytes += 2 * storedBytes([count], from.type);
  }

  /** See `Backend`. */
  override copy(from: Tensor, to: Tensor, range: CopyRange): void {
    super.copy(from, to, range);
    this.#bytes += 2 * storedBytes([range.count], "f32");
    this.#forget([to]);
  }

  /** See `Backend`. */
  override dispatch(kernel: Kernel, what: Dispatch): void {
    const before = this.flops;
    const copies = this.#copied.map(({ name, from, first, count }) => ({
      name,
      binding: what.bind.indexOf(from),
      first,
      count,
    }));
    this.#copied = [];
    super.dispatch(kernel, what);
    this.#dispatched++;
    this.#bytes += touchedBytes(kernel, what);
    this.#forget(what.bind.filter((_, i) => kernel.bindings[i] === "w"));
    const flops = this.flops - before;
    if (/^winograd_(input|norm|doubled)/.test(kernel.name)) {
      this.#winograd = winogradFactor(kernel, what);
    } else if (kernel.name.startsWith("winograd_output")) this.#winograd = 1;
    // Whole numbers, which factors may miss by their rounding.
    this.#direct += Math.round(
      this.#winograd * definedFlops(kernel, what, flops),
    );
    if (flops === 0) return;
    const { oa: _a, ob: _b, oc: _c, ...sizes } = what.params;
    const key = JSON.stringify([
      kernel.name,
      sizes,
      what.constants,
      what.bind.map((x) => what.bind.indexOf(x)),
      copies.map(({ name, count }) => [name, count]),
    ]);
    const known = this.#products.get(key);
    if (known) {
      known.count++;
      return;
    }
    this.#products.set(key, {
      key,
      name: productName(kernel, what),
      kernel,
      dispatch: what,
      copies,
      count: 1,
      flops,
    });
  }

  /** Copies of what is written are old. */
  #forget(written: readonly Tensor[]): void {
    for (const [key, { from }] of this.#staged) {
      if (written.includes(from)) this.#staged.delete(key);
    }
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

/** Kernel, sizes and layout. */
function productName(
  { name }: Kernel,
  { params, constants = {} }: Dispatch,
): string {
  const { queries, own, keys, others, width, heads = 1 } = params;
  const { M = queries ?? own, N = keys ?? others, K = width, Z = heads } =
    params;
  const { A_ROW = 1, A_HALF = 0, B_ROW = 0 } = constants;
  return [
    name,
    ...Z > 1 ? [`${Z} x`] : [],
    `${M}x${N}x${K}`,
    ...A_ROW ? [] : ["A^T"],
    ...B_ROW ? ["B^T"] : [],
    ...A_HALF ? ["f16"] : [],
  ].join(" ");
}

/**
 * Bytes that a kernel run reads and writes, each once, however many workgroups share them. Strided products
 * and the transform of Winograd's kernels run in pieces, of which each touches its part of the tensors;
 * other kernels touch whole ones.
 */
function touchedBytes(
  { name, bindings }: Kernel,
  { bind, params, constants = {} }: Dispatch,
): number {
  const bytes = (x: Tensor, most = Infinity): number =>
    storedBytes([Math.min(x.size, most)], x.type);
  const [a, b] = bind as [Tensor, Tensor];
  if (name === "winograd_weight") {
    const { count = 0, planes = 16 } = params;
    return bytes(a, 9 * count) + bytes(b, planes * count);
  }
  if (name === "winograd_doubled") {
    return bytes(a) + bytes(b, 9 * params["channels"]! * params["tiles"]!);
  }
  const { M = 0, N = 0, K = 0, Z = 1, sa, sb, parts = 1, flags = 0 } = params;
  const { gate = 0 } = params;
  const { SPLIT, ACCUMULATE = flags & 4 } = constants;
  const c = bind[bindings.indexOf("w")]!;
  const tensors = new Set(SPLIT ? [a, b, c] : bind); // split_sum adds the rest
  if (!name.startsWith("gemm")) {
    // Of what the inverse transform reads, as many planes as were multiplied.
    const { planes = 0, slice = 0, tiles = 0 } = params;
    const most = name.startsWith("winograd_output")
      ? planes * slice * tiles
      : Infinity;
    return [...tensors].reduce(
      (sum, x) => sum + bytes(x, x === a ? most : Infinity),
      0,
    );
  }
  for (const x of [a, b, c]) tensors.delete(x);
  const result = parts * Z * M * N;
  return bytes(a, (sa ? Z : 1) * (M + gate) * K) +
    bytes(b, (sb ? Z : 1) * K * N) +
    (ACCUMULATE ? 2 : 1) * bytes(c, result) +
    [...tensors].reduce((sum, x) => sum + bytes(x, result), 0);
}

/** Of a kernel run's operations, how many the definition has outside of Winograd's form. */
function definedFlops(
  { name }: Kernel,
  { params, constants = {} }: Dispatch,
  flops: number,
): number {
  const { GRAD, BY_QUERY, VALUES = 0 } = constants;
  if (name.startsWith("conv_tiled") && GRAD) {
    // Of a strided one, other taps meet the zeros between the cells of the gradient that comes in.
    const { height = 0, width = 0, toCells = 1 } = params;
    return flops * height * width / toCells;
  }
  // Scores and the gradient on probabilities are computed again for keys and values.
  if (name === "flash_attention_grad" && !BY_QUERY) {
    return flops / params["products"]!;
  }
  if (name.startsWith("flash_texel_grad_keys")) {
    return flops * (1 + VALUES) / params["products"]!;
  }
  const ofKeys = /^flash_matrix_grad_key(_slopes)?(_values)?_/.exec(name);
  if (ofKeys) {
    const results = ofKeys.slice(1).filter((x) => x).length;
    return flops * results / params["products"]!;
  }
  const { needed = 1 } = params;
  return flops * needed;
}

/**
 * F(2x2, 3x3) multiplies 16 times where the definition does 36 times, 9 times if the image was doubled, but
 * also in cells that are none.
 */
function winogradFactor({ name }: Kernel, { params }: Dispatch): number {
  const { height = 0, width = 0, rows = 1, columns = 1 } = params;
  const { tiles = 1, first = 0, all = 0 } = params;
  const whole = Math.min(tiles, all - first) / tiles;
  const planes = name === "winograd_doubled" ? 9 : 16;
  return 36 / planes * whole * height * width / (4 * rows * columns);
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

/**
 * A product on a device, with the copies that it needs, on tensors of its own full of random numbers. There are
 * two sets of these, in turn: what a stage holds already is not copied again.
 */
export function replay(
  backend: Backend,
  { kernel, dispatch, copies }: Product,
): { readonly run: () => void; readonly dispose: () => void } {
  const held: Tensor[] = [];
  const set = (): Tensor[] => {
    const made = new Map<Tensor, Tensor>();
    return dispatch.bind.map((x, i) => {
      let copy = made.get(x);
      if (!copy) {
        copy = backend.alloc(x.shape, x.type);
        const numbers = rand(i, sizeOf(x.shape));
        if (x.type === "f16") backend.writeHalf(copy, toHalves(numbers));
        else backend.write(copy, numbers);
        made.set(x, copy);
        held.push(copy);
      }
      return copy;
    });
  };
  const sets = copies.length ? [set(), set()] : [set()];
  let turn = 0;
  return {
    run() {
      const bind = sets[turn++ % sets.length]!;
      for (const { name, binding, first, count } of copies) {
        backend.stage(name, bind[binding]!, first, count);
      }
      backend.dispatch(kernel, { ...dispatch, bind });
    },
    dispose: () => {
      for (const x of held) x.dispose();
    },
  };
}
