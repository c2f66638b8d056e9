/** One golden case while it runs: its inputs, its weights, and the results to be checked. */
import { join } from "node:path";
import {
  type Backend,
  type Floats,
  sizeOf,
  Tensor,
} from "../../kernels/backend.ts";
import { Tape } from "../../kernels/tape.ts";
import type { WeightSource } from "../../pipeline/weight_source.ts";
import { Safetensors } from "../../weights/safetensors.ts";
import { openSource, readText } from "../../weights/source.ts";
import { type Check, compare, type Noise } from "./compare.ts";

/** An entry of `cases` in `index.json`; only what is used here. */
export interface Entry {
  readonly id: string;
  readonly kind: string;
  readonly file: string;
  /** Who made the numbers, such as `diffusers 0.40.0 DDIMScheduler`. */
  readonly oracle?: string;
  readonly weights_file?: string;
  readonly attributes?: Readonly<Record<string, unknown>>;
  readonly config?: Readonly<Record<string, unknown>>;
  readonly parameters?: number;
  readonly bytes?: number;
  readonly tensors?: Readonly<
    Record<
      string,
      { readonly dtype: string; readonly shape: readonly number[] }
    >
  >;
  readonly float32_noise?: Readonly<Record<string, Noise>>;
}

/** Where cases run. */
export interface Place {
  /** The folder with `index.json`. */
  readonly dir: string;
  /** Folders of models for the cases that name one. */
  readonly models: readonly string[];
  /** Open for all cases. */
  readonly backend: Backend;
}

/** Results: a tensor, several to be joined, or numbers of the host. */
export type Result = Tensor | readonly Tensor[] | ArrayLike<number>;

/**
 * An open case.
 *
 * Results are noted with `expect...` and read in one wait by `finish`, which also sees to it that
 * no expected tensor was forgotten.
 */
export class GoldenCase implements AsyncDisposable {
  readonly entry: Entry;
  readonly place: Place;
  readonly backend: Backend;
  readonly #files: Safetensors[] = [];
  readonly #tensors = new Map<string, readonly number[]>();
  readonly #owned: Disposable[] = [];
  readonly #results = new Map<
    string,
    { actual: Result; convert: (values: Floats) => Floats }
  >();
  readonly #checks: Check[] = [];

  private constructor(entry: Entry, place: Place) {
    this.entry = entry;
    this.place = place;
    this.backend = place.backend;
  }

  /** Opens the case's file and compares its header with the index. */
  static async open(entry: Entry, place: Place): Promise<GoldenCase> {
    const c = new GoldenCase(entry, place);
    if (!entry.file.endsWith(".safetensors")) return c;
    const file = await c.#open(entry.file);
    const listed = entry.tensors ?? {};
    for (const [name, { shape }] of file.tensors) {
      if (String(shape) !== String(listed[name]?.shape)) {
        throw new Error(
          `${entry.file}: ${name} [${shape}] must be in the index`,
        );
      }
      c.#tensors.set(name, shape);
    }
    const absent = Object.keys(listed).filter((name) =>
      !file.tensors.has(name)
    );
    if (absent.length) throw new Error(`${entry.file} must hold ${absent}`);
    return c;
  }

  /** `attributes` of the case. The caller knows their types. */
  // deno-lint-ignore no-explicit-any
  get attributes(): any {
    return this.entry.attributes ?? {};
  }

  /** A path in the golden folder. */
  path(name: string): string {
    return join(this.place.dir, name);
  }

  /** A text file in the golden folder. */
  async text(name: string): Promise<string> {
    return await readText(this.path(name));
  }

  /** Whether the file holds a tensor such as `input.x`. */
  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  /** Names of the expected tensors, without `expected.`. */
  expected(): string[] {
    return [...this.#tensors.keys()].filter((name) =>
      name.startsWith("expected.")
    ).map((name) => name.slice("expected.".length));
  }

  /** The shape of a tensor in the file. */
  shape(name: string): readonly number[] {
    const shape = this.#tensors.get(name);
    if (!shape) throw new Error(`${this.entry.file} must hold ${name}`);
    return shape;
  }

