import { strict as assert } from "node:assert";
import { test } from "node:test";
import type { ComponentName } from "../../weights/component.ts";
import { MissingFileError } from "../../weights/errors.ts";
import { floatsOf } from "../../weights/float_formats.ts";
import { openCheckpoint } from "../../weights/open_checkpoint.ts";
import { openSingleFile, SingleFile } from "../../weights/single_file.ts";
import { sendRange, serve } from "./http_server.ts";
import { MemorySource } from "./memory_source.ts";
import { networkShapes } from "./network_shapes.ts";
import { tempFolder } from "./temp_folder.ts";
import { fileOf, TINY, tinyLdm } from "./tiny_ldm.ts";

if ("Deno" in globalThis) Deno.test.sanitizer({ ops: true, resources: true });

const bytesOf = (view: ArrayBufferView): Uint8Array =>
  new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

for (
  const [family, dtype] of [
    ["sd1", "F32"],
    ["sd1", "F16"],
    ["sd2", "F16"],
    ["sdxl", "BF16"],
    ["sdxl", "F32"],
  ] as const
) {
  test(`SingleFile gives every tensor back under diffusers' name: ${family}, ${dtype}`, async () => {
    const { parts, ldm } = await tinyLdm(family, dtype);
    await using temp = await tempFolder({ "tiny.v1.safetensors": fileOf(ldm) });
    await using file = await openSingleFile(
      `${temp.path}/tiny.v1.safetensors`,
    );
    assert.equal(file.family, family);
    assert.equal(file.name, "tiny.v1");
    for (const [part, tensors] of Object.entries(parts)) {
      const component = await file.component(part as ComponentName);
      assert.deepEqual(
        [...component.tensors.keys()].toSorted(),
        [...tensors.keys()].toSorted(),
      );
      for (const [name, { shape, data }] of tensors) {
        const info = component.tensors.get(name)!;
        assert.deepEqual([info.name, info.dtype, info.shape], [
          name,
          dtype,
          shape,
        ]);
        const bytes = await component.readBytes(name);
        assert.equal(info.sizeBytes, bytes.length);
        assert.ok(same(bytes, bytesOf(data)), name);
        if (name.includes("token_embedding")) continue; // large, and as it is
        const want = floatsOf(dtype, bytesOf(data).slice().buffer)!;
        assert.deepEqual(await component.read(name), want, name);
      }
      // Its config describes the same network, and says what diffusers' does.
      for (const [key, value] of Object.entries(TINY[family][part]!)) {
        assert.deepEqual(component.config[key], value, `${part} ${key}`);
      }
      const shapes = await networkShapes(part, component.config);
      assert.deepEqual(
        [...shapes.keys()].toSorted(),
        [...tensors.keys()].toSorted(),
      );
      await component.close(); // leaves the file open for the next
    }
  });
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((x, i) => x === b[i]);
}

test("SingleFile reads only the header when it is opened, and one tensor at a time", async () => {
  const { ldm } = await tinyLdm("sd1");
  const bytes = fileOf(ldm);
  const source = new MemorySource(bytes);
  await using file = await SingleFile.fromSource(source, "x.safetensors");
  const header = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  assert.deepEqual(source.reads, [[0, 8], [8, header]]);
  const unet = await file.component("unet");
  await unet.read("conv_in.bias");
  const { offset, sizeBytes } = unet.tensors.get("conv_in.bias")!;
  assert.deepEqual(source.reads.slice(2), [[offset, sizeBytes]]);
});

test("openCheckpoint() opens a single file by URL, with a query", async () => {
  const bytes = fileOf((await tinyLdm("sd1")).ldm);
  await using server = await serve((request, response) => {
    const { pathname } = new URL(request.url!, "http://host");
    if (pathname === "/a/tiny%20one.safetensors") {
      sendRange(bytes)(request, response);
    } else response.writeHead(404).end();
  });
  await using file = await openCheckpoint(
    `${server.url}/a/tiny%20one.safetensors?download=true`,
  );
  assert.equal(file.name, "tiny one");
  const unet = await file.component("unet");
  assert.equal((await unet.read("conv_out.bias")).length, 4);
  await assert.rejects(
    openCheckpoint(`${server.url}/a/none.safetensors`),
    MissingFileError,
  );
});

