/** Host losses of the guidance methods: gradients against central differences, and odd layouts. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import type { Subject } from "../../pipeline/energy.ts";
import {
  ATTENTION_REFOCUSING_DEFAULTS,
  carLoss,
  sarLoss,
} from "../../pipeline/guidance/attention_refocusing.ts";
import {
  BOXDIFF_DEFAULTS,
  boxDiffLoss,
} from "../../pipeline/guidance/boxdiff.ts";
import {
  CSG_DEFAULTS,
  csgCrossLoss,
  csgSelfLoss,
} from "../../pipeline/guidance/csg.ts";
import { bilinear } from "../../pipeline/guidance/maps/bilinear.ts";
import { blur, blurWeights } from "../../pipeline/guidance/maps/blur.ts";
import type {
  HostLoss,
  SiteMap,
} from "../../pipeline/guidance/maps/host_energy.ts";
import type { Grid, Mapped } from "../../pipeline/guidance/maps/mapped.ts";
import { randomSubset } from "../../pipeline/guidance/maps/random_subset.ts";
import { sobel } from "../../pipeline/guidance/maps/sobel.ts";
import { tokenSoftmax } from "../../pipeline/guidance/maps/token_softmax.ts";
import { RNB_DEFAULTS, rnbLoss } from "../../pipeline/guidance/rnb.ts";
import { rand } from "../compare.ts";

const SUBJECTS: readonly Subject[] = [
  { name: "a", tokens: [1, 2], boxes: [[0.1, 0.2, 0.5, 0.8]] },
  {
    name: "b",
    tokens: [4],
    boxes: [[0.55, 0.45, 0.95, 0.9], [0.6, 0.05, 0.9, 0.3]],
    weight: 1.5,
  },
];

/** Probabilities of `sites` sites: random, and made so that they sum to 1 over the keys. */
function maps(
  sites: number,
  keys: readonly number[],
  grid: Grid,
  seed = 1,
): SiteMap[] {
  const cells = grid[0] * grid[1];
  return Array.from({ length: sites }, (_, i) => {
    const values = Float64Array.from(
      rand(seed + i, keys.length * cells),
      (v) => Math.exp(v),
    );
    for (let u = 0; u < cells; u++) {
      let sum = 0;
      for (let j = u; j < values.length; j += cells) sum += values[j]!;
      for (let j = u; j < values.length; j += cells) values[j]! /= sum;
    }
    return { site: `${i}`, keys, grid, values };
  });
}

/** Fails unless a gradient is that of central differences along random directions. */
function checkGradient(
  at: readonly Float64Array[],
  value: (at: readonly Float64Array[]) => number,
  gradients: readonly Float64Array[],
): void {
  for (const seed of [11, 12, 13]) {
    const directions = at.map((x, i) => rand(seed + 100 * i, x.length));
    const step = 1e-7; // small beside the gaps between values whose order counts
    const moved = (sign: number): number =>
      value(
        at.map((x, i) => x.map((v, j) => v + sign * step * directions[i]![j]!)),
      );
    const numeric = (moved(1) - moved(-1)) / (2 * step);
    const own = gradients.reduce(
      (sum, g, i) => g.reduce((s, v, j) => s + v * directions[i]![j]!, sum),
      0,
    );
    assert.ok(Math.abs(numeric) > 1e-6, "the value must depend on the maps");
    assert.ok(
      Math.abs(numeric - own) <= 1e-6 * Math.abs(numeric) + 1e-7,
      `differences ${numeric}, gradient ${own}`,
    );
  }
}

const TOKENS = [1, 2, 3, 4, 5, 6];
const CELLS = [...Array(96).keys()];
const all = () => (cells: readonly number[], count: number) =>
  cells.slice(0, count);

const LOSSES: Readonly<
  Record<string, {
    readonly maps: readonly SiteMap[];
    readonly loss: (maps: readonly SiteMap[]) => HostLoss;
  }>
