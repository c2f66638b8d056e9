import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { BYTE_CHARS, mergeLines } from "../../pipeline/bpe_files.ts";
import {
  matchPhrase,
  type PhraseSelector,
  tokenTable,
} from "../../pipeline/phrase.ts";
import { Tokenizer } from "../../pipeline/tokenize.ts";

// OpenAI's and transformers' ids for 116 prompts; maker and licence in the golden index.
const GOLDEN = new URL("../fixtures/golden/", import.meta.url);
const read = (name: string) => readFileSync(new URL(name, GOLDEN), "utf8");
const MERGES = read("clip_bpe_merges.txt");
const CASES: {
  prompt: string;
  ids: number[];
  ids77: number[];
  agree: boolean;
  ids_hf?: number[];
  ids77_hf?: number[];
}[] = JSON.parse(read("tokenizer-cases.json"));
const clip = Tokenizer.fromMerges(MERGES);
const ids = (text: string, t = clip) => t.pieces(text).map((p) => p.id);

/** vocab.json of a tokenizer folder with these merges. */
function vocabOf(merges: string): Record<string, number> {
  const all: Record<string, number> = {};
  const add = (piece: string) => all[piece] = Object.keys(all).length;
  // Keys like "0" jump the queue in an object, but the numbers stay
  for (const c of BYTE_CHARS) add(c);
  for (const c of BYTE_CHARS) add(c + "</w>");
  for (const [left, right] of mergeLines(merges)) add(left + right);
  add("<|startoftext|>");
  add("<|endoftext|>");
  return all;
}

const SMALL = "#version: 0.2\nr e\nre d</w>\nc a\nca r</w>\n";
const small = (change: {
  vocab?: (v: Record<string, unknown>) => void;
  merges?: string;
  config?: unknown;
  specialTokens?: unknown;
} = {}) => {
  const vocab: Record<string, unknown> = vocabOf(SMALL);
  change.vocab?.(vocab);
  return Tokenizer.fromFiles({
    vocab: JSON.stringify(vocab),
    merges: change.merges ?? SMALL,
    ...(change.config === undefined
      ? {}
      : { config: JSON.stringify(change.config) }),
    ...(change.specialTokens === undefined
      ? {}
      : { specialTokens: JSON.stringify(change.specialTokens) }),
  });
};

test("encode() gives the golden ids", () => {
  assert.ok(CASES.length === 116);
  for (const row of CASES) {
    const tokens = clip.encode(row.prompt, { truncate: true });
    assert.deepEqual(
      tokens.pieces.map((p) => p.id),
      row.ids_hf ?? row.ids,
      row.prompt,
    );
    assert.deepEqual([...tokens.ids], row.ids77_hf ?? row.ids77, row.prompt);
    assert.ok(row.agree !== (row.ids_hf !== undefined), row.prompt);
  }
});

test("pieces() agrees with transformers 5.18 where lower-casing and specials meet", () => {
  const cases: [string, number[]][] = [
    ["<|EndOfText|> x", [27, 347, 40786, 4160, 91, 285, 343]],
    ["<|ENDOFTEXT|>-", [27, 347, 40786, 4160, 91, 285, 268]],
    ["a!!<|startoftext|>b", [320, 748, 49406, 321]],
    ["\u0130stanbul \u03a3\u0391\u03a3", [
      328,
      16384,
      11231,
      139,
      225,
      138,
      109,
      139,
      481,
    ]],
    ["a\u0085b", [320, 321]],
    ["a\ufeffb", [320, 171, 119, 379, 321]],
    ["e\u0301 \u1100\u1161\u11a8 n\u0303\u0323", [
      4166,
      21122,
      479,
      157,
      117,
      485,
      136,
      481,
    ]],
    ["don'T I'LL can'ts", [847, 713, 328, 1342, 753, 713, 338]],
    ["\u212b \u212a", [127, 354, 330]],
  ];
  for (const [text, expected] of cases) {
    assert.deepEqual(ids(text), expected, text);
  }
});

