/** `doctor --model`: what pictures of a model take, and how this device would make them. */
import {
  checkForModel,
  describeModel,
  type GenerateRequest,
  type MemoryEstimate,
  memoryLimits,
  planMemory,
  type Prediction,
  type StorageType,
} from "../mod.ts";
import { backendOf, describePlan, memoryFlag } from "./device.ts";
import { asUsage, type Flags } from "./flags.ts";
import { formatTable, type Io } from "./io.ts";
import { readSize } from "./request.ts";

/** Options of `doctor` that mean nothing without a model. */
export const MODEL_ONLY = [
  "size",
  "variant",
  "prediction",
  "backend",
  "device",
  "weights",
  "memory",
] as const;

/** Prints the estimates. Exit code 0 if both kinds of picture fit. */
export async function willItFit(flags: Flags, io: Io): Promise<number> {
  const location = flags.text("model")!;
  const variant = flags.choice<"fp16">("variant");
  const facts = await describeModel(location, {
    signal: io.signal,
    variant,
    prediction: flags.choice<Prediction>("prediction"),
  });
  using backend = await backendOf(flags);
  const limits = await memoryLimits(backend, {
    memoryBytes: memoryFlag(flags),
  });
  const weights = flags.choice<"auto" | StorageType>("weights") ?? "auto";
  const size = readSize(flags.text("size"));
  const plain: GenerateRequest = {
    prompt: "x",
    steps: 2,
    ...size,
    guidance: { method: "none" },
  };
  const guided: GenerateRequest = {
    prompt: "x",
    steps: 2,
    ...size,
    regions: [{ phrase: "x", tokens: [1], boxes: [[0, 0, 0.5, 0.5]] }],
  };
  const rows: { kind: string; plan?: MemoryEstimate; error?: string }[] = [];
  for (const [kind, request] of Object.entries({ plain, guided })) {
    const { request: full } = asUsage(() => checkForModel(request, facts));
    try {
      const plan = await planMemory(facts, limits, { weights, request: full });
      rows.push({ kind, plan });
    } catch (error) {
      if ((error as Error).name !== "DeviceMemoryError") throw error;
      rows.push({ kind, error: (error as Error).message });
    }
  }
  const { limits: { size: own } } = facts;
  const [width, height] = [size["width"] ?? own[0], size["height"] ?? own[1]];
  if (flags.has("json")) {
    io.out(JSON.stringify({
      model: facts.name,
      width,
      height,
      availableBytes: limits.bytes ?? null,
      backend: backend.description,
      plans: rows,
    }));
  } else {
    io.out(`${facts.name}, ${width}x${height}, on ${backend.description}`);
    const mb = (bytes: number): string => (bytes / 1e6).toFixed(0);
    const planned = rows.flatMap(({ kind, plan }) =>
      plan ? [{ kind, plan }] : []
    );
    if (planned.length) {
      const table = [
        ["MB at most", "weights", "text", "sampling", "decoding", "in all"],
        ...planned.map(({ kind, plan }) => [
          kind,
          ...[
            plan.weights,
            plan.text,
            plan.sampling,
            plan.decoding,
            plan.peakBytes,
          ]
            .map(mb),
        ]),
      ];
      for (const line of formatTable(table, [1, 2, 3, 4, 5])) io.out(line);
    }
    for (const { kind, plan, error } of rows) {
      io.out(`${kind}: ${plan ? describePlan(plan, limits.bytes) : error}`);
    }
  }
  return rows.every(({ plan }) => plan) ? 0 : 5;
}
