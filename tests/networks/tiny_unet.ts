/** The tiny random UNet of the SD1.5 pattern that the golden cases use, as a source of weights. */
import { readFile } from "node:fs/promises";
import type { WeightSource } from "../../pipeline/weight_source.ts";
import { openSource } from "../../weights/source.ts";
import { Safetensors } from "../../weights/safetensors.ts";

const FOLDER = new URL("../fixtures/golden/", import.meta.url);

/** Opens it; the caller closes it. */
export async function tinyUnet(): Promise<
  WeightSource & {
    readonly config: Readonly<Record<string, unknown>>;
    close(): Promise<void>;
  }
> {
  const { cases } = JSON.parse(
    await readFile(new URL("index.json", FOLDER), "utf8"),
  );
  const entry = cases.find((c: { id: string }) =>
    c.id === "unet-tiny-sd15.weights"
  );
  const file = await Safetensors.open(
    await openSource(new URL(entry.file, FOLDER)),
  );
  return {
    name: "unet-tiny-sd15",
    config: entry.config,
    tensors: file.tensors,
    read: (name, options) => file.readFloat32(name, options),
    close: () => file.close(),
  };
}
