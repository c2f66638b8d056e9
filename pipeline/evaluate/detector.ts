/**
 * An object detector in ONNX, through onnxruntime-web: what is where in a picture.
 *
 * A folder with `detector.onnx` and `detector.json`. The network gives boxes in the layout of YOLOv8's
 * exports, `[1, 4 + kinds, cells]`: centre, width and height in pixels of its input, then a score per
 * kind; and, if it knows colours, `colours` `[1, colours, cells]`. Each cell stands for its best kind;
 * of boxes that overlap, whatever their kind, only the best is kept.
 */
import type { JsonObject, JsonValue } from "../../weights/strict_json.ts";
import { isJsonObject } from "../../weights/strict_json.ts";
import { WeightsError } from "../../weights/errors.ts";
import { readJsonObject } from "../../weights/json_file.ts";
import { Safetensors } from "../../weights/safetensors.ts";
import { displayName, joinLocation, openSource } from "../../weights/source.ts";
import type { Picture } from "../draw.ts";
import { type OnnxArray, OnnxNetwork, readOnnxFile } from "../onnx_session.ts";
import type { Box } from "../raster.ts";
import type { FeatureReference } from "./frechet.ts";
import { iou } from "./iou.ts";
import { letterbox } from "./letterbox.ts";
import { withOutput } from "./onnx_output.ts";

/** One thing found. */
export interface Found {
  /** One of the detector's kinds. */
  readonly kind: string;
  /** One of its colours, where it knows any. */
  readonly colour?: string;
  /** Confidence, 0 to 1. */
  readonly score: number;
  /** Fractions of the picture; it may stick out. */
  readonly box: Box;
}

/** What a detector makes of a picture. */
export interface Sighting {
  /** By falling score, at most 100, from score `LEAST_SCORE`. */
  readonly found: readonly Found[];
  /** The network's features averaged over its cells, where `detector.json` names them. */
  readonly features?: Float64Array;
}

/** What `detector.json` says. */
interface Facts {
  readonly input: string;
  readonly size: readonly [width: number, height: number];
  readonly kinds: readonly string[];
  readonly colours: readonly string[];
  readonly threshold: number;
  readonly overlap: number;
  readonly features: string | undefined;
  readonly reference: string | undefined;
}

/** Detections below it are dropped: YOLO's evaluation starts there too. */
export const LEAST_SCORE = 0.001;
const MOST = 100; // as COCO counts

/** An open detector. */
export class Detector implements Disposable {
  /** Kinds of things it knows. */
  readonly kinds: readonly string[];
  /** Colours it knows; may be none. */
  readonly colours: readonly string[];
  /** From this score on a thing counts as found, where one threshold is needed. */
  readonly threshold: number;
  /** Features of real pictures of its domain. */
  readonly reference: FeatureReference | undefined;
  readonly #facts: Facts;
  readonly #network: OnnxNetwork;

  private constructor(
    facts: Facts,
    network: OnnxNetwork,
    reference: FeatureReference | undefined,
  ) {
    this.#facts = facts;
    this.#network = network;
    this.kinds = facts.kinds;
    this.colours = facts.colours;
    this.threshold = facts.threshold;
    this.reference = reference;
  }

  /**
   * Opens a detector.
   *
   * @param folder Path or URL of the folder, such as that of the embedded model.
   * @throws {WeightsError} If a file is missing or not as it must be.
   */
  static async open(
    folder: string | URL,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<Detector> {
    const json = await readJsonObject(folder, "detector.json", options);
    const facts = readFacts(
      json,
      displayName(joinLocation(folder, "detector.json")),
    );
    const reference = facts.reference === undefined
      ? undefined
      : await readReference(joinLocation(folder, facts.reference), options);
    const bytes = await readOnnxFile(folder, "detector.onnx", options);
    const network = await OnnxNetwork.fromBytes(
      displayName(joinLocation(folder, "detector.onnx")),
      facts.features === undefined ? bytes : withOutput(bytes, facts.features),
    );
    try {
      network.expect(facts.input, wanted(facts));
    } catch (error) {
      network[Symbol.dispose]();
      throw error;
    }
    return new Detector(facts, network, reference);
  }

  /** Finds things in a picture of any size. */
  async look(picture: Picture): Promise<Sighting> {
    const { input, size: [width, height], features } = this.#facts;
    const { planes, toPicture } = letterbox(picture, [width, height]);
    const outputs = await this.#network.run(
      input,
      { data: planes, dims: [1, 3, height, width] },
      wanted(this.#facts),
    );
    const found = this.#suppress(this.#cells(outputs));
    return {
      found: found.map((f) => ({ ...f, box: toPicture(f.box) })),
      ...(features === undefined
        ? {}
        : { features: averageCells(outputs.get(features)!) }),
    };
  }

  /** Frees it. */
  [Symbol.dispose](): void {
    this.#network[Symbol.dispose]();
  }

  /** Every cell's best kind and colour, boxes in pixels of the input. */
  #cells(outputs: ReadonlyMap<string, OnnxArray>): Found[] {
    const { kinds, colours } = this.#facts;
    const boxes = outputs.get("boxes")!;
    const tints = outputs.get("colours");
    const count = boxes.dims[2] ?? 0;
    this.#checkShape("boxes", boxes, 4 + kinds.length, count);
    if (tints) this.#checkShape("colours", tints, colours.length, count);
    return Array.from({ length: count }, (_, i): Found => {
      const value = (row: number): number => boxes.data[row * count + i]!;
      const kind = highest(boxes.data, 4, kinds.length, i, count);
      const [cx, cy, w, h] = [value(0), value(1), value(2), value(3)];
      return {
        kind: kinds[kind]!,
        ...(tints
          ? {
            colour: colours[highest(tints.data, 0, colours.length, i, count)]!,
          }
          : {}),
        score: value(4 + kind),
        box: [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2],
      };
    });
  }

