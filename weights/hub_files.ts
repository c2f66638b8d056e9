// hub_files: which files of a repository are pulled.
import { MissingFileError, quote, WeightsError } from "./errors.ts";

/** A file of a repository. */
export interface HubFile {
  /** Name in the repository. */
  readonly name: string;
  /** Bytes, where the hub says it. */
  readonly size: number | undefined;
}

/** A revision of a repository as the hub has it. */
export interface HubRevision {
  /** `owner/name`. */
  readonly repo: string;
  /** Commit. */
  readonly commit: string;
  /** Every file. */
  readonly files: readonly HubFile[];
}

/** Parts with weights. */
export const PARTS = ["unet", "vae", "text_encoder", "text_encoder_2"];
/** Parts with small files only. */
export const SMALL = ["scheduler", "tokenizer", "tokenizer_2"];

/**
 * The files of a pipeline that we read: configs, tokenizers, its preset, and the weights of each network
 * in one form; plain before fp16 unless `variant` asks for fp16; ONNX exports, as optimum names them,
 * where text encoder or decoder have no safetensors.
 *
 * @throws {WeightsError} If it is no pipeline, or a network has neither.
 */
export function pipelineFiles(
  { repo, files }: HubRevision,
  variant?: "fp16",
): string[] {
  const names = files.map(({ name }) => name);
  if (!names.includes("model_index.json")) {
    const single = names.filter((name) =>
      name.endsWith(".safetensors") && !name.includes("/")
    );
    throw new WeightsError(
      `Cannot pull ${repo}: it must hold model_index.json: current repository has none${
        single.length
          ? `; name one of its files: ${single.slice(0, 5).join(", ")}`
          : ""
      }`,
    );
  }
  const wanted = names.filter((name) =>
    ["model_index.json", "winwinlay.json"].includes(name)
  );
  for (const part of SMALL) {
    wanted.push(
      ...names.filter((name) =>
        name.startsWith(`${part}/`) && /\.(?:json|txt)$/.test(name)
      ),
    );
  }
  for (const part of PARTS) {
    const own = names.filter((name) => name.startsWith(`${part}/`));
    const onnx = onnxFiles(names, part);
    if (own.length === 0 && onnx.length === 0) continue;
    wanted.push(...own.filter((name) => name === `${part}/config.json`));
    const half = own.filter((name) =>
      /\.fp16(?:-\d{5}-of-\d{5})?\.safetensors$|-\d{5}-of-\d{5}\.fp16\.safetensors$|index\.fp16\.json$/
        .test(name)
    );
    const plain = own.filter((name) =>
      !half.includes(name) &&
      /(?:^|\/)(?:model|diffusion_pytorch_model)(?:-\d{5}-of-\d{5})?\.safetensors$|\.safetensors\.index\.json$/
        .test(name)
    );
    const [first, second] = variant === "fp16" ? [half, plain] : [plain, half];
    const neither = half.length === 0 && plain.length === 0;
    const chosen = neither
      ? onnx
      : first.length || variant === "fp16"
      ? first
      : second;
    if (chosen.length === 0) {
      throw new WeightsError(
        `Cannot pull ${repo}: ${part} must have ${
          variant ? `${variant} ` : ""
        }safetensors: current files are ${own.slice(0, 5).join(", ")}`,
      );
    }
    wanted.push(...chosen);
  }
  return wanted;
}

/** The export of a part and its config; none of a UNet, whose gradient guidance needs. */
function onnxFiles(names: readonly string[], part: string): string[] {
  const folder = part === "vae" ? "vae_decoder" : part;
  if (part === "unet" || !names.includes(`${folder}/model.onnx`)) return [];
  // What the export needs comes before it: where it is, all is.
  return ["config.json", "model.onnx_data", "model.onnx"]
    .map((name) => `${folder}/${name}`)
    .filter((name) => names.includes(name));
}

/**
 * Files by name or pattern.
 *
 * @throws {MissingFileError} If one is not there.
 */
export function namedFiles(
  { repo, files }: HubRevision,
  patterns: readonly string[],
): string[] {
  return patterns.flatMap((pattern) => {
    const match = new RegExp(
      `^${
        pattern.replace(/[.+?^${}()|[\]\\]/g, "\\$&").replaceAll("*", "[^/]*")
      }$`,
    );
    const found = files.filter(({ name }) => match.test(name));
    if (found.length === 0) {
      throw new MissingFileError(
        `Cannot pull ${
          quote(pattern)
        } of ${repo}: the repository must have it: current files are ${
          files.slice(0, 8).map(({ name }) => name).join(", ")
        }`,
      );
    }
    return found.map(({ name }) => name);
  });
}
