/** Which device a command runs on, and whether its pictures will fit. */
import {
  type Backend,
  checkForModel,
  type DeviceChoice,
  type FullRequest,
  KERNEL_CHOICES,
  type KernelChoice,
  type MemoryEstimate,
  memoryLimits,
  type Model,
  type ModelFacts,
  ONNX_PARTS,
  type OnnxPart,
  open,
  openBackend,
  planMemory,
  type Prediction,
  shapeBoxes,
  type StorageType,
} from "../mod.ts";
import { type Flag, type Flags, UsageError } from "./flags.ts";
import { type Io, Progress } from "./io.ts";

/** Of every command that opens a device. */
export const WHERE_FLAGS: readonly Flag[] = [
  {
    name: "backend",
    value: "NAME",
    choices: ["auto", "webgpu", "cpu"],
    help: "auto is WebGPU where there is an adapter, else the slow cpu (auto)",
  },
  {
    name: "device",
    value: "NAME",
    choices: ["native", "dawn"],
    help: "the runtime's own WebGPU, or the npm package webgpu",
  },
  {
    name: "kernels",
    value: "NAME",
    choices: KERNEL_CHOICES,
    help:
      "auto is gpu, or software where the adapter is a processor; matrix is gpu with the UNet's products in 16 bits by matrix units, on Dawn (auto)",
  },
];

/** Of every command that loads a model. */
export const MEMORY_FLAGS: readonly Flag[] = [
  {
    name: "weights",
    value: "NAME",
    choices: ["auto", "f32", "f16"],
    help: "how weights are stored on the device (auto)",
  },
  {
    name: "memory",
    value: "SIZE",
    help:
      "device memory to stay in, such as 6GB (what the system says is left)",
  },
];

const UNITS: Readonly<Record<string, number>> = {
  MB: 1e6,
  GB: 1e9,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
};

/** `--memory` in bytes. */
export function memoryFlag(flags: Flags): number | undefined {
  const text = flags.text("memory");
  if (text === undefined) return undefined;
  const match = /^(\d+(?:\.\d+)?)\s*([MG]i?B)$/i.exec(text);
  const bytes = match === null
    ? 0
    : Number(match[1]) * UNITS[match[2]!.toUpperCase()]!;
  if (bytes <= 0) {
    throw new UsageError(
      `Cannot use --memory: it must be a size such as 6GB or 512MiB: current ${
        JSON.stringify(text)
      }`,
    );
  }
  return bytes;
}

/** `--onnx` as parts. */
function onnxFlag(flags: Flags): OnnxPart[] {
  const parts = flags.text("onnx")?.split(",") ?? [];
  for (const part of parts) {
    if (!ONNX_PARTS.includes(part as OnnxPart)) {
      throw new UsageError(
        `Cannot use --onnx: parts must be ${ONNX_PARTS.join(", ")}: current ${
          JSON.stringify(part)
        }`,
      );
    }
  }
  return parts as OnnxPart[];
}

/** The backend that the flags ask for. */
export async function backendOf(flags: Flags): Promise<Backend> {
  if (flags.text("backend") === "cpu" && flags.has("device")) {
    throw new UsageError(
      "Cannot use --device with --backend cpu: it is a device of WebGPU",
    );
  }
  return await openBackend({
    backend: flags.choice<"auto" | "webgpu" | "cpu">("backend") ?? "auto",
    device: flags.choice<DeviceChoice>("device"),
    kernels: flags.choice<KernelChoice>("kernels"),
  });
}

/** A model on a device of its own. */
export interface Opened extends AsyncDisposable {
  /** Ready to paint. */
  readonly model: Model;
}

/**
 * Plans the requests that may take most, says what they take, and only then loads the model.
 *
 * @throws {DeviceMemoryError} If one of these cannot fit.
 */
export async function openPlanned(
  location: string,
  facts: ModelFacts,
  requests: readonly FullRequest[],
  flags: Flags,
  io: Io,
): Promise<Opened> {
  const memoryBytes = memoryFlag(flags);
  const onnx = onnxFlag(flags);
  const backend = await backendOf(flags);
  try {
    if (backend.kind === "cpu" && flags.text("backend") !== "cpu") {
      io.say("note: there is no adapter, so this runs on the slow cpu backend");
    }
    const limits = await memoryLimits(backend, { memoryBytes });
    const asked = flags.choice<"auto" | StorageType>("weights") ?? "auto";
    const plans: MemoryEstimate[] = [];
    for (const request of heaviest(requests, facts)) {
      plans.push(
        await planMemory(facts, limits, { weights: asked, request }),
      );
    }
    const most = plans.toSorted((a, b) => b.peakBytes - a.peakBytes)[0]!;
    const weights = plans.some(({ choice }) => choice.weights === "f16")
      ? "f16"
      : "f32";
    if (backend.kind === "webgpu") io.say(describePlan(most, limits.bytes));
    using progress = new Progress(io);
    const model = await open(location, {
      backend,
      weights,
      memoryBytes: limits.bytes,
      onnx,
      variant: flags.choice<"fp16">("variant"),
      prediction: flags.choice<Prediction>("prediction"),
      signal: io.signal,
      onProgress: (part, done, total) => progress.load(part, done, total),
    });
    return {
      model,
      [Symbol.asyncDispose]: async () => {
        await model[Symbol.asyncDispose]();
        backend[Symbol.dispose]();
      },
    };
  } catch (error) {
    backend[Symbol.dispose]();
    throw error;
  }
}

/** Of requests with the same size and guidance those that may take most: by boxes, by what they cover, by tokens. */
function heaviest(
  requests: readonly FullRequest[],
  facts: ModelFacts,
): Set<FullRequest> {
  const weights: ((request: FullRequest) => number)[] = [
    ({ regions }) => sumOf(regions, (r) => shapeBoxes(r).length),
    ({ regions }) =>
      sumOf(
        regions,
        (r) =>
          sumOf(shapeBoxes(r), ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0)),
      ),
    (request) =>
      sumOf(checkForModel(request, facts).matches, (m) => m.positions.length),
  ];
  const most = new Map<string, { request: FullRequest; weight: number }>();
  for (const request of requests) {
    const { width, height, guidance, bestOf } = request;
    const alike = JSON.stringify([width, height, guidance, bestOf && 2]);
    for (const [i, of] of weights.entries()) {
      const key = `${i} ${alike}`;
      const weight = of(request);
      if (weight > (most.get(key)?.weight ?? -1)) {
        most.set(key, { request, weight });
      }
    }
  }
  return new Set([...most.values()].map(({ request }) => request));
}

function sumOf<T>(list: readonly T[], of: (item: T) => number): number {
  return list.reduce((sum, item) => sum + of(item), 0);
}

/** One line: what is needed, of what there is, and how. */
export function describePlan(
  { choice, peakBytes, weights }: MemoryEstimate,
  available: number | undefined,
): string {
  const gb = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`;
  const ways = [
    `weights ${gb(weights)} as ${choice.weights}`,
    ...(choice.freeText ? ["text encoders freed once used"] : []),
    ...(choice.together === false ? ["one prompt at a time"] : []),
    ...(choice.recompute ? ["blocks run again on the way back"] : []),
    ...(choice.tile === undefined
      ? []
      : [`decoded in tiles of ${choice.tile}`]),
  ];
  return `needs ${gb(peakBytes)}${
    available === undefined ? "" : ` of ${gb(available)}`
  } of device memory: ${ways.join(", ")}`;
}