  /** A float tensor of the file. */
  async floats(name: string): Promise<Float32Array> {
    return await this.#files[0]!.readFloat32(name);
  }

  /** An integer tensor of the file. */
  async ints(name: string): Promise<Int32Array> {
    return await this.#files[0]!.readInt32(name);
  }

  /** A tensor of the file on the backend, disposed with the case. `shape` replaces the file's. */
  async upload(name: string, shape?: readonly number[]): Promise<Tensor> {
    return this.own(
      this.backend.upload(await this.floats(name), shape ?? this.shape(name)),
    );
  }

  /** The same with its last two axes swapped: the files have `[batch, tokens, channels]`. */
  async uploadSwapped(name: string): Promise<Tensor> {
    const shape = this.shape(name);
    const [a, b] = shape.slice(-2) as [number, number];
    const values = swapLast(await this.floats(name), a, b);
    return this.own(
      this.backend.upload(values, [...shape.slice(0, -2), b, a]),
    );
  }

  /** The weights of the case: its `weight.*` tensors, or all of its `weights_file`. */
  async weights(): Promise<
    WeightSource & { config: Readonly<Record<string, unknown>> }
  > {
    const { weights_file, id, config = {} } = this.entry;
    const prefix = weights_file ? "" : "weight.";
    const file = weights_file
      ? await this.#open(weights_file)
      : this.#files[0]!;
    const tensors = new Map(
      [...file.tensors].filter(([name]) => name.startsWith(prefix))
        .map(([name, info]) => [name.slice(prefix.length), info]),
    );
    return {
      name: id,
      config,
      tensors,
      read: (name, options) => file.readFloat32(prefix + name, options),
    };
  }

  /** Leaves something for the case to dispose. */
  own<T extends Disposable>(x: T): T {
    this.#owned.push(x);
    return x;
  }

