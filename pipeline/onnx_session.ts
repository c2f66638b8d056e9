/**
 * One ONNX network through the npm package `onnxruntime-web`, which is loaded when the first is opened.
 *
 * On WebAssembly with one thread: more do not start outside browsers.
 */
import { halfToNumber, toHalves } from "../kernels/half.ts";
import { isAbsent, WeightsError } from "../weights/errors.ts";
import { displayName, joinLocation, openSource } from "../weights/source.ts";

/** Loaded by Deno when the importing project maps no `onnxruntime-web`; package.json says the same. */
const VERSION = "^1.30.0";
/** WebAssembly has 4 GB; weights and what is computed must share them. */
const MOST_BYTES = 2 * 2 ** 30;

/** The part of onnxruntime-web that is used. */
interface Runtime {
  readonly env: { readonly wasm: { numThreads?: number } };
  readonly InferenceSession: {
    create(
      bytes: Uint8Array,
      options: {
        executionProviders: readonly string[];
        extra: { session: { disable_prepacking: "1" } };
        externalData?: readonly { path: string; data: Uint8Array }[];
      },
    ): Promise<Session>;
  };
  readonly Tensor: new (
    type: string,
    data: ArrayBufferView,
    dims: readonly number[],
  ) => Value;
}

interface Value {
  readonly type: string;
  readonly dims: readonly number[];
  getData(): Promise<ArrayLike<number>>;
  dispose(): void;
}

interface Session {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata?: readonly { name: string; type?: string }[];
  run(
    feeds: Record<string, Value>,
    fetches: readonly string[],
  ): Promise<Record<string, Value>>;
  release(): Promise<void>;
}

/** Numbers with a shape. */
export interface OnnxArray {
  /** Row-major. */
  readonly data: ArrayLike<number>;
  /** Sizes, outermost first. */
  readonly dims: readonly number[];
}

/**
 * Loads the package.
 *
 * @param modules Where from, in order. Default the name as it is mapped here, and on Deno npm's.
 * @throws {WeightsError} If it is not installed; says how to.
 */
export async function onnxRuntime(
  modules?: readonly string[],
): Promise<Runtime> {
  const deno = "Deno" in globalThis;
  const names = modules ?? [
    "onnxruntime-web",
    ...(deno ? [`npm:onnxruntime-web@${VERSION}`] : []),
  ];
  let last: unknown;
  for (const name of names) { // in a variable, so that no tool resolves it ahead of time
    try {
      const loaded = await import(name) as { default?: Runtime } & Runtime;
      const runtime = loaded.InferenceSession ? loaded : loaded.default!;
      runtime.env.wasm.numThreads = 1;
      return runtime;
    } catch (cause) {
      last = cause;
    }
  }
  throw new WeightsError(
    `Cannot run ONNX parts: the npm package onnxruntime-web must be installed: current error is "${
      (last as Error).message
    }"; run \`npm install onnxruntime-web\``,
    { cause: last },
  );
}

/** An open network. */
export class OnnxNetwork implements Disposable {
  /** For messages. */
  readonly name: string;
  /** Names of its inputs. */
  readonly inputs: readonly string[];
  /** Names of its outputs. */
  readonly outputs: readonly string[];
  readonly #runtime: Runtime;
  readonly #session: Session;
  #disposed = false;

  private constructor(name: string, runtime: Runtime, session: Session) {
    this.name = name;
    this.#runtime = runtime;
    this.#session = session;
    this.inputs = session.inputNames;
    this.outputs = session.outputNames;
  }

