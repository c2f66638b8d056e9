// clip_tokenizer: the tokenizer that every Stable Diffusion has, from CLIP's merges alone.
// A single-file checkpoint holds no tokenizer: it is CLIP's, whose merges lie in clip/merges.txt.
import type { ReadOptions } from "./byte_source.ts";
import { readText } from "./source.ts";

const MERGES = new URL("./clip/merges.txt", import.meta.url);
const END = "</w>"; // end of word
const BOS = "<|startoftext|>";
const EOS = "<|endoftext|>";

/** Entries of CLIP's vocabulary: 2 x 256 bytes, 48,894 merges, 2 marks. */
export const CLIP_VOCABULARY = 49408;

/** What fills a prompt up to 77: CLIP's end mark; OpenCLIP's zeros are the piece `!`. */
export type ClipPadding = typeof EOS | "!";

/**
 * The files of a `tokenizer` folder.
 *
 * @param padding What comes after the end mark.
 * @returns Text by file name, as transformers writes them.
 * @throws {WeightsError} If the merges cannot be read.
 */
export async function clipTokenizerFiles(
  padding: ClipPadding,
  options: ReadOptions = {},
): Promise<ReadonlyMap<string, string>> {
  const merges = await readText(MERGES, options);
  const special = { bos_token: BOS, eos_token: EOS, unk_token: EOS };
  return new Map([
    ["vocab.json", JSON.stringify(vocabulary(merges))],
    ["merges.txt", merges],
    [
      "special_tokens_map.json",
      JSON.stringify({ ...special, pad_token: padding }),
    ],
    [
      "tokenizer_config.json",
      JSON.stringify({
        ...special,
        pad_token: padding,
        do_lower_case: true,
        model_max_length: 77,
        tokenizer_class: "CLIPTokenizer",
      }),
    ],
  ]);
}

/** Piece -> id: the bytes, the same at the end of a word, a piece per merge, the marks. */
function vocabulary(merges: string): Record<string, number> {
  const bytes = byteCharacters();
  const pieces = [...bytes, ...bytes.map((c) => c + END)];
  for (const line of merges.split("\n")) {
    if (line === "" || line.startsWith("#version")) continue;
    pieces.push(line.replace(" ", ""));
  }
  pieces.push(BOS, EOS);
  return Object.fromEntries(pieces.map((piece, id) => [piece, id]));
}

/** GPT-2's characters for the 256 bytes, in its order: printable ones first, as themselves. */
function byteCharacters(): string[] {
  const printable = (b: number): boolean =>
    (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  const first = Array.from({ length: 256 }, (_, b) => b).filter(printable);
  const rest = Array.from({ length: 256 - first.length }, (_, i) => 256 + i);
  return [...first, ...rest].map((code) => String.fromCharCode(code));
}
