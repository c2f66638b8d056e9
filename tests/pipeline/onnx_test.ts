/**
 * ONNX exports of text encoder and decoder against the WGSL path's references, on the same bytes: the
 * exports of tests/fixtures/onnx refer to the embedded model's safetensors as their external data.
 */
import { strict as assert } from "node:assert";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { Cpu } from "../../kernels/cpu.ts";
import { encodePrompt } from "../../pipeline/conditioning.ts";
import { decodeLatent } from "../../pipeline/decode.ts";
import { open } from "../../pipeline/model.ts";
import {
  onnxPenultimate,
  openOnnxDecoder,
  openOnnxText,
} from "../../pipeline/onnx_parts.ts";
import { OnnxNetwork, onnxRuntime } from "../../pipeline/onnx_session.ts";
import {
  encodePenultimate,
  loadTextEncoder,
  type TextEncoder,
} from "../../pipeline/text_encoder.ts";
import type { OnnxPart } from "../../pipeline/load_parts.ts";
import { embeddedModel } from "../../weights/embedded.ts";
import { openFolder } from "../../weights/folder.ts";
import { compare, rand } from "../compare.ts";
import { sendRange, serve } from "../weights/http_server.ts";
import { tempFolder } from "../weights/temp_folder.ts";
import { fileOf, tinyLdm } from "../weights/tiny_ldm.ts";

const MODEL = embeddedModel("tiny-scenes")!;
const FIXTURES = new URL("../fixtures/onnx/", import.meta.url);
const UNET = "unet/diffusion_pytorch_model.safetensors";
const CLIP = "text_encoder/model.safetensors";
const VAE = "vae/diffusion_pytorch_model.safetensors";
const SMALL = [
  "model_index.json",
  "scheduler/scheduler_config.json",
  "text_encoder/config.json",
  "tokenizer/merges.txt",
  "tokenizer/special_tokens_map.json",
  "tokenizer/tokenizer_config.json",
  "tokenizer/vocab.json",
  "unet/config.json",
  "winwinlay.json",
];

const bytes = (path: string): Promise<Uint8Array> =>
  readFile(new URL(path, MODEL));
const fixture = (name: string): Promise<Uint8Array> =>
  readFile(new URL(name, FIXTURES));

type Files = Record<string, string | Uint8Array>;

/** The embedded model with ONNX exports; `safetensors` too if asked for. */
async function files(both = false): Promise<Files> {
  const out: Files = {};
  for (const path of [...SMALL, UNET]) out[path] = await bytes(path);
  out["vae_decoder/config.json"] = await bytes("vae/config.json");
  out["text_encoder/model.onnx"] = await fixture("text_encoder.onnx");
  out["text_encoder/model.onnx_data"] = await bytes(CLIP);
  out["vae_decoder/model.onnx"] = await fixture("vae_decoder.onnx");
  out["vae_decoder/model.onnx_data"] = await bytes(VAE);
  const index = JSON.parse(
    new TextDecoder().decode(await bytes("model_index.json")),
  );
  if (both) {
    for (const path of [CLIP, VAE, "vae/config.json"]) {
      out[path] = await bytes(path);
    }
  } else {
    delete index.vae;
    index.text_encoder = ["diffusers", "OnnxRuntimeModel"];
    index.vae_decoder = ["diffusers", "OnnxRuntimeModel"];
    out["model_index.json"] = JSON.stringify(index);
  }
  return out;
}

const REQUEST = {
  prompt: "a red car and a blue house on grass",
  negativePrompt: "night",
  regions: [{ phrase: "red car", boxes: [[0, 0.5, 0.5, 1]] }],
  width: 48,
  height: 32,
  steps: 2,
  guidance: { steps: 1, iterations: 1 },
} as const;

