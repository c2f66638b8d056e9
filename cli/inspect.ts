/** `inspect`: what a PNG, a prompt, a model folder or a safetensors file holds. */
import { open as openFile } from "node:fs/promises";
import {
  cachedLocation,
  type Checkpoint,
  decodePng,
  describeModel,
  embeddedModel,
  hasOnnx,
  matchPhrase,
  openFolder,
  openSingleFile,
  openSource,
  REQUEST_KEY,
  Safetensors,
  type TensorInfo,
  tokenTable,
  WeightsError,
} from "../mod.ts";
import { asUsage, type Flags, UsageError } from "./flags.ts";
import { formatBytes, formatTable, type Io } from "./io.ts";
import { inPng, parseRequest, pngTexts, readInput } from "./request.ts";

const PARTS = ["text_encoder", "text_encoder_2", "unet", "vae"] as const;

/** Prints one thing as text, or as JSON lines. */
export async function inspect(flags: Flags, io: Io): Promise<number> {
  const json = flags.has("json");
  const [what] = flags.words;
  const prompt = flags.text("prompt");
  if ((what === undefined) === (prompt === undefined)) {
    throw new UsageError(
      "Cannot inspect: there must be either a file or folder, or --prompt: current " +
        (what === undefined ? "neither" : "both"),
    );
  }
  if (prompt !== undefined) {
    const phrases = flags.texts("phrase");
    refuse(flags, "variant", "a model");
    await inspectPrompt(prompt, phrases, flags.text("model"), json, io);
    return 0;
  }
  for (const name of ["phrase", "model"]) refuse(flags, name, "--prompt");
  if (/\.safetensors(\?[^/]*)?$/i.test(what!)) { // a URL may have a query
    await inspectFile(await cachedLocation(what!) ?? what!, flags, io);
  } else if (await startsLikePng(what!)) {
    refuse(flags, "variant", "a model");
    await inspectPng(what!, json, io);
  } else {
    const location = embeddedModel(what!) ?? await cachedLocation(what!) ??
      what!;
    await using folder = await openFolder(location, io);
    await inspectFolder(folder, flags, io);
  }
  return 0;
}

/** Throws if an option was given that has no meaning here. */
function refuse(flags: Flags, name: string, goesWith: string): void {
  if (flags.has(name)) {
    throw new UsageError(`Cannot use --${name}: it goes with ${goesWith}`);
  }
}

/** True for `.png`, whatever is in it, and for files with a PNG's first bytes. */
async function startsLikePng(path: string): Promise<boolean> {
  if (/\.png$/i.test(path)) return true;
  const file = await openFile(path).catch(() => undefined);
  if (file === undefined) return false; // a URL, a name, or nothing
  try {
    if (!(await file.stat()).isFile()) return false;
    const { buffer } = await file.read(new Uint8Array(4), 0, 4, 0);
    if (String(buffer) === "137,80,78,71") return true;
  } finally {
    await file.close();
  }
  throw new UsageError(
    `Cannot inspect ${path}: it must be a PNG, a safetensors file or a model folder: current is another file`,
  );
}

async function inspectPng(path: string, json: boolean, io: Io): Promise<void> {
  const bytes = await readInput(path, "PNG");
  const texts = pngTexts(bytes, path);
  const { width, height } = inPng(path, () => decodePng(bytes));
  const text = texts.get(REQUEST_KEY);
  const request = text === undefined ? null : parseRequest(text, path);
  const parameters = texts.get("parameters") ?? null;
  if (json) {
    io.out(JSON.stringify({ file: path, width, height, parameters, request }));
    return;
  }
  io.out(`${path}  ${width}x${height}`);
  for (const [key, value] of texts) {
    if (key !== REQUEST_KEY) io.out(`\n${key}:\n${value}`);
  }
  io.out(
    request === null
      ? "\nno request of winwinlay inside"
      : `\nrequest:\n${JSON.stringify(request, null, 2)}`,
  );
}

