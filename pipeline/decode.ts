/** Latent -> RGB. */
import type { Floats, Tensor } from "../kernels/backend.ts";
import { combine } from "../kernels/combine.ts";
import type { Picture } from "./bitmap_font.ts";
import { decodeOnnx, type OnnxDecoder } from "./onnx_parts.ts";
import { type Vae, vaeDecode } from "./vae.ts";
import { decodeInTiles } from "./vae_tiles.ts";

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
  vae: Vae | OnnxDecoder,
  latent: Tensor,
  options: {
    readonly signal?: AbortSignal | undefined;
    readonly memory?: { readonly tile?: number | undefined } | undefined;
  } = {},
): Promise<Picture> {
  const { signal, memory } = options;
  signal?.throwIfAborted();
  using scaled = combine(latent, 1 / vae.config.scalingFactor, latent, 0);
  const [height, width] = latent.shape.slice(2).map((n) =>
    n * pixelsPerCell(vae)
  ) as [number, number];
  const decode = (part: Tensor): Promise<Floats> =>
    "network" in vae
      ? decodeOnnx(vae, part, { signal })
      : decodeWhole(vae, part, { signal });
  const planes = memory?.tile === undefined
    ? await decode(scaled)
    : await decodeInTiles(decode, scaled, {
      tile: memory.tile,
      factor: pixelsPerCell(vae),
      signal,
    });
  const cells = height * width;
  const rgb = new Uint8Array(3 * cells);
  for (let i = 0; i < cells; i++) {
    for (let c = 0; c < 3; c++) {
      // float32 first, so that float64 backends round like devices
      rgb[3 * i + c] = Math.round(
        Math.min(
          1,
          Math.max(0, Math.fround(planes[c * cells + i]! * 0.5 + 0.5)),
        ) * 255,
      );
    }
  }
  return { rgb, width, height };
}

async function decodeWhole(
  vae: Vae,
  scaled: Tensor,
  options: { readonly signal: AbortSignal | undefined },
): Promise<Floats> {
  using image = vaeDecode(vae, scaled);
  return (await vae.backend.read([image], options))[0]!;
}