test("fromFiles() treats '!' as special where it pads, as SDXL's second tokenizer", () => {
  const t = small({ config: { pad_token: "!", model_max_length: 8 } });
  const tokens = t.encode("red!!");
  assert.equal(t.pad, vocabOf(SMALL)["!"]);
  assert.deepEqual(tokens.pieces.map((p) => p.piece), ["red</w>", "!", "!"]);
  assert.deepEqual([...tokens.ids.slice(4)], [t.eos, t.pad, t.pad, t.pad]);
  assert.deepEqual(small().pieces("red!!").map((p) => p.piece), [
    "red</w>",
    "!",
    "!</w>",
  ]);
});

test("fromFiles() reads names, length and added tokens from the configs", () => {
  const t = small({
    vocab: (v) => v["<s>"] = 900,
    config: {
      bos_token: { content: "<s>", normalized: true },
      model_max_length: 1e30,
      added_tokens_decoder: {
        "901": { content: "<cat-toy>", normalized: true },
      },
    },
    specialTokens: {
      bos_token: "<|startoftext|>",
      pad_token: { content: "<s>" },
    },
  });
  assert.deepEqual([t.bos, t.pad, t.maxLength], [900, 900, 77]);
  assert.deepEqual(t.pieces("red<Cat-Toy>red").map((p) => p.id).slice(1, 2), [
    901,
  ]);
});

test("pieces() maps spans back through NFC and lower case", () => {
  const spans = (text: string) =>
    clip.pieces(text).map((p) => text.slice(p.start, p.end));
  assert.deepEqual(spans("A  Red\n CAR!"), ["A", "Red", "CAR", "!"]);
  assert.deepEqual(spans("cafe\u0301 car"), ["cafe\u0301", "car"]);
  assert.deepEqual(spans("\u0130 car"), ["\u0130", "\u0130", "car"]);
  assert.deepEqual(spans("\u1100\u1161\u11a8 car"), [
    "\u1100\u1161\u11a8",
    "\u1100\u1161\u11a8",
    "car",
  ]);
  assert.deepEqual(spans("\u{1f697}x"), ["\u{1f697}", "x"]);
  assert.deepEqual(
    spans("<|startoftext|>e\u0301<|endoftext|>car").at(-1),
    "car",
  );
  for (const { prompt } of CASES) {
    let last = 0;
    for (const { start, end } of clip.pieces(prompt)) {
      assert.ok(start < end && start >= last && end <= prompt.length, prompt);
      last = start;
    }
  }
});

test("encode() says which text falls off unless truncate is given", () => {
  const prompt = "car ".repeat(75) + "blue Dog";
  assert.equal(clip.encode("car ".repeat(75)).count, 75);
  assert.throws(
    () => clip.encode(prompt),
    {
      name: "RangeError",
      message: /at most 75 tokens: current 77, so "blue Dog" falls off/,
    },
  );
  const tokens = clip.encode(prompt, { truncate: true });
  assert.deepEqual([tokens.count, tokens.pieces.length, tokens.ids[76]], [
    75,
    77,
    clip.eos,
  ]);
  assert.throws(() => clip.pieces("a".repeat(10_001)), RangeError);
});

