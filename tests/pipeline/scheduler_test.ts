/** Samplers against k-diffusion's formulas in sigma space, against an exact solution, and their tables. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { Cpu } from "../../kernels/cpu.ts";
import { LANGEVIN_STATE, langevinStep } from "../../kernels/langevin.ts";
import {
  alphasCumprod,
  type ScheduleConfig,
  scheduleConfig,
} from "../../pipeline/schedule_config.ts";
import {
  ddim,
  dpmSolver,
  euler,
  eulerAncestral,
  makeScheduler,
  type Scheduler,
  SCHEDULERS,
} from "../../pipeline/scheduler.ts";
import { rand } from "../compare.ts";

const SD = {
  num_train_timesteps: 1000,
  beta_start: 0.00085,
  beta_end: 0.012,
  beta_schedule: "scaled_linear",
  steps_offset: 1,
  set_alpha_to_one: false,
  timestep_spacing: "leading",
};
const config = (more: object = {}): ScheduleConfig =>
  scheduleConfig({ ...SD, ...more }, "test");

type Model = (z: number, abar: number) => number;

/** The samplers' own numbers, on one scalar latent. */
function run(
  scheduler: Scheduler,
  z: number,
  model: Model,
  noises: ArrayLike<number> = [],
): number[] {
  z *= scheduler.initialScale ?? 1;
  const path = [z];
  let before = 0;
  scheduler.timesteps.forEach((_, step) => {
    const { a, b, c, d, previous = 0, noise = 0 } = scheduler.coefficients(
      step,
    );
    const out = model(z, scheduler.alphaBar(step));
    const clean = c * z + d * out;
    z = a * z + b * out + previous * before + noise * (noises[step] ?? 0);
    before = clean;
    path.push(z);
  });
  return path;
}

/** sigma at each step, and 0. */
function sigmasOf({ timesteps, alphaBar }: Scheduler): number[] {
  return [...timesteps.map((_, i) => Math.sqrt(1 / alphaBar(i) - 1)), 0];
}

/** Some denoiser: x0 from x and sigma. */
const denoise = (x: number, sigma: number): number =>
  0.3 * x / (1 + sigma ** 2) + 0.2 * Math.sin(x / (1 + sigma));
/** The same as the model's output in VP space. */
const asEps: Model = (z, abar) => {
  const sigma = Math.sqrt(1 / abar - 1);
  const x = z * Math.sqrt(1 + sigma ** 2);
  return (x - denoise(x, sigma)) / sigma;
};
const asV: Model = (z, abar) =>
  (asEps(z, abar) - Math.sqrt(1 - abar) * z) / Math.sqrt(abar);

function close(
  actual: readonly number[],
  expected: readonly number[],
  what: string,
): void {
  assert.equal(actual.length, expected.length, what);
  actual.forEach((v, i) =>
    assert.ok(
      Math.abs(v - expected[i]!) <= 1e-9 * Math.max(1, Math.abs(expected[i]!)),
      `${what} ${i}: ${v}, ${expected[i]}`,
    )
  );
}

