import { strict as assert } from "node:assert";
import { test } from "node:test";
import {
  type Box,
  cellRange,
  checkLayout,
  logPrior,
  parseBoxFlag,
  rasterize,
  rasterizeUnion,
  type RasterMode,
} from "../../pipeline/layout.ts";

const CAT = { phrase: "cat", boxes: [[0.1, 0.2, 0.5, 0.8]] };
const near = (a: number | undefined, b: number, eps = 1e-12) =>
  assert.ok(Math.abs((a as number) - b) <= eps, `${a} is not ${b}`);

test("checkLayout() returns fresh regions and keeps every key", () => {
  const input = [
    { ...CAT, occurrence: "all", weight: 0 },
    { ...CAT, occurrence: 2 },
    { ...CAT, tokens: [2, 3] },
    { ...CAT, span: [0, 3], boxes: [[0, 0, 1, 1], [0.2, 0.2, 0.3, 0.3]] },
  ];
  const { regions, notes } = checkLayout(JSON.parse(JSON.stringify(input)));
  assert.deepEqual(regions, input);
  assert.deepEqual(notes, []);
  assert.deepEqual(Object.keys(checkLayout([CAT]).regions[0] as object), [
    "phrase",
    "boxes",
  ]);
});

test("checkLayout() cuts a box that is partly outside, and notes it", () => {
  const { regions, notes } = checkLayout([{
    phrase: "cat",
    boxes: [[-0.5, 0.2, 0.5, 1.25]],
  }]);
  assert.deepEqual(regions[0]?.boxes, [[0, 0.2, 0.5, 1]]);
  assert.equal(notes.length, 1);
  assert.match(
    notes[0] as string,
    /region 0 "cat": box 0 \[-0.5,0.2,0.5,1.25\].*\[0,0.2,0.5,1\]/,
  );
});

test("checkLayout() names region, box and key of what is wrong", () => {
  const box = (
    ...b: unknown[]
  ) => [{ phrase: "cat", boxes: [[0, 0, 1, 1], b] }];
  const cases: [unknown, string, RegExp][] = [
    [{}, "TypeError", /regions must be an array/],
    [null, "TypeError", /must be an array/],
    [[], "RangeError", /1 to 32 entries: current 0/],
    [Array(33).fill(CAT), "RangeError", /current 33/],
    [[CAT, 5], "TypeError", /region 1: it must be an object/],
    [[CAT, []], "TypeError", /region 1: it must be an object/],
    [
      [{ ...CAT, box: [0, 0, 1, 1] }],
      "TypeError",
      /"box"; did you mean "boxes"/,
    ],
    [[{ ...CAT, Wieght: 1 }], "TypeError", /did you mean "weight"/],
    [
      [{ boxes: [[0, 0, 1, 1]] }],
      "TypeError",
      /phrase must be a text: current undefined/,
    ],
    [[{ ...CAT, phrase: "  " }], "RangeError", /1 to 1000 characters/],
    [[{ ...CAT, phrase: "x".repeat(1001) }], "RangeError", /current 1001/],
    [
      [{ phrase: "cat" }],
      "TypeError",
      /region 0 "cat": boxes must be an array/,
    ],
    [[{ phrase: "cat", boxes: [] }], "RangeError", /1 to 32 entries/],
    [
      [{ phrase: "cat", boxes: Array(33).fill([0, 0, 1, 1]) }],
      "RangeError",
      /current 33/,
    ],
    [
      [{ phrase: "cat", boxes: [0, 0, 1, 1] }],
      "TypeError",
      /box 0 must be an array/,
    ],
    [box(0, 0, 1), "RangeError", /box 1 must have 4 entries: current 3/],
    [box(0, 0, 1, "1"), "TypeError", /box 1 must be four numbers/],
    [box(0, 0, undefined, 1), "TypeError", /box 1 must be four numbers/],
    [
      box(0, 0, NaN, 1),
      "RangeError",
      /region 0 "cat", box 1: coordinates must be finite/,
    ],
    [box(0, 0, Infinity, 1), "RangeError", /finite/],
    [
      box(0.5, 0, 0.5, 1),
      "RangeError",
      /x0 must be below x1: current \[0.5,0,0.5,1\]/,
    ],
    [box(0, 0.9, 1, 0.1), "RangeError", /y0 must be below y1/],
    [box(1, 0, 2, 1), "RangeError", /must overlap the image/],
    [box(-1, 0, 0, 1), "RangeError", /must overlap the image/],
    [box(0, -2, 1, -1), "RangeError", /must overlap the image/],
    [box(10, 20, 300, 400), "RangeError", /must overlap the image/],
    [[{ ...CAT, weight: -1 }], "RangeError", /weight/],
    [[{ ...CAT, weight: "1" }], "TypeError", /weight/],
    [[{ ...CAT, weight: NaN }], "RangeError", /weight/],
    [
      [{ ...CAT, occurrence: 1.5 }],
      "RangeError",
      /occurrence must be a whole number/,
    ],
    [[{ ...CAT, occurrence: "first" }], "TypeError", /occurrence/],
    [[{ ...CAT, tokens: [] }], "RangeError", /tokens must have 1 to/],
    [[{ ...CAT, tokens: [1, -1] }], "RangeError", /tokens 1/],
    [[{ ...CAT, span: [1] }], "RangeError", /span must have 2 entries/],
    [
      [{ ...CAT, span: [1, 2], tokens: [1] }],
      "TypeError",
      /current tokens and span/,
    ],
  ];
  for (const [value, name, message] of cases) {
    assert.throws(() => checkLayout(value), { name, message }, String(message));
  }
});

