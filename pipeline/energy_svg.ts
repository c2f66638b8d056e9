/**
 * A run's report -> an SVG of its energy and attention shares, update by update.
 *
 * @module
 */
import { subjectEnergy } from "./energy.ts";
import type { GenerateReport } from "./generate.ts";

/** A curve. */
interface Curve {
  readonly name: string;
  /** CSS class, which has its colour. */
  readonly colour: string;
  /** One value per update. */
  readonly values: readonly number[];
}

/** A plot of some curves. */
interface Panel {
  readonly title: string;
  readonly top: number;
  readonly most: number;
  readonly label: (value: number) => string;
  readonly curves: readonly Curve[];
}

const [WIDTH, HEIGHT] = [760, 540];
const [LEFT, RIGHT] = [64, 560]; // of the plots; the legend is beside them
const PLOT = 190; // height of a plot
const TICKS = 4;
const MOST_NAME = 26; // characters of a phrase in the legend
// Okabe and Ito's hues, darker on light ground and lighter on dark, so that lines stand out on both.
const LIGHT = [
  "#0072b2",
  "#c14f00",
  "#007a59",
  "#b0528a",
  "#7a6a00",
  "#5a5a5a",
];
const DARK = ["#56b4e9", "#ff9a52", "#2fd3a3", "#f0a6cf", "#f0e442", "#bbbbbb"];

/**
 * Energy (all together, and per region) over share in the boxes (per region), against the updates of
 * the guided steps. Each is as it was measured before its update. Readable on light and dark ground.
 *
 * @param report Of a picture with guided steps.
 * @returns The file's text.
 * @throws {RangeError} If no step was guided.
 */
export function energySvg(
  { regions, steps }: Pick<GenerateReport, "regions" | "steps">,
): string {
  const guided = steps.flatMap(({ inner, timestep, shares }, i) =>
    inner.length ? [{ inner, timestep, shares, step: i + 1 }] : []
  );
  const updates = guided.flatMap(({ inner, shares }) =>
    inner.map((update) => ({ ...update, stepShares: shares }))
  );
  if (updates.length === 0) {
    throw new RangeError(
      "Cannot draw energies: there must be a guided step: current 0",
    );
  }
  const perRegion = (
    value: (update: typeof updates[number], region: number) => number,
  ): Curve[] =>
    regions.map(({ phrase }, i) => ({
      name: phrase,
      colour: `c${i % LIGHT.length}`,
      values: updates.map((update) => value(update, i)),
    }));
  const known = updates.every(({ subjects }) =>
    subjects.every((terms) => subjectEnergy(terms) !== undefined)
  );
  const energies = [
    {
      name: "all together",
      colour: "all",
      values: updates.map(({ energy }) => energy),
    },
    ...known
      ? perRegion(({ rho, subjects }, i) => subjectEnergy(subjects[i]!, rho)!)
      : [],
  ];
  // Methods that do not report shares have those of the step's denoising pass.
  const shares = perRegion(({ subjects, stepShares }, i) =>
    subjects[i]!.share ?? stepShares[i]!
  );
  const most = roundUp(Math.max(...energies.flatMap(({ values }) => values)));
  const panels: Panel[] = [
    {
      title: "Layout energy (less is better)",
      top: 44,
      most,
      label: (v) => String(Number(v.toPrecision(3))),
      curves: energies,
    },
    {
      title: "Attention inside the boxes",
      top: 44 + PLOT + 56,
      most: 1,
      label: (v) => `${Math.round(100 * v)} %`,
      curves: shares,
    },
  ];
  const x = (update: number): number =>
    LEFT + (update + 0.5) / updates.length * (RIGHT - LEFT);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img">`,
    `<title>Layout energy and attention shares by update</title>`,
    style(),
    `<rect class="ground" width="${WIDTH}" height="${HEIGHT}"/>`,
    ...panels.flatMap((panel) => drawPanel(panel, guided, x)),
    text(
      (LEFT + RIGHT) / 2,
      HEIGHT - 14,
      `${updates.length} updates of the latent, grouped by denoising step`,
      "middle",
    ),
    "</svg>",
    "",
  ].join("\n");
}

