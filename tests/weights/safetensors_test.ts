import { strict as assert } from "node:assert";
import { test } from "node:test";
import { WeightsError } from "../../weights/errors.ts";
import { RenamedTensors } from "../../weights/renamed_tensors.ts";
import { Safetensors } from "../../weights/safetensors.ts";
import { DTYPE_BYTES } from "../../weights/safetensors_header.ts";
import { openSource, type ReadOptions } from "../../weights/source.ts";
import {
  encodeSafetensors,
  frame,
  type TensorData,
} from "./encode_safetensors.ts";
import { MemorySource } from "./memory_source.ts";
import { tempFolder } from "./temp_folder.ts";

const MAX_HEADER_BYTES = 100_000_000;

/** A header with tensor `a` of 8 bytes, two F32; `change` replaces parts of it. */
function entry(change: Record<string, unknown> = {}): string {
  return JSON.stringify({
    a: { dtype: "F32", shape: [2], data_offsets: [0, 8], ...change },
  });
}

function lengthOnly(length: bigint, size: number): Uint8Array<ArrayBuffer> {
  const file = new Uint8Array(size);
  new DataView(file.buffer).setBigUint64(0, length, true);
  return file;
}

const EIGHT = new Uint8Array(8);
const SIXTEEN = new Uint8Array(16);
const A = '"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}';

/** Legal files that a reader could be too strict for. */
const LEGAL: [name: string, file: Uint8Array][] = [
  ["the plain case", frame(entry(), EIGHT)],
  ["no tensors", frame("{}")],
  ["only metadata", frame('{"__metadata__":{"format":"pt"}}')],
  ["empty metadata", frame(`{"__metadata__":{},${A}}`, EIGHT)],
  ["spaces after the header", frame(entry() + " ".repeat(37), EIGHT)],
  [
    "data that is not aligned",
    frame(entry() + " ".repeat(entry().length % 2 ? 2 : 1), EIGHT),
  ],
  [
    "space and escapes in the header",
    frame(`{\n\t${A.replace('"a"', '"\\u0061"')} }\r\n`, EIGHT),
  ],
  [
    "a scalar",
    frame(entry({ shape: [], data_offsets: [0, 4] }), new Uint8Array(4)),
  ],
  ["an empty tensor", frame(entry({ shape: [0, 3], data_offsets: [0, 0] }))],
  [
    "empty tensors before, between and after",
    frame(
      `{"z":{"dtype":"F16","shape":[0],"data_offsets":[8,8]},${A},` +
        `"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},` +
        `"c":{"dtype":"I64","shape":[0],"data_offsets":[16,16]},` +
        `"d":{"dtype":"I64","shape":[0],"data_offsets":[0,0]}}`,
      SIXTEEN,
    ),
  ],
  [
    "tensors listed in another order than they lie",
    frame(
      `{"b":{"dtype":"F64","shape":[1],"data_offsets":[8,16]},${A}}`,
      SIXTEEN,
    ),
  ],
  ["a name that is a number", frame(entry().replace('"a"', '"12"'), EIGHT)],
  [
    "a name of Object.prototype",
    frame(entry().replace('"a"', '"toString"'), EIGHT),
  ],
  ["a name beyond ASCII", frame(entry().replace('"a"', '"naïve 😀"'), EIGHT)],
];

for (const [name, file] of LEGAL) {
  test(`Safetensors.open() reads ${name}`, async () => {
    await using tensors = await Safetensors.open(new MemorySource(file));
    for (const info of tensors.tensors.values()) {
      assert.equal((await tensors.readBytes(info.name)).length, info.sizeBytes);
    }
  });
}

