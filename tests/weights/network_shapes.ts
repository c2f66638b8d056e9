// network_shapes: names and shapes of a component as our networks ask for them: another list than weights/ has.
import { Plan } from "../../kernels/plan.ts";
import type { WeightSource } from "../../pipeline/weight_source.ts";
import { loadTextEncoder } from "../../pipeline/text_encoder.ts";
import { loadUnet } from "../../pipeline/unet.ts";
import { loadVae } from "../../pipeline/vae.ts";

/**
 * What diffusers' files of a component hold.
 *
 * @returns By name; networks ask for 1x1 convolutions as `[out, in]`, which files have as `[out, in, 1, 1]`.
 */
export async function networkShapes(
  part: string,
  config: Readonly<Record<string, unknown>>,
): Promise<Map<string, readonly number[]>> {
  const shapes = new Map<string, readonly number[]>();
  const kernel = config["use_linear_projection"]
    ? /(conv_shortcut|quant_conv)\.weight$/
    : /(conv_shortcut|quant_conv|proj_in|proj_out)\.weight$/;
  const source: WeightSource & { config: typeof config } = {
    name: part,
    config,
    tensors: new Map(),
    read: () => Promise.reject(new Error("there is nothing to read")),
    collect: (name, shape) =>
      void shapes.set(name, kernel.test(name) ? [...shape, 1, 1] : shape),
  };
  using plan = new Plan();
  using _network = part === "unet"
    ? await loadUnet(plan, source)
    : part === "vae"
    ? await loadVae(plan, source, { encoder: true })
    : await loadTextEncoder(plan, source, {
      projection: part === "text_encoder_2",
    });
  return shapes;
}
