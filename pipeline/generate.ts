/**
 * request -> picture: prompt -> tokens -> text states -> UNet and maps -> energy -> gradient ->
 * Langevin and DDIM -> VAE -> PNG.
 */
import type { Backend } from "../kernels/backend.ts";
import {
  type AttentionMap,
  type AttentionStep,
  meanMaps,
} from "./attention_maps.ts";
import {
  encodePrompt,
  heldConditioning,
  type TextStage,
} from "./conditioning.ts";
import {
  type Candidate,
  candidateSeeds,
  layoutScore,
  sampleBest,
  type Sampled,
} from "./best_of.ts";
import { decodeLatent, pixelsPerCell } from "./decode.ts";
import type { Picture } from "./bitmap_font.ts";
import { ENERGY_DEFAULTS, LayoutEnergy, type Subject } from "./energy.ts";
import type { EnergyContext } from "./guidance/method.ts";
import { guidedPasses, methodOf } from "./guidance/methods.ts";
import { defaultSites, guidedSites } from "./guidance/sites.ts";
import type { Region } from "./layout.ts";
import { type NoiseSource, seededNoise } from "./noise.ts";
import { metadata, promptOf } from "./metadata.ts";
import type { OnnxDecoder } from "./onnx_parts.ts";
import { encodePng } from "./png.ts";
import type { FullRequest } from "./request.ts";
import { hasCells, shapeBoxes } from "./shape.ts";
import { type InnerReport, sample } from "./sampler.ts";
import type { ScheduleConfig } from "./schedule_config.ts";
import { makeScheduler } from "./scheduler.ts";
import {
  matchPhrase,
  type PhraseMatch,
  type PhraseSelector,
} from "./phrase.ts";
import type { Tokenizer } from "./tokenize.ts";
import type { Unet } from "./unet.ts";
import { siteGrids } from "./unet_config.ts";
import type { Vae } from "./vae.ts";

/** Everything a checkpoint brings, on a backend. */
export interface Networks {
  /** Where they live. */
  readonly backend: Backend;
  /** Text to ids to states: one stage, or SDXL's two. */
  readonly text: readonly TextStage[];
  /** Predicts noise. */
  readonly unet: Unet;
  /** Latents to pixels. */
  readonly vae: Vae | OnnxDecoder;
  /** Noise schedule and prediction type. */
  readonly schedule: ScheduleConfig;
  /** Zeros stand for an empty negative prompt, as SDXL's `force_zeros_for_empty_prompt` says. */
  readonly zeroNegative: boolean;
  /** Frees the text encoders; whoever gave them loads them again for the next prompt. */
  readonly freeText?: () => void;
}

/** What a step tells while it runs. */
export interface StepInfo {
  /** From 1. */
  readonly step: number;
  /** How many there are. */
  readonly steps: number;
  /** Of the picture that is being sampled. */
  readonly seed: number;
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
  /** Best of n: every seed that was tried, in order. The rest of the report is about the best. */
  readonly candidates?: readonly Candidate[];
  /** Wall clock. */
  readonly seconds: number;
  /** Most bytes that the device gave, weights and free buffers included. */
  readonly peakBytes: number;
  /** The same by phase. */
  readonly memory: PhaseMemory;
}

/** Most bytes that a device gave in each phase of a run. */
export interface PhaseMemory {
  /** Weights alone, before the first phase. */
  readonly weights: number;
  /** Encoding the prompts. */
  readonly text: number;
  /** Sampling. */
  readonly sampling: number;
  /** Decoding the latent. */
  readonly decoding: number;
}

/** How a run trades time for memory. */
export interface RunMemory {
  /** See `SampleOptions`. Default true. */
  readonly together?: boolean;
  /** See `EnergyRequest`. Default false. */
  readonly recompute?: boolean;
  /** Free the text encoders once the prompts are encoded. Default false. */
  readonly freeText?: boolean;
  /** Decode in tiles of at most so many latent cells along a side. Default in one piece. */
  readonly tile?: number | undefined;
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
  /** Called after `onStep` with each region's attention map; a promise is waited for. */
  readonly onAttention?:
    | ((step: AttentionStep) => void | Promise<void>)
    | undefined;
  /** Best of n: called after each seed but before the picture is decoded. */
  readonly onCandidate?: ((candidate: Candidate) => void) | undefined;
  /** Called after each network pass with passes done and passes in all, which may be less where guidance ends early. */
  readonly onPass?: ((done: number, total: number) => void) | undefined;
  /** How time is traded for memory. `Model.generate` chooses it itself unless it is given. */
  readonly memory?: RunMemory | undefined;
  /** Noise from outside instead of the seed, to compare with other programs. */
  readonly noise?: NoiseSource | undefined;
}