const HOSTILE: [
  name: string,
  source: Uint8Array | MemorySource,
  message: RegExp,
][] = [
  ["an empty file", new Uint8Array(0), /at least 8 bytes: current size is 0/],
  ["7 bytes", new Uint8Array(7), /at least 8 bytes: current size is 7/],
  ["a header length of 0", lengthOnly(0n, 64), /must not be empty/],
  [
    "a header one byte over the file",
    lengthOnly(57n, 64),
    /fit the file: current 57 of 56/,
  ],
  [
    "a header over the limit",
    new MemorySource(lengthOnly(BigInt(MAX_HEADER_BYTES) + 1n, 64), 2 ** 40),
    /at most 100000000 bytes: current length is 100000001/,
  ],
  [
    "a huge header length",
    lengthOnly(2n ** 64n - 1n, 64),
    /length is 18446744073709551615/,
  ],
  [
    "a Git LFS pointer",
    text("version https://git-lfs.github.com/spec/v1\n"),
    /Git LFS pointer/,
  ],
  ["a pickle", text("PK\u0003\u0004 archive/data.pkl"), /PyTorch pickle/],
  ["a web page", text("<!doctype html><html></html>"), /web page/],
  [
    "a header with space in front",
    frame(" " + entry(), EIGHT),
    /must start with "\{"/,
  ],
  ["a header that is an array", frame("[]"), /must start with "\{"/],
  [
    "a byte order mark",
    frame("\ufeff" + entry(), EIGHT),
    /must start with "\{"/,
  ],
  [
    "bytes that are not UTF-8",
    frame(new Uint8Array([0x7b, 0xff, 0x7d])),
    /must be UTF-8/,
  ],
  [
    "a surrogate in UTF-8",
    frame(new Uint8Array([0x7b, 0xed, 0xa0, 0x80, 0x7d])),
    /must be UTF-8/,
  ],
  ["a header that is not JSON", frame("{hello}"), /must be JSON/],
  ["a header cut off", frame(entry().slice(0, -1), EIGHT), /must be JSON/],
  ["zeros after the header", frame(entry() + "\0\0", EIGHT), /one JSON value/],
  ["two equal names", frame(`{${A},${A}}`, EIGHT), /key must occur once/],
  [
    "two equal names by escape",
    frame(`{${A},${A.replace('"a"', '"\\u0061"')}}`, EIGHT),
    /once/,
  ],
  [
    "equal keys in an entry",
    frame(`{${A.replace("{", '{"dtype":"F32",')}}`, EIGHT),
    /key must occur once/,
  ],
  [
    "equal keys in the metadata",
    frame(`{"__metadata__":{"a":"1","a":"2"},${A}}`, EIGHT),
    /key must occur once/,
  ],
  [
    "two __metadata__",
    frame('{"__metadata__":{},"__metadata__":{}}'),
    /key must occur once/,
  ],
  [
    "a tensor __proto__",
    frame(entry().replace('"a"', '"__proto__"'), EIGHT),
    /no key may be/,
  ],
  [
    "a tensor constructor",
    frame(entry().replace('"a"', '"constructor"'), EIGHT),
    /no key may/,
  ],
  [
    "__proto__ in an entry",
    frame(`{${A.replace("{", '{"__proto__":{},')}}`, EIGHT),
    /no key may/,
  ],
  [
    "__proto__ in the metadata",
    frame('{"__metadata__":{"__proto__":"x"}}'),
    /no key may be/,
  ],
  [
    "an entry that is null",
    frame('{"a":null}'),
    /must be an object of dtype, shape/,
  ],
  [
    "an entry that is an array",
    frame('{"a":["F32",[2],[0,8]]}', EIGHT),
    /must be an object of/,
  ],
  [
    "an entry without dtype",
    frame('{"a":{"shape":[2],"data_offsets":[0,8]}}', EIGHT),
    /object of/,
  ],
  [
    "an entry with another key",
    frame(entry({ strides: [1] }), EIGHT),
    /must be an object of/,
  ],
  [
    "an unknown dtype",
    frame(entry({ dtype: "F31" }), EIGHT),
    /known dtype: current dtype is "F31"/,
  ],
  [
    "a dtype in small letters",
    frame(entry({ dtype: "f32" }), EIGHT),
    /known dtype/,
  ],
  [
    "a dtype of Object.prototype",
    frame(entry({ dtype: "valueOf" }), EIGHT),
    /known dtype/,
  ],
  [
    "a dtype that is a number",
    frame(entry({ dtype: 32 }), EIGHT),
    /known dtype/,
  ],
  [
    "a shape that is a number",
    frame(entry({ shape: 2 }), EIGHT),
    /array as its shape/,
  ],
  [
    "a shape that is an object",
    frame(entry({ shape: { length: 1 } }), EIGHT),
    /array as its shape/,
  ],
  [
    "a shape of strings",
    frame(entry({ shape: ["2"] }), EIGHT),
    /counts as its shape/,
  ],
  [
    "a nested shape",
    frame(entry({ shape: [[2]] }), EIGHT),
    /counts as its shape/,
  ],
  [
    "a negative shape",
    frame(entry({ shape: [-1, -2] }), EIGHT),
    /counts as its shape/,
  ],
  [
    "a shape of -0",
    frame(entry().replace("[2]", "[-0]"), EIGHT),
    /counts as its shape/,
  ],
  [
    "a fractional shape",
    frame(entry({ shape: [0.5, 4] }), EIGHT),
    /numbers must be whole/,
  ],
  [
    "a shape of 2.0",
    frame(entry().replace("[2]", "[2.0]"), EIGHT),
    /numbers must be whole/,
  ],
  [
    "a shape of 2e0",
    frame(entry().replace("[2]", "[2e0]"), EIGHT),
    /numbers must be whole/,
  ],
  [
    "a size over 2^53",
    frame(entry().replace("[2]", "[9007199254740993]"), EIGHT),
    /counts as its shape/,
  ],
  [
    "a product over 2^53",
    frame(entry({ shape: [2 ** 30, 2 ** 30] }), EIGHT),
    /fewer than 2\^53/,
  ],
  [
    "a product over 2^64",
    frame(entry({ shape: [2 ** 40, 2 ** 40] }), EIGHT),
    /fewer than 2\^53/,
  ],
  [
    "a product over 2^53 times 0",
    frame(entry({ shape: [2 ** 40, 2 ** 40, 0], data_offsets: [0, 0] })),
    /fewer than 2\^53/,
  ],
  [
    "one offset",
    frame(entry({ data_offsets: [8] }), EIGHT),
    /two counts as its data_offsets/,
  ],
  [
    "three offsets",
    frame(entry({ data_offsets: [0, 8, 8] }), EIGHT),
    /two counts/,
  ],
  [
    "offsets of null",
    frame(entry({ data_offsets: null }), EIGHT),
    /two counts/,
  ],
  [
    "a negative offset",
    frame(entry({ data_offsets: [-8, 0] }), EIGHT),
    /two counts/,
  ],
  [
    "a string offset",
    frame(entry({ data_offsets: ["0", "8"] }), EIGHT),
    /two counts/,
  ],
  [
    "reversed offsets",
    frame(entry({ data_offsets: [8, 0] }), EIGHT),
    /must end after it begins/,
  ],
  [
    "a tensor one byte over the end",
    frame(entry(), EIGHT.subarray(1)),
    /must end inside the file: current data_offsets are \[0,8\] of 7 bytes; .*cut off/,
  ],
  [
    "huge offsets",
    frame(entry({ data_offsets: [2 ** 52, 2 ** 52 + 8] }), EIGHT),
    /inside the file/,
  ],
  [
    "too few bytes for the shape",
    frame(entry({ shape: [3] }), EIGHT),
    /12 bytes of F32 \[3\]/,
  ],
  [
    "too many bytes for the shape",
    frame(entry({ shape: [1] }), EIGHT),
    /4 bytes of F32 \[1\]/,
  ],
  [
    "too many bytes for the dtype",
    frame(entry({ dtype: "F16" }), EIGHT),
    /4 bytes of F16/,
  ],
  [
    "two tensors at one place",
    frame(`{${A},${A.replace('"a"', '"b"')}}`, EIGHT),
    /must begin where the one before it ends.*overlap/,
  ],
  [
    "tensors that overlap in part",
    frame(
      `{${A},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`,
      SIXTEEN,
    ),
    /overlap: it begins at/,
  ],
  [
    "an empty tensor inside another",
    frame(`{${A},"b":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}}`, EIGHT),
    /overlap: it begins at/,
  ],
  [
    "a hole between tensors",
    frame(
      `{${A},"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}}`,
      SIXTEEN,
    ),
    /hole: it begins at/,
  ],
  [
    "a hole in front",
    frame(entry({ data_offsets: [8, 16] }), SIXTEEN),
    /hole: it begins at/,
  ],
  [
    "bytes after the last tensor",
    frame(entry(), SIXTEEN),
    /current 8 bytes too many/,
  ],
  ["bytes without tensors", frame("{}", EIGHT), /current 8 bytes too many/],
  [
    "metadata that is a string",
    frame('{"__metadata__":"pt"}'),
    /must be an object of strings/,
  ],
  [
    "metadata that is null",
    frame('{"__metadata__":null}'),
    /must be an object of strings/,
  ],
  [
    "metadata with a number",
    frame('{"__metadata__":{"step":1}}'),
    /current "step" is 1/,
  ],
  [
    "metadata with an object",
    frame('{"__metadata__":{"a":{}}}'),
    /must be an object of strings/,
  ],
];

