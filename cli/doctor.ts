/** `doctor`: what this machine has, and a short test of every backend against the cpu one. */
import { availableParallelism } from "node:os";
import process from "node:process";
import {
  type AdapterReport,
  type Backend,
  chooseFamily,
  type ChosenFamily,
  Cpu,
  describeAdapters,
  describeTiles,
  embeddedModel,
  type Floats,
  type KernelChoice,
  loadUnet,
  openFolder,
  type TileTimes,
  unetForward,
  WebGpu,
} from "../mod.ts";
import { type Flags, UsageError } from "./flags.ts";
import { formatBytes, formatSeconds, type Io } from "./io.ts";
import { MODEL_ONLY, willItFit } from "./will_it_fit.ts";

const FEATURES = ["shader-f16", "subgroups", "timestamp-query"];
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
];
const GRID = 16; // latent cells along one side of the test
/** float32 is at 1e-12 or so, products of 16 bits at 1e-7; a wrong kernel is near 1. */
const WORST_NMSE = 1e-6;

/** How the test of one backend went. */
interface SelfTest {
  readonly backend: string;
  readonly ok: boolean;
  /** One network pass once everything is compiled. */
  readonly passSeconds?: number;
  /** Squared error over squared size, against the cpu backend. */
  readonly nmse?: number;
  /** Seconds of a product with tiles of 16-bit weights in 32 and in 16 bits, where that was measured. */
  readonly tileTimes?: TileTimes;
  /** Whether they are kept in 16 bits. */
  readonly halfTiles?: boolean;
  /** Why it failed. */
  readonly error?: string;
}

/** Prints the report. Exit code 0 if what `auto` takes gives right numbers. */
export async function doctor(
  flags: Flags,
  version: string,
  io: Io,
): Promise<number> {
  const { signal } = io;
  const json = flags.has("json");
  if (flags.has("model")) return await willItFit(flags, io);
  for (const name of MODEL_ONLY) {
    if (flags.has(name)) {
      throw new UsageError(`Cannot use --${name}: it goes with --model`);
    }
  }
  const [runtime, runtimeVersion] = "Deno" in globalThis
    ? ["Deno", process.versions["deno"]]
    : ["Bun", process.versions["bun"]];
  const cores = availableParallelism();
  const adapters = await describeAdapters();
  const kernels = flags.choice<KernelChoice>("kernels");
  const expected = await unetPass(new Cpu(), signal);
  const tests: SelfTest[] = [];
  for (const adapter of adapters) {
    if (adapter.found) {
      tests.push(await selfTest(adapter, kernels, expected.eps, io));
    }
  }
  tests.push({ backend: "cpu", ok: true, passSeconds: expected.seconds });
  // As `openBackend` chooses: the runtime's own WebGPU where it has one, else Dawn; else cpu.
  const { navigator } = globalThis as { navigator?: { gpu?: unknown } };
  const auto = navigator?.gpu && kernels !== "matrix" ? "native" : "dawn";
  const chosen = tests.find(({ backend }) => backend === auto) ??
    tests.at(-1)!;
  const host = `${process.platform} ${process.arch}`;
  if (json) {
    io.out(JSON.stringify({
      winwinlay: version,
      runtime: `${runtime} ${runtimeVersion}`,
      host,
      cores,
      adapters: adapters.map((adapter) =>
        adapter.found
          ? { ...adapter, kernels: chooseFamily(adapter.info, kernels) }
          : adapter
      ),
      tests,
      auto: chosen.backend,
    }));
    return chosen.ok ? 0 : 1;
  }
  io.out(
    `winwinlay ${version}  ${runtime} ${runtimeVersion}  ${host}, ${cores} cores`,
  );
  io.out("");
  for (const adapter of adapters) {
    for (const line of adapterLines(adapter, kernels)) io.out(line);
  }
  io.out("");
  io.out(
    `one pass of the embedded UNet, ${GRID}x${GRID} latent, against cpu:`,
  );
  for (const test of tests) io.out(`  ${testLine(test)}`);
  io.out("");
  io.out(verdict(chosen, adapters));
  return chosen.ok ? 0 : 1;
}

