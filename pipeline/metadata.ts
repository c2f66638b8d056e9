/** What a PNG says of how it was made. */
import { BEST_OF_KEY, type Candidate } from "./best_of.ts";
import type { FullRequest } from "./request.ts";
import { SCHEDULER_TITLES } from "./scheduler.ts";

/** The prompt in its template. */
export function promptOf(
  { template, prompt }: Pick<FullRequest, "template" | "prompt">,
): string {
  return template.replace("{}", () => prompt);
}

/** The PNG keyword under which the full request is kept as JSON. */
export const REQUEST_KEY = "winwinlay";

/** PNG texts: `parameters` as other Stable Diffusion tools write it, our full request, and how its seed was found. */
export function metadata(
  request: FullRequest,
  candidates: readonly Candidate[] = [],
): Record<string, string> {
  const {
    negativePrompt,
    steps,
    guidanceScale,
    seed,
    width,
    height,
    model,
  } = request;
  const settings = [
    `Steps: ${steps}`,
    `Sampler: ${SCHEDULER_TITLES[request.scheduler]}`,
    `CFG scale: ${guidanceScale}`,
    `Seed: ${seed}`,
    `Size: ${width}x${height}`,
    `Model: ${model}`,
    "Version: winwinlay",
  ];
  return {
    parameters: [
      promptOf(request),
      ...(negativePrompt ? [`Negative prompt: ${negativePrompt}`] : []),
      settings.join(", "),
    ].join("\n"),
    [REQUEST_KEY]: JSON.stringify(request),
    ...(candidates.length ? { [BEST_OF_KEY]: JSON.stringify(candidates) } : {}),
  };
}
