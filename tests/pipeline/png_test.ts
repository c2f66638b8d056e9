import { strict as assert } from "node:assert";
import { test } from "node:test";
import { deflateSync } from "node:zlib";
import { decodePng, encodePng, readPngText } from "../../pipeline/png.ts";
import { chunk, join, SIGNATURE } from "../../pipeline/png_format.ts";

let state = 1;
const random = (n: number) =>
  ((state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 8) % n;

function picture(
  width: number,
  height: number,
  kind: "noise" | "ramp" | "flat",
): Uint8Array {
  return Uint8Array.from(
    { length: width * height * 3 },
    (_, i) =>
      kind === "noise"
        ? random(256)
        : kind === "flat"
        ? 77
        : (Math.floor(i / 3) % width + i % 3 * 40) & 255,
  );
}

const latin = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0));
const header = (
  width: number,
  height: number,
  colour = 2,
  depth = 8,
  interlace = 0,
) => {
  const data = new Uint8Array(13);
  new DataView(data.buffer).setUint32(0, width);
  new DataView(data.buffer).setUint32(4, height);
  data.set([depth, colour, 0, 0, interlace], 8);
  return chunk("IHDR", data);
};
const END = chunk("IEND", new Uint8Array(0));
const png = (...parts: Uint8Array[]) =>
  join([Uint8Array.from(SIGNATURE), ...parts]);

test("decodePng() gives back what encodePng() got", async () => {
  for (const kind of ["noise", "ramp", "flat"] as const) {
    for (
      const [w, h] of [[1, 1], [1, 7], [7, 1], [16, 16], [61, 33]] as const
    ) {
      const rgb = picture(w, h, kind);
      const back = decodePng(await encodePng(rgb, w, h));
      assert.deepEqual([back.width, back.height], [w, h]);
      assert.deepEqual([...back.rgb], [...rgb], `${kind} ${w}x${h}`);
    }
  }
});

test("encodePng() filters: a ramp is small, and the bytes are the same each time", async () => {
  const rgb = picture(64, 64, "ramp");
  const bytes = await encodePng(rgb, 64, 64);
  assert.ok(bytes.length < 400, `${bytes.length} bytes`);
  assert.deepEqual(await encodePng(rgb, 64, 64), bytes);
});

test("encodePng() gives the same bytes on every runtime", async () => {
  const rgb = picture(64, 64, "ramp").map((v, i) => i % 7 ? v : v ^ (i >> 4));
  const bytes = await encodePng(rgb, 64, 64, { text: { a: "b" } });
  const { createHash } = await import("node:crypto");
  // Recorded with fflate 0.8.3 on Deno 2.9.6 and Bun 1.4.5; 0.8.2 gives the same. Another deflate fails here
  assert.equal(
    createHash("sha256").update(bytes).digest("hex"),
    "ede09d838f10192c9bff3711e667406fca92d513981f3b6efa6efc0bc0dc2eb3",
  );
});

test("readPngText() gives back every text, Latin-1 or not", async () => {
  const text = {
    "winwinlay": JSON.stringify({ prompt: "a caf\u00e9\nby night", seed: 7 }),
    "Title": "",
    "Umlaut \u00fc": "\u00fc",
    "Comment": "\u732b \u{1f431} \u2019",
    "Control": "tab\there",
    "Long": "x".repeat(100_000),
  };
  const bytes = await encodePng(new Uint8Array(3), 1, 1, { text });
  assert.deepEqual(Object.fromEntries(readPngText(bytes)), text);
  assert.equal(readPngText(await encodePng(new Uint8Array(3), 1, 1)).size, 0);
});

test("readPngText() reads zTXt and compressed iTXt; the first of a keyword counts", () => {
  const z = (s: string) => deflateSync(new TextEncoder().encode(s));
  const bytes = png(
    header(1, 1),
    chunk("zTXt", join([latin("a\0\0"), z("one")])),
    chunk("iTXt", join([latin("b\0\x01\0en\0bee\0"), z("zw\u00f6lf")])),
    chunk("tEXt", latin("a\0two")),
    END,
  );
  assert.deepEqual([...readPngText(bytes)], [["a", "one"], [
    "b",
    "zw\u00f6lf",
  ]]);
});

test("decodePng() reads grey, grey-alpha and RGBA, and split IDAT", () => {
  const cases: [number, number[], number[]][] = [
    [0, [9, 200], [9, 9, 9, 200, 200, 200]],
    [4, [9, 0, 200, 255], [9, 9, 9, 200, 200, 200]],
    [6, [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 5, 6, 7]],
  ];
  for (const [colour, samples, rgb] of cases) {
    const data = deflateSync(Uint8Array.from([0, ...samples]));
    const split = [
      chunk("IDAT", data.subarray(0, 3)),
      chunk("IDAT", data.subarray(3)),
    ];
    assert.deepEqual([
      ...decodePng(png(header(2, 1, colour), ...split, END)).rgb,
    ], rgb);
  }
});