> = {
  "boxdiff": {
    maps: maps(2, TOKENS, [8, 12]),
    loss: (m) =>
      boxDiffLoss(m, SUBJECTS, { ...BOXDIFF_DEFAULTS, sharpness: 10 }),
  },
  "boxdiff, mean of tokens, after a refinement": {
    maps: maps(2, TOKENS, [8, 12]),
    loss: (m) =>
      boxDiffLoss(m, SUBJECTS, {
        ...BOXDIFF_DEFAULTS,
        sharpness: 10,
        tokens: "mean_map",
      }, () => "inside"),
  },
  "boxdiff, in a refinement": {
    maps: maps(2, TOKENS, [8, 12]),
    loss: (m) =>
      boxDiffLoss(
        m,
        SUBJECTS,
        { ...BOXDIFF_DEFAULTS, sharpness: 10 },
        () => "worst",
      ),
  },
  "attention-refocusing, CAR early": {
    maps: maps(3, TOKENS, [7, 9]),
    loss: (m) => carLoss(m, SUBJECTS, ATTENTION_REFOCUSING_DEFAULTS, 0),
  },
  "attention-refocusing, CAR late, other weights": {
    maps: maps(3, TOKENS, [7, 9]),
    loss: (m) =>
      carLoss(m, SUBJECTS, {
        ...ATTENTION_REFOCUSING_DEFAULTS,
        sharpness: 4, // values near the thresholds 0.1 and 0.2
      }, 20),
  },
  "attention-refocusing, SAR": {
    maps: maps(2, CELLS, [8, 12]),
    loss: (m) => sarLoss(m, SUBJECTS, "nearest"),
  },
  "csg, cross": {
    maps: maps(2, TOKENS, [8, 12]),
    loss: (m) =>
      csgCrossLoss(m, SUBJECTS, { ...CSG_DEFAULTS, tokens: "mean_map" }, all),
  },
  "csg, self": {
    maps: maps(2, CELLS, [8, 12]),
    loss: (m) => csgSelfLoss(m, SUBJECTS, CSG_DEFAULTS, all),
  },
};

for (const [name, { maps, loss }] of Object.entries(LOSSES)) {
  test(`the gradient is that of central differences: ${name}`, () => {
    const withValues = (values: readonly Float64Array[]): SiteMap[] =>
      maps.map((map, i) => ({ ...map, values: values[i]! }));
    checkGradient(
      maps.map(({ values }) => values),
      (values) => loss(withValues(values)).energy,
      loss(maps).gradients,
    );
  });
}

test("blur, bilinear, sobel and tokenSoftmax go back as central differences say", () => {
  const grid: Grid = [7, 9];
  const x = Float64Array.from(rand(5, 63));
  const weights = rand(6, 200);
  const ops: Readonly<Record<string, (x: Float64Array) => Mapped>> = {
    blur: (v) => blur(v, grid, 0.5),
    "wide blur": (v) => blur(v, grid, 3),
    enlarge: (v) => bilinear(v, grid, [10, 13]),
    shrink: (v) => bilinear(v, grid, [4, 5]),
    sobel: (v) => sobel(v, grid),
    softmax: (v) => tokenSoftmax(v, 7, 3),
  };
  for (const op of Object.values(ops)) {
    const value = (v: Float64Array): number =>
      op(v).values.reduce((sum, y, i) => sum + y * weights[i]!, 0);
    const { values, back } = op(x);
    checkGradient([x], ([v]) => value(v!), [
      back(values.map((_, i) => weights[i]!)),
    ]);
  }
});

test("blur has the weights of the codes and keeps a flat map", () => {
  const [side, middle] = blurWeights(0.5);
  assert.ok(Math.abs(side - 0.211942) < 1e-6);
  assert.ok(Math.abs(middle - 0.576117) < 1e-6);
  assert.ok(Math.abs(blurWeights(3)[0] - 0.330233) < 1e-6);
  const flat = blur(new Float64Array(12).fill(2), [3, 4], 0.5);
  assert.ok(flat.values.every((v) => Math.abs(v - 2) < 1e-14));
});

/** What R&B's gradient takes as given. */
interface Frozen {
  readonly w: number;
  readonly common: number;
  readonly area: number;
  readonly a: number;
  readonly b: number;
  readonly n: Float64Array;
}

