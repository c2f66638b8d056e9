/** A picture's passes, recorded once and repeated, against the same passes run as they are written. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import type { WebGpu } from "../../kernels/webgpu.ts";
import {
  type AttentionStep,
  type GenerateRequest,
  type GenerateResult,
  type Model,
  open,
  type RunMemory,
} from "../../mod.ts";
import { BACKEND, DEVICE, KERNELS } from "../backend.ts";

const FOLDER = new URL(
  "../fixtures/golden/tiny-random-pipeline/",
  import.meta.url,
);

const REQUEST = {
  prompt: "a red cube on a wooden table",
  regions: [
    { phrase: "red cube", boxes: [[0.1, 0.2, 0.5, 0.8]] },
    { phrase: "wooden table", boxes: [[0.5, 0.4, 1, 1]] },
  ],
  steps: 5,
  guidanceScale: 2,
  width: 96,
  height: 80,
  seed: 5,
} as const satisfies GenerateRequest;

interface Painted {
  readonly rgb: GenerateResult["rgb"];
  readonly steps: GenerateResult["report"]["steps"];
  readonly maps: readonly AttentionStep["maps"][];
  /** Kernel runs that were worked out, by step. */
  readonly runs: readonly number[];
}

/** Paints, with passes recorded or not. */
async function paint(
  model: Model,
  request: GenerateRequest,
  memory: RunMemory,
  repeated: boolean,
): Promise<Painted> {
  const backend = model.backend as WebGpu;
  const maps: AttentionStep["maps"][] = [];
  const runs: number[] = [];
  let count = 0;
  const dispatch = backend.dispatch.bind(backend);
  backend.dispatch = (kernel, what) => {
    count++;
    dispatch(kernel, what);
  };
  if (!repeated) backend.repeated = (work) => work;
  try {
    backend.trim();
    const { rgb, report } = await model.generate(request, {
      memory,
      onAttention: (step) => void maps.push(step.maps),
      onStep: () => {
        runs.push(count);
        count = 0;
      },
    });
    return { rgb, steps: report.steps, maps, runs };
  } finally {
    Reflect.deleteProperty(backend, "dispatch");
    Reflect.deleteProperty(backend, "repeated");
  }
}

const RUNS: readonly {
  readonly name: string;
  readonly request: Pick<GenerateRequest, "guidance">;
  readonly memory?: RunMemory;
  /** Most runs that are worked out in the last step. */
  readonly most: number;
}[] = [
  { name: "winwinlay", request: { guidance: { steps: 5 } }, most: 99 },
  {
    name: "after the step, thrifty",
    request: { guidance: { steps: 5, placement: "after_step" } },
    memory: { together: false, recompute: true },
    most: 99,
  },
  {
    name: "plain gradient steps, which need no output",
    request: { guidance: { steps: 5, energy: "aef", update: "backprop" } },
    most: 99,
  },
  {
    name: "a floor, for which each pass is waited",
    request: { guidance: { steps: 3, iterations: 2, energyFloor: 0.3 } },
    most: 99,
  },
  {
    name: "csg, which changes each pass in another way",
    request: { guidance: { method: "csg", steps: 2 } },
    most: Infinity,
  },
];

// The cpu backend repeats nothing.
const runs = BACKEND === "cpu" ? [] : RUNS;
for (const { name, request, memory = {}, most } of runs) {
  test(`generate() repeats its passes and gives what they give: ${name}`, async () => {
    await using model = await open(FOLDER, {
      backend: BACKEND,
      device: DEVICE,
      kernels: KERNELS,
      variant: "fp16",
    });
    const whole = { ...REQUEST, ...request };
    const one = await paint(model, whole, memory, true);
    const two = await paint(model, whole, memory, false);
    assert.deepEqual(one.rgb, two.rgb);
    assert.deepEqual(one.steps, two.steps);
    assert.deepEqual(one.maps, two.maps);
    const last = one.runs.at(-1)!;
    assert.ok(last <= most, `${one.runs}, as they are written ${two.runs}`);
    assert.ok(two.runs.at(-1)! > 99);
  });
}