test("decodePng() undoes every filter as Pillow 12.3 does", () => {
  const rows = [
    [0, 28, 46, 43, 184, 86, 157, 128, 108, 18],
    [1, 81, 220, 201, 190, 227, 137, 18, 14, 186],
    [2, 238, 163, 194, 216, 84, 90, 120, 118, 12],
    [3, 90, 166, 88, 69, 184, 93, 228, 212, 186],
    [4, 181, 185, 228, 82, 204, 236, 127, 250, 142],
    [4, 255, 181, 232, 236, 179, 233, 249, 113, 166],
  ];
  const expected = [
    [28, 46, 43, 184, 86, 157, 128, 108, 18],
    [81, 220, 201, 15, 191, 82, 33, 205, 12],
    [63, 127, 139, 231, 19, 172, 153, 67, 24],
    [121, 229, 157, 245, 52, 1, 171, 15, 198],
    [46, 158, 129, 203, 0, 237, 42, 250, 123],
    [45, 83, 105, 183, 179, 214, 35, 107, 33],
  ];
  const data = deflateSync(Uint8Array.from(rows.flat()));
  const { rgb } = decodePng(png(header(3, 6), chunk("IDAT", data), END));
  assert.deepEqual([...rgb], expected.flat());
});

test("encodePng() refuses sizes and texts that do not fit", async () => {
  const rgb = new Uint8Array(12);
  const sizes = [[2, 3], [0, 0], [-2, -2], [1.5, 2], [NaN, 2], [
    1e5,
    1e5,
  ]] as const;
  for (const [w, h] of sizes) {
    await assert.rejects(encodePng(rgb, w, h), RangeError);
  }
  const texts = [
    { "": "a" },
    { " a": "b" },
    { "a ": "b" },
    { "a  b": "c" },
    { ["a".repeat(80)]: "b" },
    { "\u732b": "a" },
    { "a\0b": "c" },
    { a: "b\0c" },
    { a: "\ud800" },
  ];
  for (const text of texts) {
    await assert.rejects(encodePng(rgb, 2, 2, { text }), {
      name: "RangeError",
      message: /^Cannot encode PNG/,
    }, JSON.stringify(text));
  }
  await encodePng(rgb, 2, 2, { text: { a: "b" } }); // control
});

const pixel = chunk("IDAT", deflateSync(Uint8Array.from([0, 1, 2, 3])));
const GOOD = png(header(1, 1), pixel, END);
const edit = (bytes: Uint8Array, at: number, value: number) => {
  const out = Uint8Array.from(bytes);
  out[at] = value;
  return out;
};

test("readPngText() refuses files that are no whole PNG", () => {
  const bomb = deflateSync(new Uint8Array(2 ** 24 + 1));
  const cases: [Uint8Array, string, RegExp][] = [
    [new Uint8Array(0), "SyntaxError", /signature/],
    [latin("\xff\xd8\xff\xe0 a JPEG"), "SyntaxError", /signature/],
    [GOOD.subarray(0, 8), "SyntaxError", /truncated at byte 8/],
    [GOOD.subarray(0, 40), "SyntaxError", /truncated at byte 33|must fit/],
    [GOOD.subarray(0, GOOD.length - 12), "SyntaxError", /IEND.*0 bytes left/],
    [GOOD.subarray(0, GOOD.length - 1), "SyntaxError", /IEND/],
    [edit(GOOD, 16, 9), "SyntaxError", /checksum of chunk IHDR at byte 8/],
    [edit(GOOD, 33, 0xff), "SyntaxError", /IDAT at byte 33 must fit/],
    [edit(GOOD, 37, 7), "SyntaxError", /four letters/],
    [
      join([GOOD, new Uint8Array(1)]),
      "SyntaxError",
      /nothing must follow IEND: current 1 bytes/,
    ],
    [png(pixel, END), "SyntaxError", /IHDR/],
    [png(header(1, 1), header(1, 1), END), "SyntaxError", /exactly one IHDR/],
    [png(chunk("IHDR", new Uint8Array(4)), END), "SyntaxError", /13 bytes/],
    [
      png(header(1, 1), chunk("tEXt", latin("no end")), END),
      "SyntaxError",
      /keyword/,
    ],
    [
      png(header(1, 1), chunk("tEXt", latin("\0text")), END),
      "SyntaxError",
      /keyword/,
    ],
    [
      png(header(1, 1), chunk("tEXt", latin("x".repeat(80) + "\0")), END),
      "SyntaxError",
      /keyword/,
    ],
    [
      png(header(1, 1), chunk("zTXt", latin("a\0")), END),
      "SyntaxError",
      /zTXt/,
    ],
    [
      png(header(1, 1), chunk("zTXt", latin("a\0\x01abc")), END),
      "SyntaxError",
      /compression/,
    ],
    [
      png(header(1, 1), chunk("zTXt", latin("a\0\0abc")), END),
      "SyntaxError",
      /must be whole/,
    ],
    [
      png(header(1, 1), chunk("zTXt", join([latin("a\0\0"), bomb])), END),
      "RangeError",
      /inflate to at most 16777216/,
    ],
    [
      png(header(1, 1), chunk("iTXt", latin("a\0\0\0en")), END),
      "SyntaxError",
      /iTXt/,
    ],
    [
      png(header(1, 1), chunk("iTXt", latin("a\0\x02\0\0\0")), END),
      "SyntaxError",
      /iTXt/,
    ],
    [
      png(header(1, 1), chunk("iTXt", latin("a\0\0\0\0\0\xff")), END),
      "SyntaxError",
      /UTF-8/,
    ],
  ];
  for (const [bytes, name, message] of cases) {
    assert.throws(() => readPngText(bytes), { name, message }, String(message));
  }
  assert.equal(readPngText(GOOD).size, 0); // control
});