function text(content: string): Uint8Array {
  return new TextEncoder().encode(content);
}

for (const [name, given, message] of HOSTILE) {
  test(`Safetensors.open() throws for ${name}`, async () => {
    const source = given instanceof MemorySource
      ? given
      : new MemorySource(given);
    await assert.rejects(Safetensors.open(source), (error: unknown) => {
      assert.ok(error instanceof WeightsError, String(error));
      assert.match(error.message, message);
      assert.match(
        error.message,
        /^Cannot read .*memory.safetensors: .*: current /,
      );
      return true;
    });
    assert.ok(source.closed);
  });
}

const EVERY: ReadonlyMap<string, TensorData> = new Map<string, TensorData>([
  ["odd", { dtype: "U8", shape: [3], data: new Uint8Array([1, 2, 255]) }], // unaligns the rest
  ["f32", {
    dtype: "F32",
    shape: [2, 2],
    data: new Float32Array([1.5, -0, 3e-45, Infinity]),
  }],
  ["f16", {
    dtype: "F16",
    shape: [3],
    data: new Uint16Array([0x3c00, 0xc000, 0x0001]),
  }],
  ["bf16", {
    dtype: "BF16",
    shape: [1, 2],
    data: new Uint16Array([0x3f80, 0xc040]),
  }],
  ["i32", { dtype: "I32", shape: [2], data: new Int32Array([-(2 ** 31), 7]) }],
  ["i64", {
    dtype: "I64",
    shape: [2],
    data: new BigInt64Array([-5n, 2n ** 31n - 1n]),
  }],
  ["big", { dtype: "I64", shape: [1], data: new BigInt64Array([2n ** 31n]) }],
  ["u32", { dtype: "U32", shape: [1], data: new Uint32Array([2 ** 32 - 1]) }],
  ["i8", { dtype: "I8", shape: [1], data: new Int8Array([-1]) }],
  ["bool", { dtype: "BOOL", shape: [2], data: new Uint8Array([1, 0]) }],
  ["f64", { dtype: "F64", shape: [], data: new Float64Array([Math.PI]) }],
  ["empty", { dtype: "F32", shape: [0], data: new Float32Array(0) }],
]);
const EVERY_FILE = encodeSafetensors(EVERY, { format: "pt" });

