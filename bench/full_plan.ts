/** What pictures of the published architectures take, from their configs alone. */
import { readFile } from "node:fs/promises";
import {
  checkRequest,
  type FullRequest,
  type KernelFamily,
  type MemoryEstimate,
  PAPER,
  type PlannedModel,
  scheduleConfig,
  Tokenizer,
} from "../mod.ts";
import { chooseMemory, estimateMemory } from "../pipeline/memory.ts";
import type { JsonObject } from "../weights/strict_json.ts";
import { FULL_CONFIGS } from "./full_configs.ts";

/** A model by its configs. */
async function planned(name: keyof typeof FULL_CONFIGS): Promise<PlannedModel> {
  const { parts, scheduler, index } = FULL_CONFIGS[name];
  const merges = await readFile(
    new URL("../tests/fixtures/golden/clip_bpe_merges.txt", import.meta.url),
    "utf8",
  );
  const tokenizer = Tokenizer.fromMerges(merges);
  return {
    name,
    configs: parts as Record<string, JsonObject>,
    tokenizers: "tokenizer_2" in index ? [tokenizer, tokenizer] : [tokenizer],
    schedule: scheduleConfig(scheduler, name),
  };
}

function request(size: number, xl: boolean, guided: boolean): FullRequest {
  return checkRequest({
    prompt: "a red car and a blue house on grass",
    regions: guided
      ? [
        { phrase: "red car", boxes: [[0.06, 0.52, 0.54, 0.91]] },
        { phrase: "blue house", boxes: [[0.56, 0.13, 0.95, 0.74]] },
      ]
      : [],
    steps: 2,
    guidance: guided
      ? { sites: xl ? "first_up_only" : "middle_and_first_up" }
      : { method: "none" },
  }, {
    model: "full size",
    size: [size, size],
    multiple: 8,
    presets: { model: PAPER, paper: PAPER },
    mostSteps: 1000,
    takesSizes: xl,
  }).request;
}

/** Estimates without a limit, and the thriftiest way, for a family's kernels. */
export async function planFullSize(
  family: KernelFamily,
): Promise<{ name: string; plan: MemoryEstimate }[]> {
  const out: { name: string; plan: MemoryEstimate }[] = [];
  const free = { maxTensorBytes: Infinity, family };
  for (
    const [name, title, size] of [
      ["sd15", "SD1.5 512x512", 512],
      ["sd15", "SD1.5 768x768", 768],
      ["sdxl", "SDXL 1024x1024", 1024],
    ] as const
  ) {
    const model = await planned(name);
    for (const guided of [false, true]) {
      const wanted = request(size, name === "sdxl", guided);
      const kind = `${title} ${guided ? "guided" : "plain"}`;
      for (const type of ["f32", "f16"] as const) {
        out.push({
          name: kind,
          plan: await chooseMemory(model, wanted, free, [type]),
        });
      }
      out.push({
        name: `${kind}, thriftiest`,
        plan: await estimateMemory(model, wanted, {
          weights: "f16",
          freeText: true,
          together: false,
          recompute: true,
          tile: 32,
        }, free),
      });
    }
  }
  return out;
}
