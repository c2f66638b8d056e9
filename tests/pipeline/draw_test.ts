import { strict as assert } from "node:assert";
import { test } from "node:test";
import { drawBoxes, enlarge, sideBySide } from "../../pipeline/draw.ts";

const blank = (width: number, height: number, value = 255) =>
  new Uint8Array(width * height * 3).fill(value);
const at = (
  rgb: Uint8Array,
  width: number,
  x: number,
  y: number,
) => [...rgb.subarray((y * width + x) * 3, (y * width + x) * 3 + 3)];

/** Pixels unlike white, as text. */
function ink(
  rgb: Uint8Array,
  width: number,
  [x0, y0, x1, y1]: readonly [number, number, number, number],
): string {
  const row = (y: number) =>
    Array.from(
      { length: x1 - x0 },
      (_, i) => at(rgb, width, x0 + i, y).every((v) => v === 255) ? "." : "#",
    ).join("");
  return Array.from({ length: y1 - y0 }, (_, i) => row(y0 + i)).join("\n");
}

test("drawBoxes() outlines boxes, one colour per label, and leaves its input", () => {
  const rgb = blank(8, 8);
  const out = drawBoxes(rgb, 8, 8, [{ box: [0.25, 0.25, 0.75, 0.75] }, {
    box: [0, 0, 0.25, 0.25],
  }], { scale: 1 });
  assert.equal(ink(out, 8, [2, 2, 6, 6]), "####\n#..#\n#..#\n####");
  assert.notDeepEqual(at(out, 8, 2, 2), at(out, 8, 0, 0));
  assert.ok(rgb.every((v) => v === 255));
  const labelled = drawBoxes(blank(90, 90), 90, 90, [
    { box: [0, 0, 0.4, 0.4], label: "a" },
    { box: [0.5, 0, 0.9, 0.4], label: "b" },
    { box: [0, 0.5, 0.4, 0.9], label: "a" },
  ]);
  assert.deepEqual(at(labelled, 90, 0, 0), at(labelled, 90, 0, 45));
  assert.notDeepEqual(at(labelled, 90, 0, 0), at(labelled, 90, 45, 0));
});

test("drawBoxes() keeps lines and labels inside at the edges", () => {
  drawBoxes(blank(20, 20), 20, 20, [{
    box: [-1, -1, 3, 3],
    label: "a label wider than the picture",
  }], { scale: 3 });
  const corner = drawBoxes(blank(60, 60), 60, 60, [{
    box: [0.9, 0.9, 1, 1],
    label: "abc",
  }]);
  assert.notEqual(ink(corner, 60, [39, 49, 40, 50]), "."); // the plate moved left and up
});

test("sideBySide() writes captions that can be read", () => {
  const image = { rgb: blank(40, 5, 0), width: 40, height: 5 };
  const sheet = sideBySide([image, image], {
    gap: 2,
    captions: ["Hi", "one two three"],
  });
  assert.deepEqual([sheet.width, sheet.height], [
    2 + 40 + 2 + 40 + 2,
    2 + 5 + 4 + 3 * 10 + 2,
  ]);
  const H = "#...#\n#...#\n#...#\n#####\n#...#\n#...#\n#...#";
  const i = "..#..\n.....\n.##..\n..#..\n..#..\n..#..\n.###.";
  const left = 2 + (40 - 12) / 2;
  assert.equal(ink(sheet.rgb, sheet.width, [left, 11, left + 5, 18]), H);
  assert.equal(ink(sheet.rgb, sheet.width, [left + 6, 11, left + 11, 18]), i);
  assert.deepEqual(at(sheet.rgb, sheet.width, 2, 2), [0, 0, 0]);
  assert.deepEqual(at(sheet.rgb, sheet.width, 42, 2), [255, 255, 255]);
});

test("sideBySide() draws a different glyph for each ASCII character", () => {
  const image = { rgb: blank(7, 1), width: 7, height: 1 };
  const glyphs = new Set<string>();
  for (let code = 33; code < 127; code++) {
    const sheet = sideBySide([image], {
      gap: 0,
      captions: [String.fromCharCode(code)],
    });
    glyphs.add(ink(sheet.rgb, 7, [0, 5, 5, 12]));
  }
  assert.equal(glyphs.size, 94);
  const other = sideBySide([image], { gap: 0, captions: ["\u732b"] });
  assert.ok(glyphs.has(ink(other.rgb, 7, [0, 5, 5, 12])));
});

test("enlarge() repeats or blends pixels", () => {
  const rgb = Uint8Array.from([0, 0, 0, 100, 100, 100]);
  const red = (out: Uint8Array) =>
    Array.from({ length: 4 }, (_, x) => out[x * 3]);
  assert.deepEqual(red(enlarge(rgb, 2, 1, 2)), [0, 0, 100, 100]);
  assert.deepEqual(red(enlarge(rgb, 2, 1, 2, { filter: "bilinear" })), [
    0,
    25,
    75,
    100,
  ]);
  assert.equal(enlarge(rgb, 2, 1, 3).length, 6 * 3 * 3);
  assert.deepEqual(enlarge(rgb, 2, 1, 1), rgb);
});

test("drawing refuses sizes that do not fit", () => {
  const image = { rgb: blank(2, 2), width: 2, height: 2 };
  const wrong = [
    () => drawBoxes(blank(2, 2), 2, 3, []),
    () => drawBoxes(blank(2, 2), 2, 2, [], { scale: 0 }),
    () => enlarge(blank(2, 2), 2, 2, 1.5),
    () => enlarge(blank(2, 2), 0, 2, 1),
    () => sideBySide([]),
    () => sideBySide([image], { captions: ["a", "b"] }),
    () => sideBySide([image], { gap: -1 }),
    () => sideBySide([{ ...image, width: 3 }]),
  ];
  for (const call of wrong) {
    assert.throws(call, { name: "RangeError", message: /^Cannot (draw|put)/ });
  }
  sideBySide([image]); // control
});
