/** The embedded detector on rendered scenes, against PyTorch; and what it refuses. */
import { strict as assert } from "node:assert";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import type { Picture } from "../../../pipeline/draw.ts";
import { enlarge } from "../../../pipeline/draw.ts";
import { Detector, LEAST_SCORE } from "../../../pipeline/evaluate/detector.ts";
import { FrechetReference } from "../../../pipeline/evaluate/frechet.ts";
import { iou } from "../../../pipeline/evaluate/iou.ts";
import { letterbox } from "../../../pipeline/evaluate/letterbox.ts";
import { decodePng } from "../../../pipeline/png.ts";
import type { Box } from "../../../pipeline/raster.ts";
import { embeddedModel } from "../../../weights/embedded.ts";
import { compare } from "../../compare.ts";
import { tempFolder } from "../../weights/temp_folder.ts";

interface Scene {
  readonly things: readonly [phrase: string, box: Box][];
  readonly found: readonly [
    kind: string,
    colour: string,
    score: number,
    box: Box,
  ][];
  readonly features: readonly number[];
}

const FOLDER = embeddedModel("tiny-scenes")!;
const FIXTURES = new URL("../../fixtures/evaluate/", import.meta.url);
const scenes: Scene[] = JSON.parse(
  await readFile(new URL("scenes.json", FIXTURES), "utf8"),
);
const f64 = (list: Iterable<number>): Float64Array => Float64Array.from(list);
const picture = async (i: number): Promise<Picture> =>
  decodePng(await readFile(new URL(`scene-${i}.png`, FIXTURES)));

test("Detector.look() finds what PyTorch's detector finds, with its features", async () => {
  using detector = await Detector.open(FOLDER);
  const { threshold } = detector;
  for (const [i, scene] of scenes.entries()) {
    const { found, features } = await detector.look(await picture(i));
    const sure = found.filter(({ score }) => score >= threshold);
    assert.deepEqual(
      sure.map(({ kind, colour }) => [kind, colour]),
      scene.found.map(([kind, colour]) => [kind, colour]),
    );
    // float32 in two runtimes, a dozen layers
    scene.found.forEach(([, , score, box], j) => {
      assert.ok(Math.abs(sure[j]!.score - score) < 1e-4);
      assert.ok(compare(f64(sure[j]!.box), f64(box)).maxAbs < 1e-4);
    });
    const off = compare(features!, f64(scene.features));
    assert.ok(off.relL2 < 1e-5, JSON.stringify(off));
    for (const [phrase, box] of scene.things) {
      const best = sure.find((f) => `${f.colour} ${f.kind}` === phrase);
      assert.ok(best && iou(best.box, box) > 0.8, phrase);
    }
    assert.ok(found.every(({ score }) => score >= LEAST_SCORE));
  }
});

test("the global Worker stays the web's", async () => {
  using _ = await Detector.open(FOLDER); // onnxruntime-web would put Node's in its place
  assert.equal(typeof Worker.prototype.addEventListener, "function");
});

test("Detector.look() finds the same in a picture of another size and shape", async () => {
  using detector = await Detector.open(FOLDER);
  const { rgb, width, height } = await picture(0);
  const large = {
    rgb: enlarge(rgb, width, height, 2, { filter: "bilinear" }),
    width: 2 * width,
    height: 2 * height,
  };
  // A strip of grey beside it: scaled down to 102 pixels, with grey above and below.
  const more = 32;
  const wide = {
    rgb: new Uint8Array(3 * (width + more) * height).fill(114),
    width: width + more,
    height,
  };
  for (let y = 0; y < height; y++) {
    wide.rgb.set(
      rgb.subarray(3 * y * width, 3 * (y + 1) * width),
      3 * y * wide.width,
    );
  }
  const shown = [[large, 1, 0.8], [wide, wide.width / width, 0.6]] as const;
  for (const [sight, stretch, least] of shown) {
    const { found } = await detector.look(sight);
    for (const [phrase, [x0, y0, x1, y1]] of scenes[0]!.things) {
      const box: Box = [x0 / stretch, y0, x1 / stretch, y1];
      const right = found.filter((f) => phrase === `${f.colour} ${f.kind}`);
      const best = Math.max(...right.map((f) => iou(f.box, box)));
      assert.ok(best > least, `${sight.width} ${phrase}: ${best}`);
    }
  }
});

