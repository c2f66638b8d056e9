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
  checkGroups,
  type CopyRange,
  type Dispatch,
  expectAlive,
  expectData,
  expectRange,
  expectReadable,
  type Floats,
  type Kernel,
  type KernelFamily,
  type MemoryUse,
  type PlannedKernel,
  type Recorder,
  sizeOf,
  type StageName,
  type StorageType,
  storedBytes,
  Tensor,
  type Work,
} from "./backend.ts";
import { Compilers } from "./compilers.ts";
import { DeviceLostError, DeviceMemoryError } from "./errors.ts";
import { chooseFamily, type KernelChoice } from "./family.ts";
import {
  type MatrixInfo,
  type MatrixUnits,
  matrixUnits,
} from "./matrix_units.ts";
import { type Compiled, Pipelines } from "./pipelines.ts";
import { checkTensorBytes, Pool } from "./pool.ts";
import { Recording } from "./recording.ts";
import { StageTextures } from "./stage_textures.ts";
import { prefersHalfTiles, type TileTimes, tileTimes } from "./tile_times.ts";

const UNIFORM_STEP = 256; // minUniformBufferOffsetAlignment's default
const UNIFORM_SLOTS = 2048;
/** What was measured in this process or worker, by adapter. */
const measured = new Map<string, Promise<TileTimes | undefined>>();
/** Runs that are submitted together: a GPU computes while the next ones are recorded; a processor has to do both. */
const SUBMITTED = { software: UNIFORM_SLOTS, gpu: 128 } as const;
const WRITTEN_BYTES = 32 * 2 ** 20; // staged by the runtime until something is submitted