/**
 * R&B's loss with its stop-gradients as constants: what `frozen` holds is taken at the point itself, so
 * that its plain derivative there is the gradient that the method asks for.
 */
function rnbSurrogate(
  map: Float64Array,
  inside: readonly boolean[],
  width: number,
  frozen?: Frozen,
): { readonly value: number; readonly constants: Frozen } {
  const low = Math.min(...map), high = Math.max(...map);
  const n = map.map((v) => (v - low) / (high - low));
  const mean = (wanted: boolean): number => {
    const list = [...n].filter((_, u) => inside[u] === wanted);
    return list.reduce((x, y) => x + y, 0) / list.length;
  };
  const th = 0.4 * mean(true) + 0.6 * mean(false);
  const q = n.map((v) => 1 / (1 + Math.exp(-20 * (v - th))));
  const b = q.reduce((x, y) => x + y, 0);
  const a = q.reduce((x, y, u) => inside[u] ? x + y : x, 0);
  let constants = frozen;
  if (!constants) {
    const above = [...n.keys()].filter((u) => n[u]! > th);
    const xs = above.map((u) => u % width);
    const ys = above.map((u) => Math.floor(u / width));
    const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
    const [y0, y1] = [Math.min(...ys), Math.max(...ys)];
    const area = (x1 - x0) * (y1 - y0);
    const common = [...n.keys()].filter((u) =>
      inside[u] && u % width >= x0 && u % width < x1 &&
      Math.floor(u / width) >= y0 && Math.floor(u / width) < y1
    ).length;
    const box = inside.filter((m) =>
      m
    ).length;
    const w = 1 - common / (area + box - common);
    constants = { w, common, area, a, b, n };
  }
  const c = constants;
  // Straight through: the value is the rectangle's, the change is that of n.
  const moved = (wanted: (u: number) => boolean): number =>
    n.reduce((sum, v, u) => wanted(u) ? sum + v - c.n[u]! : sum, 0);
  const common = c.common + moved((u) => inside[u]!);
  const area = c.area + moved(() => true);
  return {
    value: 4 - c.w * (common / c.area + c.common / area) -
      0.5 * c.w * (a / c.b + c.a / b),
    constants,
  };
}

test("rnb has the gradient of its loss with the stopped parts held", () => {
  const grid: Grid = [8, 12];
  const [map] = maps(1, [1, 2, 3], grid, 7);
  const subject: Subject = { ...SUBJECTS[0]!, tokens: [2] };
  const options = {
    ...RNB_DEFAULTS,
    inRegion: () => true,
    inBoundary: () => true,
  };
  const loss = rnbLoss([map!], [subject], grid, options);
  const own = map!.values.slice(96, 192);
  const inside = Array.from({ length: 96 }, (_, u) => {
    const [x, y] = [u % 12, Math.floor(u / 12)];
    return x >= 1 && x < 6 && y >= 1 && y < 6; // trunc
  });
  const { value, constants } = rnbSurrogate(own, inside, 12);
  assert.ok(Math.abs(value - loss.energy) < 1e-12, `${value} ${loss.energy}`);
  checkGradient(
    [own],
    ([v]) => rnbSurrogate(v!, inside, 12, constants).value,
    [loss.gradients[0]!.slice(96, 192)],
  );
  assert.ok(loss.gradients[0]!.subarray(0, 96).every((g) => g === 0));
});

test("rnb has the gradient of its boundary loss", () => {
  const grid: Grid = [8, 12];
  const list = maps(2, [1, 2, 3, 4], grid, 7);
  const value = (boundary: boolean, sites: readonly SiteMap[]): HostLoss =>
    rnbLoss(sites, SUBJECTS, grid, {
      ...RNB_DEFAULTS,
      boundary,
      sharpness: 10,
      inRegion: () => true,
      inBoundary: () => true,
    });
  const withEdges = value(true, list);
  assert.ok(withEdges.subjects.some((s) => s.boundary! > 0));
  const plain = value(false, list);
  // Everything but the boundary term is the same in both.
  checkGradient(
    list.map((map) => map.values),
    (values) => {
      const sites = list.map((map, i) => ({ ...map, values: values[i]! }));
      return value(true, sites).energy - value(false, sites).energy;
    },
    withEdges.gradients.map((g, i) =>
      g.map((v, j) => v - plain.gradients[i]![j]!)
    ),
  );
});

