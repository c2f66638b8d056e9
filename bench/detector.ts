/** The embedded model's object detector, through onnxruntime-web: what is where in a 128 x 128 picture. */
import ort from "onnxruntime-web";
import { readFile } from "node:fs/promises";
import { type Box, embeddedModel } from "../mod.ts";
import { iou } from "./layouts.ts";

/** One thing found. */
export interface Found {
  readonly kind: string;
  readonly colour: string;
  readonly score: number;
  /** Fractions of the image. */
  readonly box: Box;
}

/** Opens the detector of `weights/tiny-scenes`. */
export async function openDetector(): Promise<
  (rgb: Uint8Array) => Promise<Found[]>
> {
  const folder = embeddedModel("tiny-scenes")!;
  const meta = JSON.parse(
    await readFile(new URL("detector.json", folder), "utf8"),
  );
  const [, , height, width] = meta.input.shape as number[];
  ort.env.wasm.numThreads = 1; // more does not start outside browsers
  const session = await ort.InferenceSession.create(
    await readFile(new URL("detector.onnx", folder)),
  );
  return async (rgb) => {
    const cells = height! * width!;
    if (rgb.length !== 3 * cells) {
      throw new RangeError(
        `Cannot detect: the picture must be ${width}x${height}: current ${
          rgb.length / 3
        } pixels`,
      );
    }
    const planes = new Float32Array(3 * cells);
    for (let i = 0; i < cells; i++) {
      for (let c = 0; c < 3; c++) {
        planes[c * cells + i] = rgb[3 * i + c]! / 255;
      }
    }
    const input = new ort.Tensor("float32", planes, [1, 3, height!, width!]);
    const { boxes, colours } = await session.run({ [meta.input.name]: input });
    const b = await boxes!.getData() as Float32Array;
    const k = await colours!.getData() as Float32Array;
    const count = boxes!.dims[2]!;
    const best = (
      data: Float32Array,
      first: number,
      rows: number,
      i: number,
    ): number => {
      let top = 0;
      for (let r = 1; r < rows; r++) {
        if (data[(first + r) * count + i]! > data[(first + top) * count + i]!) {
          top = r;
        }
      }
      return top;
    };
    const all = Array.from({ length: count }, (_, i): Found => {
      const kind = best(b, 4, meta.kinds.length, i);
      const [cx, cy, w, h] = [0, 1, 2, 3].map((r) =>
        b[r * count + i]! / width!
      ) as [number, number, number, number];
      return {
        kind: meta.kinds[kind],
        colour: meta.colours[best(k, 0, meta.colours.length, i)],
        score: b[(4 + kind) * count + i]!,
        box: [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2],
      };
    });
    const found: Found[] = [];
    for (
      const one of all.filter((f) => f.score >= meta.score_threshold).sort((
        x,
        y,
      ) => y.score - x.score)
    ) {
      if (found.every((f) => iou(f.box, one.box) < meta.nms_iou)) {
        found.push(one);
      }
    }
    return found;
  };
}