test("Safetensors reads every dtype it should", async () => {
  await using file = await Safetensors.open(new MemorySource(EVERY_FILE));
  assert.deepEqual([...file.tensors.keys()], [...EVERY.keys()]);
  assert.deepEqual([...file.metadata], [["format", "pt"]]);
  assert.deepEqual(file.tensors.get("f32")?.shape, [2, 2]);
  const floats = await file.readFloat32("f32");
  assert.deepEqual([...floats], [1.5, -0, Math.fround(3e-45), Infinity]);
  assert.deepEqual([...await file.readFloat32("f16")], [1, -2, 2 ** -24]);
  assert.deepEqual([...await file.readFloat32("bf16")], [1, -3]);
  assert.deepEqual([...await file.readFloat32("empty")], []);
  assert.deepEqual([...await file.readInt32("odd")], [1, 2, 255]);
  assert.deepEqual([...await file.readInt32("i32")], [-(2 ** 31), 7]);
  assert.deepEqual([...await file.readInt32("i64")], [-5, 2 ** 31 - 1]);
  assert.deepEqual([...await file.readInt32("i8")], [-1]);
  assert.deepEqual([...await file.readInt32("bool")], [1, 0]);
  assert.deepEqual(
    new Float64Array((await file.readBytes("f64")).buffer),
    new Float64Array([Math.PI]),
  );
});