test("samplers follow k-diffusion's formulas, for both predictions", () => {
  const noises = rand(5, 40, 2);
  for (
    const [prediction, model] of [["epsilon", asEps], [
      "v_prediction",
      asV,
    ]] as const
  ) {
    for (const spacing of ["leading", "trailing", "linspace"]) {
      for (const steps of [1, 2, 7, 20]) {
        const c = config({
          prediction_type: prediction,
          timestep_spacing: spacing,
        });
        const what = `${prediction} ${spacing} ${steps}`;
        const inSigma = (s: Scheduler, path: number[]): number[] => {
          const sigmas = sigmasOf(s);
          return path.map((z, i) => z * Math.sqrt(1 + sigmas[i]! ** 2));
        };

        const e = euler(c, steps);
        let sigmas = sigmasOf(e);
        let x = inSigma(e, run(e, 0.7, model))[0]!;
        let path = [x];
        for (let i = 0; i < steps; i++) {
          const d = (x - denoise(x, sigmas[i]!)) / sigmas[i]!;
          x += d * (sigmas[i + 1]! - sigmas[i]!);
          path.push(x);
        }
        close(inSigma(e, run(e, 0.7, model)), path, `euler ${what}`);

        const a = eulerAncestral(c, steps);
        sigmas = sigmasOf(a);
        x = path[0]!;
        path = [x];
        for (let i = 0; i < steps; i++) {
          const [from, to] = [sigmas[i]!, sigmas[i + 1]!];
          const up = Math.min(
            to,
            Math.sqrt(to ** 2 * (from ** 2 - to ** 2) / from ** 2),
          );
          const down = Math.sqrt(to ** 2 - up ** 2);
          x += (x - denoise(x, from)) / from * (down - from);
          if (to > 0) x += noises[i]! * up;
          path.push(x);
        }
        close(inSigma(a, run(a, 0.7, model, noises)), path, `euler_a ${what}`);

        const m = dpmSolver(c, steps);
        sigmas = sigmasOf(m);
        x = 0.7 * Math.sqrt(1 + sigmas[0]! ** 2);
        path = [x];
        let old: number | undefined;
        for (let i = 0; i < steps; i++) {
          const t = -Math.log(sigmas[i]!), next = -Math.log(sigmas[i + 1]!);
          const h = next - t;
          const clean = denoise(x, sigmas[i]!);
          if (old === undefined || sigmas[i + 1] === 0) {
            x = sigmas[i + 1]! / sigmas[i]! * x - Math.expm1(-h) * clean;
          } else {
            const r = (t + Math.log(sigmas[i - 1]!)) / h;
            const mixed = (1 + 1 / (2 * r)) * clean - 1 / (2 * r) * old;
            x = sigmas[i + 1]! / sigmas[i]! * x - Math.expm1(-h) * mixed;
          }
          old = clean;
          path.push(x);
        }
        close(inSigma(m, run(m, 0.7, model)), path, `dpmpp_2m ${what}`);
      }
    }
  }
});

test("DDIM is Euler's method between the same sigmas", () => {
  const [d, e] = [ddim(config(), 20), euler(config(), 20)];
  assert.deepEqual(d.timesteps, e.timesteps);
  for (let step = 0; step < 19; step++) {
    const p = d.coefficients(step), q = e.coefficients(step);
    for (const key of ["a", "b", "c", "d"] as const) {
      assert.ok(
        Math.abs(p[key] - q[key]) < 1e-9,
        `${step} ${key}: ${p[key]}, ${q[key]}`,
      );
    }
  }
});

test("samplers have the order they are known for", () => {
  // Data N(0, 0.5^2): x0 = x s^2 / (s^2 + sigma^2), and x follows sqrt(s^2 + sigma^2) exactly.
  const s = 0.5;
  const model: Model = (z, abar) => {
    const sigma = Math.sqrt(1 / abar - 1);
    const x = z * Math.sqrt(1 + sigma ** 2);
    return x * sigma / (s ** 2 + sigma ** 2);
  };
  const error = (make: typeof euler, steps: number): number => {
    const scheduler = make(
      config({ timestep_spacing: "linspace", use_karras_sigmas: true }),
      steps,
    );
    const sigmas = sigmasOf(scheduler);
    // Before the last step, which is of first order in all.
    const z = run(scheduler, 1, model)[steps - 1]!;
    const x = z * Math.sqrt(1 + sigmas[steps - 1]! ** 2);
    const first = (scheduler.initialScale ?? 1) *
      Math.sqrt(1 + sigmas[0]! ** 2);
    const exact = first *
      Math.sqrt(
        (s ** 2 + sigmas[steps - 1]! ** 2) / (s ** 2 + sigmas[0]! ** 2),
      );
    return Math.abs(x - exact);
  };
  const order = (make: typeof euler): number =>
    Math.log2(error(make, 64) / error(make, 128));
  const [first, second] = [order(euler), order(dpmSolver)];
  assert.ok(first > 0.8 && first < 1.3, `euler ${first}`);
  assert.ok(second > 1.7 && second < 2.4, `dpmpp_2m ${second}`);
});

test("an ancestral sampler adds no noise at its last step, and keeps the variance", () => {
  const scheduler = eulerAncestral(config(), 30);
  assert.equal(scheduler.coefficients(29).noise, undefined);
  // For data that is 0 the latent is all noise: z has the variance 1 - abar whatever is added.
  const variance = scheduler.timesteps.reduce((v, _, step) => {
    const { a, b, noise = 0 } = scheduler.coefficients(step);
    const abar = scheduler.alphaBar(step);
    const gain = a + b / Math.sqrt(1 - abar); // eps = z / sqrt(1 - abar)
    const after = v * gain ** 2 + noise ** 2;
    const next = step < 29 ? 1 - scheduler.alphaBar(step + 1) : 0;
    assert.ok(Math.abs(after - next) < 1e-9, `step ${step}: ${after}, ${next}`);
    return after;
  }, 1 - scheduler.alphaBar(0));
  assert.ok(variance < 1e-12);
});