test("losses are finite for flat maps, tiny boxes, boxes of everything and overlaps", () => {
  const layouts: readonly (readonly Subject[])[] = [
    [{ name: "tiny", tokens: [2], boxes: [[0.03, 0.5, 0.04, 0.51]] }],
    [{ name: "all", tokens: [2], boxes: [[0, 0, 1, 1]] }],
    [
      { name: "one", tokens: [2], boxes: [[0.2, 0.2, 0.8, 0.8]] },
      { name: "same", tokens: [2], boxes: [[0.2, 0.2, 0.8, 0.8]] },
    ],
  ];
  const grid: Grid = [8, 8];
  const flat = (keys: readonly number[]): SiteMap[] => [{
    site: "flat",
    keys,
    grid,
    values: new Float64Array(keys.length * 64).fill(1 / keys.length),
  }];
  const cells = [...Array(64).keys()];
  const region = { inRegion: () => true, inBoundary: () => true };
  for (const subjects of layouts) {
    for (const make of [flat, (keys: number[]) => maps(1, keys, grid)]) {
      const text = make(TOKENS);
      const self = make(cells);
      const losses = [
        boxDiffLoss(text, subjects, BOXDIFF_DEFAULTS),
        carLoss(text, subjects, ATTENTION_REFOCUSING_DEFAULTS, 0),
        sarLoss(self, subjects, "trunc"),
        rnbLoss(text, subjects, grid, { ...RNB_DEFAULTS, ...region }),
        csgCrossLoss(text, subjects, CSG_DEFAULTS, all),
        csgSelfLoss(self, subjects, CSG_DEFAULTS, all),
      ];
      for (const { energy, gradients } of losses) {
        assert.ok(Number.isFinite(energy));
        assert.ok(gradients.every((g) => g.every(Number.isFinite)));
      }
    }
  }
});

test("randomSubset() depends on its seed and use alone, and takes every cell now and then", () => {
  const cells = [3, 5, 8, 13, 21, 34];
  const first = randomSubset(cells, 3, 7, [2, 4]);
  assert.deepEqual(randomSubset(cells.toReversed(), 3, 7, [2, 4]), first);
  assert.equal(new Set(first).size, 3);
  const seen = new Set<number>();
  const draws = new Set<string>();
  for (let step = 0; step < 40; step++) {
    const list = randomSubset(cells, 3, 7, [step, 0]);
    draws.add(String(list.toSorted()));
    for (const u of list) seen.add(u);
  }
  assert.deepEqual([...seen].toSorted((a, b) => a - b), cells);
  assert.ok(draws.size > 10);
});

test("losses of the last token take that of every occurrence", () => {
  const [site] = maps(1, TOKENS, [8, 12]);
  const cells = site!.values.length / TOKENS.length;
  const own = (ends: readonly number[] | undefined): number[] => {
    const subject = { ...SUBJECTS[0]!, tokens: [1, 2, 4, 5], ends };
    const { gradients } = csgCrossLoss([site!], [subject], CSG_DEFAULTS, all);
    return TOKENS.filter((_, i) =>
      gradients[0]!.subarray(i * cells, (i + 1) * cells).some((g) => g !== 0)
    );
  };
  assert.deepEqual([own([2, 5]), own(undefined)], [[2, 5], [5]]);
});

test("boxdiff does not refine by a subject that has no weight", () => {
  const list = maps(2, TOKENS, [8, 12]);
  const worstOf = (weights: readonly number[]): number => {
    let seen = NaN;
    const subjects = SUBJECTS.map((s, i) => ({ ...s, weight: weights[i]! }));
    const { energy } = boxDiffLoss(
      list,
      subjects,
      { ...BOXDIFF_DEFAULTS, sharpness: 10 },
      (worst) => {
        seen = worst;
        return "worst";
      },
    );
    assert.ok(energy > 0, "the refinement moves something");
    return seen;
  };
  assert.notEqual(worstOf([0, 1]), worstOf([1, 0]));
});
