/** What a command may touch of the outside: two streams and Ctrl+C; and how progress looks. */
import type { WorkerStep } from "../mod.ts";

/** The outside of the command line. Tests bring their own. */
export interface Io {
  /** Writes a line of data to stdout. */
  out(line: string): void;
  /** Writes a line of talk to stderr. */
  say(line: string): void;
  /** Writes to a terminal that may be overwritten; missing where stderr is none. */
  readonly live?: ((text: string) => void) | undefined;
  /** Width of that terminal. */
  readonly columns: number;
  /** Whether talk may have colours. */
  readonly colour: boolean;
  /** Aborts on Ctrl+C. */
  readonly signal: AbortSignal;
}

const CLEAR = "\r\x1b[2K";
const BAR = 20; // characters
const FRAME_MS = 50;
const EVERY = 10; // steps between plain lines

/** A bar on a terminal, a line every ten steps elsewhere. */
export class Progress implements Disposable {
  readonly #io: Io;
  readonly #name: string;
  readonly #started = performance.now();
  #drawn = -Infinity;
  #done = 0;
  #total = 0;
  #step: Pick<WorkerStep, "step" | "steps" | "energy"> | undefined;

  /** @param name In front of each line, such as `2/3`; may be empty. */
  constructor(io: Io, name = "") {
    this.#io = io;
    this.#name = name === "" ? "" : `${name}  `;
  }

  /** Weights are loading. */
  load(part: string, done: number, total: number): void {
    const now = performance.now();
    if (now - this.#drawn < FRAME_MS) return; // there are hundreds
    this.#drawn = now;
    this.#draw(done / total, `loading ${part}, ${done} of ${total} tensors`);
  }

  /** A network pass is done. */
  pass(done: number, total: number): void {
    this.#done = done;
    this.#total = total;
    this.#draw(done / total, this.#text());
  }

  /** A step is done. */
  step(step: Pick<WorkerStep, "step" | "steps" | "energy">): void {
    this.#step = step;
    this.#draw(this.#done / this.#total, this.#text());
    const told = step.step % EVERY === 0 || step.step === step.steps;
    if (!this.#io.live && told) this.#io.say(this.#name + this.#text());
  }

  /** Takes the bar away. */
  [Symbol.dispose](): void {
    this.#io.live?.(CLEAR);
  }

  #text(): string {
    const { step = 0, steps, energy } = this.#step ?? {};
    const seconds = (performance.now() - this.#started) / 1000;
    const left = seconds / this.#done * (this.#total - this.#done);
    return [
      steps === undefined ? "" : `step ${step}/${steps}`,
      energy === undefined ? "" : `energy ${energy.toFixed(3)}`,
      this.#done < this.#total ? `${formatSeconds(left)} left` : "",
    ].filter((part) => part !== "").join("  ");
  }

  #draw(share: number, text: string): void {
    const full = Math.round(BAR * Math.min(1, share || 0));
    const bar = `[${"#".repeat(full).padEnd(BAR, ".")}] `;
    const line = this.#name + bar + text;
    this.#io.live?.(CLEAR + line.slice(0, Math.max(0, this.#io.columns - 1)));
  }
}

/** `8.4 s` or `2 min 5 s`. */
export function formatSeconds(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** Bytes for people. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit++;
  }
  return `${Number(bytes.toFixed(1))} ${units[unit]}`;
}

/** Rows in columns; those listed in `right` end at the same place. */
export function formatTable(
  rows: readonly (readonly string[])[],
  right: readonly number[] = [],
): string[] {
  const widths = rows[0]!.map((_, i) =>
    Math.max(...rows.map((row) => [...row[i]!].length))
  );
  return rows.map((row) =>
    row.map((cell, i) => {
      const pad = " ".repeat(widths[i]! - [...cell].length);
      return right.includes(i) ? pad + cell : cell + pad;
    }).join("  ").trimEnd()
  );
}