/**
 * Finds each region's tokens in a prompt.
 *
 * @param tokenizers One, or SDXL's two, which must agree: one position serves the states of both.
 * @throws {RangeError} If a phrase is not there, was cut off, or lies elsewhere for the second tokenizer.
 */
export function matchRegions(
  tokenizers: readonly Tokenizer[],
  prompt: string,
  regions: readonly Region[],
  truncate = false,
): PhraseMatch[] {
  const [matches = [], ...others] = tokenizers.map((tokenizer) => {
    const tokens = tokenizer.encode(prompt, { truncate });
    return regions.map((region) =>
      matchPhrase(tokenizer, tokens, prompt, selectorOf(region))
    );
  });
  for (const other of others) {
    matches.forEach(({ positions, matched }, i) => {
      if (String(other[i]!.positions) !== String(positions)) {
        throw new RangeError(
          `Cannot place ${
            JSON.stringify(matched)
          }: both tokenizers of the model must have it at the same positions: current [${positions}] and [${
            other[i]!.positions
          }]; "!" and "<|endoftext|>" in a prompt can do that`,
        );
      }
    });
  }
  return matches;
}

function selectorOf(region: Region): PhraseSelector {
  if (region.tokens) return { tokens: region.tokens };
  if (region.span) return { span: region.span };
  const { phrase, occurrence } = region;
  return { phrase, ...(occurrence === undefined ? {} : { occurrence }) };
}

/** Runs a checked request. */
export async function generate(
  networks: Networks,
  request: FullRequest,
  notes: readonly string[] = [],
  options: GenerateOptions = {},
): Promise<GenerateResult> {
  const { picture, report, seed } = await paint(networks, request, options);
  const { bestOf: _, ...one } = request;
  const made: FullRequest = { ...one, seed };
  const png = await encodePng(picture.rgb, picture.width, picture.height, {
    text: metadata(made, report.candidates),
  });
  return { ...picture, png, request: made, notes, report };
}