test("a picture through ONNX text encoder and decoder is the one through our own networks", async () => {
  using backend = new Cpu();
  using own = await open("tiny-scenes", { backend });
  const { rgb } = await own.generate(REQUEST);
  await using folder = await tempFolder(await files());
  using model = await open(folder.path, { backend });
  assert.ok(
    "network" in model.networks.vae &&
      "network" in model.networks.text[0]!.encoder,
  );
  const found = await model.generate(REQUEST);
  const most = found.rgb.reduce(
    (m, v, i) => Math.max(m, Math.abs(v - rgb[i]!)),
    0,
  );
  assert.equal(found.rgb.length, rgb.length);
  assert.ok(most <= 1, `${most} of 255`);
  // Freed and opened again for the next prompt.
  const again = await model.generate(REQUEST, { memory: { freeText: true } });
  const once = await model.generate(REQUEST);
  assert.deepEqual(again.rgb, found.rgb);
  assert.deepEqual(once.rgb, found.rgb);
});

test("text states and pixels through ONNX agree to float32", async () => {
  using backend = new Cpu();
  await using folder = await tempFolder(await files(true));
  using own = await open(folder.path, { backend });
  assert.ok(!("network" in own.networks.vae)); // safetensors win
  const onnx: OnnxPart[] = ["text_encoder", "vae"];
  using model = await open(folder.path, { backend, onnx });
  assert.ok(
    "network" in model.networks.vae &&
      "network" in model.networks.text[0]!.encoder,
  );
  const options = {
    added: undefined,
    sizes: { originalSize: [1, 1], cropTopLeft: [0, 0], targetSize: [1, 1] },
  } as const;
  for (
    const prompt of [
      "",
      "a red car",
      "a yellow star and a green tree in the snow",
    ]
  ) {
    const states = await Promise.all(
      [own, model].map((m) => encodePrompt(m.networks.text, prompt, options)),
    );
    const [a, b] = await backend.read(states.map((s) => s.states));
    const { relL2 } = compare(b!, a!);
    assert.ok(relL2 < 1e-5, `"${prompt}": ${relL2}`);
    for (const { states: x } of states) x.dispose();
  }
  for (const [h, w] of [[8, 8], [5, 9]] as const) {
    using z = backend.upload(rand(3, 4 * h * w, 1), [1, 4, h, w]);
    const [a, b] = await Promise.all(
      [own, model].map((m) => decodeLatent(m.networks.vae, z)),
    );
    assert.deepEqual([b!.width, b!.height], [a!.width, a!.height]);
    const most = b!.rgb.reduce(
      (m, v, i) => Math.max(m, Math.abs(v - a!.rgb[i]!)),
      0,
    );
    assert.ok(most <= 1, `${most} of 255`);
    const tiled = await Promise.all(
      [own, model].map((m) =>
        decodeLatent(m.networks.vae, z, { memory: { tile: 4 } })
      ),
    );
    const off = tiled[1]!.rgb.reduce(
      (m, v, i) => Math.max(m, Math.abs(v - tiled[0]!.rgb[i]!)),
      0,
    );
    assert.ok(off <= 1, `tiles: ${off} of 255`);
  }
});

test("SDXL's second encoder through ONNX gives the same hidden states and pooled text", async () => {
  using backend = new Cpu();
  const config = JSON.parse(
    new TextDecoder().decode(await bytes("text_encoder/config.json")),
  );
  await using folder = await tempFolder({
    "text_encoder_2/model.onnx": await fixture("text_encoder_2.onnx"),
    "text_encoder_2/model.onnx_data": await bytes(CLIP),
  });
  await using source = await openFolder(MODEL);
  const component = await source.component("text_encoder");
  // The export's projection is the first layer's query matrix: the checkpoint has none.
  const projection = "text_projection.weight";
  const query = "text_model.encoder.layers.0.self_attn.q_proj.weight";
  const wider = { ...config, projection_dim: config.hidden_size };
  const tensors = new Map(component.tensors);
  tensors.set(projection, { ...tensors.get(query)!, name: projection });
  using own: TextEncoder = await loadTextEncoder(backend, {
    name: "with a projection",
    config: wider,
    tensors,
    read: (name, options) =>
      component.read(name === projection ? query : name, options),
  }, { projection: true });
  using onnx = await openOnnxText(backend, "text_encoder_2", {
    location: folder.path,
    config: wider,
    name: "test",
  });
  const ids = new Int32Array(77).fill(3);
  ids.set([5, 17, 8, 40, 2, own.config.vocabulary - 1]);
  const a = encodePenultimate(own, ids, true);
  const b = await onnxPenultimate(onnx, ids, true);
  const values = await backend.read([a.states, b.states, a.pooled!, b.pooled!]);
  assert.ok(compare(values[1]!, values[0]!).relL2 < 1e-5);
  assert.ok(compare(values[3]!, values[2]!).relL2 < 1e-5);
  for (const x of [a.states, b.states, a.pooled!, b.pooled!]) x.dispose();
});