test("Safetensors refuses to read what it cannot give exactly", async () => {
  await using file = await Safetensors.open(new MemorySource(EVERY_FILE));
  await assert.rejects(
    file.readFloat32("f64"),
    /must be F32, F16 or BF16: current dtype is F64/,
  );
  await assert.rejects(file.readFloat32("i32"), WeightsError);
  await assert.rejects(file.readInt32("f32"), /current dtype is F32/);
  await assert.rejects(
    file.readInt32("big"),
    /fit 32 bits: current 2147483648 at 0/,
  );
  await assert.rejects(
    file.readInt32("u32"),
    /fit 32 bits: current 4294967295 at 0/,
  );
  for (const name of ["none", "__proto__", "__metadata__", "toString"]) {
    await assert.rejects(file.readBytes(name), /must be in memory.safetensors/);
  }
});

test("Safetensors reads the header and the asked tensor, nothing else", async () => {
  const source = new MemorySource(EVERY_FILE);
  const headerBytes = new DataView(EVERY_FILE.buffer).getUint32(0, true);
  await using file = await Safetensors.open(source);
  assert.deepEqual(source.reads, [[0, 8], [8, headerBytes]]);
  const { offset, sizeBytes } = file.tensors.get("f16")!;
  assert.deepEqual([offset, sizeBytes], [8 + headerBytes + 3 + 16, 6]);
  await file.readFloat32("f16");
  assert.deepEqual(source.reads.slice(2), [[offset, sizeBytes]]);
});

test("Safetensors.open() survives 5000 mutations of a small file", async () => {
  let state = 20240607; // xorshift32
  const random = (limit: number): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
  const interesting = text('0123456789-.eE"\\{}[]:, \0nutf');
  let opened = 0;
  for (let i = 0; i < 5000; i++) {
    let bytes = EVERY_FILE.slice();
    for (let flips = 1 + random(3); flips > 0; flips--) {
      const at = random(bytes.length);
      const kind = random(3);
      bytes[at] = kind === 0
        ? bytes[at]! ^ (1 << random(8))
        : kind === 1
        ? random(256)
        : interesting[random(interesting.length)]!;
    }
    if (random(10) === 0) bytes = bytes.slice(0, random(bytes.length));
    const source = new MemorySource(bytes);
    try {
      await using file = await Safetensors.open(source);
      opened++;
      let at = 8 + new DataView(bytes.buffer).getUint32(0, true);
      for (
        const { name, dtype, shape, offset, sizeBytes } of file.tensors.values()
      ) {
        assert.equal(offset, at);
        assert.equal(
          sizeBytes,
          shape.reduce((a, b) => a * b, DTYPE_BYTES[dtype]),
        );
        assert.equal((await file.readBytes(name)).length, sizeBytes);
        at += sizeBytes;
      }
      assert.equal(at, bytes.length);
    } catch (error) {
      if (!(error instanceof WeightsError)) throw error;
    }
    assert.ok(source.closed);
  }
  // both outcomes must be common for the loop to mean anything
  assert.ok(opened > 100 && opened < 4900, `${opened} opened`);
});

test("numbers have their tensor's length whatever buffer is offered for the bytes", async () => {
  await using folder = await tempFolder({
    "x.safetensors": encodeSafetensors(
      new Map([
        ["f32", { dtype: "F32", shape: [2], data: new Float32Array([1, -2]) }],
        ["f16", { dtype: "F16", shape: [1], data: new Uint16Array([0x3c00]) }],
        ["i32", { dtype: "I32", shape: [2], data: new Int32Array([3, -4]) }],
      ]),
    ),
  });
  const source = await openSource(`${folder.path}/x.safetensors`);
  await using file = await Safetensors.open(source);
  const renamed = new RenamedTensors(source, file.tensors, new Set());
  const options: ReadOptions = { into: new Uint8Array(64) };
  assert.deepEqual([...await file.readFloat32("f32", options)], [1, -2]);
  assert.deepEqual([...await file.readFloat32("f16", options)], [1]);
  assert.deepEqual([...await file.readInt32("i32", options)], [3, -4]);
  assert.deepEqual([...await renamed.readFloat32("f32", options)], [1, -2]);
  assert.deepEqual([...await renamed.readFloat32("f16", options)], [1]);
  const bytes = await file.readBytes("f32", options);
  assert.deepEqual([bytes.length, bytes.buffer.byteLength], [8, 64]);
});
