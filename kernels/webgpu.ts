/**
 * The `webgpu` backend: kernels run as WGSL on the device of `adapter.ts`.
 *
 * Dispatches go into one open compute pass; `flush` submits it, `read` flushes, waits once and
 * checks for errors and device loss before it hands out numbers.
 */
import {
  type DeviceChoice,
  openAdapter,
  type OpenedAdapter,
  requestDevice,
} from "./adapter.ts";
import {
  type Backend,
  type Dispatch,
  expectData,
  expectReadable,
  type Floats,
  type Kernel,
  type KernelFamily,
  type MemoryUse,
  type Params,
  type PlannedKernel,
  type Recorder,
  sizeOf,
  STAGE_SIZE,
  type StageName,
  type StorageType,
  storedBytes,
  Tensor,
} from "./backend.ts";
import { DeviceLostError, DeviceMemoryError } from "./errors.ts";
import { chooseFamily, type KernelChoice } from "./family.ts";
import {
  checkTensorBytes,
  Pool,
  STAGE_ROW,
  type StageKey,
  Stages,
} from "./pool.ts";

/** Formats of stages. */
const TEXELS = { f32: "rgba32float", f16: "rgba16float" } as const;
/**
 * A stage, as storage that is only read: lavapipe fetches that in half the instructions of a sampled texture,
 * whose level of detail it works out for each lane.
 */
const stageOf = (type: StorageType): Partial<GPUBindGroupLayoutEntry> => ({
  storageTexture: { access: "read-only", format: TEXELS[type] },
});
/** What a letter of `Kernel.bindings` is to a device. */
const ACCESS = {
  r: { buffer: { type: "read-only-storage" } },
  w: { buffer: { type: "storage" } },
  a: stageOf("f32"),
  b: stageOf("f32"),
  h: stageOf("f16"),
} as const;
/** Part of a buffer that was copied to a stage. */
interface Staged {
  readonly buffer: GPUBuffer;
  readonly first: number;
  readonly count: number;
}
/** Letters that are stages. */
const STAGED: Readonly<Record<string, StageKey>> = {
  a: "a f32",
  b: "b f32",
  h: "a f16",
};
const UNIFORM_STEP = 256; // minUniformBufferOffsetAlignment's default
const UNIFORM_SLOTS = 2048;
/** Runs that are submitted together: a GPU computes while the next ones are recorded; a processor has to do both. */
const SUBMITTED = { software: UNIFORM_SLOTS, gpu: 128 } as const;
const WRITTEN_BYTES = 32 * 2 ** 20; // staged by the runtime until something is submitted

/** Runs the WGSL of the kernels. */
export class WebGpu implements Backend {
  /** See `Backend`. */
  readonly kind = "webgpu";
  /** See `Backend`. */
  readonly description: string;
  /** See `Backend`. */
  readonly family: KernelFamily;
  /** What the adapter said about itself. */
  readonly adapter: OpenedAdapter;
  /** See `Backend`. */
  tape: Recorder | undefined = undefined;
  /** See `Backend`. */
  readonly maxTensorBytes: number;
  /** Aborts when the device is lost. */
  readonly lost: AbortSignal;
  readonly #device: GPUDevice;
  readonly #pipelines = new Map<string, GPUComputePipeline>();
  readonly #groups = new Map<string, GPUBindGroup>();
  readonly #layouts = new Map<string, GPUBindGroupLayout>();
  readonly #pool: Pool<GPUBuffer>;
  readonly #stages: Stages<GPUBuffer>;
  readonly #textures = new Map<StageKey, GPUTexture>();
  readonly #views = new Map<StageKey, GPUTextureView>();
  /** What a stage still holds a copy of. */
  readonly #staged = new Map<StageKey, Staged>();
  readonly #touched = new Set<GPUBuffer>();
  readonly #uniforms: GPUBuffer;
  readonly #uniformBytes = new ArrayBuffer(UNIFORM_STEP * UNIFORM_SLOTS);
  readonly #uniformView = new DataView(this.#uniformBytes);
  readonly #lost = new AbortController();
  #slot = 0;
  #written = 0;
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  #checks: Promise<void>[] = [];
  #error: Error | undefined;
  #compileError: Error | undefined;

