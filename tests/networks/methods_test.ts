/**
 * Every method on a tiny random pipeline: it goes down its energy, gives the same picture twice, leaves
 * nothing behind; and a seventh that is added from outside, in this file alone.
 */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import {
  type CsgOptions,
  type GenerateRequest,
  type GenerateResult,
  gradientStep,
  type GuidanceRequest,
  guidedSites,
  hostEnergy,
  type InnerReport,
  methodNames,
  type MethodSpec,
  type Model,
  open,
  real,
  registerMethod,
  type WinWinLayOptions,
} from "../../mod.ts";
import { BACKEND, DEVICE, KERNELS } from "../backend.ts";
import { run } from "../cli/harness.ts";

const FOLDER = new URL(
  "../fixtures/golden/tiny-random-pipeline/",
  import.meta.url,
);

/**
 * The pipeline on a backend of its own, whose end frees every bind group: Dawn keeps them until the
 * garbage collector runs, each is a memory mapping on lavapipe, and a process has 65,530.
 */
async function withModel(use: (model: Model) => Promise<void>): Promise<void> {
  await using model = await open(FOLDER, {
    backend: BACKEND,
    device: BACKEND === "cpu" ? undefined : DEVICE,
    kernels: KERNELS,
    variant: "fp16",
  });
  await use(model);
}

const paint = (
  model: Model,
  request: GenerateRequest,
): Promise<GenerateResult> => model.generate(request, { memory: {} });

const REQUEST = {
  prompt: "a red cube on a wooden table",
  regions: [
    { phrase: "red cube", boxes: [[0.1, 0.2, 0.5, 0.8]] },
    { phrase: "wooden table", boxes: [[0.5, 0.4, 1, 1]] },
  ],
  steps: 1,
  guidanceScale: 2,
  width: 96,
  height: 80,
} as const;

const energyOf = ({ energy }: InnerReport): number => energy;
const worstInside = ({ subjects }: InnerReport): number =>
  Math.max(...subjects.map((s) => s.inside!));

/** Step sizes are those for which a random network is straight enough. */
const METHODS: readonly {
  readonly guidance: GuidanceRequest;
  /** What must fall; default the energy. */
  readonly falls?: (report: InnerReport) => number;
}[] = [
  {
    guidance: { method: "winwinlay", snr: 0.2, noise: "never", iterations: 2 },
  },
  { guidance: { update: "backprop", eta: 30, iterations: 2 } },
  { guidance: { energy: "aef", update: "backprop", eta: 300, iterations: 2 } },
  { guidance: { method: "layout-control", scale: 300, iterations: 2 } },
  { guidance: { method: "attention-refocusing" } },
  { guidance: { method: "rnb", iterations: 2 } },
  { guidance: { method: "csg", iterations: 3 } },
  // Its first passes move the worst subject's in-box term alone; maps this flat are far from its target.
  {
    guidance: { method: "boxdiff", refineIterations: 3, sharpness: 1 },
    falls: worstInside,
  },
];

for (const { guidance, falls = energyOf } of METHODS) {
  test(`generate() goes down, and gives the same picture twice: ${JSON.stringify(guidance)}`, () =>
    withModel(async (model) => {
      const { backend } = model;
      const { request } = model.check({ ...REQUEST, guidance });
      const before = backend.memory.liveBytes;
      const one = await paint(model, request);
      assert.equal(backend.memory.liveBytes, before);
      const { inner } = one.report.steps[0]!;
      for (const { energy, gradient } of inner) {
        assert.ok(energy > 0 && gradient > 0 && Number.isFinite(gradient));
      }
      const values = inner.map(falls);
      assert.ok(
        values.length > 1 && values.at(-1)! < values[0]!,
        String(values),
      );
      const two = await paint(model, one.request);
      assert.deepEqual(two.rgb, one.rgb);
      assert.deepEqual(two.report.steps, one.report.steps);
    }));
}

test("rho 0 and energy aef are the same, and the update makes the difference", () =>
  withModel(async (model) => {
    const guided = (guidance: Partial<WinWinLayOptions>) =>
      paint(model, { ...REQUEST, guidance: { iterations: 1, ...guidance } });
    const none = await guided({ rho: [0, 0] });
    const aef = await guided({ energy: "aef" });
    assert.deepEqual(aef.rgb, none.rgb);
    const back = await guided({ energy: "aef", update: "backprop" });
    assert.notDeepEqual(back.rgb, aef.rgb);
    const { inner: [report] } = back.report.steps[0]!;
    assert.deepEqual([report!.nu, report!.xi], [0, 0]);
  }));