test("a decoder with float16 in and out works", async () => {
  using backend = new Cpu();
  const config = JSON.parse(
    new TextDecoder().decode(await bytes("vae/config.json")),
  );
  await using folder = await tempFolder({
    "vae_decoder/model.onnx": await fixture("half_decoder.onnx"),
  });
  using decoder = await openOnnxDecoder(backend, {
    location: folder.path,
    config,
    name: "half",
  });
  using z = backend.upload(
    Float32Array.from({ length: 24 }, (_, i) => i / 32 - 0.3),
    [1, 4, 2, 3],
  );
  const { rgb, width, height } = await decodeLatent(decoder, z);
  assert.deepEqual([width, height], [12, 8]);
  // Each of the first three channels, four times as large, after the scaling factor.
  const value = (c: number, i: number) => (i + 6 * c) / 32 - 0.3;
  for (const [x, y] of [[0, 0], [11, 7], [4, 3]] as const) {
    for (let c = 0; c < 3; c++) {
      const at = Math.floor(y / 4) * 3 + Math.floor(x / 4);
      const wanted = Math.min(
        1,
        Math.max(0, value(c, at) / decoder.config.scalingFactor / 2 + 0.5),
      ) * 255;
      assert.ok(Math.abs(rgb[3 * (12 * y + x) + c]! - wanted) <= 1);
    }
  }
});

test("open() asks for nothing beside a single file, whose URL may be signed", async () => {
  const file = fileOf((await tinyLdm("sd1")).ldm);
  await using server = await serve((request, response) => {
    if (request.url !== "/m.safetensors?signature=x") {
      response.writeHead(403).end();
    } else sendRange(file)(request, response);
  });
  using backend = new Cpu();
  const location = `${server.url}/m.safetensors?signature=x`;
  using model = await open(location, { backend });
  assert.equal(model.name, "m");
  assert.deepEqual(
    server.log.filter((line) => !line.startsWith("/m.safetensors?")),
    [],
  );
  await assert.rejects(
    open(location, { backend, onnx: ["vae"] }),
    /Cannot run vae of m from ONNX: vae_decoder\/model.onnx must exist/,
  );
});

test("open() takes 403 for what a folder at a URL need not have, not for what it must", async () => {
  const all = await files(true);
  for (const name of Object.keys(all)) {
    if (/onnx|vae_decoder/.test(name)) delete all[name];
  }
  const opened = async (denied?: string) => {
    await using server = await serve((request, response) => {
      const name = request.url!.slice(1);
      const file = name === denied ? undefined : all[name];
      if (file === undefined) return void response.writeHead(403).end();
      const bytes = typeof file === "string"
        ? new TextEncoder().encode(file)
        : file;
      sendRange(bytes)(request, response);
    });
    using backend = new Cpu();
    using model = await open(server.url, { backend });
    assert.ok(!("network" in model.networks.vae));
  };
  await opened();
  await opened("winwinlay.json");
  await assert.rejects(
    opened("tokenizer/vocab.json"),
    /tokenizer\/vocab.json: .*current answer is 403/,
  );
  await assert.rejects(opened(VAE), /Cannot open vae of .*answers 403/);
});

test("open() refuses ONNX for a part that the model has not", async () => {
  using backend = new Cpu();
  await assert.rejects(
    open("tiny-scenes", { backend, onnx: ["text_encoder_2"] }),
    /Cannot run text_encoder_2 of tiny-scenes from ONNX: it must be a part of the model: current parts are text_encoder, unet, vae$/,
  );
  assert.equal(backend.memory.liveBytes, 0);
});

