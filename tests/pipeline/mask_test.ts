/** Masks: what is refused, that nothing is lost in a request, and what the energy sees of them. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { Cpu } from "../../kernels/cpu.ts";
import { ENERGY_DEFAULTS, LayoutEnergy } from "../../pipeline/energy.ts";
import { checkLayout } from "../../pipeline/layout.ts";
import {
  checkMask,
  maskBox,
  maskPixels,
  type PackedMask,
  rasterizeMask,
} from "../../pipeline/mask.ts";
import { open } from "../../pipeline/model.ts";
import { checkForModel } from "../../pipeline/model_request.ts";
import { describeModel } from "../../pipeline/model_facts.ts";
import { type Box, rasterize } from "../../pipeline/raster.ts";
import { type Shape, shapeBoxes } from "../../pipeline/shape.ts";
import { rand } from "../compare.ts";

const facts = await describeModel("tiny-scenes");

/** White where `inside` says so, at pixel centres in fractions. */
function draw(
  width: number,
  height: number,
  inside: (x: number, y: number) => boolean,
): PackedMask {
  const data = Uint8Array.from(
    { length: width * height },
    (_, i) =>
      inside(
          (i % width + 0.5) / width,
          (Math.floor(i / width) + 0.5) / height,
        )
        ? 255
        : 0,
  );
  return checkMask({ width, height, data }, "test");
}

const boxMask = (size: number, [x0, y0, x1, y1]: Box): PackedMask =>
  draw(size, size, (x, y) => x > x0 && x < x1 && y > y0 && y < y1);

test("checkMask() keeps every pixel, through JSON and through itself", () => {
  for (const [seed, share] of [[1, 0.5], [2, 0.05], [3, 0.95]] as const) {
    const grey = rand(seed, 37 * 23).map((v) =>
      (v + 1) / 2 < share ? 128 : 127.4
    );
    const mask = checkMask({ width: 37, height: 23, data: grey }, "test");
    assert.deepEqual(
      [...maskPixels(mask)],
      [...grey].map((v) => Number(v >= 127.5)),
    );
    const again = JSON.parse(JSON.stringify(mask));
    assert.deepEqual(checkMask(again, "test"), mask);
  }
  const white = { width: 4, height: 2, data: Array(8).fill(255) };
  assert.equal(checkMask(white, "test").data, "0 8");
});

