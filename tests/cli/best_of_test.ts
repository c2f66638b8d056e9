/** `--best-of`: what it prints, that its picture can be made again at once, and that a batch resumes. */
import { strict as assert } from "node:assert";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { decodePng, readPngText } from "../../mod.ts";
import { tempFolder } from "../weights/temp_folder.ts";
import { run } from "./harness.ts";

const FAST = ["--backend", "cpu", "--size", "32", "--steps", "1"];
const GUIDED = ["--guided-steps", "1", "--iterations", "1"];
const CAR = [
  "generate",
  "--prompt",
  "a red car",
  "--box",
  "red car=0,0,0.5,1",
  ...FAST,
  ...GUIDED,
];

const requestIn = async (path: string) =>
  JSON.parse(readPngText(await readFile(path)).get("winwinlay")!);
const rgbOf = async (path: string) => decodePng(await readFile(path)).rgb;

test("generate --best-of --json prints every candidate's score; --from makes the winner in one run", async () => {
  await using folder = await tempFolder({});
  const at = (name: string) => join(folder.path, name);
  const { code, out, err } = await run([
    ...CAR,
    "--seed",
    "4",
    "--best-of",
    "3",
    "--count",
    "2",
    "--json",
    "-o",
    at("a.png"),
  ]);
  assert.equal(code, 0, err.join("\n"));
  const lines = out.map((line) => JSON.parse(line));
  const pictures = lines.filter((line) => line.file);
  // Two pictures share no seed.
  assert.deepEqual(
    lines.filter((line) => line.candidate).map((line) => line.candidate.seed),
    [4, 5, 6, 7, 8, 9],
  );
  for (const [i, { seed, report, request }] of pictures.entries()) {
    const { candidates } = report;
    const top = Math.max(...candidates.map((c: { score: number }) => c.score));
    assert.deepEqual(
      candidates,
      lines.flatMap((line) => line.candidate ?? []).slice(3 * i, 3 * i + 3),
    );
    assert.equal(
      candidates.find((c: { score: number }) => c.score === top).seed,
      seed,
    );
    assert.equal(request.seed, seed);
    assert.ok(!("bestOf" in request));
    const steps = lines.filter((line) => line.step && line.seed === seed);
    assert.equal(steps.length, 1);
    assert.equal(steps[0].regionEnergies.length, 1);
    assert.ok(Math.abs(steps[0].regionEnergies[0] - steps[0].energy) < 1e-6);
  }
  const again = await run([
    "generate",
    "--from",
    at("a-2.png"),
    "--backend",
    "cpu",
    "-o",
    at("b.png"),
  ]);
  assert.equal(again.code, 0, again.err.join("\n"));
  assert.deepEqual(again.err.filter((line) => /score/.test(line)), []);
  assert.deepEqual(await rgbOf(at("b.png")), await rgbOf(at("a-2.png")));
  assert.equal((await requestIn(at("b.png"))).seed, pictures[1].seed);
});

test("a batch with bestOf finds its pictures again, and paints again when asked for more", async () => {
  await using folder = await tempFolder({});
  const at = (name: string) => join(folder.path, name);
  const line = {
    id: "car",
    prompt: "a red car",
    regions: [{ phrase: "red car", boxes: [[0, 0, 0.5, 1]] }],
    seed: 2,
    bestOf: 2,
  };
  const batch = async (...more: string[]) => {
    await writeFile(at("layouts.jsonl"), JSON.stringify(line));
    const args = ["batch", at("layouts.jsonl"), ...FAST, ...GUIDED];
    return await run([...args, "-o", at("out"), ...more]);
  };
  const first = await batch();
  assert.equal(first.code, 0, first.err.join("\n"));
  const { seed } = await requestIn(at("out/car.png"));
  assert.ok(seed === 2 || seed === 3);
  const result = JSON.parse(await readFile(at("out/results.jsonl"), "utf8"));
  assert.equal(result.seed, seed);
  assert.equal(result.candidates.length, 2);
  assert.deepEqual((await batch()).err, ["1 of 1 are there already"]);
  const more = await batch("--best-of", "3");
  assert.equal(more.code, 2);
  assert.match(more.err[0]!, /must not be there for another request/);
});