function adapterLines(
  adapter: AdapterReport,
  kernels: KernelChoice | undefined,
): string[] {
  if (!adapter.found) {
    return [`${adapter.choice.padEnd(7)}none: ${adapter.reason}`];
  }
  const { info, features, limits } = adapter;
  const name = info.description || info.device || info.vendor;
  const limit = (key: string) => {
    const value = limits[key];
    if (value === undefined) return "unknown";
    return key.endsWith("Size") ? formatBytes(value) : `${value}`;
  };
  const found = FEATURES.filter((feature) => features.includes(feature));
  const { family, why }: ChosenFamily = chooseFamily(info, kernels);
  return [
    `${adapter.choice.padEnd(7)}${name}${
      info.isFallbackAdapter ? ", in software: slow" : ""
    }`,
    `       ${family} kernels: ${why}`,
    `       ${found.join(", ") || "no optional features"}`,
    ...LIMITS.map((key) => `       ${key} ${limit(key)}`),
  ];
}

function testLine(
  { backend, ok, passSeconds, nmse, tileTimes, error }: SelfTest,
): string {
  return [
    backend.padEnd(7),
    ok ? "right" : "WRONG",
    passSeconds === undefined ? "" : formatPass(passSeconds),
    nmse === undefined ? "" : `nmse ${nmse.toExponential(0)}`,
    tileTimes ? describeTiles(tileTimes) : "",
    error ?? "",
  ].filter((part) => part !== "").join("  ");
}

function verdict(
  chosen: SelfTest,
  adapters: readonly AdapterReport[],
): string {
  if (!chosen.ok) {
    return `Pictures would be wrong on ${chosen.backend}; use --backend cpu, or update the driver`;
  }
  const adapter = adapters.find(({ choice }) => choice === chosen.backend);
  if (!adapter?.found) {
    const other = adapters.find(({ found }) => found)?.choice;
    return other === undefined
      ? "There is no adapter: pictures run on the cpu backend, the embedded model in minutes"
      : `Pictures run on the cpu backend unless you give --device ${other}`;
  }
  const { description, device } = adapter.info;
  return `Pictures run on ${chosen.backend} (${
    description || device
  }); --device and --backend choose another`;
}

function formatPass(seconds: number): string {
  return seconds < 1
    ? `${(seconds * 1000).toFixed(0)} ms`
    : formatSeconds(seconds);
}

async function selfTest(
  { choice }: AdapterReport,
  kernels: KernelChoice | undefined,
  expected: Floats,
  { signal }: Io,
): Promise<SelfTest> {
  try {
    const backend = await WebGpu.open({ device: choice, kernels });
    // As a model with 16-bit weights does on GPUs; processors that are made to run these kernels tell their times, too.
    if (backend.family === "gpu") await backend.chooseTiles();
    const { tileTimes, halfTiles } = backend;
    const { eps, seconds } = await unetPass(backend, signal);
    let [error, size] = [0, 0];
    expected.forEach((y, i) => {
      error += (eps[i]! - y) ** 2;
      size += y ** 2;
    });
    const nmse = error / size;
    const ok = nmse < WORST_NMSE; // false for NaN
    return {
      backend: choice,
      ok,
      passSeconds: seconds,
      nmse,
      ...tileTimes ? { tileTimes, halfTiles } : {},
    };
  } catch (error) {
    signal.throwIfAborted();
    return { backend: choice, ok: false, error: (error as Error).message };
  }
}

/** One pass of the embedded UNet on numbers made up here. Disposes the backend. */
async function unetPass(
  backend: Backend,
  signal: AbortSignal,
): Promise<{ eps: Floats; seconds: number }> {
  using _backend = backend;
  await using folder = await openFolder(embeddedModel("tiny-scenes")!);
  const component = await folder.component("unet", { signal });
  using unet = await loadUnet(backend, component, { signal });
  const wave = (shape: readonly number[]) => {
    const size = shape.reduce((a, b) => a * b, 1);
    const data = Float32Array.from({ length: size }, (_, i) => Math.sin(i + 1));
    return backend.upload(data, shape);
  };
  using z = wave([1, unet.config.inChannels, GRID, GRID]);
  using text = wave([1, unet.config.text, 77]);
  let eps: Floats = new Float32Array();
  let seconds = 0;
  for (const _ of ["compile", "measure"]) {
    signal.throwIfAborted();
    const start = performance.now();
    using out = unetForward(unet, z, 500, { states: text });
    eps = (await backend.read([out], { signal }))[0]!;
    seconds = (performance.now() - start) / 1000;
    if (backend.kind === "cpu") break; // nothing to compile
  }
  return { eps, seconds };
}