test("checkMask() says what is wrong with a mask", () => {
  const two = { width: 2, height: 2, data: [0, 0, 255, 255] };
  const cases: (readonly [
    value: unknown,
    name: string,
    message: RegExp,
    image?: readonly [number, number],
  ])[] = [
    ["car.png", "TypeError", /it must be {width, height, data}: .*"car.png"/],
    [[], "TypeError", /must be {width/],
    [{ ...two, path: "x" }, "TypeError", /keys must be .*current "path"/],
    [{ ...two, width: 0 }, "RangeError", /current 0x2/],
    [{ ...two, width: 5000, height: 5000 }, "RangeError", /at most 2\^24/],
    [{ ...two, data: 5 }, "TypeError", /grey levels or runs: current number/],
    [{ ...two, data: [0, 0, 255] }, "RangeError", /4 values: current 3/],
    [{ ...two, data: [0, 0, 0, 256] }, "RangeError", /0 to 255: current 256/],
    [{ ...two, data: [0, 0, 0, "255"] }, "RangeError", /0 to 255: current 255/],
    [
      { ...two, data: [0, 0, 0, 1] },
      "RangeError",
      /some of it must be white, which is 128 to 255: current brightest is 1/,
    ],
    [{ ...two, data: "4" }, "RangeError", /must be white.*current none is/],
    [{ ...two, data: "1 2" }, "RangeError", /add up to 4: current 3/],
    [{ ...two, data: "1  3" }, "RangeError", /single spaces/],
    [{ ...two, data: "1 99999999" }, "RangeError", /add up to 4/],
    [two, "RangeError", /proportions of the picture, 128x64: current 2x2/, [
      128,
      64,
    ]],
  ];
  for (const [value, name, message, image] of cases) {
    assert.throws(
      () => checkMask(value, 'region 0 "car"', image),
      (error: Error) =>
        error.name === name && message.test(error.message) &&
        error.message.startsWith('Cannot use mask of region 0 "car": '),
      String(message),
    );
  }
  checkMask({ width: 3, height: 2, data: "0 6" }, "test", [384, 256]);
  // 100 x 67 is 3 : 2 as near as pixels allow.
  checkMask({ width: 100, height: 67, data: "0 6700" }, "test", [384, 256]);
});

test("a mask of more runs than a PNG should carry is refused", () => {
  const data = Uint8Array.from({ length: 2048 * 1024 }, (_, i) => i % 2 * 255);
  assert.throws(
    () => checkMask({ width: 2048, height: 1024, data }, "test"),
    /at most 1048576 runs .*: current 2097152/,
  );
});

test("a region has either boxes or a mask", () => {
  const mask = { width: 2, height: 2, data: "0 4" };
  assert.throws(
    () => checkLayout([{ phrase: "cat", mask, boxes: [[0, 0, 1, 1]] }]),
    /region 0 "cat": it must have either boxes or a mask: current has both/,
  );
  assert.throws(() => checkLayout([{ phrase: "cat" }]), /boxes must be an/);
  const { regions } = checkLayout([{ phrase: "cat", mask }], [64, 64]);
  assert.deepEqual(regions, [{ phrase: "cat", mask }]);
  assert.deepEqual(checkLayout(regions, [64, 64]).regions, regions);
});

test("maskBox() is the tightest box", () => {
  const mask = draw(8, 4, (x, y) => x > 0.25 && x < 0.5 && y > 0.5);
  assert.deepEqual(maskBox(mask), [0.25, 0.5, 0.5, 1]);
  assert.deepEqual(
    maskBox(checkMask({ width: 1, height: 1, data: "0 1" }, "")),
    [
      0,
      0,
      1,
      1,
    ],
  );
});

test("a mask in the shape of a box covers cells as the box does", () => {
  for (let seed = 0; seed < 20; seed++) {
    const [a, b, c, d] = [...rand(seed, 4)].map((v) =>
      Math.round((v + 1) / 2 * 60)
    ) as [number, number, number, number];
    const box: Box = [
      Math.min(a, b) / 64,
      Math.min(c, d) / 64,
      (Math.max(a, b) + 3) / 64,
      (Math.max(c, d) + 3) / 64,
    ];
    for (const [w, h] of [[8, 8], [16, 8], [5, 7], [100, 100]] as const) {
      const mask = rasterizeMask(boxMask(64, box), w, h, "coverage");
      const expected = rasterize(box, w, h, "coverage");
      mask.forEach((v, i) =>
        assert.ok(
          Math.abs(v - expected[i]!) < 1e-6,
          `${box} on ${w}x${h}: ${i}`,
        )
      );
    }
  }
});

test("cells that are at least half covered count, those less do not", () => {
  const disc = draw(64, 64, (x, y) => Math.hypot(x - 0.5, y - 0.4) < 0.3);
  const pixels = maskPixels(disc);
  const cells = rasterizeMask(disc, 8, 8);
  for (let u = 0; u < 64; u++) { // 8 x 8 pixels each
    let sum = 0;
    for (let i = 0; i < 64; i++) {
      const x = u % 8 * 8 + i % 8, y = (u >> 3) * 8 + (i >> 3);
      sum += pixels[y * 64 + x]!;
    }
    assert.equal(cells[u], Number(sum >= 32), `cell ${u}: ${sum} pixels`);
  }
  assert.ok(cells.includes(0) && cells.includes(1));
});

/** Energy terms and gradient of a random map. */
async function energyOf(shape: Shape, raster: "coverage" | "nearest") {
  using backend = new Cpu();
  using energy = new LayoutEnergy(
    backend,
    [{ name: "x", tokens: [1], ...shape, boxes: shapeBoxes(shape) }],
    ["site"],
    [64, 64],
    { ...ENERGY_DEFAULTS, raster },
  );
  using map = backend.upload(rand(5, 2 * 64), [1, 2, 1, 8, 8]);
  const { h, terms } = energy.evaluate(map, 5);
  const numbers = await backend.read([h, terms]);
  h.dispose();
  terms.dispose();
  return numbers.map((list) => [...list]);
}

test("a mask in the shape of a box has the box's energy, prior and gradient", async () => {
  for (
    const [box, raster] of [
      [[0.125, 0.25, 0.625, 1], "nearest"], // on cells, or the two rules differ
      [[0.140625, 0.25, 0.703125, 0.984375], "coverage"],
    ] as const
  ) {
    const boxed = await energyOf({ boxes: [box] }, raster);
    const masked = await energyOf({ mask: boxMask(64, box) }, raster);
    masked.flat().forEach((v, i) =>
      assert.ok(Math.abs(v - boxed.flat()[i]!) < 1e-6, `${raster} ${i}`)
    );
    const [, terms] = boxed;
    assert.ok(terms![0]! > 0.01 && terms![1]! > 0.01, "the case says nothing");
  }
});

test("a hole in a mask gets no attention's worth of credit and no prior", async () => {
  const box: Box = [0.125, 0.125, 0.875, 0.875];
  const ring = draw(64, 64, (x, y) => {
    const far = Math.max(Math.abs(x - 0.5), Math.abs(y - 0.5));
    return far < 0.375 && far > 0.125;
  });
  assert.deepEqual(maskBox(ring), box);
  const whole = await energyOf({ boxes: [box] }, "nearest");
  const holed = await energyOf({ mask: ring }, "nearest");
  const [, [, , wholeShare]] = whole as [number[], [number, number, number]];
  const [, [, , ringShare]] = holed as [number[], [number, number, number]];
  assert.ok(ringShare < wholeShare);
  const cells = rasterizeMask(ring, 8, 8);
  assert.equal(cells.reduce((a, b) => a + b), 36 - 4);
  assert.equal(cells[3 * 8 + 3], 0);
});

test("a box or mask without a cell on a guided map is an error with the least size, a small box a note", () => {
  const check = (shape: object, guidance: object = {}) =>
    checkForModel({
      prompt: "a red car",
      regions: [{ phrase: "red car", ...shape }],
      guidance,
    }, facts);
  const thin = { boxes: [[0.5, 0.1, 0.9, 0.9], [0.03, 0.5, 0.09, 0.6]] };
  assert.throws(
    () => check(thin, { raster: "trunc" }),
    /^RangeError: Cannot guide box 1 \[0.03,0.5,0.09,0.6\] of region 0 "red car": raster "trunc" must leave it a cell of the 8x8 attention map, as it does for sides of more than 0.125 x 0.125, and raster "nearest" for any: current size is 0.06 x 0.1$/,
  );
  assert.deepEqual(check({ boxes: thin.boxes.slice(0, 1) }).notes, []);
  assert.deepEqual(check(thin, { method: "none" }).notes, []);
  assert.deepEqual(check(thin, { raster: "coverage" }).notes, []);
  assert.deepEqual(check(thin).notes, [
    'region 0 "red car": box 1, 0.06 x 0.1, is less than half a cell of the 8x8 attention map (0.125 x 0.125 of the picture) across and counts as a whole one there; the thing may come out larger than its box',
  ]);
  for (const method of ["csg", "rnb", "boxdiff", "attention-refocusing"]) {
    assert.deepEqual(check(thin, { method }).notes, check(thin).notes, method);
  }
  const dot = draw(128, 128, (x, y) => x > 0.5 && x < 0.54 && y < 0.04);
  assert.throws(
    () => check({ mask: dot }),
    /^RangeError: Cannot guide mask of region 0 "red car": it must cover at least half of a cell of the 8x8 attention map, which is 0.125 x 0.125 of the picture: current most is 0.0977 of a cell$/,
  );
  check({ mask: dot }, { raster: "coverage" });
  check({ mask: draw(128, 128, (x, y) => x < 0.2 && y < 0.2) });
});

test("small boxes are judged on the grid of the canvas", () => {
  const request = (width: number) => ({
    prompt: "a red car",
    width,
    height: 64,
    regions: [{ phrase: "red car", boxes: [[0.1, 0.1, 0.13, 0.6]] }],
  });
  // 128 pixels are 8 cells of the coarsest map, 512 are 32.
  assert.match(checkForModel(request(128), facts).notes[0]!, /8x4/);
  assert.deepEqual(checkForModel(request(512), facts).notes, []);
});

test("methods made of boxes refuse a mask and name those that take one", () => {
  const request = (method: string) => ({
    prompt: "a red car",
    regions: [{
      phrase: "red car",
      mask: { width: 8, height: 8, data: new Uint8Array(64).fill(255) },
    }],
    guidance: { method },
  });
  for (const method of ["winwinlay", "layout-control"]) {
    checkForModel(request(method), facts);
  }
  for (const method of ["csg", "rnb", "boxdiff", "attention-refocusing"]) {
    assert.throws(
      () => checkForModel(request(method), facts),
      new RegExp(
        `Cannot guide mask of region 0 "red car" with ${method}: .*use winwinlay`,
      ),
    );
  }
});

test("attention on a mask that is too thin for half a cell is measured all the same", async () => {
  using backend = new Cpu();
  await using model = await open("tiny-scenes", { backend });
  const { report } = await model.generate({
    prompt: "a red car",
    regions: [{
      phrase: "red car",
      mask: draw(32, 32, (x) => x > 0.5 && x < 0.6),
    }],
    width: 32,
    height: 32,
    steps: 1,
    guidance: { method: "none" },
  });
  const { share } = report.regions[0]!;
  assert.ok(share > 0 && share < 0.5, `${share}`);
});