test("fromFiles() names what is missing or wrong", () => {
  const cases: [Parameters<typeof small>[0], RegExp][] = [
    [
      { vocab: (v) => delete v["\u0100"] },
      /every byte token must be in it: "\u0100" is missing/,
    ],
    [{ vocab: (v) => delete v["a</w>"] }, /"a<\/w>" is missing/],
    [
      { vocab: (v) => delete v["car</w>"] },
      /result of merge "ca r<\/w>" \(merges.txt line 5\).*"car<\/w>" is missing/,
    ],
    [
      { vocab: (v) => delete v["<|endoftext|>"] },
      /"<\|endoftext\|>" is missing/,
    ],
    [{ merges: SMALL + "zz y\n" }, /left part of merge "zz y"/],
    [{ merges: SMALL + "a b c\n" }, /line 6 must be two pieces/],
    [{ merges: SMALL + "r e\n" }, /listed once/],
    [{ vocab: (v) => v.a = -1 }, /"a" has -1/],
    [{ vocab: (v) => v.a = 1.5 }, /"a" has 1.5/],
    [{ vocab: (v) => v.a = "1" }, /"a" has "1"/],
    [{ vocab: (v) => v.zz = v.a }, /"zz" has \d+ and so has "a"/],
    [{ config: { model_max_length: 2 } }, /model_max_length must be 3 to 4096/],
    [{ config: { pad_token: 7 } }, /pad_token/],
    [{ config: { pad_token: "[PAD]" } }, /"\[PAD\]" is missing/],
    [{
      config: { added_tokens_decoder: { "1": { content: "x", lstrip: true } } },
    }, /lstrip/],
    [{ config: [] }, /must be a JSON object/],
  ];
  for (const [change, message] of cases) {
    assert.throws(() => small(change), { message });
  }
  assert.throws(
    () => Tokenizer.fromFiles({ vocab: "{", merges: "" }),
    SyntaxError,
  );
  assert.deepEqual(small().pieces("Red car").map((p) => p.piece), [
    "red</w>",
    "car</w>",
  ]); // control
});

const PROMPT = "A red car and two blue cars, a Teddy Bear by the car";
// 1:a 2:red 3:car 4:and 5:two 6:blue 7:cars 8:, 9:a 10:teddy 11:bear 12:by 13:the 14:car

test("matchPhrase() finds phrases, occurrences, spans and positions", () => {
  const tokens = clip.encode(PROMPT);
  const cases: [PhraseSelector, number[], boolean][] = [
    [{ phrase: "red car" }, [2, 3], false],
    [{ phrase: "RED  car" }, [2, 3], false],
    [{ phrase: "car" }, [3], false],
    [{ phrase: "car", occurrence: 1 }, [14], false],
    [{ phrase: "car", occurrence: "all" }, [3, 14], false],
    [{ phrase: "the teddy bear" }, [10, 11], false],
    [{ phrase: "a teddy bear" }, [9, 10, 11], false],
    [{ phrase: "teddy bears" }, [10, 11], true],
    [{ phrase: "the red cars" }, [2, 3], true],
    [{ phrase: "blue car" }, [6, 7], true],
    [{ phrase: "a", occurrence: 1 }, [9], false],
    [{ span: [2, 9] }, [2, 3], false],
    [{ span: [3, 4] }, [2], false],
    [{ tokens: [11, 10] }, [11, 10], false],
  ];
  for (const [selector, positions, fuzzy] of cases) {
    const match = matchPhrase(clip, tokens, PROMPT, selector);
    assert.deepEqual(
      [match.positions, match.fuzzy],
      [positions, fuzzy],
      JSON.stringify(selector),
    );
  }
  assert.equal(
    matchPhrase(clip, tokens, PROMPT, { phrase: "teddy bears" }).matched,
    "teddy bear",
  );
  const repeated = clip.encode("a a a");
  assert.deepEqual(
    matchPhrase(clip, repeated, "a a a", { phrase: "a a", occurrence: "all" })
      .positions,
    [1, 2],
  );
});

test("matchPhrase() says why it cannot place a phrase, with the token table", () => {
  const tokens = clip.encode(PROMPT);
  const cases: [PhraseSelector, RegExp][] = [
    [
      { phrase: "polar bear" },
      /^Cannot place "polar bear": it must occur in the prompt.*1:a 2:red 3:car/,
    ],
    [{ phrase: "ted" }, /must occur/],
    [{ phrase: "the" + " house" }, /must occur/],
    [{ phrase: " " }, /must have a token/],
    [{ phrase: "" }, /must have a token/],
    [
      { phrase: "car", occurrence: 2 },
      /occurrence must be below 2: current 2.*14:car/,
    ],
    [{ phrase: "car", occurrence: -1 }, /whole number/],
    [{ phrase: "car", occurrence: 0.5 }, /whole number/],
    [{ span: [1, 2] }, /must touch a token/],
    [{ span: [5, 5] }, /start < end/],
    [{ span: [0, 99] }, /start < end/],
    [{ tokens: [] }, /different positions/],
    [{ tokens: [0] }, /from 1 to 14/],
    [{ tokens: [15] }, /from 1 to 14/],
    [{ tokens: [2, 2] }, /different/],
  ];
  for (const [selector, message] of cases) {
    assert.throws(() => matchPhrase(clip, tokens, PROMPT, selector), {
      name: "RangeError",
      message,
    });
  }
});