  /**
   * Notes a result, to be compared in `finish`.
   *
   * @param name Without `expected.`.
   * @param actual Its values; several tensors are joined in order. Tensors must live until then.
   * @param convert From our order of the numbers to the file's.
   */
  expect(
    name: string,
    actual: Result,
    convert: (values: Floats) => Floats = (values) => values,
  ): void {
    this.shape(`expected.${name}`);
    if (this.#results.has(name)) throw new Error(`${name} came out twice`);
    this.#results.set(name, { actual, convert });
  }

  /** `expect` for a result whose last two axes are swapped in the file. */
  expectSwapped(name: string, actual: Result): void {
    const [a, b] = this.shape(`expected.${name}`).slice(-2) as [number, number];
    this.expect(name, actual, (values) => swapLast(values, b, a));
  }

  /**
   * Probabilities `[batch, heads, keys, queries]` from their logarithms; `[batch, heads, queries,
   * keys]` in the file, or `[batch, queries, keys]` if they are averaged over heads.
   */
  expectProbabilities(
    name: string,
    logProbs: Tensor | readonly Tensor[],
  ): void {
    const shape = this.shape(`expected.${name}`);
    const [first] = logProbs instanceof Tensor ? [logProbs] : logProbs;
    const [, heads = 1, keys = 1, ...space] = first?.shape ?? [];
    const queries = sizeOf(space);
    this.expect(name, logProbs, (values) => {
      const p = Float64Array.from(values, Math.exp);
      return swapLast(
        shape.length === 3 ? meanOfHeads(p, heads, keys * queries) : p,
        keys,
        queries,
      );
    });
  }

  /** Notes a comparison that is not one of numbers with a tolerance, such as token ids. */
  check(what: string, problem: string | undefined): void {
    this.#checks.push(plainCheck(what, problem));
  }

  /**
   * Reads all results in one wait and compares them.
   *
   * @param exception Why an expected tensor need not be checked, or undefined.
   */
  async finish(
    exception: (tensor: string) => string | undefined,
  ): Promise<Check[]> {
    const tensors: Tensor[] = [];
    for (const { actual } of this.#results.values()) {
      if (actual instanceof Tensor) tensors.push(actual);
      else if (isTensors(actual)) tensors.push(...actual);
    }
    const values = await this.backend.read(tensors);
    const checks = [...this.#checks];
    for (const [name, { actual, convert }] of this.#results) {
      const numbers = actual instanceof Tensor
        ? values.shift()!
        : isTensors(actual)
        ? Float64Array.from(
          values.splice(0, actual.length).flatMap((v) => [...v]),
        )
        : Float64Array.from(actual);
      const key = `expected.${name}`;
      const converted = convert(numbers);
      const noise = this.entry.float32_noise?.[key];
      if (this.entry.tensors![key]!.dtype.startsWith("I")) {
        checks.push(compare(name, converted, await this.ints(key), undefined));
      } else if (noise) {
        checks.push(compare(name, converted, await this.floats(key), noise));
      } else checks.push(plainCheck(name, "has no float32_noise in the index"));
    }
    for (const name of this.expected()) {
      if (!this.#results.has(name) && exception(name) === undefined) {
        checks.push(plainCheck(name, "was not checked"));
      }
    }
    return checks;
  }

  /** Frees everything. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const x of this.#owned.splice(0).reverse()) x[Symbol.dispose]();
    await Promise.all(this.#files.splice(0).map((file) => file.close()));
  }

  async #open(name: string): Promise<Safetensors> {
    const file = await Safetensors.open(await openSource(this.path(name)));
    this.#files.push(file);
    return file;
  }
}

/**
 * Runs a module forward and back: `out`, and `grad_*` of every leaf that the file expects one of.
 *
 * @param leaves Inputs on the backend, by their name in the file.
 * @param swapped Which of them, and `out`, are sequences.
 */
export async function checkModule(
  c: GoldenCase,
  leaves: Readonly<Record<string, Tensor>>,
  swapped: readonly string[],
  forward: () => Tensor,
): Promise<void> {
  const expect = (name: string, value: Tensor, sequence: boolean): void =>
    sequence ? c.expectSwapped(name, value) : c.expect(name, value);
  const wanted = Object.entries(leaves).filter(([name]) =>
    c.has(`expected.grad_${name}`)
  );
  using tape = new Tape(c.backend, wanted.map(([, leaf]) => leaf));
  const out = c.own(tape.run(forward));
  const sequence = swapped.includes("out");
  expect("out", out, sequence);
  const seed = sequence
    ? await c.uploadSwapped("input.grad_out")
    : await c.upload("input.grad_out");
  const grads = tape.backward([[out, seed]]).map((grad) => c.own(grad));
  wanted.forEach(([name], i) =>
    expect(`grad_${name}`, grads[i]!, swapped.includes(name))
  );
}

/** `[..., a, b]` to `[..., b, a]`. */
export function swapLast(
  values: Floats,
  a: number,
  b: number,
): Float64Array<ArrayBuffer> {
  const out = new Float64Array(values.length);
  for (let start = 0; start < values.length; start += a * b) {
    for (let i = 0; i < a; i++) {
      for (let j = 0; j < b; j++) {
        out[start + j * a + i] = values[start + i * b + j]!;
      }
    }
  }
  return out;
}

/** `[batch, heads, rest]` to `[batch, rest]`. */
function meanOfHeads(
  values: Float64Array<ArrayBuffer>,
  heads: number,
  rest: number,
): Float64Array<ArrayBuffer> {
  const out = new Float64Array(values.length / heads);
  for (let i = 0; i < values.length; i++) {
    const b = Math.floor(i / rest / heads);
    out[b * rest + i % rest]! += values[i]! / heads;
  }
  return out;
}

function plainCheck(tensor: string, problem: string | undefined): Check {
  const none = { relL2: 0, relL2Bound: 0, maxAbs: 0, maxAbsBound: 0 };
  return problem === undefined
    ? { tensor, ...none, ratio: 0 }
    : { tensor, ...none, ratio: Infinity, problem };
}

function isTensors(x: Result): x is readonly Tensor[] {
  return Array.isArray(x) && x[0] instanceof Tensor;
}
