/** Paints the same small request twice on the given device and prints both pixel hashes. */
import { createHash } from "node:crypto";
import process from "node:process";
import { type DeviceChoice, type KernelChoice, open } from "../../mod.ts";

const kernels = process.env.WINWINLAY_TEST_KERNELS as KernelChoice | undefined;
// The gpu family takes several times as long on the software adapters of the tests.
const size = kernels === "gpu"
  ? { width: 64, height: 64, steps: 2, guidance: { steps: 1, iterations: 1 } }
  : { steps: 3, guidance: { steps: 2, iterations: 2 } };

await using model = await open("tiny-scenes", {
  backend: "webgpu",
  device: process.argv[2] as DeviceChoice,
  kernels,
});
for (let i = 0; i < 2; i++) {
  const { rgb, png } = await model.generate({
    prompt: "a red car and a blue house on grass",
    regions: [
      { phrase: "red car", boxes: [[0.06, 0.52, 0.54, 0.91]] },
      { phrase: "blue house", boxes: [[0.56, 0.13, 0.95, 0.74]] },
    ],
    seed: 7,
    preset: "paper", // with the prior, so that every kernel runs
    ...size,
  });
  const hash = (bytes: Uint8Array): string =>
    createHash("sha256").update(bytes).digest("hex");
  console.log(`PIXELS ${hash(rgb)} PNG ${hash(png)}`);
}