test("checkLayout() of mutated JSON returns valid regions or a named error", () => {
  const source = JSON.stringify([{ ...CAT, occurrence: 1 }, {
    ...CAT,
    tokens: [1],
    weight: 2,
  }]);
  let state = 4;
  const random = (n: number) =>
    ((state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 8) % n;
  let passed = 0;
  for (let run = 0; run < 3000; run++) {
    let text = source;
    for (let k = 0; k <= random(3); k++) {
      const at = random(text.length);
      const put = '0123456789-.eE,[]{}":ntx '[random(25)] as string;
      text = text.slice(0, at) + put + text.slice(at + random(3));
    }
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      continue;
    }
    try {
      for (const { boxes } of checkLayout(value).regions) {
        for (const [x0, y0, x1, y1] of boxes!) {
          assert.ok(
            0 <= x0 && x0 < x1 && x1 <= 1 && 0 <= y0 && y0 < y1 && y1 <= 1,
          );
        }
      }
      passed++;
    } catch (error) {
      assert.ok(
        error instanceof RangeError || error instanceof TypeError,
        String(error),
      );
      assert.match(error.message, /^Cannot use (the layout|region \d)/);
    }
  }
  assert.ok(passed > 50, `only ${passed} mutants were valid`);
});

test("parseBoxFlag() splits at the last equals sign", () => {
  assert.deepEqual(parseBoxFlag("red car=0.05,0.5,0.5,0.9"), {
    phrase: "red car",
    boxes: [[0.05, 0.5, 0.5, 0.9]],
  });
  assert.deepEqual(parseBoxFlag("e = mc2=0,0,.5,1; -1e-1,0,1.,+1"), {
    phrase: "e = mc2",
    boxes: [[0, 0, 0.5, 1], [-0.1, 0, 1, 1]],
  });
  for (
    const flag of [
      "",
      "cat",
      "=0,0,1,1",
      "cat=",
      "cat=0,0,1",
      "cat=0,0,1,1;",
      "cat=0,0,1,0x1",
      "cat=0,0,1,NaN",
      "cat=0,0,,1",
      "cat=0 0 1 1",
    ]
  ) {
    assert.throws(() => parseBoxFlag(flag), {
      name: "SyntaxError",
      message: /^Cannot read box/,
    }, flag);
  }
});