test("the Langevin update is the same in VP and in sigma space", async () => {
  using backend = new Cpu();
  const n = 24;
  const [z, eps, grad, noise] = [1, 2, 3, 4].map((seed) =>
    Float64Array.from(rand(seed, n))
  );
  const abar = 0.03, snr = 0.06;
  const level = Math.sqrt(1 - abar);
  const up = (x: Float64Array) => backend.upload(x, [1, 1, 4, 6]);
  using state = backend.upload(new Float32Array(LANGEVIN_STATE), [
    1,
    LANGEVIN_STATE,
  ]);
  using next = langevinStep(up(z!), up(eps!), up(grad!), up(noise!), state, {
    noiseLevel: level,
    snr,
    guard: 0.1,
    factor: 1,
    adapt: true,
    addNoise: true,
    expectedNorm: false,
  });
  const [found] = await backend.read([next]);
  // x = z sqrt(1 + sigma^2), score -eps / sigma, gradient divided by the same factor.
  const sigma = Math.sqrt((1 - abar) / abar), k = Math.sqrt(1 + sigma ** 2);
  const norm = (x: Float64Array) => Math.hypot(...x);
  const score = eps!.map((v) => -v / sigma), gx = grad!.map((v) => v / k);
  const nu = norm(score) / norm(gx);
  const g = score.map((v, i) => v - nu * gx[i]!);
  const xi = 2 *
    (snr * norm(noise!) / Math.max(norm(g), 0.1 * norm(score))) ** 2;
  z!.forEach((v, i) => {
    const x = v * k + xi * g[i]! + Math.sqrt(2 * xi) * noise![i]!;
    assert.ok(
      Math.abs(x - k * found![i]!) < 1e-9 * k,
      `${i}: ${x}, ${k * found![i]!}`,
    );
  });
});

test("spacing is that of the config, else of its class", () => {
  const { timestep_spacing: _, ...bare } = SD;
  const spacing = (more: object) =>
    scheduleConfig({ ...bare, ...more }, "test").spacing;
  assert.equal(spacing({}), "leading");
  assert.equal(spacing({ _class_name: "PNDMScheduler" }), "leading");
  assert.equal(spacing({ _class_name: "EulerDiscreteScheduler" }), "linspace");
  assert.equal(
    spacing({ _class_name: "DPMSolverMultistepScheduler" }),
    "linspace",
  );
  assert.equal(
    spacing({
      _class_name: "EulerDiscreteScheduler",
      timestep_spacing: "trailing",
    }),
    "trailing",
  );
});

test("zero terminal SNR starts from pure noise, with v-prediction only", () => {
  const zero = config({
    rescale_betas_zero_snr: true,
    prediction_type: "v_prediction",
    timestep_spacing: "trailing",
  });
  const alphas = alphasCumprod(zero);
  assert.equal(alphas[999], 0);
  assert.ok(Math.abs(alphas[0]! - alphasCumprod(config())[0]!) < 1e-12);
  for (const name of SCHEDULERS) {
    const scheduler = makeScheduler(name, zero, 10);
    assert.equal(Math.round(scheduler.timesteps[0]!), 999, name);
    const path = run(
      scheduler,
      0.7,
      (z, abar) => -Math.sqrt(1 - abar) * 0.4 + 0.1 * z,
      rand(1, 10),
    );
    assert.ok(path.every(Number.isFinite), `${name}: ${path}`);
  }
  assert.throws(
    () => config({ rescale_betas_zero_snr: true }),
    /rescale_betas_zero_snr" must be false/,
  );
});

test("schedulers refuse steps and names that do not fit", () => {
  for (const name of SCHEDULERS) {
    for (const steps of [0, 1.5, 1001, NaN]) {
      assert.throws(() => makeScheduler(name, config(), steps), {
        name: "RangeError",
        message: /steps must be a whole number/,
      });
    }
    const { timesteps } = makeScheduler(name, config(), 12);
    assert.equal(timesteps.length, 12);
    timesteps.forEach((t, i) =>
      assert.ok(i === 0 || t <= timesteps[i - 1]!, `${name} falls`)
    );
  }
  assert.throws(
    () => makeScheduler("eular" as "euler", config(), 5),
    /did you mean euler\?/,
  );
});