  /** Non-maximum suppression. */
  #suppress(cells: readonly Found[]): Found[] {
    const kept: Found[] = [];
    const sorted = cells.filter(({ score }) => score >= LEAST_SCORE)
      .sort((a, b) => b.score - a.score);
    for (const one of sorted) {
      if (kept.length === MOST) break;
      if (kept.every((k) => iou(k.box, one.box) < this.#facts.overlap)) {
        kept.push(one);
      }
    }
    return kept;
  }

  #checkShape(
    name: string,
    { dims }: OnnxArray,
    rows: number,
    count: number,
  ): void {
    const fits = dims.length === 3 && dims[0] === 1 && dims[1] === rows &&
      dims[2] === count;
    if (fits) return;
    throw new WeightsError(
      `Cannot use ${this.#network.name}: ${name} must be [1, ${rows}, ${
        count || "cells"
      }] as detector.json says: current [${dims}]`,
    );
  }
}

function wanted({ colours, features }: Facts): string[] {
  return [
    "boxes",
    ...(colours.length ? ["colours"] : []),
    ...(features === undefined ? [] : [features]),
  ];
}

/** The row with the highest value in column `i`, counted from `first`. */
function highest(
  data: ArrayLike<number>,
  first: number,
  rows: number,
  i: number,
  count: number,
): number {
  let top = 0;
  for (let r = 1; r < rows; r++) {
    if (data[(first + r) * count + i]! > data[(first + top) * count + i]!) {
      top = r;
    }
  }
  return top;
}

/** `[1, channels, height, width]` -> mean of each channel. */
function averageCells({ data, dims }: OnnxArray): Float64Array {
  const channels = dims[1]!;
  const cells = data.length / channels;
  const out = new Float64Array(channels);
  for (let i = 0; i < data.length; i++) {
    out[Math.floor(i / cells)]! += data[i]! / cells;
  }
  return out;
}

async function readReference(
  location: string,
  options: { readonly signal?: AbortSignal | undefined },
): Promise<FeatureReference> {
  await using file = await Safetensors.open(
    await openSource(location, options),
    options,
  );
  const read = async (name: string): Promise<Float64Array> =>
    Float64Array.from(await file.readFloat32(name, options));
  const [mean, covariance, features] = await Promise.all(
    ["mean", "covariance", "features"].map(read),
  ) as [Float64Array, Float64Array, Float64Array];
  const width = mean.length;
  if (covariance.length !== width ** 2 || features.length % width) {
    throw new WeightsError(
      `Cannot use ${file.name}: mean must be [n], covariance [n, n], features [rows, n]: current ${width}, ${covariance.length} and ${features.length} numbers`,
    );
  }
  const rows = Array.from(
    { length: features.length / width },
    (_, i) => features.subarray(i * width, (i + 1) * width),
  );
  return { mean, covariance, features: rows };
}

function readFacts(json: JsonObject, name: string): Facts {
  const fail = (must: string, value: unknown): WeightsError =>
    new WeightsError(
      `Cannot read ${name}: ${must}: current ${JSON.stringify(value)}`,
    );
  const object = (key: string): JsonObject => {
    const value = json[key];
    if (value !== undefined && isJsonObject(value)) return value;
    throw fail(`${key} must be an object`, value);
  };
  const names = (key: string): string[] => {
    const value = json[key];
    if (
      Array.isArray(value) && value.length > 0 &&
      value.every((x: JsonValue) => typeof x === "string" && x !== "")
    ) return value as string[];
    throw fail(`${key} must be a list of names`, value);
  };
  const share = (key: string): number => {
    const value = json[key];
    if (typeof value === "number" && value > 0 && value <= 1) return value;
    throw fail(`${key} must be a number above 0 and at most 1`, value);
  };
  const text = (value: JsonValue | undefined, what: string): string => {
    if (typeof value === "string" && value !== "") return value;
    throw fail(`${what} must be a name`, value);
  };
  if (json["format"] !== "yolov8") {
    throw fail('format must be "yolov8"', json["format"]);
  }
  const input = object("input");
  const shape = input["shape"];
  const [, , height, width] = Array.isArray(shape) ? shape : [];
  const side = (x: JsonValue | undefined): x is number =>
    Number.isInteger(x) && (x as number) > 0;
  if (!side(width) || !side(height)) {
    throw fail('input.shape must be ["n", 3, height, width]', shape);
  }
  return {
    input: text(input["name"], "input.name"),
    size: [width, height],
    kinds: names("kinds"),
    colours: json["colours"] === undefined ? [] : names("colours"),
    threshold: share("score_threshold"),
    overlap: share("nms_iou"),
    features: json["features"] === undefined
      ? undefined
      : text(object("features")["tensor"], "features.tensor"),
    reference: json["reference"] === undefined
      ? undefined
      : text(json["reference"], "reference"),
  };
}