// The table of the rasterisation rules; the codes it copies were run for it.
const RANGES: [
  Box,
  number,
  Record<"trunc" | "half_even_512" | "nearest", number[]>,
][] = [
  [[.1, .2, .5, .8], 8, {
    trunc: [0, 1, 4, 6],
    half_even_512: [1, 2, 4, 6],
    nearest: [1, 2, 4, 6],
  }],
  [[.1, .2, .5, .8], 16, {
    trunc: [1, 3, 8, 12],
    half_even_512: [2, 3, 8, 13],
    nearest: [2, 3, 8, 13],
  }],
  [[.1, .2, .5, .8], 32, {
    trunc: [3, 6, 16, 25],
    half_even_512: [3, 6, 16, 26],
    nearest: [3, 6, 16, 26],
  }],
  [[.55, .45, .95, .9], 8, {
    trunc: [4, 3, 7, 7],
    half_even_512: [4, 4, 8, 7],
    nearest: [4, 4, 8, 7],
  }],
  [[.55, .45, .95, .9], 16, {
    trunc: [8, 7, 15, 14],
    half_even_512: [9, 7, 15, 14],
    nearest: [9, 7, 15, 14],
  }],
  [[.48, .48, .53, .53], 8, {
    trunc: [3, 3, 4, 4],
    half_even_512: [4, 4, 4, 4],
    nearest: [4, 4, 5, 5],
  }],
  [[.48, .48, .53, .53], 16, {
    trunc: [7, 7, 8, 8],
    half_even_512: [8, 8, 8, 8],
    nearest: [8, 8, 9, 9],
  }],
  [[.03, .5, .09, .6], 8, {
    trunc: [0, 4, 0, 4],
    half_even_512: [0, 4, 1, 5],
    nearest: [0, 4, 1, 5],
  }],
  [[.0625, .1875, .3125, .4375], 8, {
    trunc: [0, 1, 2, 3],
    half_even_512: [0, 2, 2, 4],
    nearest: [1, 2, 3, 4],
  }], // halves
  [[.99, .99, 1, 1], 8, {
    trunc: [7, 7, 8, 8],
    half_even_512: [8, 8, 8, 8],
    nearest: [7, 7, 8, 8],
  }],
];

test("cellRange() and rasterize() follow the table", () => {
  for (const [box, n, rows] of RANGES) {
    for (const [mode, expected] of Object.entries(rows)) {
      const name = `[${box}] on ${n}, ${mode}`;
      assert.deepEqual(
        cellRange(box, n, n, mode as RasterMode),
        expected,
        name,
      );
      const [x0, y0, x1, y1] = expected as [number, number, number, number];
      const mask = rasterize(box, n, n, mode as RasterMode);
      const cells = Math.max(0, x1 - x0) * Math.max(0, y1 - y0);
      assert.equal(mask.reduce((a, b) => a + b, 0), cells, name);
      if (cells > 0) {
        assert.ok(
          mask[y0 * n + x0] === 1 && mask[(y1 - 1) * n + x1 - 1] === 1,
          name,
        );
      }
    }
  }
  assert.deepEqual(cellRange([0.5, 0, 1, 0.5], 12, 6), [6, 0, 12, 3]); // not square
  assert.deepEqual(cellRange([-5, -5, 5, 5], 3, 7, "trunc"), [0, 0, 3, 7]); // never wraps
});

test("rasterize() with coverage gives the covered share of each cell", () => {
  const mask = rasterize([0.125, 0.25, 0.625, 0.5], 4, 4, "coverage");
  assert.deepEqual([...mask.slice(4, 8)], [0.5, 1, 0.5, 0]);
  for (
    const box of [[.1, .2, .5, .8], [.48, .48, .53, .53], [0, 0, 1e-9, 1e-9], [
      1 - 1e-9,
      0,
      1,
      1,
    ]] as const
  ) {
    for (const [w, h] of [[1, 1], [8, 8], [7, 13]] as const) {
      const m = rasterize(box, w, h, "coverage");
      const area = m.reduce((a, b) => a + b, 0) / (w * h);
      near(area, (box[2] - box[0]) * (box[3] - box[1]));
      assert.ok(m.some((v) => v > 0) && m.every((v) => v >= 0 && v <= 1));
    }
  }
});

test("rasterizeUnion() covers every box, and refuses none", () => {
  const mask = rasterizeUnion([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], 2, 2);
  assert.deepEqual([...mask], [1, 0, 0, 1]);
  assert.throws(() => rasterizeUnion([], 2, 2), RangeError);
});

test("rasterize() refuses grids and boxes that are none", () => {
  for (
    const [w, h] of [[0, 1], [1.5, 1], [NaN, 1], [1, -1], [1e5, 1e5]] as const
  ) {
    assert.throws(
      () => rasterize([0, 0, 1, 1], w, h),
      /^RangeError: Cannot use grid/,
    );
  }
  for (const box of [[0, 0, NaN, 1], [1, 0, 0, 1], [2, 2, 3, 3]] as const) {
    assert.throws(() => rasterize(box, 8, 8), /^RangeError: Cannot use box/);
  }
});

