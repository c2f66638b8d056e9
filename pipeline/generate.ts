/**
 * request -> picture: prompt -> tokens -> text states -> UNet and maps -> energy -> gradient ->
 * Langevin and DDIM -> VAE -> PNG.
 */
import type { Backend, Tensor } from "../kernels/backend.ts";
import { combine } from "../kernels/combine.ts";
import type { Picture } from "./draw.ts";
import { ENERGY_DEFAULTS, LayoutEnergy, type Subject } from "./energy.ts";
import { guidedSites, winwinlay } from "./guidance/winwinlay.ts";
import type { Region } from "./layout.ts";
import { type NoiseSource, seededNoise } from "./noise.ts";
import { encodePng } from "./png.ts";
import type { FullRequest } from "./request.ts";
import { type InnerReport, sample } from "./sampler.ts";
import { ddim, type ScheduleConfig } from "./scheduler.ts";
import { encodeText, type TextEncoder } from "./text_encoder.ts";
import {
  matchPhrase,
  type PhraseMatch,
  type PhraseSelector,
} from "./phrase.ts";
import type { Tokenizer } from "./tokenize.ts";
import type { Unet } from "./unet.ts";
import { type Vae, vaeDecode } from "./vae.ts";

/** Everything a checkpoint brings, on a backend. */
export interface Networks {
  /** Where they live. */
  readonly backend: Backend;
  /** Text to ids. */
  readonly tokenizer: Tokenizer;
  /** Ids to text states. */
  readonly textEncoder: TextEncoder;
  /** Predicts noise. */
  readonly unet: Unet;
  /** Latents to pixels. */
  readonly vae: Vae;
  /** Noise schedule and prediction type. */
  readonly schedule: ScheduleConfig;
}

/** What a step tells while it runs. */
export interface StepInfo {
  /** From 1. */
  readonly step: number;
  /** How many there are. */
  readonly steps: number;
  /** Train timestep. */
  readonly timestep: number;
  /** Layout energy after the step's last inner iteration but one update; undefined where nothing was guided. */
  readonly energy: number | undefined;
  /** The inner iterations. */
  readonly inner: readonly InnerReport[];
  /** Per region: share of its phrase's attention that lies in its boxes. */
  readonly regionShares: readonly number[];
  /** The picture the model has in mind. Call it before `onStep` returns. */
  preview(): Promise<Picture>;
}

/** How a run went. */
export interface GenerateReport {
  /** Each region's tokens, and its attention share averaged over the denoising steps. */
  readonly regions: readonly {
    readonly phrase: string;
    readonly positions: readonly number[];
    readonly matched: string;
    readonly fuzzy: boolean;
    readonly share: number;
  }[];
  /** Per step: timestep, region shares and inner iterations. */
  readonly steps: readonly {
    readonly timestep: number;
    readonly shares: readonly number[];
    readonly inner: readonly InnerReport[];
  }[];
  /** Wall clock. */
  readonly seconds: number;
  /** Most bytes on the device, weights included. */
  readonly peakBytes: number;
}

/** A picture and all about it. */
export interface GenerateResult extends Picture {
  /** PNG file that carries the request. */
  readonly png: Uint8Array<ArrayBuffer>;
  /** The request with every default filled in. */
  readonly request: FullRequest;
  /** What was repaired in the request. */
  readonly notes: readonly string[];
  /** How it went. */
  readonly report: GenerateReport;
}

/** Options of `generate`. */
export interface GenerateOptions {
  /** Cancels before the next network pass. */
  readonly signal?: AbortSignal | undefined;
  /** Called after each step; a promise is waited for. */
  readonly onStep?: ((info: StepInfo) => void | Promise<void>) | undefined;
  /** Called after each network pass with passes done and passes in all. */
  readonly onPass?: ((done: number, total: number) => void) | undefined;
  /** Noise from outside instead of the seed, to compare with other programs. */
  readonly noise?: NoiseSource | undefined;
}

/** Finds each region's tokens in a prompt. */
export function matchRegions(
  tokenizer: Tokenizer,
  prompt: string,
  regions: readonly Region[],
): PhraseMatch[] {
  const tokens = tokenizer.encode(prompt);
  return regions.map((region) => {
    const selector: PhraseSelector = region.tokens
      ? { tokens: region.tokens }
      : region.span
      ? { span: region.span }
      : {
        phrase: region.phrase,
        ...(region.occurrence === undefined
          ? {}
          : { occurrence: region.occurrence }),
      };
    return matchPhrase(tokenizer, tokens, prompt, selector);
  });
}

