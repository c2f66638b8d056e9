import { strict as assert } from "node:assert";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { testBackend } from "./backend.ts";
import { compare } from "./golden/compare.ts";
import {
  type Entry,
  type Outcome,
  readCases,
  reasonToWait,
  runCase,
} from "./golden/runner.ts";

const path = (relative: string): string =>
  fileURLToPath(new URL(relative, import.meta.url));
const FIXTURES = path("fixtures/golden");
/** The whole reference set, where a checkout has it beside it. */
const SHARED = path("../../shared/golden");
const MODELS = [path("fixtures/golden"), path("../../shared/models")];

/** `WINWINLAY_TEST_GOLDEN`: what ids start with, `op-,block-`; default all. */
const STARTS = process.env.WINWINLAY_TEST_GOLDEN?.split(",") ?? [""];

async function run(dir: string, entry: Entry): Promise<Outcome> {
  const backend = await testBackend();
  return await runCase(entry, { dir, models: MODELS, backend });
}

function register(dir: string, entry: Entry, suffix = ""): void {
  if (!STARTS.some((start) => entry.id.startsWith(start))) return;
  const skip = reasonToWait(entry) ?? false;
  test(`golden case ${entry.id}${suffix}`, { skip }, async () => {
    const { status, note } = await run(dir, entry);
    assert.equal(status, "passed", note);
  });
}

/** Whether both folders have the same case with the same bytes. */
function identical(a: Entry, b: Entry): boolean {
  if (JSON.stringify(a) !== JSON.stringify(b)) return false;
  return [a.file, a.weights_file ?? a.file].every((file) =>
    readFileSync(join(FIXTURES, file)).equals(readFileSync(join(SHARED, file)))
  );
}

const fixtures = await readCases(FIXTURES);
for (const entry of fixtures) register(FIXTURES, entry);
if (existsSync(join(SHARED, "index.json"))) {
  for (const entry of await readCases(SHARED)) {
    const same = fixtures.find(({ id }) => id === entry.id);
    if (!same || !identical(same, entry)) {
      register(SHARED, entry, " (reference set)");
    }
  }
}

function fixture(id: string): Entry {
  return fixtures.find((entry) => entry.id === id)!;
}

const NOISE = { max_abs: 1e-5, rel_l2: 1e-6, ref_max_abs: 10 };

test("compare() follows the rule of the index", () => {
  const expected = Float32Array.of(10, 0, 0);
  const check = (values: number[], noise = NOISE) =>
    compare("x", values, expected, noise);
  assert.equal(check([10, 0, 0]).problem, undefined);
  assert.equal(check([10, 0, 0]).ratio, 0);
  // rel_l2 at most 10 * 1e-6
  assert.equal(check([10, 9e-5, 0]).problem, undefined);
  assert.ok(check([10, 1.1e-4, 0]).problem);
  // max_abs at most 20 * 1e-5, whatever rel_l2 allows
  const loose = { ...NOISE, rel_l2: 1 };
  assert.equal(check([10, 1.9e-4, 0], loose).problem, undefined);
  assert.ok(check([10, 2.1e-4, 0], loose).problem);
  // the least bounds, 1e-6 and 2e-6 * 10
  const exact = { ...NOISE, max_abs: 0, rel_l2: 0 };
  assert.equal(check([10, 9e-6, 0], exact).problem, undefined);
  assert.ok(check([10, 1.1e-5, 0], exact).problem);
});

test("compare() fails numbers that are not finite, lengths and integers that differ", () => {
  const expected = Int32Array.of(1, 2);
  assert.equal(compare("x", [1, 2], expected, undefined).problem, undefined);
  assert.ok(compare("x", [1, 3], expected, undefined).problem);
  assert.ok(compare("x", [1, NaN], expected, NOISE).problem);
  assert.ok(compare("x", [1, Infinity], expected, NOISE).problem);
  assert.ok(compare("x", [1], expected, NOISE).problem);
});

test("runCase() fails a case of unknown kind", async () => {
  const entry = { ...fixture("op-silu"), kind: "opp" };
  const { status, note } = await run(FIXTURES, entry);
  assert.deepEqual([status, note], ["failed", 'there is no kind "opp"']);
});

test("runCase() fails a case of which a tensor was not checked", async () => {
  // Of another name, so that the exception for emb_float32 does not hold.
  const id = "op-timestep-embedding";
  const { status, note } = await run(FIXTURES, { ...fixture(`${id}-32`), id });
  assert.equal(status, "failed");
  assert.equal(note, "emb_float32 was not checked");
});

test("runCase() fails a case whose numbers are wrong", async () => {
  const entry = fixture("op-groupnorm-silu-offset");
  const { status, note } = await run(FIXTURES, {
    ...entry,
    attributes: { ...entry.attributes, eps: 1e-2 },
  });
  assert.equal(status, "failed");
  assert.match(note, /out is outside its tolerance/);
});

test("runCase() fails a case whose model has another hash", async () => {
  const entry = fixture("e2e-short");
  const { status, note } = await run(FIXTURES, {
    ...entry,
    attributes: { ...entry.attributes, model_sha256: "0".repeat(64) },
  });
  assert.equal(status, "failed");
  assert.match(note, /Cannot find model tiny-scenes with hash 00000000/);
});
