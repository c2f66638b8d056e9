/** The golden cases of a folder: which kind runs how, and what came out. */
import { join } from "node:path";
import { readText } from "../../weights/source.ts";
import { runBlock } from "./block.ts";
import { type Entry, GoldenCase, type Place } from "./case.ts";
import type { Check } from "./compare.ts";
import { runEnergy } from "./energy.ts";
import { runData, runTokenizer, runWeights } from "./files.ts";
import { runGuidance } from "./guidance.ts";
import { runOp } from "./op.ts";
import { runJob, runPipeline } from "./job.ts";
import { runScheduler } from "./scheduler.ts";
import { runText } from "./text.ts";
import { runUnet } from "./unet.ts";
import { runVae } from "./vae.ts";

export type { Entry, Place } from "./case.ts";

const KINDS: Readonly<Record<string, (c: GoldenCase) => Promise<void>>> = {
  op: runOp,
  block: runBlock,
  weights: runWeights,
  unet: runUnet,
  energy: runEnergy,
  guidance: runGuidance,
  scheduler: runScheduler,
  vae: runVae,
  text: runText,
  tokenizer: runTokenizer,
  data: runData,
  pipeline: runPipeline,
  e2e: runJob,
};

/** Cases that the library cannot run yet; not failures. Empty when all is well. */
const NOT_YET: readonly { readonly id: RegExp; readonly reason: string }[] = [];

/** Expected tensors that need not be reproduced. */
const EXCEPTIONS: readonly {
  readonly id: RegExp;
  readonly tensor: RegExp;
  readonly reason: string;
}[] = [{
  id: /^op-timestep-embedding-/,
  tensor: /^emb_float32$/,
  reason: "what diffusers rounds to in float32; emb is the truth",
}];

/** How a case ended. */
export interface Outcome {
  readonly id: string;
  readonly kind: string;
  readonly status: "passed" | "failed" | "not yet supported";
  /** Outside the core promise: a failure does not count. */
  readonly optional: boolean;
  /** Each tensor, the worst first. */
  readonly checks: readonly Check[];
  /** Why it failed or did not run, or "". */
  readonly note: string;
  readonly seconds: number;
}

/** The cases of a folder. */
export async function readCases(dir: string): Promise<readonly Entry[]> {
  const index = JSON.parse(await readText(join(dir, "index.json")));
  if (index.format !== 1 || !Array.isArray(index.cases)) {
    throw new RangeError(
      `Cannot read ${dir}/index.json: its format must be 1: current ${index.format}`,
    );
  }
  return index.cases;
}

/** Why a case cannot run yet, or undefined if it can. */
export function reasonToWait({ id }: Entry): string | undefined {
  return NOT_YET.find((x) => x.id.test(id))?.reason;
}

/** Runs one case. Never throws. */
export async function runCase(entry: Entry, place: Place): Promise<Outcome> {
  const { id, kind } = entry;
  const start = performance.now();
  const outcome = (
    status: Outcome["status"],
    note: string,
    checks: readonly Check[] = [],
  ): Outcome => ({
    id,
    kind,
    status,
    note,
    checks,
    optional: entry.attributes?.optional === true,
    seconds: (performance.now() - start) / 1000,
  });
  const later = reasonToWait(entry);
  if (later !== undefined) return outcome("not yet supported", later);
  if (!Object.hasOwn(KINDS, kind)) {
    return outcome("failed", `there is no kind "${kind}"`);
  }
  try {
    await using c = await GoldenCase.open(entry, place);
    await KINDS[kind]!(c);
    const checks = await c.finish((tensor) =>
      EXCEPTIONS.find((x) => x.id.test(id) && x.tensor.test(tensor))?.reason
    );
    checks.sort((a, b) => b.ratio - a.ratio);
    const bad = checks.filter((check) => check.problem !== undefined);
    if (checks.length === 0) return outcome("failed", "nothing was checked");
    if (bad.length === 0) return outcome("passed", "", checks);
    const few = bad.slice(0, 5).map((b) => `${b.tensor} ${b.problem}`);
    if (bad.length > few.length) {
      few.push(`and ${bad.length - few.length} more`);
    }
    return outcome("failed", few.join("; "), checks);
  } catch (error) {
    const text = error instanceof Error ? error.stack ?? error.message : error;
    return outcome("failed", String(text));
  }
}
