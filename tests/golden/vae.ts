/** Golden cases of kind `vae`: decode and encode. */
import { loadVae, vaeDecode, vaeEncode } from "../../pipeline/vae.ts";
import type { Tensor } from "../../kernels/backend.ts";
import type { GoldenCase } from "./case.ts";

/** Runs a case of kind `vae`. */
export async function runVae(c: GoldenCase): Promise<void> {
  const encoder = c.has("input.image");
  const vae = c.own(
    await loadVae(c.backend, await c.weights(), { encoder }),
  );
  const onStage = (name: string, value: Tensor): void => {
    const key = `intermediate.${name}`;
    if (c.has(`expected.${key}`)) c.expect(key, c.own(value.retain()));
  };
  if (c.has("input.z")) {
    const z = await c.upload("input.z");
    c.expect("decoded", c.own(vaeDecode(vae, z, onStage)));
  }
  if (encoder) {
    const image = await c.upload("input.image");
    const moments = c.own(vaeEncode(vae, image, onStage));
    const [batch = 1] = moments.shape;
    // The halves of the channels.
    const half = (which: 0 | 1) => (values: ArrayLike<number>) => {
      const n = values.length / batch;
      return Float64Array.from(
        { length: values.length / 2 },
        (_, i) =>
          values[Math.floor(i / (n / 2)) * n + which * n / 2 + i % (n / 2)]!,
      );
    };
    c.expect("mean", moments, half(0));
    c.expect(
      "logvar",
      moments,
      (values) => half(1)(values).map((v) => Math.min(20, Math.max(-30, v))),
    );
  }
}
