/** The table beside torch, of reports that are kept. */
import { strict as assert } from "node:assert";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { torchTable } from "../../bench/torch_table.ts";

const RESULTS = new URL("../../bench/results/h200/", import.meta.url);

/** Cells of the row with a title. */
function cells(text: string, title: string): string[] {
  const line = text.split("\n").find((l) => l.startsWith(`| ${title}`));
  assert.ok(line, `no row ${title}`);
  return line.split("|").slice(2, -1).map((cell) => cell.trim());
}

test("torchTable() shows what is beside the UNet where a report tells", async () => {
  for (
    const [file, unet] of [["now.json", "2.50"], [
      "matrix.json",
      "2.65",
    ]] as const
  ) {
    const { model: name, beside, rates } = JSON.parse(
      await readFile(new URL(file, RESULTS), "utf8"),
    );
    const text = torchTable({ name, ...beside, rates });
    assert.doesNotMatch(text, /undefined|NaN/);
    assert.deepEqual(cells(text, "device GB at most, all steps"), [
      unet,
      "2.22",
    ]);
  }
});

for (const file of ["first.json"]) {
  test(`torchTable() shows ${file}, which does not tell what is beside the UNet`, async () => {
    const { model: name, beside, rates } = JSON.parse(
      await readFile(new URL(file, RESULTS), "utf8"),
    );
    const text = torchTable({ name, ...beside, rates });
    assert.doesNotMatch(text, /undefined|NaN/);
    assert.deepEqual(cells(text, "device GB at most, whole"), ["3.64", ""]);
    assert.deepEqual(cells(text, "device GB at most, all steps"), ["", "2.22"]);
    const image = { ...beside.image, besideUnetBytes: 345e6 };
    const now = torchTable({ name, ...beside, image, rates });
    const bytes = (beside.image.memory.sampling - 345e6) / 1e9;
    assert.deepEqual(cells(now, "device GB at most, all steps"), [
      bytes.toFixed(2),
      "2.22",
    ]);
  });
}

test("torchTable() says why torch is not there", async () => {
  const { model: name, beside } = JSON.parse(
    await readFile(new URL("now.json", RESULTS), "utf8"),
  );
  const torch = { reason: "no module named torch" };
  assert.match(
    torchTable({ name, image: beside.image, torch }),
    /no module named torch$/,
  );
});
