/**
 * Do things land in their boxes? Paints random layouts of the embedded model with and without
 * guidance, detects what is where, and prints a table.
 *
 *   deno task fidelity [--count 32] [--seed 2026] [--steps 50] [--device native|dawn] [-o FOLDER]
 *
 * Resumable: results go line by line to FOLDER/fidelity.jsonl, pictures beside it.
 */
import { appendFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import {
  type Box,
  type DeviceChoice,
  drawBoxes,
  encodePng,
  enlarge,
  type GenerateRequest,
  open,
  sideBySide,
} from "../mod.ts";
import { openDetector } from "./detector.ts";
import { iou, randomLayouts } from "./layouts.ts";

/** One region of one picture. */
interface Score {
  /** Attention share in the box, mean over the denoising steps. */
  readonly share: number;
  /** The right kind and colour is somewhere. */
  readonly present: boolean;
  /** ... with its centre in the box. */
  readonly centred: boolean;
  /** Best intersection over union of the right kind and colour with the box. */
  readonly iou: number;
}

interface Line {
  readonly method: string;
  readonly index: number;
  readonly seconds: number;
  readonly scores: readonly Score[];
}

const METHODS: Readonly<Record<string, GenerateRequest["guidance"] & object>> =
  {
    "no guidance": { method: "none" },
    "WinWinLay": {},
  };

const { values } = parseArgs({
  options: {
    count: { type: "string", default: "32" },
    seed: { type: "string", default: "2026" },
    steps: { type: "string", default: "50" },
    device: { type: "string" },
    output: { type: "string", short: "o", default: "out/fidelity" },
  },
});
const folder = values.output;
await mkdir(folder, { recursive: true });
const log = `${folder}/fidelity.jsonl`;
const lines: Line[] = await readFile(log, "utf8").then(
  (text) =>
    text.trim().split("\n").filter(Boolean).map((line) => JSON.parse(line)),
  () => [],
);
const layouts = randomLayouts(Number(values.count), Number(values.seed));
const detect = await openDetector();
await using model = await open(
  "tiny-scenes",
  values.device ? { device: values.device as DeviceChoice } : {},
);
console.error(model.backend.description);

for (const [index, { prompt, regions }] of layouts.entries()) {
  const tiles = [];
  for (const [method, guidance] of Object.entries(METHODS)) {
    if (lines.some((line) => line.method === method && line.index === index)) {
      continue;
    }
    const request = {
      prompt,
      regions,
      seed: index,
      steps: Number(values.steps),
      guidance,
    };
    const { rgb, width, height, png, report } = await model.generate(request);
    const found = await detect(rgb);
    const scores = regions.map(({ phrase, boxes: [box] }, i): Score => {
      const [colour, kind] = phrase.split(" ");
      const right = found.filter((f) => f.kind === kind && f.colour === colour);
      return {
        share: report.regions[i]!.share,
        present: right.length > 0,
        centred: right.some((f) => inside(f.box, box!)),
        iou: Math.max(0, ...right.map((f) => iou(f.box, box!))),
      };
    });
    const line: Line = { method, index, seconds: report.seconds, scores };
    const name = `${String(index).padStart(3, "0")}-${
      method.replaceAll(" ", "-")
    }`;
    await writeFile(`${folder}/${name}.png`, png);
    await appendFile(log, JSON.stringify(line) + "\n"); // after the picture: a killed run repeats it
    lines.push(line);
    console.error(
      `${name} ${prompt}: ${scores.map((s) => s.iou.toFixed(2)).join(" ")} (${
        report.seconds.toFixed(0)
      } s)`,
    );
    const large = enlarge(rgb, width, height, 2);
    const labelled = regions.map(({ phrase, boxes }) => ({
      box: boxes[0]!,
      label: phrase,
    }));
    tiles.push({
      rgb: drawBoxes(large, 2 * width, 2 * height, labelled),
      width: 2 * width,
      height: 2 * height,
    });
  }
  if (tiles.length === 2) {
    const sheet = sideBySide(tiles, { captions: Object.keys(METHODS) });
    await writeFile(
      `${folder}/${String(index).padStart(3, "0")}-both.png`,
      await encodePng(sheet.rgb, sheet.width, sheet.height),
    );
  }
}

const mean = (list: readonly number[]): number =>
  list.reduce((a, b) => a + b, 0) / list.length;
const table = [
  "| method | objects | attention share in box | right kind and colour found | its centre in the box | IoU >= 0.5 | mean IoU |",
  "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
  ...Object.keys(METHODS).map((method) => {
    const all = lines.filter((line) =>
      line.method === method && line.index < layouts.length
    ).flatMap((line) => line.scores);
    const rate = (f: (s: Score) => boolean): string =>
      mean(all.map((s) => Number(f(s)))).toFixed(3);
    return `| ${method} | ${all.length} | ${
      mean(all.map((s) => s.share)).toFixed(3)
    } | ${rate((s) => s.present)} | ${rate((s) => s.centred)} | ${
      rate((s) => s.iou >= 0.5)
    } | ${mean(all.map((s) => s.iou)).toFixed(3)} |`;
  }),
].join("\n");
await writeFile(`${folder}/fidelity.md`, table + "\n");
console.log(table);

function inside(a: Box, b: Box): boolean {
  const [x, y] = [(a[0] + a[2]) / 2, (a[1] + a[3]) / 2];
  return x >= b[0] && x <= b[2] && y >= b[1] && y <= b[3];
}
