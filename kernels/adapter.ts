/**
 * From nothing to a `GPUDevice`: `navigator.gpu` of Deno or a browser
 * ("native"), or the npm package `webgpu` ("dawn") under Bun, Node and Deno.
 *
 * @module
 */

import { NoDeviceError } from "./errors.ts";
import { MATRIX_FEATURE, MATRIX_TOGGLES } from "./matrix_units.ts";

/** Which WebGPU implementation: the runtime's own `navigator.gpu`, or Dawn from npm. */
export type DeviceChoice = "native" | "dawn";

/** The program that runs us. */
export type RuntimeName = "deno" | "bun" | "node" | "browser";

/** What an adapter says about itself; fields it does not know are empty. */
export interface AdapterInfo {
  /** Maker, a name ("mesa") or a number ("65541"), as the implementation says it. */
  readonly vendor: string;
  /** Family of GPUs, often empty. */
  readonly architecture: string;
  /** Device name or number. */
  readonly device: string;
  /** The line for people, with the driver where it is known. */
  readonly description: string;
  /** True for software adapters (lavapipe, SwiftShader). */
  readonly isFallbackAdapter: boolean;
}

/** How to look for an adapter. */
export interface AdapterOptions {
  /** Default: "native" where `navigator.gpu` exists, else "dawn". */
  readonly device?: DeviceChoice;
  /** Default: "high-performance". */
  readonly powerPreference?: GPUPowerPreference;
  /** Ask Dawn for its experimental matrix units, too; see `matrixUnits`. Default false. */
  readonly matrix?: boolean;
  /** Cancels between the steps. */
  readonly signal?: AbortSignal;
}

/** An adapter that fulfils `checkLimits()`, and where it came from. */
export interface OpenedAdapter {
  /** The adapter itself; on Dawn it gives one device only, so use `requestDevice()`. */
  readonly adapter: GPUAdapter;
  /** The implementation that was taken. */
  readonly choice: DeviceChoice;
  /** The program that runs us. */
  readonly runtime: RuntimeName;
  /** Its version; in a browser the user agent. */
  readonly runtimeVersion: string;
  /** What the adapter says about itself. */
  readonly info: AdapterInfo;
  /** Every feature of the adapter, sorted. */
  readonly features: readonly string[];
  /** Every limit of the adapter. */
  readonly limits: Readonly<Record<string, number>>;
}

/** One line of `describeAdapters()`: an adapter, or why there is none. */
export type AdapterReport =
  | (Omit<OpenedAdapter, "adapter"> & { readonly found: true })
  | {
    readonly found: false;
    readonly choice: DeviceChoice;
    readonly reason: string;
  };

/** Version loaded by Deno when the importing project maps no `webgpu`; package.json says the same. */
const DAWN_VERSION = "0.6.2";

/** The least a device must offer, by WebGPU limit name: what the largest kernel uses. */
const NEEDED_LIMITS: Readonly<Record<string, number>> = {
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupStorageSize: 16 * 1024,
  maxStorageBuffersPerShaderStage: 8,
};

/** A device has the specification's small defaults unless asked for more: ask for these. */
const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxUniformBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupsPerDimension",
];

const WANTED_FEATURES = [
  "timestamp-query",
  "shader-f16",
  "subgroups",
  MATRIX_FEATURE,
];

/** Dawn adapters give one device each: which were used, and how to ask for another. */
const consumed = new WeakSet<GPUAdapter>();
const askedWith = new WeakMap<GPUAdapter, AdapterOptions>();

/**
 * Finds an adapter, hardware before software, and checks that it can run the kernels.
 *
 * @param options Which implementation and how; see {@link AdapterOptions}.
 * @returns The adapter and what is known about it. Nothing to dispose.
 * @throws {NoDeviceError} If there is none, or it is below `checkLimits()`; says what to install.
 *
 * @example Name the device
 * ```ts
 * import { openAdapter } from "./adapter.ts";
 *
 * const { info, choice } = await openAdapter();
 * console.error(`${info.description} through ${choice}`);
 * ```
 */
export async function openAdapter(
  options: AdapterOptions = {},
): Promise<OpenedAdapter> {
  const choice = options.device ?? (nativeGpu() ? "native" : "dawn");
  options.signal?.throwIfAborted();
  const gpu = choice === "dawn" ? await dawnGpu(options.matrix) : nativeGpu();
  const { runtime, runtimeVersion } = thisRuntime();
  if (!gpu) {
    throw new NoDeviceError(
      `Cannot open a native device: the runtime must have navigator.gpu: current ${runtime} ${runtimeVersion} has none; use the device "dawn", or Deno 2.9 or newer`,
    );
  }
  options.signal?.throwIfAborted();
  const adapter = await bestAdapter(
    gpu,
    options.powerPreference ?? "high-performance",
  );
  if (!adapter) {
    throw new NoDeviceError(
      `Cannot open a ${choice} device: a GPU driver must be installed: current system offers ${runtime} no adapter; ${
        driverRemedy(choice)
      }`,
    );
  }
  askedWith.set(adapter, { ...options, device: choice });
  const limits = readLimits(adapter);
  const info = readInfo(adapter);
  checkLimits(limits, info.description || choice);
  const features = [...adapter.features].sort();
  return { adapter, choice, runtime, runtimeVersion, info, features, limits };
}

