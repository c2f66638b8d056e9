/** Golden cases of kinds `pipeline` and `e2e`: prompt in, picture out, with given noise. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Tensor } from "../../kernels/backend.ts";
import { combine } from "../../kernels/combine.ts";
import { stackBatch } from "../../kernels/concat.ts";
import type { TextStage } from "../../pipeline/conditioning.ts";
import { matchRegions } from "../../pipeline/generate.ts";
import type { GuidanceMethod } from "../../pipeline/guidance/method.ts";
import {
  winwinlay,
  WINWINLAY_DEFAULTS,
} from "../../pipeline/guidance/winwinlay.ts";
import { type Model, open } from "../../pipeline/model.ts";
import type { NoiseSource } from "../../pipeline/noise.ts";
import type { GuidanceRequest } from "../../pipeline/guidance/methods.ts";
import { sample, type SampledStep } from "../../pipeline/sampler.ts";
import { ddim } from "../../pipeline/scheduler.ts";
import { encodeText, type TextEncoder } from "../../pipeline/text_encoder.ts";
import { type Vae, vaeDecode } from "../../pipeline/vae.ts";
import { openFolder } from "../../weights/folder.ts";
import type { GoldenCase } from "./case.ts";
import { subjectsOf } from "./variant.ts";

/** An open model with the states of both prompts. */
interface Prompted {
  readonly model: Model;
  readonly cond: Tensor;
  readonly uncond: Tensor;
}

/** Runs a case of kind `pipeline`: plain sampling with a folder in diffusers' layout. */
export async function runPipeline(c: GoldenCase): Promise<void> {
  const location = c.path(c.attributes.folder);
  const prompted = await openModel(c, location);
  c.expectSwapped("prompt_embeds", prompted.cond);
  c.expectSwapped("negative_prompt_embeds", prompted.uncond);
  const final = await run(c, prompted, undefined, ({ step, latent }) => {
    c.expect(`latents.${step}`, c.own(latent.retain()));
  });
  const decoded = decode(c, prompted.model, final);
  c.expect("decoded", decoded);
  expectImage(c, decoded);
  await compareVariants(c, location);
}

/** Runs a case of kind `e2e`: WinWinLay on a trained model. */
export async function runJob(c: GoldenCase): Promise<void> {
  const { regions, objects, guided_steps, inner_iterations } = c.attributes;
  const { r, delta, rho, lambda_unit, prompt } = c.attributes;
  const prompted = await openModel(c, findModel(c));
  // From the phrases; the file says which positions these are.
  const matches = matchRegions(
    prompted.model.facts.tokenizers,
    prompt,
    regions,
  );
  matches.forEach(({ positions, matched }, i) => {
    const right = String(positions) === String(objects[i].tokens);
    c.check(`tokens of "${matched}"`, right ? undefined : `are ${positions}`);
  });
  c.expectSwapped("text", c.own(stackBatch([prompted.cond, prompted.uncond])));
  const guidance = {
    steps: guided_steps,
    iterations: inner_iterations,
    snr: r,
    guard: delta,
    rho,
    lambda: lambda_unit,
  };
  const method = winwinlay({ ...WINWINLAY_DEFAULTS, ...guidance });
  const steps: SampledStep[] = [];
  const latents: Tensor[] = [];
  const final = await run(c, prompted, method, (step) => {
    steps.push(step);
    latents.push(c.own(step.latent.retain()));
  });
  const inner = steps.flatMap((step) => step.inner);
  c.expect("timesteps", steps.map(({ timestep }) => timestep));
  c.expect("latents", latents);
  c.expect("energy", inner.map(({ energy }) => energy));
  c.expect("nu", inner.map(({ nu }) => nu));
  c.expect("xi", inner.map(({ xi }) => xi));
  expectImage(c, decode(c, prompted.model, final));
  if (c.attributes.num_inference_steps <= 10) {
    await checkPicture(c, prompted.model, method, guidance);
  }
}

/** `generate` on the same request must give the expected image, rounded to 8 bits. */
async function checkPicture(
  c: GoldenCase,
  model: Model,
  method: GuidanceMethod,
  guidance: GuidanceRequest,
): Promise<void> {
  const { prompt, negative_prompt, regions, num_inference_steps } =
    c.attributes;
  const [, height = 0, width = 0] = c.shape("expected.image");
  const { rgb } = await model.generate({
    prompt,
    negativePrompt: negative_prompt,
    regions,
    width,
    height,
    steps: num_inference_steps,
    guidanceScale: c.attributes.guidance_scale,
    preset: "paper",
    guidance,
  }, { noise: await givenNoise(c, method) });
  const expected = await c.floats("expected.image");
  const { max_abs } = c.entry.float32_noise!["expected.image"]!;
  const most = 0.5 + 255 * 20 * max_abs;
  const bad = rgb.findIndex((v, i) => Math.abs(v - 255 * expected[i]!) > most);
  const right = rgb.length === expected.length && bad < 0;
  c.check(
    "picture of generate()",
    right ? undefined : `is ${rgb[bad]} at ${bad}, not ${255 * expected[bad]!}`,
  );
}

