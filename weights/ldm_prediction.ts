// ldm_prediction: what a single file's UNet predicts, which its weights do not show.
//
// In this order: what the caller says; the marks `v_pred` and `ztsnr` (empty tensors that
// fine-tunes of SDXL carry); `modelspec.prediction_type` and `modelspec.architecture` of the
// metadata (https://github.com/Stability-AI/ModelSpec); for SD2 the step of training, as diffusers
// has it: 875000 is SD2 base, which predicts noise, anything else or nothing is a 768 model, which
// predicts v; for the other families noise.
import { quote, WeightsError } from "./errors.ts";
import type { LdmFamily } from "./ldm_kinds.ts";

/** Noise, or `v = sqrt(abar) eps - sqrt(1 - abar) x0`. */
export type LdmPrediction = "epsilon" | "v_prediction";

/** What the file says, apart from its networks. */
export interface PredictionHints {
  /** For messages. */
  readonly file: string;
  /** Of the file. */
  readonly family: LdmFamily;
  /** The `__metadata__`. */
  readonly metadata: ReadonlyMap<string, string>;
  /** It has a tensor `v_pred`. */
  readonly vMark: boolean;
  /** It has a tensor `ztsnr`. */
  readonly zeroSnrMark: boolean;
  /** Its `global_step`. */
  readonly globalStep: number | undefined;
}

const SPELLINGS: Readonly<Record<string, LdmPrediction>> = {
  epsilon: "epsilon",
  eps: "epsilon",
  v: "v_prediction",
  v_prediction: "v_prediction",
  "v-prediction": "v_prediction",
};
const SD2_BASE_STEP = 875_000;
const HELP = 'say which with --prediction, or the option "prediction"';

/**
 * What a UNet predicts.
 *
 * @param asked What the caller says; it wins.
 * @throws {WeightsError} If the file contradicts itself or names a kind that is not supported.
 */
export function ldmPrediction(
  hints: PredictionHints,
  asked?: LdmPrediction,
): LdmPrediction {
  const { file, family, metadata, vMark, zeroSnrMark, globalStep } = hints;
  const told = metadata.get("modelspec.prediction_type");
  const written = told === undefined
    ? undefined
    : SPELLINGS[told.trim().toLowerCase()];
  let prediction = asked;
  if (prediction === undefined) {
    if (told !== undefined && written === undefined) {
      throw new WeightsError(
        `Cannot use ${file}: its modelspec.prediction_type must be epsilon or v: current value is ${
          quote(told)
        }; ${HELP}`,
      );
    }
    if (vMark && written === "epsilon") {
      throw new WeightsError(
        `Cannot use ${file}: its metadata and its tensor v_pred must agree: current modelspec.prediction_type is ${
          quote(told)
        }; ${HELP}`,
      );
    }
    prediction = vMark ? "v_prediction" : written;
  }
  if (prediction === undefined) {
    const architecture = metadata.get("modelspec.architecture") ?? "";
    if (family !== "sd2" || /^stable-diffusion-v2-512\b/.test(architecture)) {
      prediction = "epsilon";
    } else if (/^stable-diffusion-v2-768-v\b/.test(architecture)) {
      prediction = "v_prediction";
    } else {
      prediction = globalStep === SD2_BASE_STEP ? "epsilon" : "v_prediction";
    }
  }
  if (zeroSnrMark && prediction === "epsilon") {
    throw new WeightsError(
      `Cannot use ${file}: a schedule that ends without signal (tensor ztsnr) must go with v-prediction: current prediction is epsilon; ${HELP}`,
    );
  }
  return prediction;
}