const BROKEN: readonly [
  what: string,
  change: (all: Files) => void | Promise<void>,
  message: RegExp,
][] = [
  [
    "no ONNX decoder",
    (all) => void delete all["vae_decoder/model.onnx"],
    /Cannot open .*vae\/config.json|vae of|class in model_index/,
  ],
  ["a cut decoder", (all) => {
    all["vae_decoder/model.onnx"] =
      (all["vae_decoder/model.onnx"] as Uint8Array).slice(0, 2000);
  }, /Cannot read .*vae_decoder\/model.onnx: it must be an ONNX network/],
  [
    "no external data",
    (all) => void delete all["vae_decoder/model.onnx_data"],
    /Cannot read .*vae_decoder\/model.onnx: it must be an ONNX network with all its data/,
  ],
  ["a text that is no ONNX", (all) => {
    all["text_encoder/model.onnx"] = "hello";
  }, /Cannot read .*text_encoder\/model.onnx/],
  ["a UNet that is only ONNX", (all) => {
    delete all[UNET];
    const index = JSON.parse(all["model_index.json"] as string);
    index.unet = ["diffusers", "OnnxRuntimeModel"];
    all["model_index.json"] = JSON.stringify(index);
    all["unet/model.onnx"] = "x";
  }, /guidance needs the UNet's gradient, which ONNX has not/],
];

for (const [what, change, message] of BROKEN) {
  test(`open() refuses a model with ${what}`, async () => {
    const all = await files();
    await change(all);
    await using folder = await tempFolder(all);
    using backend = new Cpu();
    const before = backend.memory.liveBytes;
    await assert.rejects(
      () => open(folder.path, { backend }),
      (error: Error) =>
        message.test(error.message) || assert.fail(error.message),
    );
    assert.equal(backend.memory.liveBytes, before);
  });
}

test("an export whose names or shapes do not fit is refused with what it has", async () => {
  using backend = new Cpu();
  const config = JSON.parse(
    new TextDecoder().decode(await bytes("vae/config.json")),
  );
  const text = JSON.parse(
    new TextDecoder().decode(await bytes("text_encoder/config.json")),
  );
  const decoder = await fixture("half_decoder.onnx");
  await using folder = await tempFolder({
    "vae_decoder/model.onnx": decoder,
    "text_encoder/model.onnx": decoder,
  });
  const location = folder.path;
  await assert.rejects(
    () =>
      openOnnxText(backend, "text_encoder", {
        location,
        config: text,
        name: "x",
      }),
    /its only input must be input_ids: current inputs are latent_sample/,
  );
  const deep = {
    ...config,
    block_out_channels: [8, 8, 8, 8],
    down_block_types: Array(4).fill("DownEncoderBlock2D"),
    up_block_types: Array(4).fill("UpDecoderBlock2D"),
  };
  using other = await openOnnxDecoder(backend, {
    location,
    config: deep,
    name: "x",
  });
  using z = backend.upload(new Float32Array(16), [1, 4, 2, 2]);
  await assert.rejects(
    () => decodeLatent(other, z),
    /sample must be \[1,3,16,16\], as its config says: current shape is \[1,3,8,8\]/,
  );
  using network = await OnnxNetwork.open(location, "vae_decoder");
  await assert.rejects(
    () =>
      network.run("latent_sample", { data: [0], dims: [1, 4, 1, 1] }, [
        "sample",
      ]),
    /must suit it|dims|Cannot run/,
  );
  await assert.rejects(
    () =>
      network.run("latent_sample", { data: [0, 0, 0, 0], dims: [1, 4, 1, 1] }, [
        "image",
      ]),
    /it must give image: current outputs are sample/,
  );
});

test("without onnxruntime-web the message says what to install", async () => {
  await assert.rejects(
    () => onnxRuntime(["./no_such_module.ts"]),
    /the npm package onnxruntime-web must be installed: current error is .*npm install onnxruntime-web/,
  );
});
