/** The pictures of a comparison -> results, tables and contact sheets. Nothing but the pictures is read. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import {
  type CheckedRegion,
  contactSheet,
  type Detector,
  encodePng,
  type Picture,
  type ScoredPicture,
  scoreThings,
  shapeBoxes,
  type SheetCell,
  type SheetRow,
  summarise,
  type Summary,
  wantedThings,
} from "../mod.ts";
import { loadPicture, type StoredPicture } from "./compare_folder.ts";
import { csvTable, markdownTable } from "./compare_table.ts";
import { type NewFile, writeFiles } from "./files.ts";
import { UsageError } from "./flags.ts";
import type { Io } from "./io.ts";
import { checkAgainst } from "./variants.ts";

/** What is scored and how. */
export interface ScoreOptions {
  /** Folder of the results; the pictures are in `images` in it. */
  readonly out: string;
  /** Their file names. */
  readonly files: readonly string[];
  /** Looks at them. */
  readonly detector: Detector | undefined;
  /** The method of the differences; else that of the first picture. */
  readonly against: string | undefined;
}

/** The scores and the files that have them. */
export interface Scored {
  /** All rows. */
  readonly summary: Summary;
  /** The table for people. */
  readonly table: string;
  /** Paths of what was written. */
  readonly paths: readonly string[];
}

const ROWS = 12; // of a contact sheet

type ScoredOnly = Pick<ScoredPicture, "things" | "found" | "features">;
/** A picture's scores, without its pixels. */
type Measured = Omit<StoredPicture, "picture"> & ScoredOnly;

/**
 * Scores the pictures that every method has, and writes results.jsonl, table.md, table.csv and contact sheets.
 */
export async function scoreFolder(
  { out, files, detector, against }: ScoreOptions,
  io: Io,
): Promise<Scored> {
  const all: Measured[] = [];
  for (const file of files) {
    io.signal.throwIfAborted();
    const { picture, ...rest } = await loadPicture(join(out, "images"), file);
    all.push({ ...rest, ...(await measure(picture, rest.regions, detector)) });
  }
  const variants = namesBy(all, (p) => p.column, (p) => p.variant);
  const measured = complete(all, variants);
  if (measured.length < all.length) {
    io.say(
      `note: ${
        all.length - measured.length
      } pictures are not scored: other methods have none for the same layout and seed`,
    );
  }
  if (measured.length === 0) {
    throw new UsageError(
      `Cannot score ${out}: there must be a layout that every method has with the same seed: current 0`,
    );
  }
  const base = against ?? measured[0]!.against;
  checkAgainst(base, variants);
  const summary = summarise(measured.map(scored), {
    variants,
    against: base,
    reference: detector?.reference,
  });
  const first = JSON.parse(measured[0]!.request);
  const table = markdownTable(summary, {
    model: first.model,
    steps: first.steps,
    seeds: measured.length / variants.length / summary.layouts,
    backends: [...new Set(measured.map(({ backend }) => backend))],
    detected: detector !== undefined,
  });
  const text = new TextEncoder();
  const results: NewFile[] = [
    {
      path: join(out, "results.jsonl"),
      bytes: text.encode(
        measured.map((p) => `${JSON.stringify(resultLine(p, detector))}\n`)
          .join(""),
      ),
    },
    { path: join(out, "table.md"), bytes: text.encode(table) },
    { path: join(out, "table.csv"), bytes: text.encode(csvTable(summary)) },
    ...await sheets(out, measured, variants, io.signal),
  ];
  await writeFiles(results, io.signal, { force: true });
  return { summary, table, paths: results.map(({ path }) => path) };
}

async function measure(
  picture: Picture,
  regions: readonly CheckedRegion[],
  detector: Detector | undefined,
): Promise<ScoredOnly> {
  if (!detector) return {};
  const { found, features } = await detector.look(picture);
  const wanted = wantedThings(regions, detector);
  return {
    found,
    things: scoreThings(wanted, found, detector.threshold),
    ...(features ? { features } : {}),
  };
}

