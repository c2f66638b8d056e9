/** Our picture beside torch's, as Markdown. */
import type { ImageReport } from "./image.ts";
import type { AdapterRates } from "./rates.ts";
import { median, percent, short, spread, table } from "./report.ts";
import type { TorchReport } from "./torch.ts";

/** What the table shows. */
export interface TorchComparison {
  /** Of the model. */
  readonly name: string;
  /** Ours. */
  readonly image: ImageReport;
  /** Torch's, or why there is none. */
  readonly torch: TorchReport | { readonly reason: string };
  /** Measured on our adapter. */
  readonly rates?: AdapterRates | undefined;
  /** TFLOP/s that the device is said to have. */
  readonly peak?: number | undefined;
}

/** A column. */
interface Side {
  readonly name: string;
  readonly plain: readonly number[];
  readonly guided: readonly number[];
  readonly sampling: number;
  readonly whole?: number;
  readonly wholeBytes?: number;
  readonly unetBytes?: number | null | undefined;
  readonly measured?: number | undefined;
}

/** A column for each side, and a note. */
export function torchTable(
  { name, image, torch, rates, peak }: TorchComparison,
): string {
  const { innerWork, denoiseWork, iterations, memory } = image;
  const { steps, guided, size, besideUnetBytes } = image;
  const direct = {
    plain: denoiseWork.directFlops,
    guided: denoiseWork.directFlops + iterations * innerWork.directFlops,
  };
  const sides: Side[] = [{
    name: `winwinlay, ${image.backend}`,
    plain: image.plainStepSeconds,
    guided: image.guidedStepSeconds,
    sampling: [...image.plainStepSeconds, ...image.guidedStepSeconds]
      .reduce((a, b) => a + b, 0),
    whole: image.seconds,
    wholeBytes: Math.max(...Object.values(memory)),
    unetBytes: besideUnetBytes === undefined
      ? undefined
      : memory.sampling - besideUnetBytes,
    measured: rates && median(rates.arithmeticGflops) / 1e3,
  }];
  if ("torch" in torch) {
    sides.push({
      name: `PyTorch ${torch.torch}, ${torch.dtype}, SDPA, ${torch.device}`,
      plain: torch.plainStepSeconds,
      guided: torch.guidedStepSeconds,
      sampling: torch.imageSeconds,
      unetBytes: torch.peakBytes,
      measured: torch.matmulTflops,
    });
  }
  const row = (title: string, cell: (side: Side) => string): string[] => [
    title,
    ...sides.map(cell),
  ];
  const number = (x: number | null | undefined): string =>
    x === null || x === undefined ? "" : short(x);
  const rate = (kind: "plain" | "guided") => (side: Side): string => {
    if (side[kind].length === 0) return "";
    const tflops = direct[kind] / median(side[kind]) / 1e12;
    const share = (of: number | undefined): string =>
      of === undefined ? "" : percent(tflops / of);
    return [short(tflops), share(side.measured), share(peak)].filter(Boolean)
      .join("; ");
  };
  const time = (list: readonly number[]): string =>
    list.length ? spread(list) : "";
  const of = `of what was measured${
    peak === undefined ? "" : `; of ${peak} TFLOP/s`
  }`;
  const text = table([
    `${name} at ${size}x${size}, ${steps} steps, ${guided} guided`,
    ...sides.map((s) => s.name),
  ], [
    row("plain step (both prompts): s", (s) => time(s.plain)),
    row(
      `guided step (${iterations} gradients, then a plain step): s`,
      (s) => time(s.guided),
    ),
    row("all steps: s", (s) => short(s.sampling)),
    row("whole picture with text and VAE: s", (s) => number(s.whole)),
    row(`plain step: TFLOP/s by the definition; ${of}`, rate("plain")),
    row(`guided step: TFLOP/s by the definition; ${of}`, rate("guided")),
    row(
      "device GB at most, whole picture with text and VAE",
      (s) => number(s.wholeBytes && s.wholeBytes / 1e9),
    ),
    row(
      "device GB at most, all steps with the UNet alone",
      (s) => number(s.unetBytes && s.unetBytes / 1e9),
    ),
  ]);
  const note = "torch" in torch
    ? "Measured rates: float32 multiply-adds in WGSL for us, one large product in its own type for torch. " +
      "Device bytes: ours with free buffers that we keep, torch's of its tensors alone."
    : `PyTorch did not take part: ${torch.reason}`;
  return `${text}\n\n${note}`;
}