test("SingleFile reads text encoders of before transformers 4.31, without text_model", async () => {
  const { ldm, parts } = await tinyLdm("sd1");
  const old = new Map([...ldm].map(([name, tensor]) => [
    name.replace("transformer.text_model.", "transformer."),
    tensor,
  ]));
  const source = new MemorySource(fileOf(old));
  await using file = await SingleFile.fromSource(source, "x.safetensors");
  const encoder = await file.component("text_encoder");
  assert.deepEqual(
    [...encoder.tensors.keys()],
    [
      ...parts["text_encoder"]!.keys(),
    ].toSorted((a, b) => order(encoder.tensors, a, b)),
  );
  const name = "text_model.encoder.layers.1.mlp.fc2.weight";
  assert.ok(same(
    await encoder.readBytes(name),
    bytesOf(parts["text_encoder"]!.get(name)!.data),
  ));
});

function order(
  map: ReadonlyMap<string, unknown>,
  a: string,
  b: string,
): number {
  const names = [...map.keys()];
  return names.indexOf(a) - names.indexOf(b);
}

test("SingleFile takes config values that tensors do not show, and no others", async () => {
  const bytes = fileOf((await tinyLdm("sd1")).ldm);
  const openWith = (configOverrides: Record<string, Record<string, number>>) =>
    SingleFile.fromSource(new MemorySource(bytes), "x.safetensors", {
      configOverrides,
    });
  await using file = await openWith({
    unet: { attention_head_dim: 4, sample_size: 8 },
    scheduler: { steps_offset: 0 },
  });
  const { config } = await file.component("unet");
  assert.deepEqual([config["attention_head_dim"], config["sample_size"]], [
    4,
    8,
  ]);
  assert.equal(
    (await file.json("scheduler/scheduler_config.json") as {
      steps_offset: number;
    }).steps_offset,
    0,
  );
  await assert.rejects(
    openWith({ unet: { in_channels: 9 } }),
    /^RangeError: Cannot override unet config: the key must be one of attention_head_dim, .*"in_channels", which the file's tensors say$/,
  );
});

test("SingleFile stands for a folder's small files and for no others", async () => {
  const source = new MemorySource(fileOf((await tinyLdm("sd1")).ldm));
  await using file = await SingleFile.fromSource(source, "x.safetensors");
  assert.deepEqual(await file.json("model_index.json"), file.index);
  const text = await file.text("unet/config.json");
  assert.deepEqual(JSON.parse(text), (await file.component("unet")).config);
  assert.equal(await file.optionalJson("winwinlay.json"), undefined);
  assert.equal(await file.optionalText("tokenizer/none.txt"), undefined);
  assert.equal(await file.optionalText("tokenizer_2/vocab.json"), undefined);
  await assert.rejects(file.text("tokenizer_2/vocab.json"), MissingFileError);
  await assert.rejects(file.json("none.json"), MissingFileError);
  await assert.rejects(
    file.component("text_encoder_2"),
    /must be one of text_encoder, unet, vae: current file has none$/,
  );
  await assert.rejects(
    file.component("unet", { variant: "fp16" }),
    /a variant must be of a folder/,
  );
  const signal = AbortSignal.abort(new Error("stop"));
  await assert.rejects(file.component("unet", { signal }), /^Error: stop$/);
  await file.close();
  await file.close();
  assert.ok(source.closed);
});

test("SingleFile reads numbers of other types as bytes only", async () => {
  const { ldm } = await tinyLdm("sd1");
  const data = new Float64Array([1, 2, 3, 4]);
  ldm.set("model.diffusion_model.out.2.bias", {
    dtype: "F64",
    shape: [4],
    data,
  });
  const source = new MemorySource(fileOf(ldm));
  await using file = await SingleFile.fromSource(source, "x.safetensors");
  const unet = await file.component("unet");
  assert.ok(same(await unet.readBytes("conv_out.bias"), bytesOf(data)));
  await assert.rejects(
    unet.read("conv_out.bias"),
    /^WeightsError: .*"conv_out.bias".*must be F32, F16 or BF16: current dtype is F64$/,
  );
  await assert.rejects(unet.read("none"), /"none": it must be in x\/unet/);
});
