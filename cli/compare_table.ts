/** A summary -> Markdown for people, CSV for programs. */
import { type Interval, type Metric, METRICS, type Summary } from "../mod.ts";

const NAMES = Object.keys(METRICS) as Metric[];

/** What the table is about, for its heading. */
export interface TableFacts {
  /** Of the first picture. */
  readonly model: string;
  /** Of the first picture. */
  readonly steps: number;
  /** Seeds per layout. */
  readonly seeds: number;
  /** Where the pictures were painted. */
  readonly backends: readonly string[];
  /** Whether a detector looked at them. */
  readonly detected: boolean;
}

/** Scores with intervals, then differences. */
export function markdownTable(summary: Summary, facts: TableFacts): string {
  const { variants, against, layouts, real } = summary;
  const measured = NAMES.filter((m) =>
    variants.some(({ scores }) => !Number.isNaN(scores[m].value))
  );
  const missing = variants.some(({ scores }) =>
    measured.some((m) => Number.isNaN(scores[m].value))
  );
  const table = (
    first: string,
    pick: (
      row: Summary["variants"][number],
    ) => Readonly<Record<Metric, Interval>>,
    rows: Summary["variants"],
    cell: (metric: Metric, interval: Interval) => string,
  ): string[] => [
    `| ${[first, "images", ...measured.map((m) => METRICS[m])].join(" | ")} |`,
    `| --- ${"| ---: ".repeat(measured.length + 1)}|`,
    ...rows.map((row) =>
      `| ${
        [
          row.variant.replaceAll("|", "\\|"),
          row.images,
          ...measured.map((m) => cell(m, pick(row)[m])),
        ].join(" | ")
      } |`
    ),
  ];
  const others = variants.filter(({ variant }) => variant !== against);
  return [
    `${facts.model}, ${layouts} layouts, ${facts.seeds} ${
      facts.seeds === 1 ? "seed" : "seeds"
    } each, ${facts.steps} steps; ${facts.backends.join(", ")}`,
    "",
    ...table(
      "method",
      (row) => row.scores,
      variants,
      (m, x) => cellOf(m, x, false),
    ),
    ...(others.length
      ? [
        "",
        `Difference to ${against}, paired over layouts:`,
        "",
        ...table(
          "method",
          (row) => row.differences,
          others,
          (m, x) => cellOf(m, x, true),
        ),
      ]
      : []),
    "",
    ...notes(summary, facts, real, missing).map((note) => `- ${note}`),
    "",
  ].join("\n");
}

function notes(
  { layouts }: Summary,
  { detected }: TableFacts,
  real: Summary["real"],
  missing: boolean,
): string[] {
  return [
    layouts < 2
      ? "One layout has no interval."
      : "In brackets: 95 % bootstrap intervals over layouts, mirrored for AP and AP50, which resampling raises; for Frechet 1.96 bootstrap standard deviations.",
    ...(detected
      ? [
        "AP, AP50, AR: COCO's definition on kinds of things. Mean IoU, IoU >= .5, centre in box, found: things of the right kind and colour, mean over boxes.",
      ]
      : ["No detector looked at the pictures: give one with --detector."]),
    ...(real && !Number.isNaN(real.value)
      ? [
        `Frechet: detector features against rendered scenes; ${real.images} other rendered scenes have ${
          cellOf("frechet", real, false)
        }.`,
      ]
      : []),
    ...(missing ? ["An empty cell was not measured."] : []),
  ];
}

function cellOf(
  metric: Metric,
  { value, low, high }: Interval,
  signed: boolean,
): string {
  if (Number.isNaN(value)) return "";
  const text = `${signed && value > 0 ? "+" : ""}${format(metric, value)}`;
  return Number.isNaN(low)
    ? text
    : `${text} [${format(metric, low)}, ${format(metric, high)}]`;
}

function format(metric: Metric, value: number): string {
  return value.toFixed(metric === "seconds" ? 1 : 3);
}

/** One line per method; every number in full. */
export function csvTable({ variants }: Summary): string {
  const kinds = [
    "",
    "_low",
    "_high",
    "_difference",
    "_difference_low",
    "_difference_high",
  ];
  const quote = (text: string): string =>
    /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const number = (x: number): string => Number.isNaN(x) ? "" : String(x);
  return [
    [
      "method",
      "images",
      ...NAMES.flatMap((m) => kinds.map((kind) => m + kind)),
    ],
    ...variants.map(({ variant, images, scores, differences }) => [
      quote(variant),
      String(images),
      ...NAMES.flatMap((m) =>
        [scores[m], differences[m]].flatMap(({ value, low, high }) =>
          [value, low, high].map(number)
        )
      ),
    ]),
  ].map((row) => `${row.join(",")}\n`).join("");
}
