import { strict as assert } from "node:assert";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { Tokenizer } from "../../pipeline/tokenize.ts";
import {
  CLIP_VOCABULARY,
  clipTokenizerFiles,
} from "../../weights/clip_tokenizer.ts";

const GOLDEN = new URL(
  "../fixtures/golden/tiny-random-pipeline/tokenizer/",
  import.meta.url,
);

test("clipTokenizerFiles() makes the vocabulary that transformers writes", async () => {
  const files = await clipTokenizerFiles("<|endoftext|>");
  const vocab = JSON.parse(files.get("vocab.json")!);
  const expected = JSON.parse(
    await readFile(new URL("vocab.json", GOLDEN), "utf8"),
  );
  assert.equal(Object.keys(vocab).length, CLIP_VOCABULARY);
  assert.deepEqual(vocab, expected);
  assert.equal(
    files.get("merges.txt"),
    await readFile(new URL("merges.txt", GOLDEN), "utf8"),
  );
});

for (const [padding, id] of [["<|endoftext|>", 49407], ["!", 0]] as const) {
  test(`clipTokenizerFiles() pads with ${padding}`, async () => {
    const files = await clipTokenizerFiles(padding);
    const tokenizer = Tokenizer.fromFiles({
      vocab: files.get("vocab.json")!,
      merges: files.get("merges.txt")!,
      config: files.get("tokenizer_config.json")!,
      specialTokens: files.get("special_tokens_map.json")!,
    });
    const { ids, count } = tokenizer.encode("a red car");
    assert.equal(count, 3);
    assert.deepEqual([...ids], [
      49406,
      320,
      736,
      1615,
      49407,
      ...Array(72).fill(id),
    ]);
  });
}
