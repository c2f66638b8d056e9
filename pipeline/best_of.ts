/** Best of n: the same request with several seeds, judged by how well attention keeps to the layout. */
import type { Tensor } from "../kernels/backend.ts";
import type { FullRequest } from "./request.ts";

/** One seed that was tried. */
export interface Candidate {
  /** Of all its noise. */
  readonly seed: number;
  /** See `layoutScore`; the largest wins, of equals the first. */
  readonly score: number;
  /** Per region, what `score` is the mean of. */
  readonly shares: readonly number[];
}

/** A latent, and what its denoising steps told of the regions' attention. */
export interface Sampled<Step> {
  /** Belongs to whoever has this. */
  readonly latent: Tensor;
  /** In order. */
  readonly steps: readonly Step[];
}

/** The PNG keyword under which the candidates of a picture are kept as JSON. */
export const BEST_OF_KEY = "winwinlay-best-of";

/** The seeds to try: as many as the request says, from its own. */
export function candidateSeeds(
  { seed, bestOf = 1 }: Pick<FullRequest, "seed" | "bestOf">,
): number[] {
  return Array.from({ length: bestOf }, (_, i) => seed + i);
}

/**
 * How well a picture keeps to its layout, without looking at it: per region the share of its phrase's
 * attention that lies in its boxes, averaged over the last quarter of the denoising steps and then over
 * the regions by weight.
 *
 * Why the last quarter: right after the guided steps every seed has been pushed to nearly the same
 * share, while at low noise attention lies on the thing that was painted, wherever that is.
 *
 * @returns From 0 to 1, and the shares of each region.
 */
export function layoutScore(
  steps: readonly { readonly shares: readonly number[] }[],
  weights: readonly number[],
): Pick<Candidate, "score" | "shares"> {
  const last = steps.slice(-Math.ceil(steps.length / 4));
  const shares = weights.map((_, i) =>
    last.reduce((sum, step) => sum + step.shares[i]!, 0) / last.length
  );
  const total = weights.reduce((a, b) => a + b, 0);
  const score = shares.reduce(
    (sum, share, i) =>
      sum + share * (total > 0 ? weights[i]! / total : 1 / weights.length),
    0,
  );
  return { score, shares };
}

/**
 * Samples every seed and keeps the best.
 *
 * @param sampleSeed Makes one.
 * @param judge Its score; not called where there is one seed.
 * @returns The best; the caller disposes its latent. The others are disposed.
 */
export async function sampleBest<Step>(
  seeds: readonly number[],
  sampleSeed: (seed: number) => Promise<Sampled<Step>>,
  judge: (steps: readonly Step[], seed: number) => Candidate,
): Promise<
  Sampled<Step> & {
    readonly seed: number;
    readonly candidates: readonly Candidate[];
  }
> {
  let best: Sampled<Step> & { seed: number; score: number } | undefined;
  const candidates: Candidate[] = [];
  try {
    for (const seed of seeds) {
      const sampled = await sampleSeed(seed);
      if (seeds.length === 1) return { ...sampled, seed, candidates };
      let candidate: Candidate;
      try {
        candidate = judge(sampled.steps, seed);
      } catch (error) {
        sampled.latent.dispose();
        throw error;
      }
      candidates.push(candidate);
      if (best !== undefined && candidate.score <= best.score) {
        sampled.latent.dispose();
        continue;
      }
      best?.latent.dispose();
      best = { ...sampled, seed, score: candidate.score };
    }
  } catch (error) {
    best?.latent.dispose();
    throw error;
  }
  const { latent, steps, seed } = best!;
  return { latent, steps, seed, candidates };
}

/** The request that was made, from the one that a PNG carries and its candidates: the search again. */
export function searchedRequest(
  request: Readonly<Record<string, unknown>>,
  candidates: readonly Candidate[],
): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(request).flatMap(([key, value]) =>
      key === "seed"
        ? [["seed", candidates[0]?.seed], ["bestOf", candidates.length]]
        : [[key, value]]
    ),
  );
}
