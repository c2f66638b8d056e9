/** Golden cases of kinds `tokenizer`, `data` and `weights`: files rather than networks. */
import { stat } from "node:fs/promises";
import { sizeOf } from "../../kernels/backend.ts";
import { Tokenizer } from "../../pipeline/tokenize.ts";
import type { GoldenCase } from "./case.ts";

const MERGES = "clip_bpe_merges.txt";

interface Prompt {
  readonly prompt: string;
  readonly ids: readonly number[];
  readonly ids77: readonly number[];
  /** Whether OpenAI's and transformers' tokenisers agree. Else the latter's ids are `_hf`. */
  readonly agree: boolean;
  readonly ids_hf?: readonly number[];
  readonly ids77_hf?: readonly number[];
}

/** Runs a case of kind `tokenizer`: rows on which the two public tokenisers differ take either. */
export async function runTokenizer(c: GoldenCase): Promise<void> {
  const tokenizer = Tokenizer.fromMerges(await c.text(MERGES));
  const prompts: Prompt[] = JSON.parse(await c.text(c.entry.file));
  const { bos, eos, pad, max_length } = c.attributes;
  const same = (
    a: ArrayLike<number>,
    ...any: (readonly number[] | undefined)[]
  ) => any.some((b) => b !== undefined && String(Array.from(a)) === String(b));
  const { bos: b, eos: e, pad: p, maxLength: m } = tokenizer;
  c.check(
    "special tokens and length",
    same([b, e, p, m], [bos, eos, pad, max_length])
      ? undefined
      : `are ${[b, e, p, m]}`,
  );
  c.check(
    `${c.attributes.prompts} prompts`,
    prompts.length === c.attributes.prompts
      ? undefined
      : `are ${prompts.length}`,
  );
  for (const row of prompts) {
    const pieces = tokenizer.pieces(row.prompt).map(({ id }) => id);
    const { ids } = tokenizer.encode(row.prompt, { truncate: true });
    const right = same(pieces, row.ids, row.ids_hf) &&
      same(ids, row.ids77, row.ids77_hf);
    c.check(
      JSON.stringify(row.prompt),
      right ? undefined : `has ids ${pieces}`,
    );
  }
}

/** Runs a case of kind `data`: the merges must make CLIP's vocabulary. */
export async function runData(c: GoldenCase): Promise<void> {
  if (c.entry.file !== MERGES) throw new Error(`${c.entry.file} is not known`);
  const text = await c.text(c.entry.file);
  const lines = text.trimEnd().split("\n").length;
  c.check(
    `${c.attributes.lines} lines`,
    lines === c.attributes.lines ? undefined : `are ${lines}`,
  );
  const { bos, eos } = Tokenizer.fromMerges(text);
  c.check(
    "ids of the special tokens",
    bos === 49406 && eos === 49407 ? undefined : `are ${bos} and ${eos}`,
  );
}

/** Runs a case of kind `weights`: readable, finite, as many parameters as the index says. */
export async function runWeights(c: GoldenCase): Promise<void> {
  const names = Object.keys(c.entry.tensors ?? {});
  let parameters = 0;
  for (const name of names) {
    const values = await c.floats(name);
    parameters += values.length;
    const bad = values.findIndex((x) => !Number.isFinite(x));
    if (bad >= 0 || values.length !== sizeOf(c.shape(name))) {
      c.check(name, `number ${bad} is ${values[bad]}`);
    }
  }
  c.check(
    `${c.entry.parameters} parameters`,
    parameters === c.entry.parameters ? undefined : `are ${parameters}`,
  );
  const { size } = await stat(c.path(c.entry.file));
  c.check(
    `${c.entry.bytes} bytes`,
    size === c.entry.bytes ? undefined : `are ${size}`,
  );
}