test("matchPhrase() refuses positions that were truncated away", () => {
  const prompt = "dog ".repeat(74) + "red car";
  const tokens = clip.encode(prompt, { truncate: true });
  assert.deepEqual(
    matchPhrase(clip, tokens, prompt, { phrase: "red" }).positions,
    [75],
  );
  for (
    const selector of [{ phrase: "red car" }, { tokens: [76] }, {
      span: [300, 303],
    }] as const
  ) {
    assert.throws(
      () => matchPhrase(clip, tokens, prompt, selector),
      /75 tokens kept.*position is 76/,
    );
  }
});

test("tokenTable() shows text, and bytes where a piece is not text", () => {
  assert.deepEqual(tokenTable(clip.encode("Red \u00fc")), [
    { index: 1, piece: "red", span: [0, 3] },
    { index: 2, piece: "\u00fc", span: [4, 5] },
  ]);
  const rows = tokenTable(clip.encode("\u0130"));
  assert.deepEqual(rows.map((r) => r.piece), ["i", "\u0307"]);
  const bytes = tokenTable(small().encode("\u00e9"));
  assert.deepEqual(bytes.map((r) => r.piece), ["<c3>", "<a9>"]);
});

test("pieces() of random text keeps its spans in order", () => {
  let state = 9;
  const random = (n: number) =>
    ((state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 8) % n;
  const alphabet = [
    ..."ab Z'!<|>\u0301\u0323\u0130\u00df\u{1f600}\u1100\u1161\u200d\ufeff\u0085\ud800",
  ];
  for (let run = 0; run < 500; run++) {
    const text = Array.from(
      { length: random(30) },
      () => alphabet[random(alphabet.length)],
    ).join("");
    let last = 0;
    for (const p of clip.pieces(text)) {
      assert.ok(
        p.start >= last && p.start < p.end && p.end <= text.length,
        JSON.stringify(text),
      );
      last = p.start;
    }
  }
});

test("matchPhrase() takes whole words, and says where each occurrence ends", () => {
  const find = (prompt: string, selector: PhraseSelector) =>
    matchPhrase(clip, clip.encode(prompt), prompt, selector);
  const fishes = "a jellyfish and a fish";
  const at = clip.encode(fishes).pieces.length;
  assert.deepEqual(find(fishes, { phrase: "fish" }).positions, [at]);
  assert.throws(
    () => find("a jellyfish", { phrase: "fish" }),
    /"fish": it must occur in the prompt/,
  );
  const cars = "a red car and a red car";
  const all = find(cars, { phrase: "red car", occurrence: "all" });
  assert.deepEqual([all.positions, all.ends], [[2, 3, 6, 7], [3, 7]]);
  assert.deepEqual(find(cars, { phrase: "red car" }).ends, [3]);
  assert.deepEqual(find(cars, { span: [2, 9] }).ends, [3]);
  assert.deepEqual(find(cars, { tokens: [7, 2] }).ends, [2]);
  for (
    const [prompt, phrase, positions] of [
      ["12 cats and 2 cats", "2 cats", [5, 6]],
      ["a red-car", "car", [4]],
      ["the cat's hat", "cat", [2]],
      ["\u{1f697}\u{1f3e0} on grass", "\u{1f3e0}", undefined],
      ["\u7eff\u8349\u5730", "\u8349\u5730", undefined],
    ] as const
  ) {
    const found = find(prompt, { phrase }).positions;
    if (positions) assert.deepEqual(found, positions, prompt);
    else assert.ok(found.length > 0, prompt);
  }
});