  private constructor(
    adapter: OpenedAdapter,
    device: GPUDevice,
    family: KernelFamily,
  ) {
    this.adapter = adapter;
    this.family = family;
    this.#device = device;
    const { description, device: name, vendor } = adapter.info;
    this.description = `${
      description || name || vendor
    } (${adapter.choice}, ${adapter.runtime})`;
    const { maxStorageBufferBindingSize, maxBufferSize } = device.limits;
    this.maxTensorBytes = Math.min(maxStorageBufferBindingSize, maxBufferSize);
    this.#pool = new Pool({
      create: (size) =>
        device.createBuffer({
          size,
          usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC |
            GPUBufferUsage.COPY_DST,
        }),
      destroy: (buffer) => buffer.destroy(),
      beforeTrim: () => {
        this.flush();
        this.#groups.clear(); // they hold on to the buffers
      },
    });
    this.#stages = new Stages(
      this.#pool,
      (key, rows) => this.#resizeStage(key, rows),
    );
    this.#uniforms = device.createBuffer({
      label: "params",
      size: this.#uniformBytes.byteLength,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
    this.lost = this.#lost.signal;
    device.lost.then((info) => this.#lose(info.message));
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      this.#fail((event as GPUUncapturedErrorEvent).error);
    });
  }

  /**
   * Opens a device.
   *
   * @param options.device `native` is the runtime's own WebGPU, `dawn` the npm package `webgpu`.
   * @param options.kernels Which kernels run; `auto`, the default, goes by the adapter.
   * @throws {NoDeviceError} If there is no adapter, or one that cannot run the kernels.
   */
  static async open(
    options: {
      device?: DeviceChoice | undefined;
      kernels?: KernelChoice | undefined;
    } = {},
  ): Promise<WebGpu> {
    const adapter = await openAdapter(
      options.device ? { device: options.device } : {},
    );
    const { family } = chooseFamily(adapter.info, options.kernels);
    return new WebGpu(adapter, await requestDevice(adapter), family);
  }

  /** How many bind groups are kept; it stops growing once steps repeat. */
  get bindGroups(): number {
    return this.#groups.size;
  }

  /** See `Backend`. */
  get memory(): MemoryUse {
    return this.#pool.memory;
  }

  /** See `Backend`. */
  resetPeak(): void {
    this.#pool.resetPeak();
  }

  /** See `Backend`. */
  alloc(shape: readonly number[], type: StorageType = "f32"): Tensor {
    const size = storedBytes(shape, type);
    checkTensorBytes(shape, size, this.maxTensorBytes);
    const { buffer, bytes } = this.#pool.take(size);
    return new Tensor(this, [...shape], buffer, bytes, type);
  }

  /** See `Backend`. */
  upload(data: Floats | readonly number[], shape: readonly number[]): Tensor {
    if (data.length !== sizeOf(shape)) {
      throw new RangeError(
        `Cannot upload [${shape}]: data must hold ${
          sizeOf(shape)
        } numbers: current ${data.length}`,
      );
    }
    const tensor = this.alloc(shape);
    this.write(
      tensor,
      data instanceof Float32Array ? data : Float32Array.from(data),
    );
    return tensor;
  }

  /** See `Backend`. */
  write(tensor: Tensor, data: Floats, first?: number): void {
    expectData(tensor, data.length, "f32", first);
    this.#put(
      tensor,
      data instanceof Float32Array ? data : new Float32Array(data),
      first,
    );
  }

  /** See `Backend`. */
  writeHalf(tensor: Tensor, bits: Uint16Array, first?: number): void {
    expectData(tensor, bits.length, "f16", first);
    const even = bits.length % 2 === 0;
    const padded = even ? bits : new Uint16Array(bits.length + 1);
    if (!even) padded.set(bits); // queues take multiples of 4 bytes
    this.#put(tensor, padded, first);
  }

  #put(tensor: Tensor, bytes: Float32Array | Uint16Array, first = 0): void {
    if (bytes.length === 0) return; // Deno's writeBuffer panics
    const buffer = tensor.storage as GPUBuffer;
    this.#unstage(buffer);
    // writeBuffer happens before what is recorded but not submitted.
    if (this.#touched.has(buffer)) this.flush();
    this.#device.queue.writeBuffer(
      buffer,
      first * bytes.BYTES_PER_ELEMENT,
      bytes as Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>,
    );
    this.#written += bytes.byteLength;
    if (this.#written > WRITTEN_BYTES) {
      this.flush();
      this.#device.queue.submit([]);
      this.#written = 0;
    }
  }

  /** See `Backend`. */
  async prepare(kernels: readonly PlannedKernel[]): Promise<void> {
    const made = await Promise.all(
      kernels.map(async ({ kernel, constants }) => {
        const key = pipelineKey(kernel, constants);
        try {
          const pipeline = this.#pipelines.get(key) ??
            await this.#device.createComputePipelineAsync(
              this.#describe(kernel, constants),
            );
          this.#pipelines.set(key, pipeline);
          return { kernel, pipeline };
        } catch (error) {
          this.#failCompile(key, (error as Error).message);
          return undefined;
        }
      }),
    );
    // Dawn warns of runs on nothing, and its users' drivers compile at once.
    if (this.adapter.choice !== "dawn") {
      this.#warmUp(made.filter((x) => x !== undefined));
    }
  }

  /** Runs pipelines on no workgroup at all: some drivers compile only then, in a thread of their own. */
  #warmUp(
    made: readonly { kernel: Kernel; pipeline: GPUComputePipeline }[],
  ): void {
    const most = Math.max(...made.map(({ kernel }) => kernel.bindings.length));
    const buffers = Array.from({ length: most }, () => this.#pool.take(16));
    for (const { kernel } of made) {
      for (const key of stageKeys(kernel.bindings)) {
        const [name, type] = key.split(" ") as [StageName, StorageType];
        this.#stages.fit(name, type, 4);
      }
    }
    const encoder = this.#device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const { kernel: { bindings }, pipeline } of made) {
      pass.setPipeline(pipeline);
      const bound = buffers.slice(0, bindings.length).map((b) => b.buffer);
      pass.setBindGroup(0, this.#group(bindings, bound), [0]);
      pass.dispatchWorkgroups(0);
    }
    pass.end();
    this.#device.queue.submit([encoder.finish()]);
    for (const { buffer, bytes } of buffers) this.#pool.give(buffer, bytes);
  }

  /** See `Backend`. */
  stage(name: StageName, from: Tensor, first: number, count: number): void {
    const most = STAGE_SIZE[from.type];
    if (count > most) {
      throw new RangeError(
        `Cannot stage [${from.shape}]: at most ${most} numbers fit: current ${count}`,
      );
    }
    const key: StageKey = `${name} ${from.type}`;
    this.#stages.fit(name, from.type, count);
    const texture = this.#textures.get(key)!;
    const bytes = from.type === "f16" ? 2 : 4;
    const buffer = from.storage as GPUBuffer;
    const held = this.#staged.get(key);
    if (
      held?.buffer === buffer && held.first === first && held.count >= count
    ) {
      return;
    }
    this.#staged.set(key, { buffer, first, count });
    this.#touched.add(buffer);
    const texels = Math.ceil(count / 4);
    const rows = Math.floor(texels / STAGE_ROW.used);
    const encoder = this.#outsidePass();
    // Whole rows, then what is left.
    for (
      const [y, width, height] of [
        [0, STAGE_ROW.used, rows],
        [rows, texels % STAGE_ROW.used, 1],
      ] as const
    ) {
      if (!(width && height)) continue;
      encoder.copyBufferToTexture(
        {
          buffer,
          offset: bytes * (first + 4 * STAGE_ROW.used * y),
          bytesPerRow: 4 * bytes * STAGE_ROW.used,
        },
        { texture, origin: [0, y] },
        [width, height],
      );
    }
  }

  /** A buffer gets new numbers: copies of it are old. */
  #unstage(buffer: GPUBuffer): void {
    for (const [key, held] of this.#staged) {
      if (held.buffer === buffer) this.#staged.delete(key);
    }
  }

  #resizeStage(key: StageKey, rows: number): void {
    this.flush();
    this.#groups.clear(); // some hold on to the texture
    this.#staged.delete(key);
    this.#textures.get(key)?.destroy();
    this.#textures.delete(key);
    this.#views.delete(key);
    if (rows === 0) return;
    const texture = this.#device.createTexture({
      label: `stage ${key}`,
      size: [STAGE_ROW.all, rows],
      format: TEXELS[key.endsWith("f16") ? "f16" : "f32"],
      usage: GPUTextureUsage.COPY_DST | GPUTextureUsage.STORAGE_BINDING,
    });
    this.#textures.set(key, texture);
    this.#views.set(key, texture.createView());
  }

  /** The encoder, where copies may go. */
  #outsidePass(): GPUCommandEncoder {
    this.#pass?.end();
    this.#pass = undefined;
    return this.#encoder ??= this.#device.createCommandEncoder();
  }

  /** See `Backend`. */
  dispatch(
    kernel: Kernel,
    { bind, params, constants = {}, groups }: Dispatch,
  ): void {
    if (bind.length !== kernel.bindings.length) {
      throw new RangeError(
        `Cannot run ${kernel.name}: it binds ${kernel.bindings.length} tensors: current ${bind.length}`,
      );
    }
    const pipeline = this.#pipeline(kernel, constants);
    if (this.#slot === SUBMITTED[this.family]) this.flush();
    const offset = UNIFORM_STEP * this.#slot++;
    kernel.params.forEach((field, i) => {
      const float = field.endsWith(":f");
      const value = params[float ? field.slice(0, -2) : field];
      if (value === undefined) {
        throw new RangeError(
          `Cannot run ${kernel.name}: param "${field}" must be given`,
        );
      }
      if (float) this.#uniformView.setFloat32(offset + 4 * i, value, true);
      else this.#uniformView.setUint32(offset + 4 * i, value, true);
    });
    bind.forEach((x, binding) => {
      if (x.disposed) {
        throw new RangeError(
          `Cannot run ${kernel.name}: binding ${binding} [${x.shape}] must be alive`,
        );
      }
      this.#touched.add(x.storage as GPUBuffer);
      if (kernel.bindings[binding] === "w") {
        this.#unstage(x.storage as GPUBuffer);
      }
    });
    const group = this.#group(
      kernel.bindings,
      bind.map((x) => x.storage as GPUBuffer),
    );
    this.#encoder ??= this.#device.createCommandEncoder();
    this.#pass ??= this.#encoder.beginComputePass();
    this.#pass.setPipeline(pipeline);
    this.#pass.setBindGroup(0, group, [offset]);
    this.#pass.dispatchWorkgroups(...groups);
  }

  /** See `Backend`. */
  flush(): void {
    if (!this.#encoder) return;
    this.#pass?.end();
    this.#device.queue.writeBuffer(
      this.#uniforms,
      0,
      this.#uniformBytes,
      0,
      UNIFORM_STEP * this.#slot,
    );
    this.#device.queue.submit([this.#encoder.finish()]);
    this.#encoder = this.#pass = undefined;
    this.#slot = 0;
    this.#touched.clear();
  }

  /** See `Backend`. */
  async read(
    tensors: readonly Tensor[],
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<Floats[]> {
    options.signal?.throwIfAborted();
    this.flush();
    const offsets: number[] = [];
    let total = 0;
    for (const x of tensors) {
      expectReadable(x);
      offsets.push(total);
      total += Math.ceil(x.size * 4 / 8) * 8;
    }
    const staging = this.#device.createBuffer({
      size: Math.max(8, total),
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    try {
      const encoder = this.#device.createCommandEncoder();
      tensors.forEach((x, i) => {
        if (x.size) {
          encoder.copyBufferToBuffer(
            x.storage as GPUBuffer,
            0,
            staging,
            offsets[i]!,
            x.size * 4,
          );
        }
      });
      this.#device.queue.submit([encoder.finish()]);
      await staging.mapAsync(GPUMapMode.READ).catch(async (cause) => {
        await new Promise((resolve) => setTimeout(resolve)); // the event with the reason comes later
        // Without one the device is gone, though not every runtime says so itself.
        if (!this.#error) this.#lose(`mapping failed: ${cause}`);
      });
      // Pending scopes first: they say why, a lost device only that.
      await Promise.all(this.#checks.splice(0));
      const error = this.#compileError ?? this.#error;
      if (error) throw error;
      this.lost.throwIfAborted();
      options.signal?.throwIfAborted();
      const bytes = staging.getMappedRange().slice(0);
      return tensors.map((x, i) =>
        new Float32Array(bytes, offsets[i]!, x.size)
      );
    } finally {
      staging.destroy();
    }
  }

  /** See `Backend`. */
  trim(): void {
    this.#stages.free();
    this.#pool.trim();
  }

  /** See `Backend`. */
  release(storage: unknown, bytes: number): void {
    this.#pool.give(storage as GPUBuffer, bytes);
  }

  /** Frees the device and all it holds. */
  [Symbol.dispose](): void {
    this.trim();
    this.#uniforms.destroy();
    this.#device.destroy();
  }

  #lose(why: string): void {
    if (this.lost.aborted) return;
    this.#lost.abort(
      new DeviceLostError(
        `Cannot go on with ${this.description}: the device was lost: ${why}`,
      ),
    );
  }

  #fail(error: GPUError): void {
    const Kind = error.constructor.name === "GPUOutOfMemoryError"
      ? DeviceMemoryError
      : Error;
    this.#error ??= new Kind(
      `Cannot go on with ${this.description}: ${error.message}`,
    );
  }

  #layout(bindings: string): GPUBindGroupLayout {
    let layout = this.#layouts.get(bindings);
    if (!layout) {
      const entries: GPUBindGroupLayoutEntry[] = [...bindings].map((
        access,
        binding,
      ) => ({
        binding,
        visibility: GPUShaderStage.COMPUTE,
        ...ACCESS[access as keyof typeof ACCESS],
      }));
      entries.push({
        binding: bindings.length,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: "uniform", hasDynamicOffset: true },
      });
      layout = this.#device.createBindGroupLayout({ entries });
      this.#layouts.set(bindings, layout);
    }
    return layout;
  }

  /**
   * The bind group of these buffers, made once: the pool hands out the same buffers step after step.
   * A group that is made anew for each dispatch lives until the garbage collector runs, which does
   * not see what it costs; on lavapipe that is a memory mapping, and a process has 65,530.
   */
  #group(bindings: string, buffers: readonly GPUBuffer[]): GPUBindGroup {
    let key = bindings;
    for (const [i, buffer] of buffers.entries()) {
      key += STAGED[bindings[i]!] ? " -" : ` ${this.#pool.id(buffer)}`;
    }
    let group = this.#groups.get(key);
    if (!group) {
      const entries: GPUBindGroupEntry[] = buffers.map((buffer, binding) => ({
        binding,
        resource: this.#views.get(STAGED[bindings[binding]!]!) ?? { buffer },
      }));
      entries.push({
        binding: buffers.length,
        resource: { buffer: this.#uniforms, size: UNIFORM_STEP },
      });
      group = this.#device.createBindGroup({
        layout: this.#layout(bindings),
        entries,
      });
      this.#groups.set(key, group);
    }
    return group;
  }

  #pipeline(kernel: Kernel, constants: Params): GPUComputePipeline {
    const key = pipelineKey(kernel, constants);
    let pipeline = this.#pipelines.get(key);
    if (!pipeline) {
      this.#device.pushErrorScope("validation");
      pipeline = this.#device.createComputePipeline(
        this.#describe(kernel, constants),
      );
      this.#checks.push(
        this.#device.popErrorScope().then((error) => {
          if (error) this.#failCompile(key, error.message);
        }),
      );
      this.#pipelines.set(key, pipeline);
    }
    return pipeline;
  }

  #describe(kernel: Kernel, constants: Params): GPUComputePipelineDescriptor {
    return {
      label: pipelineKey(kernel, constants),
      layout: this.#device.createPipelineLayout({
        bindGroupLayouts: [this.#layout(kernel.bindings)],
      }),
      compute: {
        module: this.#device.createShaderModule({
          label: kernel.name,
          code: kernel.wgsl,
        }),
        entryPoint: "main",
        constants: { ...constants },
      },
    };
  }

  #failCompile(key: string, message: string): void {
    this.#compileError ??= new Error(`Cannot compile ${key}: ${message}`);
  }
}

function pipelineKey(kernel: Kernel, constants: Params): string {
  return `${kernel.name} ${JSON.stringify(constants)}`;
}

/** The stages that a kernel reads. */
function stageKeys(bindings: string): StageKey[] {
  return [...bindings].flatMap((letter) => STAGED[letter] ?? []);
}
