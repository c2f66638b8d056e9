/** Flags, a layout file and an earlier PNG -> one request. */
import { readFile, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import {
  decodePng,
  type GenerateRequest,
  type Mask,
  parseBoxFlag,
  readPngText,
  type Region,
  REQUEST_KEY,
  SCHEDULERS,
  SPACINGS,
} from "../mod.ts";
import { asUsage, type Flag, type Flags, UsageError } from "./flags.ts";
import { METHOD_FLAG, readMethod } from "./method.ts";

const MOST_BYTES = 256 * 2 ** 20; // of a layout or a PNG

/** What to paint; shared by every option of the method, which follows in the help. */
export const REQUEST_FLAGS: readonly Flag[] = [
  { name: "prompt", value: "TEXT", help: "what to paint" },
  {
    name: "box",
    value: "PHRASE=X0,Y0,X1,Y1",
    many: true,
    help:
      "where a phrase of the prompt should be, in fractions of the picture; PHRASE=BOX;BOX for several",
  },
  {
    name: "mask",
    value: "PHRASE=FILE.png",
    many: true,
    help:
      "the same as a picture, white inside, with the proportions of the picture to paint",
  },
  {
    name: "layout",
    value: "FILE.json",
    help:
      "a request as JSON, such as {prompt, regions: [{phrase, boxes}]}; instead of boxes, mask is a PNG beside the file",
  },
  {
    name: "from",
    value: "FILE.png",
    help: "the request inside a PNG: the same pixels again",
  },
  { name: "negative", value: "TEXT", help: "what to keep away from" },
  {
    name: "template",
    value: "TEXT",
    help: 'text around the prompt, such as "A photo of {}"',
  },
  { name: "seed", value: "N", help: "whole number from 0 (0)" },
  {
    name: "best-of",
    value: "N",
    help:
      "try N seeds from --seed on, and keep the picture whose attention keeps best to its boxes (1)",
  },
  { name: "steps", value: "N", help: "denoising steps" },
  {
    name: "scheduler",
    value: "NAME",
    choices: SCHEDULERS,
    help: "sampler (ddim)",
  },
  {
    name: "spacing",
    value: "NAME",
    choices: SPACINGS,
    help: "how timesteps are spread (as the model's config says)",
  },
  {
    name: "guidance-scale",
    value: "X",
    help: "scale of classifier-free guidance",
  },
  {
    name: "size",
    value: "N|WxH",
    help: "pixels, one side of a square or width x height (the model's own)",
  },
  {
    name: "truncate",
    help: "cut prompts that are too long, and say what fell off",
  },
  {
    name: "original-size",
    value: "WxH",
    help: "SDXL: size before cropping that it is told (the picture's)",
  },
  {
    name: "crop",
    value: "LEFT,TOP",
    help: "SDXL: crop that it is told (0,0)",
  },
  {
    name: "target-size",
    value: "WxH",
    help: "SDXL: final size that it is told (the picture's)",
  },
  {
    name: "preset",
    value: "NAME",
    choices: ["model", "paper"],
    help: "settings to start from: the model's own, or the paper's (model)",
  },
  METHOD_FLAG,
];

/**
 * Puts the request together: what `--from` holds, under the layout file, under the flags.
 *
 * @returns A request that is not checked yet.
 * @throws {UsageError} If a flag or a file cannot be read.
 */
export async function readRequest(flags: Flags): Promise<GenerateRequest> {
  const from = flags.text("from");
  const layout = flags.text("layout");
  const earlier = from === undefined ? {} : await requestOfPng(from);
  if (flags.has("preset") && from !== undefined) {
    // A PNG's request is complete, and would leave nothing for the preset to say but of its method.
    const { method } = Object(earlier["guidance"]);
    for (const key of ["steps", "guidanceScale", "guidance"]) {
      delete earlier[key];
    }
    if (method !== undefined) earlier["guidance"] = { method };
  }
  if (flags.has("size")) {
    // What SDXL is told follows the picture where it was the picture's.
    const { width, height } = earlier;
    for (const key of ["originalSize", "targetSize"]) {
      if (String(earlier[key]) === `${width},${height}`) delete earlier[key];
    }
  }
  const file = layout === undefined
    ? {}
    : await readMasks(await readLayout(layout), dirname(layout));
  const request = requestOver({ ...earlier, ...file }, flags);
  const placed = [
    ...flags.texts("box").map((text) => asUsage(() => parseBoxFlag(text))),
    ...await Promise.all(flags.texts("mask").map(readMaskFlag)),
  ];
  if (placed.length) request["regions"] = placed;
  if (request["prompt"] === undefined) {
    throw new UsageError(
      "Cannot generate: there must be a prompt: give --prompt, --layout or --from",
    );
  }
  return request as unknown as GenerateRequest;
}

/** A request from a file under what the flags say. */
export function requestOver(
  base: Readonly<Record<string, unknown>>,
  flags: Flags,
): Record<string, unknown> {
  const request: Record<string, unknown> = {
    ...base,
    ...defined({
      prompt: flags.text("prompt"),
      negativePrompt: flags.text("negative"),
      template: flags.text("template"),
      seed: flags.number("seed"),
      bestOf: flags.number("best-of"),
      steps: flags.number("steps"),
      scheduler: flags.text("scheduler"),
      spacing: flags.text("spacing"),
      truncate: flags.has("truncate") ? true : undefined,
      originalSize: pairOf(flags, "original-size", "x"),
      cropTopLeft: pairOf(flags, "crop", ","),
      targetSize: pairOf(flags, "target-size", "x"),
      guidanceScale: flags.number("guidance-scale"),
      preset: flags.text("preset"),
      ...readSize(flags.text("size")),
    }),
  };
  const guidance = readGuidance(flags, base["guidance"]);
  if (guidance !== undefined) request["guidance"] = guidance;
  return request;
}

/**
 * Puts pictures in the place of the paths that regions name as their masks.
 *
 * @param folder Where paths start.
 */
export async function readMasks(
  request: Readonly<Record<string, unknown>>,
  folder: string,
): Promise<Record<string, unknown>> {
  const { regions } = request;
  if (!Array.isArray(regions)) return { ...request };
  return {
    ...request,
    regions: await Promise.all(
      regions.map(async (region) =>
        typeof region?.mask === "string"
          ? { ...region, mask: await maskOf(resolve(folder, region.mask)) }
          : region
      ),
    ),
  };
}

async function readMaskFlag(text: string): Promise<Region> {
  const at = text.indexOf("=");
  const [phrase, path] = [text.slice(0, at).trim(), text.slice(at + 1)];
  if (at < 1 || phrase === "" || path === "") {
    throw new UsageError(
      `Cannot use --mask: it must be a phrase, an equals sign and a PNG, such as "red car=car.png": current ${
        JSON.stringify(text)
      }`,
    );
  }
  return { phrase, mask: await maskOf(path) };
}

/** A PNG as grey levels: the mean of its three channels. */
async function maskOf(path: string): Promise<Mask> {
  const bytes = await readInput(path, "mask");
  try {
    const { rgb, width, height } = decodePng(bytes);
    const data = new Uint8Array(width * height);
    for (let i = 0; i < data.length; i++) {
      data[i] = Math.round(
        (rgb[3 * i]! + rgb[3 * i + 1]! + rgb[3 * i + 2]!) / 3,
      );
    }
    return { width, height, data };
  } catch (cause) {
    const why = (cause as Error).message.replace(/^Cannot \w+ PNG: /, "");
    throw new UsageError(`Cannot read mask ${path}: ${why}`, { cause });
  }
}

function readGuidance(flags: Flags, base: unknown): unknown {
  const method = flags.text("method");
  const named = (base as { method?: unknown } | undefined)?.method;
  const given = readMethod(flags, method ?? String(named ?? "winwinlay"));
  if (method === undefined && Object.keys(given).length === 0) return base;
  // Not an object: the check of the request says so.
  if (typeof base !== "object" || base === null || Array.isArray(base)) {
    if (base !== undefined) return base;
  }
  const old = { ...base } as Record<string, unknown>;
  // Another method's options mean nothing to this one.
  const same = method === undefined ||
    method === (old["method"] ?? "winwinlay");
  return { ...(same ? old : {}), ...defined({ method }), ...given };
}

/** `--size` as request keys. */
export function readSize(text: string | undefined): Record<string, number> {
  if (text === undefined) return {};
  const match = /^(\d{1,6})(?:x(\d{1,6}))?$/i.exec(text);
  if (match === null) {
    throw new UsageError(
      `Cannot use --size: it must be pixels, such as 128 or 128x192: current ${
        JSON.stringify(text)
      }`,
    );
  }
  return { width: Number(match[1]), height: Number(match[2] ?? match[1]) };
}

function pairOf(
  flags: Flags,
  name: string,
  between: "x" | ",",
): [number, number] | undefined {
  const text = flags.text(name);
  if (text === undefined) return undefined;
  const parts = text.split(between);
  if (parts.length !== 2 || !parts.every((part) => /^\d{1,6}$/.test(part))) {
    throw new UsageError(
      `Cannot use --${name}: it must be two whole numbers, such as 0${between}0: current ${
        JSON.stringify(text)
      }`,
    );
  }
  return [Number(parts[0]), Number(parts[1])];
}

async function readLayout(path: string): Promise<Record<string, unknown>> {
  const bytes = await readInput(path, "layout");
  let value: unknown;
  try {
    value = JSON.parse(
      new TextDecoder("utf-8", { fatal: true }).decode(bytes),
    );
  } catch (cause) {
    throw new UsageError(
      `Cannot read layout ${path}: it must be JSON: current error is ${
        (cause as Error).message
      }`,
      { cause },
    );
  }
  return asObject(value, `layout ${path}`);
}

/** The request that a PNG carries, not checked. */
async function requestOfPng(path: string): Promise<Record<string, unknown>> {
  const texts = pngTexts(await readInput(path, "PNG"), path);
  const text = texts.get(REQUEST_KEY);
  if (text === undefined) {
    throw new UsageError(
      `Cannot use ${path}: it must hold a request under "${REQUEST_KEY}": current texts are ${
        [...texts.keys()].join(", ") || "none"
      }`,
    );
  }
  return parseRequest(text, path);
}

/** The texts of a PNG; errors name the file. */
export function pngTexts(bytes: Uint8Array, path: string): Map<string, string> {
  return inPng(path, () => readPngText(bytes));
}

/** Reads something in a PNG; errors name the file. */
export function inPng<T>(path: string, read: () => T): T {
  try {
    return asUsage(read);
  } catch (cause) {
    if (!(cause instanceof UsageError)) throw cause;
    const why = cause.message.replace(/^Cannot \w+ PNG: /, "");
    throw new UsageError(`Cannot read ${path}: ${why}`, { cause });
  }
}

/** The text of a request as an object. */
export function parseRequest(
  text: string,
  path: string,
): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new UsageError(
      `Cannot use ${path}: its request must be JSON: current error is ${
        (cause as Error).message
      }`,
      { cause },
    );
  }
  return asObject(value, `the request of ${path}`);
}

/** Reads a whole file that the user named. */
export async function readInput(
  path: string,
  what: string,
): Promise<Uint8Array> {
  try {
    const info = await stat(path);
    if (!info.isFile()) throw new Error("it is no file");
    if (info.size > MOST_BYTES) throw new Error(`it has ${info.size} bytes`);
    return await readFile(path);
  } catch (cause) {
    const { code, message } = cause as { code?: string; message: string };
    throw new UsageError(
      `Cannot read ${what} ${path}: it must be a readable file of at most 256 MiB: current ${
        code === "ENOENT" || code === "ENOTDIR"
          ? "path has no file"
          : `error is ${message}`
      }`,
      { cause },
    );
  }
}

function asObject(value: unknown, what: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return { ...value };
  }
  throw new UsageError(
    `Cannot use ${what}: it must be an object such as {"prompt": "...", "regions": [...]}: current ${
      value === null ? "null" : Array.isArray(value) ? "list" : typeof value
    }`,
  );
}

function defined(object: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(object).filter(([, value]) => value !== undefined),
  );
}