test("letterbox() keeps a picture of the right size, and boxes come back", () => {
  const rgb = Uint8Array.from({ length: 3 * 6 }, (_, i) => 10 * i);
  const same = letterbox({ rgb, width: 3, height: 2 }, [3, 2]);
  assert.deepEqual(
    same.planes,
    Float32Array.from(
      { length: 18 },
      (_, i) => rgb[3 * (i % 6) + Math.floor(i / 6)]! / 255,
    ),
  );
  assert.deepEqual(same.toPicture([0, 0, 3, 2]), [0, 0, 1, 1]);
  // 4 x 2 into 8 x 8: 8 x 4 with two grey rows above and below.
  const wide = letterbox(
    { rgb: new Uint8Array(24).fill(255), width: 4, height: 2 },
    [8, 8],
  );
  assert.deepEqual(
    [0, 1, 2, 5, 6, 7].map((y) => wide.planes[8 * y]! > 0.9),
    [false, false, true, true, false, false],
  );
  assert.deepEqual(wide.toPicture([4, 3, 8, 6]), [0.5, 0.25, 1, 1]);
});

test("the reference's own second set is near it, and nearer the more scenes", async () => {
  using detector = await Detector.open(FOLDER);
  const { features } = detector.reference!;
  const reference = new FrechetReference(detector.reference!);
  const [few, many] = [32, 512].map((n) =>
    reference.distance(features.slice(0, n))
  ) as [number, number];
  assert.ok(many < 0.1 && few > 2 * many, `${few}, ${many}`);
  // Grey pictures are no scenes.
  const { features: grey } = await detector.look({
    rgb: new Uint8Array(3 * 128 * 128).fill(128),
    width: 128,
    height: 128,
  });
  const flat = reference.distance([grey!, grey!, grey!]);
  assert.ok(flat > 3 * few, `${flat}`);
});

const about = JSON.parse(
  await readFile(new URL("detector.json", FOLDER), "utf8"),
);
const BAD: readonly [changes: object, message: RegExp][] = [
  [{ format: "ssd" }, /format must be "yolov8": current "ssd"/],
  [{ input: null }, /input must be an object: current null/],
  [{ input: { name: "images", shape: [1, 3] } }, /input\.shape must be/],
  [{ input: { ...about.input, name: "x" } }, /only input must be x/],
  [{ kinds: [] }, /kinds must be a list of names: current \[\]/],
  [{ kinds: ["car"] }, /boxes must be \[1, 5, 256\].*current \[1,14,256\]/],
  [{ colours: ["red"] }, /colours must be \[1, 1, 256\].*current \[1,6,256\]/],
  [{ score_threshold: 2 }, /score_threshold must be a number above 0/],
  [{ features: { tensor: 3 } }, /features\.tensor must be a name/],
  [{ features: { tensor: "nowhere" } }, /detector\.onnx/],
  [{ reference: "../x" }, /relative path must be plain names/],
  [{ reference: "no.safetensors" }, /no\.safetensors/],
];

test("Detector.open() says what is wrong with a detector", async () => {
  const onnx = await readFile(new URL("detector.onnx", FOLDER));
  for (const [changes, message] of BAD) {
    const json = { ...about, reference: undefined, ...changes };
    await using folder = await tempFolder({
      "detector.json": JSON.stringify(json),
      "detector.onnx": onnx,
    });
    await assert.rejects(
      async () => {
        using detector = await Detector.open(folder.path);
        await detector.look(await picture(0));
      },
      message,
      JSON.stringify(changes),
    );
  }
  await using bare = await tempFolder({
    "detector.json": JSON.stringify({
      ...about,
      reference: undefined,
      features: undefined,
    }),
    "detector.onnx": onnx,
  });
  using detector = await Detector.open(bare.path);
  assert.equal((await detector.look(await picture(0))).features, undefined);
  assert.equal(detector.reference, undefined);
});