test("decodePng() refuses what it cannot read", () => {
  const data = (...bytes: number[]) =>
    chunk("IDAT", deflateSync(Uint8Array.from(bytes)));
  const cases: [Uint8Array, string, RegExp][] = [
    [png(header(0, 1), pixel, END), "RangeError", /0x1/],
    [png(header(2 ** 31, 2 ** 31), pixel, END), "RangeError", /2\^26/],
    [png(header(1, 1, 3), pixel, END), "RangeError", /colour type 3/],
    [png(header(1, 1, 2, 16), pixel, END), "RangeError", /depth 16/],
    [png(header(1, 1, 2, 8, 1), pixel, END), "RangeError", /interlace 1/],
    [png(header(1, 1), END), "SyntaxError", /IDAT/],
    [
      png(header(1, 1), pixel, chunk("tIME", new Uint8Array(7)), pixel, END),
      "SyntaxError",
      /together/,
    ],
    [
      png(header(1, 1), data(0, 1, 2), END),
      "SyntaxError",
      /must be 4 bytes: current 3/,
    ],
    [
      png(header(1, 1), data(0, 1, 2, 3, 4), END),
      "RangeError",
      /at most 4 bytes/,
    ],
    [
      png(header(1, 1), data(5, 1, 2, 3), END),
      "SyntaxError",
      /filter of row 0/,
    ],
    [
      png(header(1, 1), chunk("IDAT", new Uint8Array(0)), END),
      "SyntaxError",
      /whole/,
    ],
  ];
  for (const [bytes, name, message] of cases) {
    assert.throws(() => decodePng(bytes), { name, message }, String(message));
  }
  assert.deepEqual([...decodePng(GOOD).rgb], [1, 2, 3]); // control
});

test("mutated PNGs give the same result or a named error", async () => {
  state = 77;
  const text = { request: '{"seed":7}', note: "\u732b" };
  const source = await encodePng(picture(5, 5, "ramp"), 5, 5, { text });
  for (let run = 0; run < 2000; run++) {
    let bytes = Uint8Array.from(source);
    for (let k = 0; k <= random(3); k++) {
      bytes[random(bytes.length)] = random(256);
    }
    if (random(4) === 0) bytes = bytes.slice(0, random(bytes.length));
    for (const read of [readPngText, decodePng]) {
      try {
        read(bytes);
        assert.deepEqual(bytes, source); // a change of nothing
      } catch (error) {
        assert.ok(
          error instanceof SyntaxError || error instanceof RangeError,
          String(error),
        );
        assert.match(error.message, /^Cannot (read|decode) PNG/);
      }
    }
  }
});

test("mutated chunks with right checksums give a text or a named error", () => {
  state = 78;
  const bodies: [string, Uint8Array][] = [
    ["zTXt", join([latin("a\0\0"), deflateSync(latin("hello hello hello"))])],
    [
      "iTXt",
      join([
        latin("b\0\x01\0en\0bee\0"),
        deflateSync(latin("hello hello hello")),
      ]),
    ],
    ["IDAT", deflateSync(Uint8Array.from([0, 1, 2, 3]))],
  ];
  for (let run = 0; run < 2000; run++) {
    const parts = bodies.map(([type, body]) => {
      const data = Uint8Array.from(body);
      for (let k = random(3); k > 0; k--) {
        data[random(data.length)] = random(256);
      }
      return chunk(type, data);
    });
    for (const read of [readPngText, decodePng]) {
      try {
        read(png(header(1, 1), ...parts, END));
      } catch (error) {
        assert.ok(
          error instanceof SyntaxError || error instanceof RangeError,
          String(error),
        );
        assert.match(error.message, /^Cannot (read|decode) PNG/);
      }
    }
  }
});
