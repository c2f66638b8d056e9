import { strict as assert } from "node:assert";
import { test } from "node:test";
import { WeightsError } from "../../weights/errors.ts";
import { parseStrictJson } from "../../weights/strict_json.ts";

const NAME = { name: "config.json" };

const LEGAL = [
  "null",
  " [ ] ",
  "{}",
  '\t\r\n{ "a" : [ 1 , -2.5e+3 , true , false , null , "" ] }\n  ',
  String.raw`{"\u0061\"\\\/\b\f\n\r\t": "\ud83d\ude00"}`,
  '{"é": "😀"}',
  "[0, -0, 0.5, 1E3, 1e-7, 123456789012345678901234567890]",
  `${"[".repeat(30)}${"]".repeat(30)}`,
  '{"10": 1, "9": 2, "toString": 3}',
];

for (const text of LEGAL) {
  test(`parseStrictJson() equals JSON.parse: ${text.slice(0, 40)}`, () => {
    const value = parseStrictJson(text, NAME);
    assert.equal(JSON.stringify(value), JSON.stringify(JSON.parse(text)));
  });
}

const HOSTILE: [name: string, text: string, message: RegExp][] = [
  ["nothing", "", /must be JSON: current end of text/],
  ["two values", "{} {}", /one JSON value/],
  ["open object", '{"a": 1', /comma or brace/],
  ["open array", "[1", /comma or bracket/],
  ["open string", '"abc', /strings closed/],
  ["raw line end in a string", '"a\nb"', /strings closed/],
  ["unquoted key", "{a: 1}", /quoted key/],
  ["no colon", '{"a" 1}', /colon/],
  ["comma at the end of an object", '{"a": 1,}', /quoted key/],
  ["comma at the end of an array", "[1,]", /must be JSON/],
  ["number with a zero in front", "[01]", /comma or bracket/],
  ["number with a plus", "+1", /must be JSON/],
  ["number that ends in a point", "[1.]", /comma or bracket/],
  ["NaN", "NaN", /must be JSON/],
  ["unknown escape", String.raw`"\x41"`, /known escapes/],
  ["short escape", String.raw`"\u12"`, /known escapes/],
  ["lone surrogate", String.raw`"\ud800"`, /lone surrogates/],
  ["no-break space", "\u00a0{}", /must be JSON/],
  ["equal keys", '{"a": 1, "a": 1}', /key must occur once: current "\\"a/],
  [
    "equal keys, one escaped",
    String.raw`{"a": 1, "\u0061": 2}`,
    /key must occur once/,
  ],
  [
    "equal __proto__",
    '{"__proto__": 1, "__proto__": 2}',
    /key must occur once/,
  ],
  ["deep nesting", "[".repeat(100_000), /nest at most 32/],
];

for (const [name, text, message] of HOSTILE) {
  test(`parseStrictJson() throws for ${name}`, () => {
    assert.throws(() => parseStrictJson(text, NAME), (error: unknown) => {
      assert.ok(error instanceof WeightsError);
      assert.match(error.message, message);
      return /^Cannot read config.json: /.test(error.message);
    });
  });
}

test("parseStrictJson() gives objects without a prototype", () => {
  const value = parseStrictJson(
    '{"__proto__": {"polluted": true}, "constructor": 1}',
    NAME,
  );
  assert.equal(Object.getPrototypeOf(value), null);
  assert.deepEqual(Object.keys(value as object), ["__proto__", "constructor"]);
  assert.equal((value as Record<string, unknown>)["toString"], undefined);
  assert.equal(({} as Record<string, unknown>)["polluted"], undefined);
});

test("parseStrictJson() reads Python's numbers when asked", () => {
  const value = parseStrictJson("[NaN, Infinity, -Infinity, -1]", {
    ...NAME,
    pythonNumbers: true,
  });
  assert.deepEqual(value, [NaN, Infinity, -Infinity, -1]);
});

test("parseStrictJson() refuses fractions and exponents when asked", () => {
  const options = { ...NAME, integersOnly: true };
  assert.deepEqual(parseStrictJson("[1, -2]", options), [1, -2]);
  for (const text of ["1.0", "1e2", "-0.5"]) {
    assert.throws(
      () => parseStrictJson(text, options),
      /numbers must be whole/,
    );
  }
});

test("parseStrictJson() refuses keys of prototypes when asked", () => {
  const options = { ...NAME, refusePrototypeKeys: true };
  assert.equal(
    JSON.stringify(parseStrictJson('{"proto": 1}', options)),
    '{"proto":1}',
  );
  for (
    const key of [
      "__proto__",
      "constructor",
      "prototype",
      String.raw`\u005f_proto__`,
    ]
  ) {
    assert.throws(
      () => parseStrictJson(`{"${key}": 1}`, options),
      /no key may be/,
    );
  }
});