/** Runs a checked request. */
export async function generate(
  networks: Networks,
  request: FullRequest,
  notes: readonly string[] = [],
  options: GenerateOptions = {},
): Promise<GenerateResult> {
  const { backend, tokenizer, unet, vae, schedule } = networks;
  const started = performance.now();
  backend.resetPeak();

  // prompt -> tokens -> text states
  const prompt = request.template.replace("{}", () => request.prompt);
  const matches = matchRegions(tokenizer, prompt, request.regions);
  const ids = [prompt, request.negativePrompt].map((text) =>
    tokenizer.encode(text).ids
  );
  using cond = encodeText(networks.textEncoder, [ids[0]!]);
  using uncond = encodeText(networks.textEncoder, [ids[1]!]);

  // regions -> energy
  const method = request.guidance.method === "winwinlay"
    ? winwinlay(request.guidance)
    : undefined;
  const sites = new Set(
    method?.sites(unet.config) ??
      guidedSites(unet.config, "middle_and_first_up"),
  );
  const subjects = request.regions.map((region, i): Subject => ({
    name: region.phrase,
    tokens: matches[i]!.positions,
    boxes: region.boxes,
    weight: region.weight,
  }));
  using energy = subjects.length
    ? new LayoutEnergy(backend, subjects, sites.size, [
      request.width,
      request.height,
    ], method?.energy ?? ENERGY_DEFAULTS)
    : undefined;

  // noise -> latent
  const scheduler = ddim(schedule, request.steps);
  const factor = pixelsPerCell(vae);
  const guided = method && energy
    ? Math.min(
      method.steps,
      request.steps - Number(method.placement === "after_step"),
    )
    : 0;
  const passes = request.steps + guided * (method?.iterations ?? 0);
  let done = 0;
  const steps: GenerateReport["steps"][number][] = [];
  using latent = await sample(unet, {
    cond,
    uncond,
    guidanceScale: request.guidanceScale,
    scheduler,
    noise: options.noise ?? seededNoise(backend, request.seed),
    shape: [
      1,
      unet.config.inChannels,
      request.height / factor,
      request.width / factor,
    ],
    energy,
    sites,
    method,
    signal: options.signal,
    onPass: () => options.onPass?.(++done, passes),
    onStep: async ({ step, timestep, inner, shares, clean }) => {
      steps.push({ timestep, shares, inner });
      await options.onStep?.({
        step: step + 1,
        steps: request.steps,
        timestep,
        energy: inner.at(-1)?.energy,
        inner,
        regionShares: shares,
        preview: () => decodeLatent(vae, clean, options),
      });
    },
  });

  // latent -> pixels -> PNG
  const picture = await decodeLatent(vae, latent, options);
  const png = await encodePng(picture.rgb, picture.width, picture.height, {
    text: metadata(request),
  });
  const regions = request.regions.map(({ phrase }, i) => ({
    phrase,
    ...matches[i]!,
    share: steps.reduce((sum, s) => sum + s.shares[i]!, 0) / steps.length,
  }));
  const seconds = (performance.now() - started) / 1000;
  return {
    ...picture,
    png,
    request,
    notes,
    report: { regions, steps, seconds, peakBytes: backend.memory.peakBytes },
  };
}

/** Image pixels per latent cell along one side. */
export function pixelsPerCell(vae: Pick<Vae, "config">): number {
  return 2 ** (vae.config.channels.length - 1);
}

/**
 * Latent -> 8-bit RGB.
 *
 * @param latent `[1, 4, height, width]` as the sampler has it.
 */
export async function decodeLatent(
  vae: Vae,
  latent: Tensor,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<Picture> {
  options.signal?.throwIfAborted();
  using scaled = combine(latent, 1 / vae.config.scalingFactor, latent, 0);
  using image = vaeDecode(vae, scaled);
  const [, , height = 0, width = 0] = image.shape;
  const [planes] = await vae.backend.read([image], options);
  const cells = height * width;
  const rgb = new Uint8Array(3 * cells);
  for (let i = 0; i < cells; i++) {
    for (let c = 0; c < 3; c++) {
      // float32 first, so that float64 backends round like devices
      rgb[3 * i + c] = Math.round(
        Math.min(
          1,
          Math.max(0, Math.fround(planes![c * cells + i]! * 0.5 + 0.5)),
        ) * 255,
      );
    }
  }
  return { rgb, width, height };
}

/** The PNG keyword under which the full request is kept as JSON. */
export const REQUEST_KEY = "winwinlay";

/** PNG texts: `parameters` as other Stable Diffusion tools write it, and our full request. */
export function metadata(request: FullRequest): Record<string, string> {
  const {
    prompt,
    negativePrompt,
    template,
    steps,
    guidanceScale,
    seed,
    width,
    height,
    model,
  } = request;
  const settings = [
    `Steps: ${steps}`,
    "Sampler: DDIM",
    `CFG scale: ${guidanceScale}`,
    `Seed: ${seed}`,
    `Size: ${width}x${height}`,
    `Model: ${model}`,
    "Version: winwinlay",
  ];
  return {
    parameters: [
      template.replace("{}", () => prompt),
      ...(negativePrompt ? [`Negative prompt: ${negativePrompt}`] : []),
      settings.join(", "),
    ].join("\n"),
    [REQUEST_KEY]: JSON.stringify(request),
  };
}