/** `generate` up to the pixels, and the seed that made them. */
export async function paint(
  networks: Networks,
  request: FullRequest,
  options: GenerateOptions = {},
): Promise<{
  readonly picture: Picture;
  readonly report: GenerateReport;
  readonly seed: number;
}> {
  const { backend, text, unet, vae, schedule } = networks;
  const started = performance.now();
  const peaks: number[] = [];
  const nextPhase = (): void => {
    peaks.push(backend.memory.peakReservedBytes);
    backend.trim();
    backend.resetPeak();
  };
  backend.trim();
  backend.resetPeak();
  nextPhase();

  // prompt -> tokens -> text states
  const prompt = promptOf(request);
  const { truncate, width, height } = request;
  const matches = matchRegions(
    text.map(({ tokenizer }) => tokenizer),
    prompt,
    request.regions,
    truncate,
  );
  const encode = async (words: string, zeros: boolean) =>
    heldConditioning(
      await encodePrompt(text, words, {
        added: unet.config.added,
        sizes: {
          originalSize: request.originalSize ?? [width, height],
          cropTopLeft: request.cropTopLeft ?? [0, 0],
          targetSize: request.targetSize ?? [width, height],
        },
        truncate,
        zeros,
      }),
    );
  const { negativePrompt } = request;
  using cond = await encode(prompt, false);
  using uncond = await encode(
    negativePrompt,
    networks.zeroNegative && negativePrompt === "",
  );
  backend.flush();
  if (options.memory?.freeText) networks.freeText?.();
  nextPhase();

  // regions -> energy
  const { config } = unet;
  const factor = pixelsPerCell(vae);
  const grid = [height / factor, width / factor] as const;
  const subjects = request.regions.map((region, i): Subject => ({
    name: region.phrase,
    tokens: matches[i]!.positions,
    ends: matches[i]!.ends,
    boxes: shapeBoxes(region),
    mask: region.mask,
    weight: region.weight,
  }));
  const method = subjects.length ? methodOf(request.guidance) : undefined;
  // What shares are measured by, the same for every method, so that they can be compared.
  const measured = guidedSites(config, defaultSites(config));
  const grids = siteGrids(config, measured, [grid[1], grid[0]]);
  const seen = subjects.every((s) => hasCells(s, grids, "nearest"));
  const measuring = {
    ...ENERGY_DEFAULTS,
    raster: seen ? "nearest" : "coverage", // a mask may be too thin for half a cell
  } as const;

  // noise -> latent, for each seed
  const { spacing = schedule.spacing } = request;
  const scheduler = makeScheduler(
    request.scheduler,
    { ...schedule, spacing },
    request.steps,
  );
  const seeds = candidateSeeds(request);
  const guided = method ? guidedPasses(request.guidance, request.steps) : 0;
  const passes = seeds.length * (request.steps + guided);
  const { memory = {} } = options;
  let done = 0;
  const sampleSeed = async (
    seed: number,
  ): Promise<Sampled<GenerateReport["steps"][number]>> => {
    const context: EnergyContext = {
      backend,
      config,
      subjects,
      image: [width, height],
      grid,
      textLength: cond.states.shape[2]!,
      promptLength: 2 + text[0]!.tokenizer.encode(prompt, { truncate }).count,
      seed,
    };
    using energy = method?.energy(context);
    using edit = method?.edit?.(context);
    using measure = subjects.length
      ? new LayoutEnergy(
        backend,
        subjects,
        measured,
        context.image,
        measuring,
      )
      : undefined;
    const steps: GenerateReport["steps"][number][] = [];
    const latent = await sample(unet, {
      cond,
      uncond,
      guidanceScale: request.guidanceScale,
      scheduler,
      noise: options.noise ?? seededNoise(backend, seed),
      shape: [1, config.inChannels, ...grid],
      measure,
      guide: method && energy && { method, energy, edit },
      together: memory.together,
      recompute: memory.recompute,
      attention: options.onAttention !== undefined,
      signal: options.signal,
      onPass: () => options.onPass?.(++done, passes),
      onStep: async ({ step, timestep, inner, shares, attention, clean }) => {
        steps.push({ timestep, shares, inner });
        const info = {
          step: step + 1,
          steps: request.steps,
          seed,
          timestep,
          preview: async () => {
            backend.trim(); // decoding takes other buffers
            try {
              return await decodeLatent(vae, clean, options);
            } finally {
              backend.trim();
            }
          },
        };
        await options.onStep?.({
          ...info,
          energy: inner.at(-1)?.energy,
          inner,
          regionShares: shares,
        });
        await options.onAttention?.({
          ...info,
          guided: inner.length > 0,
          maps: attention.length
            ? meanMaps(attention).map((map, i): AttentionMap => ({
              phrase: subjects[i]!.name,
              ...map,
              share: shares[i]!,
            }))
            : [],
        });
      },
    });
    return { latent, steps };
  };
  if (options.noise && seeds.length > 1) {
    throw new TypeError(
      `Cannot paint the best of ${seeds.length}: noise must come from the seeds: current noise comes from outside`,
    );
  }
  const best = await sampleBest(seeds, sampleSeed, (steps, seed) => {
    const factors = subjects.map(({ weight = 1 }) => weight);
    const candidate = { seed, ...layoutScore(steps, factors) };
    options.onCandidate?.(candidate);
    return candidate;
  });
  using latent = best.latent;
  const { steps, candidates, seed } = best;
  nextPhase();

  // latent -> pixels
  const picture = await decodeLatent(vae, latent, options);
  nextPhase();
  const regions = matches.map(({ positions, matched, fuzzy }, i) => ({
    phrase: request.regions[i]!.phrase,
    positions,
    matched,
    fuzzy,
    share: steps.reduce((sum, s) => sum + s.shares[i]!, 0) / steps.length,
  }));
  const [weights = 0, textPeak = 0, sampling = 0, decoding = 0] = peaks;
  return {
    picture,
    seed,
    report: {
      regions,
      steps,
      ...(candidates.length ? { candidates } : {}),
      seconds: (performance.now() - started) / 1000,
      peakBytes: Math.max(...peaks),
      memory: { weights, text: textPeak, sampling, decoding },
    },
  };
}