/**
 * Opens a device with the adapter's own limits instead of the small defaults.
 * May be called more than once with the same adapter, also on Dawn.
 *
 * @param opened From `openAdapter()`.
 * @param options `features`: taken if the adapter has them; by default timestamp-query, shader-f16 and, on Dawn only, subgroups and, with `matrix`, matrix units.
 * @returns The device. The caller destroys it.
 * @throws {NoDeviceError} If the adapter refuses.
 */
export async function requestDevice(
  opened: OpenedAdapter,
  options: {
    readonly features?: readonly string[];
    readonly signal?: AbortSignal;
  } = {},
): Promise<GPUDevice> {
  options.signal?.throwIfAborted();
  let { adapter } = opened;
  if (opened.choice === "dawn" && consumed.has(adapter)) {
    ({ adapter } = await openAdapter(askedWith.get(adapter) ?? {}));
  }
  consumed.add(adapter);
  const requiredLimits: Record<string, number> = {};
  for (const name of WANTED_LIMITS) {
    const limit = opened.limits[name];
    if (limit !== undefined) requiredLimits[name] = limit;
  }
  const requiredFeatures = (options.features ?? WANTED_FEATURES).filter((
    name,
  ): name is GPUFeatureName =>
    // Deno's compiler rejects `enable subgroups;` whatever the adapter lists
    adapter.features.has(name as GPUFeatureName) &&
    (name !== "subgroups" || opened.choice === "dawn")
  );
  try {
    return await adapter.requestDevice({ requiredFeatures, requiredLimits });
  } catch (cause) {
    throw new NoDeviceError(
      `Cannot open a device on ${
        opened.info.description || opened.choice
      }: the adapter must grant its own limits: current answer is ${
        messageOf(cause)
      }`,
      { cause },
    );
  }
}

/**
 * Compares an adapter with the least the kernels need: 256 invocations, 16 KiB
 * workgroup storage, 8 storage buffers.
 *
 * @param limits Limits by WebGPU name.
 * @param where The adapter, for the message.
 * @throws {NoDeviceError} If a limit is too small or missing; names it.
 */
export function checkLimits(
  limits: Readonly<Record<string, number>>,
  where: string,
): void {
  for (const [name, least] of Object.entries(NEEDED_LIMITS)) {
    const limit = limits[name];
    if (limit === undefined || limit < least) {
      throw new NoDeviceError(
        `Cannot use ${where}: ${name} must be at least ${least}: current ${limit}; choose another device or the cpu backend`,
      );
    }
  }
}

/**
 * Tries both implementations, one after the other, for `winwinlay doctor`.
 *
 * @returns "native" first, then "dawn": what was found, or why it is missing. Never rejects.
 */
export async function describeAdapters(): Promise<AdapterReport[]> {
  const reports: AdapterReport[] = [];
  for (const choice of ["native", "dawn"] as const) {
    try {
      const { adapter: _, ...rest } = await openAdapter({ device: choice });
      reports.push({ found: true, ...rest });
    } catch (error) {
      reports.push({ found: false, choice, reason: messageOf(error) });
    }
  }
  return reports;
}

