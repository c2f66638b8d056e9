/** `--attention-maps` and `--energy-svg`: which files, for which picture, and what is refused. */
import { strict as assert } from "node:assert";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { decodePng } from "../../mod.ts";
import { tempFolder } from "../weights/temp_folder.ts";
import { filesIn, run } from "./harness.ts";

const FAST = ["--backend", "cpu", "--size", "32", "--steps", "2"];
const GUIDED = ["--guided-steps", "1", "--iterations", "2"];
const CAR = [
  "generate",
  "--prompt",
  "a red car and a red car",
  "--box",
  "Red car=0,0,0.5,1",
  "--box",
  "red car=0.5,0,1,1",
  ...FAST,
];

test("generate writes a map per step and phrase, an overview, and the curves", async () => {
  await using folder = await tempFolder({});
  const at = (name: string) => join(folder.path, name);
  const args = [
    ...CAR,
    ...GUIDED,
    "--attention-maps",
    at("maps"),
    "--energy-svg",
    at("e.svg"),
    "-o",
    at("a.png"),
  ];
  const { code, out, err } = await run(args);
  assert.equal(code, 0, err.join("\n"));
  assert.deepEqual(out, [at("a.png"), at("e.svg"), at("maps/overview.png")]);
  assert.deepEqual(await filesIn(folder.path), [
    "a.png",
    "e.svg",
    "maps",
    "maps/overview.png",
    "maps/step-01-red-car-2.png",
    "maps/step-01-red-car.png",
    "maps/step-02-red-car-2.png",
    "maps/step-02-red-car.png",
  ]);
  const { width } = decodePng(await readFile(at("maps/step-01-red-car.png")));
  assert.equal(width, 528);
  assert.match(await readFile(at("e.svg"), "utf8"), /2 updates of the latent/);
  // All of it is there: nothing is replaced unless asked.
  const again = await run([...args.slice(0, -1), at("b.png")]);
  assert.equal(again.code, 2);
  assert.match(again.err[0]!, /e\.svg: it must not be there yet/);
  const forced = await run([...args, "--force"]);
  assert.equal(forced.code, 0, forced.err.join("\n"));
});

test("several pictures have their own maps and curves; best of n those of its winner", async () => {
  await using folder = await tempFolder({});
  const at = (name: string) => join(folder.path, name);
  const { code, out, err } = await run([
    ...CAR.slice(0, -1),
    "1",
    ...GUIDED,
    "--count",
    "2",
    "--best-of",
    "2",
    "--json",
    "--attention-maps",
    at("maps"),
    "--energy-svg",
    at("e.svg"),
    "-o",
    at("a.png"),
  ]);
  assert.equal(code, 0, err.join("\n"));
  const files = out.map((line) => JSON.parse(line)).filter((line) => line.file);
  assert.deepEqual(
    files.map((line) => [line.attentionMaps, line.energySvg]),
    [[at("maps/1"), at("e-1.svg")], [at("maps/2"), at("e-2.svg")]],
  );
  assert.deepEqual(
    (await filesIn(folder.path)).filter((name) => /overview|svg/.test(name)),
    ["e-1.svg", "e-2.svg", "maps/1/overview.png", "maps/2/overview.png"],
  );
});

test("maps and curves that would show nothing, or replace something, are refused", async () => {
  await using folder = await tempFolder({});
  const at = (name: string) => join(folder.path, name);
  await mkdir(at("full"));
  await writeFile(at("full/mine.txt"), "mine");
  const plain = [...CAR.slice(0, 3), ...FAST];
  const maps = (args: readonly string[], where: string) =>
    run([...args, "--attention-maps", at(where), "-o", at("a.png")]);
  const curves = (args: readonly string[], where: string) =>
    run([...args, "--energy-svg", at(where), "-o", at("a.png")]);
  const cases = [
    [maps(plain, "maps"), /Cannot draw attention maps: there must be a --box/],
    [maps(CAR, "full"), /full: it must be empty: current folder has 1 files/],
    [maps(CAR, "full/mine.txt"), /mine.txt: it must be a folder/],
    [maps(CAR, "none/maps"), /none\/maps: its folder must exist/],
    [curves(plain, "e.svg"), /there must be a box and a guided step/],
    [curves([...CAR, "--method", "none"], "e.svg"), /a guided step/],
    [curves([...CAR, "--guided-steps", "0"], "e.svg"), /a guided step/],
    [
      curves(
        [...CAR.slice(0, -1), "1", "--placement", "after_step"],
        "e.svg",
      ),
      /a guided step/,
    ],
    [curves(CAR, "e.png"), /its name must end in .svg/],
    [curves(CAR, "none/e.svg"), /its folder must exist/],
  ] as const;
  for (const [outcome, message] of cases) {
    const { code, out, err } = await outcome;
    assert.deepEqual([code, out, err.length], [2, [], 1], err.join("\n"));
    assert.match(err[0]!, message);
  }
  assert.deepEqual(await filesIn(folder.path), ["full", "full/mine.txt"]);
});
