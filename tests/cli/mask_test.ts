/** Masks from the command line: read from PNGs, carried losslessly by the picture, drawn by --overlay. */
import { strict as assert } from "node:assert";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { decodePng, encodePng, maskPixels, readPngText } from "../../mod.ts";
import { tempFolder } from "../weights/temp_folder.ts";
import { run } from "./harness.ts";

const SIDE = 32;
const FAST = ["--backend", "cpu", "--size", "64", "--steps", "1"];
const inDisc = (i: number): boolean =>
  Math.hypot(i % SIDE - 12, Math.floor(i / SIDE) - 20) < 9;

/** A disc in grey levels on both sides of one half. */
async function writeDisc(path: string): Promise<void> {
  const rgb = Uint8Array.from(
    { length: SIDE * SIDE * 3 },
    (_, i) => inDisc(Math.floor(i / 3)) ? 128 : 127,
  );
  await writeFile(path, await encodePng(rgb, SIDE, SIDE));
}

const requestIn = async (path: string) =>
  JSON.parse(readPngText(await readFile(path)).get("winwinlay")!);
const rgbOf = async (path: string) => decodePng(await readFile(path)).rgb;

test("generate --mask guides by a PNG, which the picture carries whole: the same pixels without the file", async () => {
  await using folder = await tempFolder({});
  const at = (name: string) => join(folder.path, name);
  await writeDisc(at("disc.png"));
  const paint = ["generate", "--prompt", "a red car on grass", ...FAST];
  const guided = ["--guided-steps", "1", "--iterations", "1", "--overlay"];
  const first = await run([
    ...paint,
    ...guided,
    "--mask",
    `red car=${at("disc.png")}`,
    "--box",
    "grass=0,0,1,1",
    "-o",
    at("a.png"),
  ]);
  assert.equal(first.code, 0, first.err.join("\n"));
  const request = await requestIn(at("a.png"));
  assert.deepEqual(
    request.regions.map(({ phrase }: { phrase: string }) => phrase),
    ["grass", "red car"],
  );
  const { mask } = request.regions[1];
  assert.deepEqual(
    [...maskPixels(mask)],
    Array.from({ length: SIDE * SIDE }, (_, i) => Number(inDisc(i))),
  );

  // The overlay follows the disc: its colour at the leftmost point, none at the corner of the box around it.
  const { rgb, width } = decodePng(await readFile(at("a.boxes.png")));
  const pixel = (x: number, y: number) =>
    [...rgb.subarray((y * width + x) * 3, (y * width + x) * 3 + 3)].join();
  const blue = "0,114,178"; // the second region's
  const row = Math.round(20.5 * width / SIDE);
  const left = Math.round(4 * width / SIDE);
  assert.equal(pixel(left, row), blue);
  assert.notEqual(pixel(left, Math.round(28.5 * width / SIDE)), blue);

  const again = await run([
    "generate",
    "--from",
    at("a.png"),
    "--backend",
    "cpu",
    "-o",
    at("b.png"),
  ]);
  assert.equal(again.code, 0, again.err.join("\n"));
  assert.deepEqual(await rgbOf(at("b.png")), await rgbOf(at("a.png")));
  assert.deepEqual(await requestIn(at("b.png")), request);
});

test("masks in a layout and in a batch lie beside the file that names them", async () => {
  await using folder = await tempFolder({});
  const at = (name: string) => join(folder.path, name);
  await mkdir(at("masks"));
  await writeDisc(at("masks/disc.png"));
  const request = {
    prompt: "a red car",
    regions: [{ phrase: "red car", mask: "masks/disc.png" }],
  };
  await writeFile(at("layout.json"), JSON.stringify(request));
  await writeFile(at("layouts.jsonl"), JSON.stringify({ id: "c", ...request }));
  const one = await run([
    "generate",
    "--layout",
    at("layout.json"),
    ...FAST,
    "--guided-steps",
    "0",
    "-o",
    at("a.png"),
  ]);
  assert.equal(one.code, 0, one.err.join("\n"));
  const batch = [
    "batch",
    at("layouts.jsonl"),
    ...FAST,
    "--guided-steps",
    "0",
    "-o",
    at("out"),
  ];
  const many = await run(batch);
  assert.equal(many.code, 0, many.err.join("\n"));
  assert.deepEqual(
    await requestIn(at("out/c.png")),
    await requestIn(at("a.png")),
  );
  const resumed = await run(batch);
  assert.deepEqual(resumed.err, ["1 of 1 are there already"]);
});