/** One kernel run, ready to be recorded. */
interface Run {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly buffers: readonly GPUBuffer[];
  readonly groups: Dispatch["groups"];
}

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
  readonly matrix: MatrixUnits | undefined;
  /** See `Backend`. */
  halfProducts = false;
  /** See `Backend`. */
  halfTiles = false;
  /** What `halfTiles` was chosen by, where it was measured. */
  tileTimes: TileTimes | undefined = undefined;
  /** See `Backend`. */
  tape: Recorder | undefined = undefined;
  /** See `Backend`. */
  readonly maxTensorBytes: number;
  /** Aborts when the device is lost. */
  readonly lost: AbortSignal;
  readonly #device: GPUDevice;
  readonly #pipelines: Pipelines;
  readonly #groups = new Map<string, GPUBindGroup>();
  readonly #pool: Pool<GPUBuffer>;
  readonly #stages: StageTextures;
  readonly #touched = new Set<GPUBuffer>();
  /** Pipelines that other devices compile; see `prepare`. */
  readonly #later: Compiled[] = [];
  #compilers: Compilers | undefined;
  readonly #uniforms: GPUBuffer;
  readonly #uniformBytes = new ArrayBuffer(UNIFORM_STEP * UNIFORM_SLOTS);
  readonly #uniformView = new DataView(this.#uniformBytes);
  readonly #uniformArray = new Uint8Array(this.#uniformBytes);
  readonly #lost = new AbortController();
  #slot = 0;
  #written = 0;
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  #recording: Recording<GPUBuffer> | undefined;
  /** How often buffers or textures that may be bound have been let go. */
  #era = 0;
  #error: Error | undefined;

  private constructor(
    adapter: OpenedAdapter,
    device: GPUDevice,
    family: KernelFamily,
    matrix: MatrixUnits | undefined,
  ) {
    this.adapter = adapter;
    this.family = family;
    this.matrix = matrix;
    this.#device = device;
    const { description, device: name, vendor } = adapter.info;
    this.description = `${
      description || name || vendor
    } (${adapter.choice}, ${adapter.runtime})`;
    const { maxStorageBufferBindingSize, maxBufferSize } = device.limits;
    this.maxTensorBytes = Math.min(maxStorageBufferBindingSize, maxBufferSize);
    const letGo = (): void => {
      this.flush();
      this.#era++;
      this.#groups.clear(); // they hold on to buffers and textures
    };
    this.#pool = new Pool({
      create: (size) =>
        device.createBuffer({
          size,
          usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC |
            GPUBufferUsage.COPY_DST,
        }),
      destroy: (buffer) => buffer.destroy(),
      beforeTrim: letGo,
    });
    this.#pipelines = new Pipelines(device);
    if (adapter.info.isFallbackAdapter) this.#compilers = new Compilers();
    this.#stages = new StageTextures({
      device,
      pool: this.#pool,
      beforeResize: letGo,
      encoder: () => this.#outsidePass(),
    });
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
   * @param options.kernels Which kernels run; `auto`, the default, goes by the adapter. `matrix` needs Dawn.
   * @throws {NoDeviceError} If there is no adapter, or one that cannot run the kernels.
   */
  static async open(
    options: {
      device?: DeviceChoice | undefined;
      kernels?: KernelChoice | undefined;
    } = {},
  ): Promise<WebGpu> {
    const { kernels } = options;
    const wanted = kernels === "matrix";
    const device = options.device ?? (wanted ? "dawn" : undefined);
    const opened = await openAdapter({
      ...device ? { device } : {},
      matrix: wanted,
    });
    const { family } = chooseFamily(opened.info, kernels);
    const units = wanted
      ? matrixUnits(
        opened.features,
        opened.adapter.info as MatrixInfo,
        opened.limits["maxComputeWorkgroupStorageSize"] ?? 0,
        `${opened.info.description} (${opened.choice})`,
      )
      : undefined;
    return new WebGpu(opened, await requestDevice(opened), family, units);
  }

  /** See `Backend`: chooses tiles on GPUs. */
  async tuneFor(weights: StorageType): Promise<void> {
    // Processors that are made to run these kernels need not do so fast.
    const { isFallbackAdapter } = this.adapter.info;
    if (weights === "f16" && this.family === "gpu" && !isFallbackAdapter) {
      await this.chooseTiles();
    }
  }

  /**
   * Sets `halfTiles` to what is faster in the gpu family, measured once per adapter and process, or worker, on a
   * device of its own; it stays false without shader-f16, or where such kernels do not run.
   *
   * @param size Rows, columns and terms of the product that is timed.
   */
  async chooseTiles(size?: readonly [number, number, number]): Promise<void> {
    if (!this.adapter.features.includes("shader-f16")) return;
    const key = JSON.stringify([this.adapter.choice, this.adapter.info]);
    let found = measured.get(key);
    if (!found) measured.set(key, found = this.#measureTiles(size));
    this.tileTimes = await found;
    this.halfTiles = this.tileTimes !== undefined &&
      prefersHalfTiles(this.tileTimes);
  }

  async #measureTiles(
    size?: readonly [number, number, number],
  ): Promise<TileTimes | undefined> {
    try {
      const device = await requestDevice(this.adapter);
      using own = new WebGpu(this.adapter, device, this.family, undefined);
      return await tileTimes(own, size);
    } catch {
      return undefined;
    }
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
    this.#recording?.took(buffer, bytes);
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
    const recording = this.#recording;
    if (recording?.made(tensor)) {
      const constant = bytes.slice();
      recording.runs.push(() => this.#enqueue(buffer, constant, first));
    } else recording?.spoil();
    this.#enqueue(buffer, bytes, first);
  }

  #enqueue(
    buffer: GPUBuffer,
    bytes: Float32Array | Uint16Array,
    first: number,
  ): void {
    this.#stages.forget(buffer);
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
    // Dawn warns of runs on nothing, and its users' drivers compile at once.
    if (this.adapter.choice === "dawn") {
      await this.#pipelines.prepare(kernels);
      return;
    }
    const [own, theirs] = await this.#compilers?.share(kernels, async () => {
      const device = await requestDevice(this.adapter);
      const compiler = new WebGpu(this.adapter, device, this.family, undefined);
      compiler.#compilers = undefined;
      return compiler;
    }) ?? [kernels, []];
    this.#warmUp(await this.#pipelines.prepare(own));
    this.#later.push(...await this.#pipelines.prepare(theirs));
  }

  /** Takes what other devices compiled from the driver's cache, or compiles it if there is none. */
  async #gather(): Promise<void> {
    await this.#compilers?.done();
    this.#warmUp(this.#later.splice(0));
  }

  /** Runs pipelines on no workgroup at all: some drivers compile only then, in a thread of their own. */
  #warmUp(made: readonly Compiled[]): void {
    if (!made.length) return;
    const most = Math.max(...made.map(({ kernel }) => kernel.bindings.length));
    const buffers = Array.from({ length: most }, () => this.#pool.take(16));
    for (const { kernel } of made) this.#stages.need(kernel.bindings);
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
    const fill = this.#stages.fill(name, from, first, count);
    if (!fill) return;
    const buffer = from.storage as GPUBuffer;
    this.#do([from], () => {
      fill();
      this.#touched.add(buffer);
    });
  }

  /** See `Backend`. */
  copy(from: Tensor, to: Tensor, range: CopyRange): void {
    expectRange(from, to, range);
    const source = from.storage as GPUBuffer;
    const target = to.storage as GPUBuffer;
    this.#stages.forget(target);
    const { first, at, count } = range;
    this.#do([from, to], () => this.#copy(source, target, first, at, count));
  }

  #copy(
    from: GPUBuffer,
    to: GPUBuffer,
    first: number,
    at: number,
    count: number,
  ): void {
    this.#outsidePass().copyBufferToBuffer(
      from,
      4 * first,
      to,
      4 * at,
      4 * count,
    );
    this.#touched.add(from).add(to);
  }

  /** Does something, now and whenever what is being recorded is repeated. */
  #do(tensors: readonly Tensor[], run: () => void): void {
    this.#recording?.uses(tensors);
    this.#recording?.runs.push(run);
    run();
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
    checkGroups(kernel.name, groups);
    const pipeline = this.#pipelines.get(kernel, constants);
    const offset = this.#takeSlot();
    let at = offset;
    for (const [field, float] of this.#pipelines.params(kernel)) {
      const value = params[field];
      if (value === undefined) {
        throw new RangeError(
          `Cannot run ${kernel.name}: param "${field}" must be given`,
        );
      }
      if (float) this.#uniformView.setFloat32(at, value, true);
      else this.#uniformView.setUint32(at, value, true);
      at += 4;
    }
    expectAlive(kernel, bind);
    const buffers = bind.map((x) => x.storage as GPUBuffer);
    for (let i = 0; i < buffers.length; i++) {
      if (kernel.bindings[i] === "w") this.#stages.forget(buffers[i]!);
    }
    const group = this.#group(kernel.bindings, buffers);
    const run = { pipeline, group, buffers, groups };
    if (this.#recording) {
      const params = new Uint8Array(this.#uniformBytes.slice(offset, at));
      this.#recording.uses(bind);
      this.#recording.runs.push(() => {
        const slot = this.#takeSlot();
        this.#uniformArray.set(params, slot);
        this.#encode(run, slot);
      });
    }
    this.#encode(run, offset);
  }

  /** Where the params of the next run lie among the uniforms, in bytes. */
  #takeSlot(): number {
    if (this.#slot === SUBMITTED[this.family]) this.flush();
    return UNIFORM_STEP * this.#slot++;
  }

  #encode({ pipeline, group, buffers, groups }: Run, offset: number): void {
    for (const buffer of buffers) this.#touched.add(buffer);
    this.#encoder ??= this.#device.createCommandEncoder();
    this.#pass ??= this.#encoder.beginComputePass();
    this.#pass.setPipeline(pipeline);
    this.#pass.setBindGroup(0, group, [offset]);
    this.#pass.dispatchWorkgroups(...groups);
  }

  /** See `Backend`. */
  repeated(work: Work): Work {
    let known: Recording<GPUBuffer> | undefined;
    return (inputs) => {
      if (this.tape || this.#pool.repeating) return work(inputs);
      for (const x of inputs) expectReadable(x);
      return this.#pool.repeat(() => {
        if (known?.era === this.#era && known.fits(inputs, this.#pool)) {
          return this.#repeat(known, inputs);
        }
        const { recording, results } = this.#record(work, inputs);
        known = recording;
        return results;
      });
    };
  }

  #record(work: Work, inputs: readonly Tensor[]): {
    recording: Recording<GPUBuffer> | undefined;
    results: readonly Tensor[];
  } {
    const recording = new Recording<GPUBuffer>(this.#era);
    this.#recording = recording;
    this.#stages.forgetAll(); // it has to fill them by itself
    const own: Tensor[] = [];
    try {
      for (const x of inputs) {
        const copy = this.alloc(x.shape);
        own.push(copy);
        this.#copyInput(x, copy.storage as GPUBuffer);
      }
      const results = work(own);
      const copies = own.splice(0);
      for (const x of copies) x.dispose();
      const whole = recording.end(copies, results) &&
        recording.era === this.#era;
      return { recording: whole ? recording : undefined, results };
    } finally {
      this.#recording = undefined;
      for (const x of own) x.dispose();
    }
  }

  #repeat(
    { runs, inputs: own, results, mostBytes }: Recording<GPUBuffer>,
    inputs: readonly Tensor[],
  ): readonly Tensor[] {
    this.#pool.claim(results, mostBytes);
    inputs.forEach((x, i) => this.#copyInput(x, own[i]!));
    for (const run of runs) run();
    this.#stages.forgetAll();
    return results.map(({ shape, buffer, bytes, type }) =>
      new Tensor(this, shape, buffer, bytes, type)
    );
  }

  #copyInput(from: Tensor, to: GPUBuffer): void {
    this.#copy(from.storage as GPUBuffer, to, 0, 0, from.size);
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
      await this.#gather();
      await staging.mapAsync(GPUMapMode.READ).catch(async (cause) => {
        await new Promise((resolve) => setTimeout(resolve)); // the event with the reason comes later
        // Without one the device is gone, though not every runtime says so itself.
        if (!this.#error) this.#lose(`mapping failed: ${cause}`);
      });
      // Pending scopes first: they say why, a lost device only that.
      await this.#pipelines.settled();
      const error = this.#pipelines.error ?? this.#error;
      if (error instanceof DeviceMemoryError) {
        // Something smaller may fit: once this is told, the backend goes on.
        this.#error = undefined;
        this.#stages.free();
        this.#pool.distrust();
      }
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
    this.#recording?.gave(storage);
    this.#pool.give(storage as GPUBuffer, bytes);
  }

  /** Frees the device and all it holds. */
  [Symbol.dispose](): void {
    this.#compilers?.[Symbol.dispose]();
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

  /**
   * The bind group of these buffers, made once: the pool hands out the same buffers step after step.
   * A group that is made anew for each dispatch lives until the garbage collector runs, which does
   * not see what it costs; on lavapipe that is a memory mapping, and a process has 65,530.
   */
  #group(bindings: string, buffers: readonly GPUBuffer[]): GPUBindGroup {
    let key = bindings;
    for (let i = 0; i < buffers.length; i++) {
      key += StageTextures.has(bindings[i]!)
        ? " -"
        : ` ${this.#pool.id(buffers[i]!)}`;
    }
    let group = this.#groups.get(key);
    if (!group) {
      const entries: GPUBindGroupEntry[] = buffers.map((buffer, binding) => ({
        binding,
        resource: this.#stages.view(bindings[binding]!) ?? { buffer },
      }));
      entries.push({
        binding: buffers.length,
        resource: { buffer: this.#uniforms, size: UNIFORM_STEP },
      });
      group = this.#device.createBindGroup({
        layout: this.#pipelines.layout(bindings),
        entries,
      });
      this.#groups.set(key, group);
    }
    return group;
  }
}