test("csg's redistribution changes the denoising pass, and only where it should", () =>
  withModel(async (model) => {
    const guided = (guidance: Partial<CsgOptions>) =>
      paint(model, {
        ...REQUEST,
        guidance: { method: "csg", steps: 0, ...guidance },
      });
    const none = await paint(model, {
      ...REQUEST,
      guidance: { method: "none" },
    });
    const plain = await guided({ redistribute: false });
    assert.deepEqual(plain.rgb, none.rgb, "nothing is guided");
    const moved = await guided({});
    assert.notDeepEqual(moved.rgb, plain.rgb);
    const late = await guided({ redistributeSteps: 0 });
    assert.deepEqual(late.rgb, plain.rgb);
  }));

test("every method can be planned, and one that reads self-attention takes more", () =>
  withModel(async (model) => {
    const most = async (
      guidance: GuidanceRequest,
      size: Partial<GenerateRequest> = {},
    ): Promise<number> => {
      const { request } = model.check({ ...REQUEST, ...size, guidance });
      return (await model.plan(request)).sampling;
    };
    for (const method of methodNames()) {
      assert.ok(await most({ method } as GuidanceRequest) > 0);
    }
    const method = "attention-refocusing";
    // On small maps the pass of both prompts takes more than either.
    const large = { width: 320, height: 320 };
    const without = await most({ method, sarWeight: 0 }, large);
    assert.ok(await most({ method }, large) > without);
  }));

test("a stale loss ends guidance for good, a fresh one does not", () =>
  withModel(async (model) => {
    const passes = async (staleStop: boolean): Promise<number[]> => {
      const { report } = await paint(model, {
        ...REQUEST,
        steps: 3,
        guidance: { method: "layout-control", threshold: 10, staleStop },
      });
      return report.steps.map(({ inner }) => inner.length);
    };
    assert.deepEqual(await passes(true), [1, 0, 0]);
    assert.deepEqual(await passes(false), [1, 1, 1]);
  }));

/** Pulls a phrase's attention to one side of the picture, whatever its boxes. */
const PULL: MethodSpec<PullOptions> = {
  name: "pull",
  about: "pulls attention to the left",
  source: "this test",
  options: {
    pull: real(5, "step size"),
    place: real(0, "to which share of the width", { most: 1 }),
  },
  make: ({ pull, place }) => ({
    placement: "before_step",
    score: "cond",
    iterations: () => 2,
    check: () => {},
    energy: (context) => {
      const keys = context.subjects.flatMap(({ tokens }) => tokens);
      const sites = guidedSites(context.config, "first_up");
      return hostEnergy(context, {
        probes: new Map(sites.map((site) => [site, keys])),
        loss(maps) {
          let energy = 0;
          const gradients = maps.map(({ values, grid: [, width] }) => {
            const distance = (i: number) =>
              ((i % width + 0.5) / width - place) ** 2;
            const total = values.reduce((sum, p) => sum + p, 0);
            const mean = values.reduce((sum, p, i) =>
              sum + p * distance(i), 0) /
              total;
            energy += mean / maps.length;
            return values.map((_, i) =>
              (distance(i) - mean) / total / maps.length
            );
          });
          return { energy, subjects: [], gradients };
        },
      });
    },
    update: gradientStep(() => pull),
  }),
};

interface PullOptions {
  readonly pull: number;
  readonly place: number;
}

declare module "../../pipeline/guidance/methods.ts" {
  interface GuidanceOptions {
    readonly pull: PullOptions;
  }
}

test("a seventh method is one file: checked, painted, in the command line and in the PNG", async () => {
  registerMethod(PULL);
  assert.deepEqual(methodNames(), [
    "winwinlay",
    "layout-control",
    "attention-refocusing",
    "rnb",
    "csg",
    "boxdiff",
    "pull",
  ]);
  assert.throws(() => registerMethod(PULL), /its name must be new/);
  await withModel(async (model) => {
    const guidance = { method: "pull", pull: 20 } as const;
    const { request, report } = await paint(model, { ...REQUEST, guidance });
    assert.deepEqual(request.guidance, { ...guidance, place: 0 });
    const [first, second] = report.steps[0]!.inner;
    assert.ok(second!.energy < first!.energy);
    assert.throws(
      () => model.check({ ...REQUEST, guidance: { ...guidance, place: 2 } }),
      /guidance.place must be from 0 to 1: current 2/,
    );
    assert.throws(
      () => model.check({ ...REQUEST, guidance: { method: "pul" as "pull" } }),
      /guidance.method must be .*did you mean "pull"\?/,
    );
  });
  const { code, out } = await run(["methods", "pull"]);
  assert.equal(code, 0);
  assert.match(out.join("\n"), /pull: pulls attention .*\n {2}pull=X .*\(5\)/);
  const refused = await run([
    "generate",
    "--prompt",
    "x",
    "--method",
    "pull",
    "--guidance",
    "plaice=0.5",
  ]);
  assert.equal(refused.code, 2);
  assert.match(
    refused.err[0]!,
    /--guidance plaice: pull has no such option: .*did you mean place\?/,
  );
});
