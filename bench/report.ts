/** Statistics, Markdown, and the bars that a run is held against. */

/** The middle of a list; of an even one the mean of both middles. */
export function median(list: readonly number[]): number {
  if (list.length === 0) {
    throw new RangeError("Cannot take a median: the list must not be empty");
  }
  const sorted = list.toSorted((a, b) => a - b);
  const half = (sorted.length - 1) / 2;
  return (sorted[Math.floor(half)]! + sorted[Math.ceil(half)]!) / 2;
}

/** `exp(mean log x)`; NaN of nothing. */
export function geometricMean(list: readonly number[]): number {
  return Math.exp(list.reduce((sum, x) => sum + Math.log(x), 0) / list.length);
}

/** `median (least..most)`. */
export function spread(
  list: readonly number[],
  show: (x: number) => string = short,
): string {
  const [least, most] = [Math.min(...list), Math.max(...list)];
  return `${show(median(list))} (${show(least)}..${show(most)})`;
}

/** Three significant digits, no exponent. */
export function short(x: number): string {
  if (!Number.isFinite(x)) return String(x);
  const digits = x === 0 ? 0 : Math.floor(Math.log10(Math.abs(x)));
  return x.toFixed(Math.max(0, Math.min(6, 2 - digits)));
}

/** Whole per cent. */
export function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}

/** A Markdown table; the first column is text, the others are numbers. */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [
    line(head),
    line(head.map((_, i) => i === 0 ? "---" : "---:")),
    ...rows.map(line),
  ].join("\n");
}

/** Something that ought to hold, and whether it did in this run. */
export interface Bar {
  /** What, with its bound. */
  readonly text: string;
  /** Undefined where the run did not measure it. */
  readonly passed: boolean | undefined;
  /** What was found. */
  readonly found: string;
}

/** `value >= least`, or not measured. */
export function atLeast(
  text: string,
  value: number | undefined,
  least: number,
  found?: string,
): Bar {
  const measured = value !== undefined && !Number.isNaN(value);
  return {
    text,
    passed: measured ? value >= least : undefined,
    found: measured ? found ?? short(value) : "not measured",
  };
}

/** One line per bar. */
export function barLines(bars: readonly Bar[]): string {
  return bars.map(({ text, passed, found }) =>
    `${
      passed === undefined ? "SKIP" : passed ? "PASS" : "FAIL"
    } ${text}: ${found}`
  ).join("\n");
}