/** Names by the lowest place that a picture gives them. */
function namesBy(
  list: readonly Measured[],
  place: (p: Measured) => number,
  name: (p: Measured) => string,
): string[] {
  const places = new Map<string, number>();
  for (const p of list) {
    places.set(name(p), Math.min(place(p), places.get(name(p)) ?? Infinity));
  }
  return [...places].sort((a, b) => a[1] - b[1]).map(([n]) => n);
}

/** The pictures of layouts and seeds that every method has, by layout, seed and method. */
function complete(
  list: readonly Measured[],
  variants: readonly string[],
): Measured[] {
  const layouts = namesBy(list, (p) => p.row, (p) => p.layout);
  const cells = new Map<string, Map<string, Measured>>();
  for (const p of list) {
    const key = JSON.stringify([p.layout, p.seed]);
    if (!cells.has(key)) cells.set(key, new Map());
    cells.get(key)!.set(p.variant, p);
  }
  return [...cells.values()].filter((own) => own.size === variants.length)
    .flatMap((own) => variants.map((name) => own.get(name)!))
    .map((p) => ({ p, layout: layouts.indexOf(p.layout) }))
    .sort((a, b) => a.layout - b.layout || a.p.seed - b.p.seed)
    .map(({ p }) => p);
}

function scored(p: Measured): ScoredPicture {
  const shares = p.shares.filter((share) => share !== null);
  return {
    layout: p.layout,
    variant: p.variant,
    seconds: p.seconds,
    ...(shares.length === p.shares.length ? { shares } : {}),
    ...(p.things ? { things: p.things } : {}),
    ...(p.found ? { found: p.found } : {}),
    ...(p.features ? { features: p.features } : {}),
  };
}

function resultLine(p: Measured, detector: Detector | undefined): object {
  const hash = createHash("sha256").update(p.request);
  return {
    file: `images/${p.file}`,
    layout: p.layout,
    method: p.variant,
    seed: p.seed,
    prompt: p.prompt,
    request: hash.digest("hex").slice(0, 16),
    shares: p.regions.map(({ phrase }, i) => ({ phrase, share: p.shares[i] })),
    ...(p.things ? { things: p.things } : {}),
    ...(p.found
      ? { found: p.found.filter(({ score }) => score >= detector!.threshold) }
      : {}),
    seconds: p.seconds,
    backend: p.backend,
  };
}

/** The first seed of every layout, a dozen rows to a sheet. */
async function sheets(
  out: string,
  list: readonly Measured[],
  variants: readonly string[],
  signal: AbortSignal,
): Promise<NewFile[]> {
  const layouts = [...new Set(list.map(({ layout }) => layout))];
  const files: NewFile[] = [];
  const pages = Math.ceil(layouts.length / ROWS);
  for (let page = 0; page < pages; page++) {
    signal.throwIfAborted();
    const rows: SheetRow[] = [];
    for (const layout of layouts.slice(page * ROWS, (page + 1) * ROWS)) {
      const own = list.filter((p) => p.layout === layout);
      const { seed, prompt } = own[0]!;
      const shown = own.filter((p) => p.seed === seed); // in the order of the methods
      const cells = await Promise.all(shown.map((p) => cellOf(out, p)));
      rows.push({ title: layout, text: prompt, cells });
    }
    const { rgb, width, height } = contactSheet(variants, rows);
    const name = pages === 1
      ? "contact-sheet.png"
      : `contact-sheet-${String(page + 1).padStart(2, "0")}.png`;
    files.push({
      path: join(out, name),
      bytes: await encodePng(rgb, width, height, {
        text: { Title: "winwinlay compare" },
      }),
    });
  }
  return files;
}

async function cellOf(out: string, p: Measured): Promise<SheetCell> {
  const { picture } = await loadPicture(join(out, "images"), p.file);
  const boxes = p.regions.flatMap(({ phrase, mask, ...region }) =>
    shapeBoxes({ ...region, mask }).map((box) => ({ box, mask, label: phrase }))
  );
  return {
    picture,
    boxes,
    ...(p.things ? { caption: captionOf(p.things) } : {}),
  };
}

function captionOf(things: NonNullable<Measured["things"]>): string {
  const hits = things.filter(({ iou }) => iou >= 0.5).length;
  const mean = things.reduce((sum, { iou }) => sum + iou, 0) / things.length;
  return `${hits}/${things.length} hit, IoU ${mean.toFixed(2)}`;
}