  /**
   * Opens `folder/model.onnx`, with `model.onnx_data` beside it where there is one.
   *
   * @param location Path or URL of the model's folder.
   * @param folder Such as `text_encoder`.
   * @throws {MissingFileError} If there is none.
   * @throws {WeightsError} If it cannot be read or is too large.
   */
  static async open(
    location: string | URL,
    folder: string,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<OnnxNetwork> {
    const name = displayName(joinLocation(location, `${folder}/model.onnx`));
    const bytes = await readOnnxFile(location, `${folder}/model.onnx`, options);
    const path = "model.onnx_data";
    let data: Uint8Array | undefined;
    try {
      data = await readOnnxFile(location, `${folder}/${path}`, options);
    } catch (error) {
      if (!isAbsent(error)) throw error;
    }
    return await OnnxNetwork.fromBytes(
      name,
      bytes,
      data && [{ path, data }],
    );
  }

  /**
   * Opens a network that is in memory.
   *
   * @param name For messages.
   * @param bytes The model file.
   * @param externalData Files that it refers to.
   * @throws {WeightsError} If it cannot be read.
   */
  static async fromBytes(
    name: string,
    bytes: Uint8Array,
    externalData?: readonly { path: string; data: Uint8Array }[],
  ): Promise<OnnxNetwork> {
    const runtime = await onnxRuntime();
    try {
      const session = await keepWorker(() =>
        runtime.InferenceSession.create(bytes, {
          executionProviders: ["wasm"],
          // Weights in another order would be a second copy of them.
          extra: { session: { disable_prepacking: "1" } },
          ...(externalData ? { externalData } : {}),
        })
      );
      return new OnnxNetwork(name, runtime, session);
    } catch (cause) {
      throw new WeightsError(
        `Cannot read ${name}: it must be an ONNX network with all its data: current error is ${
          (cause as Error).message ?? cause
        }`,
        { cause },
      );
    }
  }

  /**
   * Checks names before anything is computed.
   *
   * @throws {WeightsError} If the input is another, or an output is missing, with those that were found.
   */
  expect(input: string, wanted: readonly string[]): void {
    if (this.inputs.length !== 1 || this.inputs[0] !== input) {
      throw new WeightsError(
        `Cannot run ${this.name}: its only input must be ${input}: current inputs are ${this.inputs}`,
      );
    }
    const absent = wanted.filter((name) => !this.outputs.includes(name));
    if (absent.length) {
      throw new WeightsError(
        `Cannot run ${this.name}: it must give ${absent}: current outputs are ${this.outputs}`,
      );
    }
  }

  /**
   * Runs it on one input.
   *
   * @param input Its name; it must be the only one.
   * @param values Integers or floats, given in the type that the network wants.
   * @param wanted Outputs that must be there.
   * @throws {WeightsError} If names or shapes do not fit, with those that were found.
   */
  async run(
    input: string,
    { data, dims }: OnnxArray,
    wanted: readonly string[],
  ): Promise<Map<string, OnnxArray>> {
    this.expect(input, wanted);
    const type = this.#session.inputMetadata?.find((m) => m.name === input)
      ?.type ?? "float32";
    let value: Value | undefined;
    let found: Record<string, Value>;
    try {
      value = new this.#runtime.Tensor(type, typed(type, data), dims);
      found = await this.#session.run({ [input]: value }, wanted);
    } catch (cause) {
      throw new WeightsError(
        `Cannot run ${this.name}: ${input} [${dims}] of type ${type} must suit it: current error is ${
          (cause as Error).message ?? cause
        }`,
        { cause },
      );
    } finally {
      value?.dispose();
    }
    const out = new Map<string, OnnxArray>();
    for (const name of wanted) {
      const { dims, type } = found[name]!;
      const values = await found[name]!.getData();
      const halves = type === "float16" && values instanceof Uint16Array;
      out.set(name, {
        dims: [...dims],
        data: halves
          ? Float32Array.from(values, halfToNumber)
          : Float32Array.from(values),
      });
      found[name]!.dispose();
    }
    return out;
  }

  /** Frees it; calling it twice does no harm. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    void this.#session.release();
  }
}

let keeping = 0;
let kept: typeof Worker | undefined;

/**
 * Where `require` works, the package's first session puts Node's `Worker` in the place of the global one, which
 * programs need: Node's knows neither `onmessage` nor `addEventListener`.
 */
async function keepWorker<T>(run: () => Promise<T>): Promise<T> {
  if (keeping++ === 0) kept = globalThis.Worker;
  try {
    return await run();
  } finally {
    if (--keeping === 0 && kept) globalThis.Worker = kept;
  }
}

/** Whether a folder of a model holds an ONNX network. */
export async function hasOnnx(
  location: string | URL,
  folder: string,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<boolean> {
  try {
    await using _ = await openSource(
      joinLocation(location, `${folder}/model.onnx`),
      options,
    );
    return true;
  } catch (error) {
    if (isAbsent(error)) return false;
    throw error;
  }
}

/** Reads an ONNX file whole. */
export async function readOnnxFile(
  location: string | URL,
  path: string,
  options: { readonly signal?: AbortSignal | undefined },
): Promise<Uint8Array> {
  await using source = await openSource(joinLocation(location, path), options);
  if (source.size > MOST_BYTES) {
    throw new WeightsError(
      `Cannot read ${source.name}: an ONNX file must have at most ${MOST_BYTES} bytes here: current size is ${source.size}; use safetensors`,
    );
  }
  return await source.read(0, source.size, options);
}

/** Numbers in the array that a type of ONNX wants. */
function typed(type: string, data: ArrayLike<number>): ArrayBufferView {
  if (type === "int64") return BigInt64Array.from(Array.from(data, BigInt));
  if (type === "int32") return Int32Array.from(data);
  if (type === "float16") return toHalves(Float32Array.from(data));
  return Float32Array.from(data);
}