async function inspectPrompt(
  prompt: string,
  phrases: readonly string[],
  model: string | undefined,
  json: boolean,
  io: Io,
): Promise<void> {
  const { tokenizers } = await describeModel(model, io);
  const tokenizer = tokenizers[0]!;
  const tokens = asUsage(() => tokenizer.encode(prompt));
  const rows = tokenTable(tokens).map((row, i) => ({
    ...row,
    id: tokens.pieces[i]!.id,
    phrases: [] as string[],
  }));
  const matches = phrases.map((phrase) => ({
    phrase,
    ...asUsage(() => matchPhrase(tokenizer, tokens, prompt, { phrase })),
  }));
  if (json) {
    for (const { phrases: _, ...row } of rows) io.out(JSON.stringify(row));
    for (const match of matches) io.out(JSON.stringify(match));
    return;
  }
  for (const { phrase, positions } of matches) {
    for (const at of positions) rows[at - 1]!.phrases.push(phrase);
  }
  for (
    const line of formatTable([
      ["position", "token", "id", "characters", "phrase"],
      ...rows.map(({ index, piece, id, span, phrases }) => [
        `${index}`,
        piece,
        `${id}`,
        `${span[0]}-${span[1]}`,
        phrases.join(", "),
      ]),
    ], [0, 2])
  ) io.out(line);
  for (const { phrase, matched, fuzzy } of matches) {
    if (fuzzy) io.out(`"${phrase}" was found as "${matched}"`);
  }
  io.out(`${rows.length} of ${tokenizer.maxLength - 2} tokens`);
}

/** A whole pipeline by its networks, under diffusers' names; any other file as it is. */
async function inspectFile(path: string, flags: Flags, io: Io): Promise<void> {
  const json = flags.has("json");
  const { signal } = io;
  await using file = await Safetensors.open(
    await openSource(path, { signal }),
    { signal },
  );
  const metadata = Object.fromEntries(file.metadata);
  const names = [...file.tensors.keys()];
  if (names.some((name) => name.startsWith("model.diffusion_model."))) {
    try {
      await using pipeline = await openSingleFile(path, { signal });
      const { name, family, prediction } = pipeline;
      io.out(
        json
          ? JSON.stringify({ name, family, prediction, metadata })
          : `${name}  ${family}, predicts ${prediction}\n`,
      );
      await inspectFolder(pipeline, flags, io);
      return;
    } catch (error) {
      // Shown all the same: to look into it is how one finds out what is wrong.
      if (!(error instanceof WeightsError)) throw error;
      io.say(`note: ${error.message}`);
    }
  }
  printTensors(path, metadata, file, json, io);
}

async function inspectFolder(
  folder: Checkpoint,
  flags: Flags,
  io: Io,
): Promise<void> {
  const json = flags.has("json");
  for (const name of PARTS) {
    if (name === "text_encoder_2" && folder.index[name] === undefined) continue;
    const place = name === "vae" ? "vae_decoder" : name;
    let part;
    try {
      part = await folder.component(name, {
        signal: io.signal,
        variant: flags.choice<"fp16">("variant"),
      });
    } catch (error) {
      if (!await hasOnnx(folder.location, place, io)) throw error;
      const name = `${folder.name}/${place}`;
      io.out(
        json
          ? JSON.stringify({ name, onnx: "model.onnx" })
          : `${name}  an ONNX network, model.onnx\n`,
      );
      continue;
    }
    printTensors(`${folder.name}/${name}`, part.config, part, json, io);
    await part.close();
  }
}

function printTensors(
  name: string,
  config: Readonly<Record<string, unknown>>,
  { tensors }: { readonly tensors: ReadonlyMap<string, TensorInfo> },
  json: boolean,
  io: Io,
): void {
  const infos = [...tensors.values()];
  const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
  const values = infos.reduce((sum, { shape }) => sum + count(shape), 0);
  const bytes = infos.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const dtypes = [...new Set(infos.map(({ dtype }) => dtype))];
  if (json) {
    io.out(JSON.stringify({
      name,
      tensors: infos.length,
      values,
      bytes,
      dtypes,
      config,
    }));
    for (const { name: tensor, dtype, shape, sizeBytes } of infos) {
      io.out(JSON.stringify({ name, tensor, dtype, shape, bytes: sizeBytes }));
    }
    return;
  }
  io.out(
    `${name}  ${infos.length} tensors, ${values} values, ${
      formatBytes(bytes)
    }, ${dtypes.join(" ")}`,
  );
  for (const [key, value] of Object.entries(config)) {
    if (!key.startsWith("_")) io.out(`  ${key}: ${JSON.stringify(value)}`);
  }
  const rows = infos.map(({ name, dtype, shape, sizeBytes }) => [
    `  ${name}`,
    dtype,
    `[${shape.join(", ")}]`,
    formatBytes(sizeBytes),
  ]);
  if (rows.length > 0) { for (const line of formatTable(rows)) io.out(line); }
  io.out("");
}
