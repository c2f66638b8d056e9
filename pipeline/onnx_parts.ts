/** Text encoders and VAE decoders that are ONNX exports in optimum's layout. */
import type { Backend, Floats, Tensor } from "../kernels/backend.ts";
import { WeightsError } from "../weights/errors.ts";
import { type OnnxArray, OnnxNetwork } from "./onnx_session.ts";
import { type TextConfig, textConfig } from "./text_encoder.ts";
import { type VaeConfig, vaeConfig } from "./vae.ts";

type Config = Readonly<Record<string, unknown>>;

/** A text encoder: ids to states, on the host, uploaded. */
export interface OnnxTextEncoder extends Disposable {
  /** Where its results go. */
  readonly backend: Backend;
  /** Its sizes. */
  readonly config: TextConfig;
  /** `input_ids` -> `last_hidden_state` and more. */
  readonly network: OnnxNetwork;
}

/** A VAE decoder: latent to pixels, on the host. */
export interface OnnxDecoder extends Disposable {
  /** Where the latent lives. */
  readonly backend: Backend;
  /** Its sizes. */
  readonly config: VaeConfig;
  /** `latent_sample` -> `sample`. */
  readonly network: OnnxNetwork;
}

interface OpenFrom {
  readonly location: string | URL;
  readonly config: Config;
  readonly name: string;
  readonly signal?: AbortSignal | undefined;
}

/** Opens `folder/model.onnx` as a text encoder. */
export async function openOnnxText(
  backend: Backend,
  folder: string,
  { location, config, name, signal }: OpenFrom,
): Promise<OnnxTextEncoder> {
  const checked = textConfig(config, `${name}/${folder}`);
  const network = await OnnxNetwork.open(location, folder, { signal });
  checkNames(network, "input_ids", []);
  return {
    backend,
    config: checked,
    network,
    [Symbol.dispose]: () => network[Symbol.dispose](),
  };
}

/** Opens `vae_decoder/model.onnx`. */
export async function openOnnxDecoder(
  backend: Backend,
  { location, config, name, signal }: OpenFrom,
): Promise<OnnxDecoder> {
  const checked = vaeConfig(config, `${name}/vae_decoder`);
  const network = await OnnxNetwork.open(location, "vae_decoder", { signal });
  checkNames(network, "latent_sample", ["sample"]);
  return {
    backend,
    config: checked,
    network,
    [Symbol.dispose]: () => network[Symbol.dispose](),
  };
}

function checkNames(
  network: OnnxNetwork,
  input: string,
  wanted: readonly string[],
): void {
  try {
    network.expect(input, wanted);
  } catch (error) {
    network[Symbol.dispose]();
    throw error;
  }
}

/**
 * The states that SD1.x and SD2.x take.
 *
 * @returns `[1, channels, tokens]`, after the final LayerNorm.
 */
export async function onnxStates(
  encoder: OnnxTextEncoder,
  ids: Int32Array,
): Promise<Tensor> {
  const found = await runText(encoder, ids, ["last_hidden_state"]);
  return uploadStates(encoder, found.get("last_hidden_state")!, ids.length);
}

/** The states that SDXL takes, as `encodePenultimate` gives them. */
export async function onnxPenultimate(
  encoder: OnnxTextEncoder,
  ids: Int32Array,
  pool: boolean,
): Promise<{ readonly states: Tensor; readonly pooled: Tensor | undefined }> {
  const { config: { layers, projection }, backend, network } = encoder;
  const hidden = `hidden_states.${layers - 1}`;
  const wanted = pool ? [hidden, "text_embeds"] : [hidden];
  const found = await runText(encoder, ids, wanted);
  const states = uploadStates(encoder, found.get(hidden)!, ids.length);
  if (!pool) return { states, pooled: undefined };
  const { data, dims } = found.get("text_embeds")!;
  expectDims(network, "text_embeds", dims, [1, projection]);
  const pooled = backend.upload(Float32Array.from(data), [1, projection, 1]);
  return { states, pooled };
}

function runText(
  { network }: OnnxTextEncoder,
  ids: Int32Array,
  wanted: readonly string[],
): Promise<Map<string, OnnxArray>> {
  return network.run("input_ids", { data: ids, dims: [1, ids.length] }, wanted);
}

/** `[1, tokens, channels]` of the host to `[1, channels, tokens]`. */
function uploadStates(
  { backend, config: { channels }, network }: OnnxTextEncoder,
  { data, dims }: OnnxArray,
  tokens: number,
): Tensor {
  expectDims(network, "text states", dims, [1, tokens, channels]);
  const out = new Float32Array(channels * tokens);
  for (let n = 0; n < tokens; n++) {
    for (let c = 0; c < channels; c++) {
      out[c * tokens + n] = data[n * channels + c]!;
    }
  }
  return backend.upload(out, [1, channels, tokens]);
}

/**
 * Latent to image.
 *
 * @param latent `[1, 4, height, width]`, already divided by `config.scalingFactor`.
 * @returns `[1, 3, factor height, factor width]`, about -1 to 1, on the host.
 */
export async function decodeOnnx(
  { backend, config, network }: OnnxDecoder,
  latent: Tensor,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<Floats> {
  const [z] = await backend.read([latent], options);
  const found = await network.run(
    "latent_sample",
    { data: z!, dims: latent.shape },
    ["sample"],
  );
  options.signal?.throwIfAborted();
  const { data, dims } = found.get("sample")!;
  const factor = 2 ** (config.channels.length - 1);
  const [height, width] = latent.shape.slice(2) as [number, number];
  expectDims(network, "sample", dims, [1, 3, factor * height, factor * width]);
  return Float32Array.from(data);
}

function expectDims(
  { name }: OnnxNetwork,
  what: string,
  dims: readonly number[],
  expected: readonly number[],
): void {
  if (String(dims) !== String(expected)) {
    throw new WeightsError(
      `Cannot use ${name}: ${what} must be [${expected}], as its config says: current shape is [${dims}]`,
    );
  }
}