test("logPrior() gives the worked example", () => {
  const box: Box = [0.25, 0, 0.75, 0.75];
  const mask = rasterize(box, 4, 4);
  const unit = logPrior(box, mask, 4, 4, { lambda: 4 });
  const expected = [0.147249, 0.205502, 0.147249]; // rows of columns 1 and 2, six digits
  expected.forEach((tau, y) => {
    near(Math.exp(unit[y * 4 + 1] as number), tau, 5e-7);
    near(Math.exp(unit[y * 4 + 2] as number), tau, 5e-7);
  });
  assert.equal(unit.filter((v) => v === -Infinity).length, 10);
  const cells = logPrior(box, mask, 4, 4, { lambda: 1, units: "cells" }); // lambda_unit = N lambda_cells
  const pixels = logPrior(box, mask, 4, 4, {
    lambda: 4 / 512,
    units: "pixels",
    imageWidth: 512,
    imageHeight: 512,
  });
  unit.forEach((v, u) => {
    if (v === -Infinity) return;
    near(cells[u], v);
    near(pixels[u], v);
  });
});

test("logPrior() sums to 1, is uniform at lambda 0, and is bounded below", () => {
  const box: Box = [0.03, 0.1, 0.77, 0.95];
  const [w, h] = [13, 9];
  const mask = rasterize(box, w, h);
  const sum = (p: Float64Array) => p.reduce((a, v) => a + Math.exp(v), 0);
  for (const units of ["unit", "cells", "pixels"] as const) {
    for (const distance of ["paper", "scale_invariant"] as const) {
      near(
        sum(
          logPrior(box, mask, w, h, {
            lambda: 0.02,
            units,
            distance,
            imageWidth: 104,
            imageHeight: 72,
          }),
        ),
        1,
      );
    }
  }
  const flat = logPrior(box, mask, w, h, { lambda: 0 });
  const count = mask.filter((v) => v > 0).length;
  flat.forEach((v, u) => near(Math.exp(v), mask[u] ? 1 / count : 0));
  const peaked = logPrior(box, mask, w, h, { lambda: 1e6 }).filter((v) =>
    v > -Infinity
  );
  assert.ok(peaked.every((v) => v >= -80 && v <= 0) && peaked.includes(-80));
  // scale_invariant 2: edge .61, corner .37 of the centre, whatever the box
  const fine = logPrior(
    [0.2, 0.4, 0.8, 0.6],
    new Float64Array(1001 * 1001).fill(1),
    1001,
    1001,
    { lambda: 2, distance: "scale_invariant" },
  );
  near(
    Math.exp(
      (fine[500 * 1001 + 200] as number) - (fine[500 * 1001 + 500] as number),
    ),
    0.61,
    5e-3,
  );
  near(
    Math.exp(
      (fine[400 * 1001 + 200] as number) - (fine[500 * 1001 + 500] as number),
    ),
    0.37,
    5e-3,
  );
});

test("logPrior() of an empty mask is empty, and of one cell 0", () => {
  const box: Box = [.03, .5, .09, .6];
  assert.ok(
    logPrior(box, rasterize(box, 8, 8, "trunc"), 8, 8, { lambda: 4 }).every((
      v,
    ) => v === -Infinity),
  );
  const one = logPrior(box, rasterize(box, 8, 8), 8, 8, { lambda: 4 });
  assert.deepEqual(one.filter((v) => v > -Infinity), new Float64Array([0]));
});

test("logPrior() refuses wrong values", () => {
  const box: Box = [0, 0, 1, 1];
  const mask = new Float64Array(4).fill(1);
  assert.throws(
    () => logPrior(box, mask, 2, 3, { lambda: 1 }),
    /mask must have 6 cells: current 4/,
  );
  for (const lambda of [-1, NaN, Infinity]) {
    assert.throws(() => logPrior(box, mask, 2, 2, { lambda }), /lambda/);
  }
  assert.throws(
    () => logPrior(box, mask, 2, 2, { lambda: 1, units: "pixels" }),
    /imageWidth/,
  );
});