function nativeGpu(): GPU | undefined {
  return (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
}

/** Hardware before software: a laptop may list either first, whatever it is asked for. */
async function bestAdapter(
  gpu: GPU,
  powerPreference: GPUPowerPreference,
): Promise<GPUAdapter | null> {
  let fallback: GPUAdapter | null = null;
  const other = powerPreference === "low-power"
    ? "high-performance"
    : "low-power";
  for (const preference of [powerPreference, other] as const) {
    const adapter = await gpu.requestAdapter({ powerPreference: preference });
    if (adapter && !readInfo(adapter).isFallbackAdapter) return adapter;
    fallback ??= adapter;
  }
  return fallback;
}

function readInfo(adapter: GPUAdapter): AdapterInfo {
  const { vendor, architecture, device, description } = adapter.info;
  // Older implementations have it on the adapter
  const old = adapter as { isFallbackAdapter?: boolean };
  const isFallbackAdapter = adapter.info.isFallbackAdapter ??
    old.isFallbackAdapter ?? false;
  return { vendor, architecture, device, description, isFallbackAdapter };
}

/** Limits are getters of a prototype, which neither spread nor JSON sees. */
function readLimits(adapter: GPUAdapter): Record<string, number> {
  const limits: Record<string, number> = {};
  const source = adapter.limits as unknown as Record<string, unknown>;
  for (const name in source) {
    const value = source[name];
    // wgpu says 2^64 - 1 for "no limit"; requiredLimits takes safe integers only
    if (typeof value === "number") {
      limits[name] = Math.min(value, Number.MAX_SAFE_INTEGER);
    }
  }
  return limits;
}

/** The part of npm `webgpu` that we use. */
interface Dawn {
  create(flags: string[]): GPU;
  globals: Record<string, unknown>;
}

/**
 * Dawn's `GPU` object, one per process, and one more with matrix units. The global reference is what keeps it
 * alive: Bun's collector frees an instance that only its device refers to, and
 * the process then crashes within a second.
 */
async function dawnGpu(matrix = false): Promise<GPU> {
  const held = globalThis as unknown as Record<symbol, GPU | undefined>;
  const key = Symbol.for(`winwinlay.dawn${matrix ? ".matrix" : ""}`);
  const known = held[key];
  if (known) return known;
  const { create, globals } = await importDawn();
  const target = globalThis as unknown as Record<string, unknown>;
  for (const [name, value] of Object.entries(globals)) target[name] ??= value;
  if (thisRuntime().runtime === "deno") pollSlowly();
  return held[key] ??= create(matrix ? [...MATRIX_TOGGLES] : []);
}

/**
 * Makes Dawn ask for news once a millisecond. It asks through `setImmediate`, about 20,000 times a
 * second, with a new native function each time, and Deno's cost of collecting those grows with the
 * square of their number: a wait of seconds is followed by minutes of collection.
 */
function pollSlowly(): void {
  type Task = (...args: unknown[]) => void;
  const host = globalThis as unknown as {
    setImmediate: (task: Task, ...args: unknown[]) => unknown;
  };
  const { setImmediate } = host;
  host.setImmediate = (task, ...args) =>
    /\{\s*\[native code\]\s*\}$/.test(Function.prototype.toString.call(task))
      ? setTimeout(task, 1, ...args)
      : setImmediate(task, ...args);
}

async function importDawn(): Promise<Dawn> {
  const { runtime } = thisRuntime();
  if (runtime === "browser") {
    throw new NoDeviceError(
      `Cannot load Dawn: the runtime must be Deno, Bun or Node: current is a browser; use the device "native"`,
    );
  }
  // In variables, so that no bundler or import map resolves them ahead of time
  const names = ["webgpu"];
  if (runtime === "deno") names.push(`npm:webgpu@${DAWN_VERSION}`);
  const causes: unknown[] = [];
  for (const name of names) {
    try {
      return await import(name) as Dawn;
    } catch (cause) {
      causes.push(cause);
    }
  }
  const install = runtime === "bun"
    ? `bun add webgpu@${DAWN_VERSION}`
    : `npm install webgpu@${DAWN_VERSION}`;
  throw new NoDeviceError(
    `Cannot load Dawn: the npm package webgpu must be installed: current error is "${
      messageOf(causes.at(-1))
    }"; run \`${install}\``,
    { cause: new AggregateError(causes) },
  );
}

function driverRemedy(choice: DeviceChoice): string {
  const { runtime } = thisRuntime();
  if (runtime === "browser") {
    return "switch on hardware acceleration in the browser";
  }
  if (hostProcess()?.platform !== "linux") return "update the graphics driver";
  const debian =
    "install the GPU's Vulkan driver, or for a software adapter `apt-get install mesa-vulkan-drivers libvulkan1`";
  return choice === "dawn"
    ? `${debian} (Dawn refuses Mesa 22.3, which is Debian 12's own: take Mesa 24 or newer, there from bookworm-backports)`
    : debian;
}

function thisRuntime(): { runtime: RuntimeName; runtimeVersion: string } {
  const host = globalThis as {
    Deno?: { version: { deno: string } };
    Bun?: { version: string };
    navigator?: { userAgent: string };
  };
  if (host.Deno) {
    return { runtime: "deno", runtimeVersion: host.Deno.version.deno };
  }
  if (host.Bun) return { runtime: "bun", runtimeVersion: host.Bun.version };
  const node = hostProcess()?.versions.node;
  if (node) return { runtime: "node", runtimeVersion: node };
  return {
    runtime: "browser",
    runtimeVersion: host.navigator?.userAgent ?? "",
  };
}

/** A browser has no `node:process` to import. */
function hostProcess():
  | { platform: string; versions: { node?: string } }
  | undefined {
  return (globalThis as { process?: ReturnType<typeof hostProcess> }).process;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