/** The folder of the case's model, known by the hash of its UNet. */
function findModel(c: GoldenCase): string {
  const { model, model_sha256 } = c.attributes;
  const seen: string[] = [];
  for (const models of c.place.models) {
    const file = join(
      models,
      model,
      "unet/diffusion_pytorch_model.safetensors",
    );
    if (!existsSync(file)) {
      seen.push(`${models} has no ${model}`);
      continue;
    }
    const hash = createHash("sha256").update(readFileSync(file)).digest("hex");
    if (hash === model_sha256) return join(models, model);
    seen.push(`${models} has one with hash ${hash.slice(0, 8)}`);
  }
  throw new Error(
    `Cannot find model ${model} with hash ${model_sha256.slice(0, 8)}: ${
      seen.join(", ")
    }`,
  );
}

/** Opens a model and encodes both prompts; their ids must be those of the file. */
async function openModel(c: GoldenCase, location: string): Promise<Prompted> {
  const model = c.own(await open(location, { backend: c.backend }));
  const [{ tokenizer, encoder: textEncoder }] = model.networks.text as [
    TextStage,
  ];
  const states = async (prompt: string, input: string): Promise<Tensor> => {
    const { ids } = tokenizer.encode(prompt);
    const right = String(ids) === String(await c.ints(input));
    c.check(`ids of "${prompt}"`, right ? undefined : `are ${ids}`);
    return c.own(encodeText(textEncoder as TextEncoder, [ids]));
  };
  const { prompt, negative_prompt } = c.attributes;
  return {
    model,
    cond: await states(prompt, "input.ids_prompt"),
    uncond: await states(negative_prompt, "input.ids_negative"),
  };
}

/** Samples from the noise of the file. */
async function run(
  c: GoldenCase,
  { model: { networks: { unet, schedule } }, cond, uncond }: Prompted,
  method: GuidanceMethod | undefined,
  onStep: (step: SampledStep) => void,
): Promise<Tensor> {
  const { num_inference_steps, guidance_scale } = c.attributes;
  const [, , height = 1, width = 1] = c.shape("input.latents");
  using energy = method?.energy({
    backend: c.backend,
    config: unet.config,
    subjects: subjectsOf(c),
    image: [8 * width, 8 * height],
    grid: [height, width],
    textLength: cond.shape[2]!,
    promptLength: cond.shape[2]!,
    seed: 0,
  });
  return c.own(
    await sample(unet, {
      cond: { states: cond },
      uncond: { states: uncond },
      guidanceScale: guidance_scale,
      scheduler: ddim(schedule, num_inference_steps),
      noise: await givenNoise(c, method),
      shape: c.shape("input.latents"),
      measure: undefined,
      guide: method && energy && { method, energy },
      onStep,
    }),
  );
}

/** The noise of the file. */
async function givenNoise(
  c: GoldenCase,
  method: GuidanceMethod | undefined,
): Promise<NoiseSource> {
  const initial = await c.upload("input.latents");
  const noises = method ? await c.floats("input.noises") : new Float32Array();
  return {
    initial: () => initial.retain(),
    langevin(shape, step, k) {
      const start = (step * method!.iterations(step, 1) + k) * initial.size;
      const values = noises.subarray(start, start + initial.size);
      return c.backend.upload(values, shape);
    },
    ancestral: () => {
      throw new Error("DDIM asks for none");
    },
  };
}

function decode(
  c: GoldenCase,
  { networks: { vae } }: Model,
  latent: Tensor,
): Tensor {
  const scale = 1 / vae.config.scalingFactor;
  using scaled = combine(latent, scale, latent, 0);
  return c.own(vaeDecode(vae as Vae, scaled));
}

/** `clamp(decoded / 2 + 0.5, 0, 1)`, `[1, height, width, 3]`. */
function expectImage(c: GoldenCase, decoded: Tensor): void {
  c.expect("image", decoded, (values) => {
    const cells = values.length / 3;
    return Float64Array.from(values, (_, i) => {
      const v = values[i % 3 * cells + Math.floor(i / 3)]!;
      return Math.min(1, Math.max(0, v / 2 + 0.5));
    });
  });
}

/** The files of the fp16 variant hold the numbers of the float32 ones, under today's names. */
async function compareVariants(c: GoldenCase, location: string): Promise<void> {
  await using folder = await openFolder(location);
  for (const name of ["unet", "text_encoder", "vae"] as const) {
    const full = await folder.component(name);
    const half = await folder.component(name, { variant: "fp16" });
    for (const [tensor, { dtype }] of half.tensors) {
      if (dtype !== "F16") continue; // position_ids
      const old = tensor.replace(".to_q.", ".query.")
        .replace(".to_k.", ".key.").replace(".to_v.", ".value.")
        .replace(".to_out.0.", ".proj_attn.");
      const a = await full.read(full.tensors.has(tensor) ? tensor : old);
      const b = await half.read(tensor);
      if (a.length !== b.length || a.some((v, i) => v !== b[i])) {
        c.check(`${name} fp16`, `differs in ${tensor}`);
      }
    }
  }
}
