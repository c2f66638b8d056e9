/** Paints the same small request twice on the given device and prints both pixel hashes. */
import { createHash } from "node:crypto";
import process from "node:process";
import { type DeviceChoice, type KernelChoice, open } from "../../mod.ts";

await using model = await open("tiny-scenes", {
  backend: "webgpu",
  device: process.argv[2] as DeviceChoice,
  kernels: process.env.WINWINLAY_TEST_KERNELS as KernelChoice | undefined,
});
for (let i = 0; i < 2; i++) {
  const { rgb, png } = await model.generate({
    prompt: "a red car and a blue house on grass",
    regions: [
      { phrase: "red car", boxes: [[0.06, 0.52, 0.54, 0.91]] },
      { phrase: "blue house", boxes: [[0.56, 0.13, 0.95, 0.74]] },
    ],
    seed: 7,
    steps: 3,
    preset: "paper", // with the prior, so that every kernel runs
    guidance: { steps: 2, iterations: 2 },
  });
  const hash = (bytes: Uint8Array): string =>
    createHash("sha256").update(bytes).digest("hex");
  console.log(`PIXELS ${hash(rgb)} PNG ${hash(png)}`);
}