function drawPanel(
  { title, top, most, label, curves }: Panel,
  guided: readonly {
    readonly inner: readonly unknown[];
    readonly step: number;
  }[],
  x: (update: number) => number,
): string[] {
  const bottom = top + PLOT;
  const y = (value: number): string =>
    (bottom - Math.max(0, value) / most * PLOT).toFixed(1);
  const out = [text(LEFT, top - 12, title, "start", "title")];
  for (let i = 0; i <= TICKS; i++) {
    const value = most * i / TICKS;
    out.push(
      `<line class="grid" x1="${LEFT}" x2="${RIGHT}" y1="${y(value)}" y2="${
        y(value)
      }"/>`,
      text(LEFT - 8, Number(y(value)) + 4, label(value), "end"),
    );
  }
  const every = Math.ceil(guided.length / 14); // labels have no room for more
  let first = 0;
  guided.forEach(({ inner, step }, i) => {
    const [from, to] = [x(first - 0.5), x(first + inner.length - 0.5)];
    if (i > 0) {
      out.push(
        `<line class="grid" x1="${from.toFixed(1)}" x2="${
          from.toFixed(1)
        }" y1="${top}" y2="${bottom}"/>`,
      );
    }
    if (i % every === 0) {
      const name = i === 0 ? `step ${step}` : String(step);
      out.push(text((from + to) / 2, bottom + 16, name, "middle"));
    }
    first += inner.length;
  });
  curves.forEach(({ name, colour, values }, i) => {
    const points = values.map((v, k) => `${x(k).toFixed(1)},${y(v)}`);
    const row = top + 12 + i * 20;
    out.push(
      `<polyline class="${colour}" points="${points.join(" ")}"/>`,
      ...(values.length <= 80
        ? points.map((point) => {
          const [cx, cy] = point.split(",");
          return `<circle class="${colour}" cx="${cx}" cy="${cy}" r="2"/>`;
        })
        : []),
      `<line class="${colour}" x1="${RIGHT + 16}" x2="${
        RIGHT + 40
      }" y1="${row}" y2="${row}"/>`,
      text(RIGHT + 46, row + 4, shorten(name), "start"),
    );
  });
  return out;
}

function style(): string {
  const colours = (ground: string, ink: string, grid: string, list: string[]) =>
    [
      `.ground{fill:${ground}}`,
      `text{fill:${ink}}`,
      `.grid{stroke:${grid}}`,
      `.all{stroke:${ink}}circle.all{fill:${ink}}`,
      ...list.map((c, i) => `.c${i}{stroke:${c}}circle.c${i}{fill:${c}}`),
    ].join("");
  return [
    "<style>",
    "text{font:12px system-ui,sans-serif}.title{font-size:14px;font-weight:600}",
    "polyline,line{fill:none;stroke-width:1.5}.all{stroke-width:2.5}.grid{stroke-width:1}circle{stroke:none!important}",
    colours("#ffffff", "#1f2328", "#d8dee4", LIGHT),
    `@media (prefers-color-scheme:dark){${
      colours("#0d1117", "#e6edf3", "#30363d", DARK)
    }}`,
    "</style>",
  ].join("\n");
}

function text(
  x: number,
  y: number,
  content: string,
  anchor: "start" | "middle" | "end",
  kind?: string,
): string {
  return `<text x="${x.toFixed(1)}" y="${
    y.toFixed(1)
  }" text-anchor="${anchor}"${kind === undefined ? "" : ` class="${kind}"`}>${
    escapeXml(content)
  }</text>`;
}

/** The least round number that is not below, good for four ticks. */
function roundUp(value: number): number {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10].map((n) => n * power).find((
    n,
  ) => n >= value)!;
}

function shorten(name: string): string {
  const letters = [...name];
  return letters.length > MOST_NAME
    ? `${letters.slice(0, MOST_NAME - 1).join("")}…`
    : name;
}

/** Control characters, which XML has no way to write, become spaces. */
function escapeXml(content: string): string {
  return content.replace(
    /[^\t\n\r\x20-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu,
    " ",
  )
    .replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}
