/** The SVG of energies: its curves are the report's numbers, and any phrase leaves it well formed. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { energySvg } from "../../pipeline/energy_svg.ts";
import type { GenerateReport } from "../../pipeline/generate.ts";

type Report = Pick<GenerateReport, "regions" | "steps">;

function report(
  phrases: readonly string[],
  perStep: readonly number[],
): Report {
  let k = 0;
  return {
    regions: phrases.map((phrase) => ({
      phrase,
      positions: [1],
      matched: phrase,
      fuzzy: false,
      share: 0.5,
    })),
    steps: perStep.map((count, i) => ({
      timestep: 900 - i,
      shares: phrases.map(() => 0.5),
      inner: Array.from({ length: count }, () => {
        k++;
        return {
          energy: 1 / k,
          rho: 2,
          nu: 1,
          xi: 1,
          gradient: 1,
          subjects: phrases.map((_, i) => ({
            aef: 0.5 / k,
            nap: 0.1 * i,
            share: k / 10,
          })),
        };
      }),
    })),
  };
}

/** Every curve's heights as shares of its plot, from the grid lines of the two plots. */
function curves(svg: string): number[][] {
  const grid = [...svg.matchAll(/class="grid" x1="64" x2="560" y1="([\d.]+)"/g)]
    .map((m) => Number(m[1]));
  assert.equal(grid.length, 10);
  return [...svg.matchAll(/<polyline [^>]*points="([^"]*)"/g)].map((m, i) => {
    const [bottom, top] = i < svg.match(/<polyline/g)!.length - 2
      ? [grid[0]!, grid[4]!]
      : [grid[5]!, grid[9]!];
    return m[1]!.split(" ").map((point) =>
      (bottom - Number(point.split(",")[1])) / (bottom - top)
    );
  });
}

test("energySvg() draws energies and shares at their heights", () => {
  const svg = energySvg(report(["red car", "blue house"], [3, 2, 0, 0]));
  const drawn = curves(svg);
  // Together, two regions' energies (of which 1 is the most: the top of the plot), two shares.
  const expected = [
    [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5],
    [1, 2, 3, 4, 5].map((k) => 0.5 / k),
    [1, 2, 3, 4, 5].map((k) => 0.5 / k + 2 * 0.1),
    [0.1, 0.2, 0.3, 0.4, 0.5],
    [0.1, 0.2, 0.3, 0.4, 0.5],
  ];
  assert.equal(drawn.length, 5);
  drawn.forEach((curve, i) =>
    curve.forEach((v, k) =>
      // The file has a tenth of a pixel, of 190.
      assert.ok(Math.abs(v - expected[i]![k]!) < 1e-3, `curve ${i}, ${k}: ${v}`)
    )
  );
  assert.match(svg, />step 1<.*>2</s);
  assert.doesNotMatch(svg, />3<\/text>/);
  assert.match(svg, /5 updates of the latent/);
  assert.match(svg, /prefers-color-scheme:dark/);
});

test("energySvg() stays well formed whatever the phrases are", () => {
  const phrases = [`a <b> & "c"`, "x\u0000]]>\ud800", "long ".repeat(20)];
  const svg = energySvg(report(phrases, [1]));
  assert.ok(svg.includes("a &lt;b&gt; &amp;"));
  // deno-lint-ignore no-control-regex -- these are what XML forbids
  assert.doesNotMatch(svg, /[\u0000-\u0008]|&(?!lt;|gt;|amp;)/);
  assert.ok(svg.isWellFormed());
  const open: string[] = [];
  for (
    const [, end, name, self] of svg.matchAll(/<(\/?)([a-z]+)[^<>]*?(\/?)>/g)
  ) {
    if (end) assert.equal(open.pop(), name);
    else if (!self) open.push(name!);
  }
  assert.deepEqual(open, []);
});

test("energySvg() refuses a run without a guided step", () => {
  assert.throws(
    () => energySvg(report(["car"], [0, 0])),
    /Cannot draw energies: there must be a guided step: current 0/,
  );
});
