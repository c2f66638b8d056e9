/** What a user can get wrong: each with its exit code, one line on stderr, nothing else. */
import { strict as assert } from "node:assert";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { COMMANDS } from "../../cli/commands.ts";
import { checkTargets, writeFiles } from "../../cli/files.ts";
import { parseFlags } from "../../cli/flags.ts";
import { readRequest } from "../../cli/request.ts";
import { encodePng } from "../../mod.ts";
import { tempFolder } from "../weights/temp_folder.ts";
import {
  bytesOf,
  filesIn,
  jsonWith,
  modelWith,
  run,
  tensorsWith,
} from "./harness.ts";

/** Words, expected exit code, and what the line says. `@` at the start of a word, or after `=`, is the test's folder. */
type Row = readonly [
  args: readonly string[],
  code: number,
  message: RegExp,
  prepare?: (folder: string) => Promise<unknown>,
];

const CAR = [
  "generate",
  "--prompt",
  "a red car",
  "--backend",
  "cpu",
  "-o",
  "@/out.png",
];
const BOX = [...CAR, "--box", "red car=0,0,0.5,0.5"];
const file = (name: string, content: string | Uint8Array) => (folder: string) =>
  writeFile(join(folder, name), content);
const layout = (value: unknown) => file("layout.json", JSON.stringify(value));
/** A grey PNG. */
const mask = (
  name: string,
  width: number,
  height: number,
  grey: (index: number) => number,
) =>
async (folder: string) =>
  await file(
    name,
    await encodePng(
      Uint8Array.from(
        { length: width * height * 3 },
        (_, i) => grey(Math.floor(i / 3)),
      ),
      width,
      height,
    ),
  )(folder);
const LAYOUT = [
  "generate",
  "--layout",
  "@/layout.json",
  "--backend",
  "cpu",
  "-o",
  "@/out.png",
];
const FROM = [
  "generate",
  "--from",
  "@/in.png",
  "--backend",
  "cpu",
  "-o",
  "@/out.png",
];
const REQUEST = {
  model: "tiny-scenes",
  prompt: "a red car",
  steps: 1,
  width: 64,
  height: 64,
};
const png =
  (text: Record<string, string>, change = (bytes: Uint8Array) => bytes) =>
  async (folder: string) =>
    await file(
      "in.png",
      change(await encodePng(new Uint8Array(12), 2, 2, { text })),
    )(folder);
const request = (changes: Record<string, unknown>) =>
  png({ winwinlay: JSON.stringify({ ...REQUEST, ...changes }) });
const region = (changes: Record<string, unknown>) =>
  layout({
    prompt: "a red car",
    regions: [{ phrase: "car", boxes: [[0, 0, 1, 1]], ...changes }],
  });

const OPTIONS: readonly Row[] = [
  [
    ["genrate"],
    2,
    /^winwinlay: Cannot run "genrate": .*did you mean generate\?$/,
  ],
  [["toString"], 2, /Cannot run "toString"/],
  [["help", "demmo"], 2, /did you mean demo\?/],
  [["doctor", "now"], 2, /Cannot use "now": doctor takes no words/],
  [
    [...CAR, "--sed", "3"],
    2,
    /Cannot use --sed: generate has no such option; did you mean --seed\?/,
  ],
  [[...CAR, "--guidance-scal", "3"], 2, /did you mean --guidance-scale\?/],
  [[...CAR, "--guidance"], 2, /--guidance: it must have a value, KEY=VALUE/],
  [
    [...CAR, "--guidance", "snr"],
    2,
    /--guidance: it must be KEY=VALUE, such as iterations=3: current "snr"/,
  ],
  [
    [...CAR, "--guidance", "snrr=1"],
    2,
    /--guidance snrr: winwinlay has no such option: .*did you mean snr\?/,
  ],
  [
    [...CAR, "--guidance", "stop-below=soon"],
    2,
    /--guidance stopBelow: it must be a number or none: current "soon"/,
  ],
  [
    [...CAR, "--snr", "1", "--guidance", "snr=2"],
    2,
    /--guidance snr: snr must be given once/,
  ],
  [
    [...CAR, "--method", "csgg"],
    2,
    /--method: it must be .*did you mean csg\?/,
  ],
  [
    [...CAR, "--method", "csg", "--snr", "0.1"],
    2,
    /--snr: csg has no such option: current ones are steps, .*did you mean \w+\?/,
  ],
  [
    [...CAR, "--method", "csg", "--tokens", "mean_energy"],
    2,
    /--tokens: it must be last or mean_map: current "mean_energy"/,
  ],
  [
    [...CAR, "--method", "csg", "--guidance", "redistribute=yes"],
    2,
    /--guidance redistribute: it must be on or off: current "yes"/,
  ],
  [
    [...CAR, "--method", "boxdiff", "--sites", "middle_and_first_up"],
    2,
    /Cannot average attention: sites must have one grid/,
  ],
  [["methods", "winwinley"], 2, /must be winwinlay .*did you mean winwinlay/],
  [[...CAR, "-x"], 2, /Cannot use -x: .*did you mean -[oh]\?/],
  [
    ["demo", "--prompt", "x"],
    2,
    /Cannot use --prompt: demo has no such option/,
  ],
  [
    ["generate", "--prompt"],
    2,
    /Cannot use --prompt: it must have a value, TEXT: current line ends/,
  ],
  [["generate", "--prompt", "--seed", "1"], 2, /next word is --seed/],
  [[...CAR, "--json=1"], 2, /--json: it takes no value: current "1"/],
  [[...CAR, "--seed", "1", "--seed", "2"], 2, /Cannot use --seed 2 times/],
  [["generate", "a red car"], 2, /Cannot use "a red car"/],
  [[...CAR, "--seed", "abc"], 2, /--seed: it must be a number: current "abc"/],
  [[...CAR, "--seed", ""], 2, /--seed: it must be a number/],
  [[...CAR, "--seed", "-1"], 2, /seed must be from 0 to \d+: current -1/],
  [
    [...CAR, "--scheduler", "eular"],
    2,
    /--scheduler: it must be ddim or .*did you mean euler\?/,
  ],
  [[...CAR, "--seeds", "1,x"], 2, /--seeds: it must be a number: current "x"/],
  [[...CAR, "--seeds", "1,1"], 2, /--seeds: it must be a list of .*different/],
  [[...CAR, "--seeds", "1", "--count", "2"], 2, /--count with --seeds/],
  [[...CAR, "--seeds", "1,-2"], 2, /seed must be from 0 to/],
  [[...CAR, "--weights", "f8"], 2, /--weights: it must be auto or f32 or f16/],
  [
    [...CAR, "--onnx", "unet"],
    2,
    /--onnx: parts must be text_encoder, .*"unet"/,
  ],
  [
    [...CAR, "--onnx", "vae"],
    3,
    /Cannot run vae of tiny-scenes from ONNX: vae_decoder\/model.onnx must exist/,
  ],
  [[...CAR, "--memory", "6"], 2, /--memory: it must be a size such as 6GB/],
  [[...CAR, "--memory", "0GB"], 2, /--memory: it must be a size such as 6GB/],
  [
    [...CAR, "--memory", "1MB"],
    5,
    /Cannot paint 128x128 with tiny-scenes: .*current least is 0.0\d GB/,
  ],
  [
    [...CAR, "--original-size", "128x128"],
    2,
    /originalSize goes with SDXL models: current model is "tiny-scenes"/,
  ],
  [[...CAR, "--crop", "1x2"], 2, /--crop: it must be two whole numbers/],
  [["doctor", "--memory", "6GB"], 2, /--memory: it goes with --model/],
  [["doctor", "--size", "64"], 2, /--size: it goes with --model/],
  [
    ["doctor", "--model", "@/none"],
    3,
    /must be a folder with model_index.json/,
  ],
  [[...CAR, "--seed", "1.5"], 2, /seed must be a whole number: current 1.5/],
  [
    [...CAR, "--seed", "9007199254740991", "--count", "2"],
    2,
    /seed must be from 0/,
  ],
  [[...CAR, "--steps", "0"], 2, /steps must be from 1 to 1000: current 0/],
  [[...CAR, "--steps", "1001"], 2, /steps must be from 1 to 1000/],
  [
    [...CAR, "--guidance-scale", "1e9"],
    2,
    /guidanceScale must be from 0 to 100/,
  ],
  [
    [...CAR, "--size", "12y"],
    2,
    /--size: it must be pixels, such as 128 or 128x192: current "12y"/,
  ],
  [[...CAR, "--size", "62"], 2, /width must be a multiple of 4: current 62/],
  [[...CAR, "--size", "64x0"], 2, /height must be from 4/],
  [[...CAR, "--size", "999999"], 2, /width must be from 4 to 4096/],
  [[...CAR, "--count", "0"], 2, /--count: it must be a whole number from 1/],
  [[...CAR, "--count", "1.5"], 2, /--count: it must be a whole number/],
  [
    [...CAR, "--method", "winlay"],
    2,
    /--method: it must be winwinlay or .*none: .*did you mean winwinlay\?/,
  ],
  [[...CAR, "--preset", "best"], 2, /--preset: it must be model or paper/],
  [[...CAR, "--heads", "mean_maps"], 2, /did you mean mean_map\?/],
  [[...CAR, "--rho", "5"], 2, /--rho: it must be two numbers/],
  [[...CAR, "--rho", "5,-1"], 2, /guidance.rho must be two numbers from 0/],
  [
    [...CAR, "--nu", "per_image"],
    2,
    /--nu: it must be per_iteration, per_step or a number/,
  ],
  [[...CAR, "--sites", "upper"], 2, /guidance.sites must be/],
  [
    [...CAR, "--sites", "up.1,up.1"],
    2,
    /guidance.sites must be different names/,
  ],
  [
    [...CAR, "--sites", "up_blocks.9.attn2"],
    2,
    /Cannot guide up_blocks.9.attn2: it must be one of/,
  ],
  [[...CAR, "--stop-below", "soon"], 2, /--stop-below: it must be a number/],
  [
    [...CAR, "--method", "none", "--snr", "0.1"],
    2,
    /guidance "none" takes no options: current snr/,
  ],
  [[...CAR, "--iterations", "0"], 2, /guidance.iterations must be from 1/],
  [[...CAR, "--backend", "cpu"], 2, /Cannot use --backend 2 times/],
  [
    ["generate", "--prompt", "x", "--backend", "gpu"],
    2,
    /--backend: it must be auto or webgpu or cpu/,
  ],
  [[...CAR, "--device", "vulkan"], 2, /--device: it must be native or dawn/],
  [[...CAR, "--variant", "fp8"], 2, /--variant: it must be fp16/],
  [[...CAR, "--template", "no slot"], 2, /template must hold \{\} once/],
];

const LAYOUTS: readonly Row[] = [
  [
    ["generate", "--backend", "cpu", "-o", "@/out.png"],
    2,
    /there must be a prompt/,
  ],
  [
    ["generate", "--prompt", " ", "--box", "x=0,0,1,1", "-o", "@/out.png"],
    2,
    /prompt with regions must not be empty/,
  ],
  [
    [...CAR, "--box", "dog=0,0,1,1"],
    2,
    /Cannot place "dog": it must occur in the prompt/,
  ],
  [[...CAR, "--negative", "x ".repeat(100)], 2, /Cannot .*75/],
  [
    ["generate", "--prompt", "x ".repeat(100), "-o", "@/out.png"],
    2,
    /Cannot .*75/,
  ],
  [
    [...CAR, "--box", "red car"],
    2,
    /Cannot read box "red car": it must be a phrase, an equals sign and four numbers/,
  ],
  [
    [...CAR, "--box", "red car=0,0,1"],
    2,
    /every box must be four numbers: current 3/,
  ],
  [
    [...CAR, "--box", "red car=0,0,1,x"],
    2,
    /every coordinate must be a number: current "x"/,
  ],
  [[...CAR, "--box", "red car=0.5,0,0.2,1"], 2, /Cannot use .*0\.5,0,0\.2,1/],
  [[...CAR, "--box", "red car=2,2,3,3"], 2, /Cannot use .*2,2,3,3/],
  [
    [...CAR, "--mask", "red car"],
    2,
    /Cannot use --mask: it must be a phrase, an equals sign and a PNG.*current "red car"/,
  ],
  [
    [...CAR, "--mask", "red car=@/car.png"],
    2,
    /Cannot read mask .*car.png: .*path has no file/,
  ],
  [
    [...CAR, "--mask", "red car=@/car.png"],
    2,
    /Cannot read mask .*car.png: it must start with the PNG signature/,
    file("car.png", "no PNG"),
  ],
  [
    [...CAR, "--mask", "red car=@/car.png"],
    2,
    /Cannot use mask of region 0 "red car": some of it must be white, which is 128 to 255: current brightest is 127/,
    mask("car.png", 8, 8, () => 127),
  ],
  [
    [...CAR, "--mask", "red car=@/car.png"],
    2,
    /must have the proportions of the picture, 128x128: current 8x4/,
    mask("car.png", 8, 4, () => 255),
  ],
  [
    [...CAR, "--mask", "red car=@/car.png"],
    2,
    /it must cover at least half of a cell of the 8x8 attention map.*current most is 0.25 of a cell/,
    mask("car.png", 16, 16, (i) => i ? 0 : 255),
  ],
  [
    [...CAR, "--box", "red car=0.03,0.5,0.09,0.6", "--raster", "trunc"],
    2,
    /Cannot guide box 0 .* raster "trunc" must leave it a cell of the 8x8 attention map/,
  ],
  [
    LAYOUT,
    2,
    /Cannot read mask .*none.png: .*path has no file/,
    layout({ prompt: "a cat", regions: [{ phrase: "cat", mask: "none.png" }] }),
  ],
  [
    LAYOUT,
    2,
    /region 0 "cat": it must have either boxes or a mask: current has both/,
    layout({
      prompt: "a cat",
      regions: [{
        phrase: "cat",
        boxes: [[0, 0, 1, 1]],
        mask: { width: 1, height: 1, data: "0 1" },
      }],
    }),
  ],
  [[...BOX, "--best-of", "0"], 2, /bestOf must be from 1 to 1000: current 0/],
  [[...CAR, "--best-of", "2"], 2, /bestOf above 1 must come with regions/],
  [[...CAR, "--best-of", "two"], 2, /--best-of: it must be a number/],
  [
    [...CAR, "--overlay"],
    2,
    /Cannot draw boxes: with --overlay there must be one/,
  ],
  [LAYOUT, 2, /Cannot read layout .*layout.json: .*path has no file/],
  [
    LAYOUT,
    2,
    /Cannot read layout .*it is no file/,
    (folder) => mkdir(join(folder, "layout.json")),
  ],
  [LAYOUT, 2, /it must be JSON/, file("layout.json", "{prompt: 1}")],
  [
    LAYOUT,
    2,
    /it must be JSON/,
    file("layout.json", new Uint8Array([0x22, 0xff, 0x22])),
  ],
  [LAYOUT, 2, /it must be an object.*current list/, layout([])],
  [LAYOUT, 2, /it must be an object.*current null/, layout(null)],
  [
    LAYOUT,
    2,
    /"regoins"; did you mean "regions"\?/,
    layout({ prompt: "x", regoins: [] }),
  ],
  [LAYOUT, 2, /prompt must be a string: current 3/, layout({ prompt: 3 })],
  [
    LAYOUT,
    2,
    /steps must be a number: current "ten"/,
    layout({ prompt: "x", steps: "ten" }),
  ],
  [
    LAYOUT,
    2,
    /did you mean "snr"\?/,
    layout({ prompt: "x", guidance: { snrr: 1 } }),
  ],
  [
    [...LAYOUT, "--snr", "0.1"],
    2,
    /guidance: it must be an object/,
    layout({ prompt: "x", guidance: [] }),
  ],
  [
    LAYOUT,
    2,
    /Cannot use region 0: .*"box"/,
    layout({ prompt: "x", regions: [{ phrase: "x", box: [0, 0, 1, 1] }] }),
  ],
  [LAYOUT, 2, /region 0/, region({ boxes: "0,0,1,1" })],
  [LAYOUT, 2, /region 0/, region({ boxes: [[0, 0, 1, null]] })],
  [LAYOUT, 2, /weight/, region({ weight: -1 })],
  [
    LAYOUT,
    2,
    /occurrence must be below 1: current 1/,
    region({ occurrence: 1 }),
  ],
  [
    LAYOUT,
    2,
    /32/,
    layout({
      prompt: "x",
      regions: Array(33).fill({ phrase: "x", boxes: [[0, 0, 1, 1]] }),
    }),
  ],
  [
    LAYOUT,
    2,
    /its model must be at hand: current "sd15"; say where it is with --model/,
    layout({ prompt: "x", model: "sd15" }),
  ],
];

const FILES: readonly Row[] = [
  [
    CAR,
    2,
    /Cannot write .*out.png: it must not be there yet: .*--force/,
    file("out.png", "mine"),
  ],
  [
    [...BOX, "--overlay"],
    2,
    /out.boxes.png: it must not be there yet/,
    file("out.boxes.png", "mine"),
  ],
  [
    [...CAR, "--count", "3"],
    2,
    /out-3.png: it must not be there yet/,
    file("out-3.png", "mine"),
  ],
  [
    [...CAR, "--force"],
    2,
    /current path is a folder/,
    (folder) => mkdir(join(folder, "out.png")),
  ],
  [
    ["generate", "--prompt", "x", "-o", "@/no/out.png"],
    2,
    /its folder must exist/,
  ],
  [
    ["generate", "--prompt", "x", "-o", "@/out.jpg"],
    2,
    /its name must end in .png/,
  ],
  [["generate", "--prompt", "x", "-o", "@"], 2, /its name must end in .png/],
  [
    ["demo", "-o", "@/a.txt"],
    2,
    /its folder must exist/,
    file("a.txt", "mine"),
  ],
  [
    ["demo", "-o", "@"],
    2,
    /demo.png: it must not be there yet/,
    file("demo.png", "mine"),
  ],
  [["demo", "--steps", "0", "-o", "@/demo"], 2, /steps must be from 1/],
  [FROM, 2, /Cannot read PNG .*in.png: .*path has no file/],
  [FROM, 2, /Cannot read .*in.png: it must/, file("in.png", "not a picture")],
  [FROM, 2, /Cannot read .*in.png: it must/, file("in.png", "")],
  [
    FROM,
    2,
    /must hold a request under "winwinlay": current texts are none/,
    png({}),
  ],
  [FROM, 2, /current texts are parameters/, png({ parameters: "a cat" })],
  [FROM, 2, /its request must be JSON/, png({ winwinlay: "{" })],
  [
    FROM,
    2,
    /Cannot use the request of .*in.png: it must be an object/,
    png({ winwinlay: "3" }),
  ],
  [FROM, 2, /steps must be from 1/, request({ steps: -5 })],
  [
    FROM,
    2,
    /keys must be .*"__proto__"/,
    png({ winwinlay: '{"prompt":"x","__proto__":{"steps":1}}' }),
  ],
  [FROM, 2, /width must be a multiple of 4/, request({ width: 65 })],
  [FROM, 2, /its model must be at hand/, request({ model: "sd15" })],
  [
    [...FROM, "--model", "tiny-scenes"],
    2,
    /its model must be the open one, "tiny-scenes": current "sd15"/,
    request({ model: "sd15" }),
  ],
  [
    FROM,
    2,
    /Cannot read .*in.png/,
    png({ winwinlay: "{}" }, (bytes) => bytes.slice(0, -20)),
  ],
  [
    FROM,
    2,
    /Cannot read .*in.png/,
    png({ winwinlay: "{}" }, (bytes) => bytes.with(50, 0x41)),
  ],
  [["inspect"], 2, /either a file or folder, or --prompt: current neither/],
  [["inspect", "x.png", "--prompt", "x"], 2, /current both/],
  [
    ["inspect", "x.png", "--phrase", "x"],
    2,
    /Cannot use --phrase: it goes with --prompt/,
  ],
  [
    ["inspect", "--prompt", "a cat", "--phrase", "dog"],
    2,
    /Cannot place "dog"/,
  ],
  [["inspect", "@/in.png"], 2, /path has no file/],
  [
    ["inspect", "@/in.png"],
    2,
    /Cannot read .*in.png/,
    file("in.png", "GIF89a"),
  ],
  [
    ["inspect", "@/in.txt"],
    2,
    /must be a PNG, a safetensors file or a model folder/,
    file("in.txt", "hello"),
  ],
];

const CLIP = "text_encoder/model.safetensors";
const UNET = "unet/diffusion_pytorch_model.safetensors";
const MODEL = [...CAR, "--size", "64", "--steps", "1", "--model", "@/model"];
const model =
  (changes: () => Record<string, unknown>) => async (folder: string) => {
    const ready: Record<string, string | Uint8Array | null> = {};
    for (const [name, content] of Object.entries(changes())) {
      ready[name] = await content as string | Uint8Array | null;
    }
    await modelWith(join(folder, "model"), ready);
  };
const json = (name: string, changes: Record<string, unknown>) =>
  model(() => ({ [name]: jsonWith(name, changes) }));

const WEIGHTS: readonly Row[] = [
  [
    [...CAR, "--model", "sd15"],
    3,
    /Cannot open model "sd15": it must be tiny-scenes, a diffusers folder or a \.safetensors file/,
  ],
  [[...CAR, "--model", "@/none"], 3, /must be a folder with model_index.json/],
  [
    [...CAR, "--model", "ftp://host/sd15"],
    3,
    /http: or https: URL: current scheme is ftp:/,
  ],
  [[...CAR, "--model", "http://127.0.0.1:9/sd15"], 3, /Cannot .*127.0.0.1:9/],
  [[...CAR, "--variant", "fp16"], 3, /must have one of .*fp16.safetensors/],
  [
    MODEL,
    3,
    /its _class_name must be StableDiffusionPipeline or .*"FluxPipeline"/,
    json("model_index.json", { _class_name: "FluxPipeline" }),
  ],
  [
    MODEL,
    3,
    /text_encoder_2.config.json: the file must exist/,
    json("model_index.json", { _class_name: "StableDiffusionXLPipeline" }),
  ],
  [
    MODEL,
    3,
    /its class in model_index.json must be UNet2DConditionModel/,
    json("model_index.json", { unet: ["diffusers", "SD3Transformer2DModel"] }),
  ],
  [
    MODEL,
    3,
    /config key "act_fn" must be .*: current "gelu"/,
    json("unet/config.json", { act_fn: "gelu" }),
  ],
  [
    MODEL,
    3,
    /Cannot use model\/unet: config key/,
    json("unet/config.json", { addition_embed_type: "text_time" }),
  ],
  [
    MODEL,
    3,
    /pipeline and UNet must both be SDXL's or neither/,
    json("unet/config.json", {
      addition_embed_type: "text_time",
      addition_time_embed_dim: 8,
      projection_class_embeddings_input_dim: 80,
    }),
  ],
  [
    MODEL,
    3,
    /Cannot /,
    json("scheduler/scheduler_config.json", { prediction_type: "sample" }),
  ],
  [
    MODEL,
    3,
    /Cannot read .*winwinlay.json: .*"snrr"/,
    model(() => ({ "winwinlay.json": '{"guidance":{"snrr":1}}' })),
  ],
  [
    MODEL,
    3,
    /Cannot read .*winwinlay.json: .*csg: .*"scal"/,
    model(() => ({ "winwinlay.json": '{"methods":{"csg":{"scal":1}}}' })),
  ],
  [MODEL, 3, /vocab.json/, model(() => ({ "tokenizer/vocab.json": "{}" }))],
  [
    MODEL,
    3,
    /merges.txt: the file must exist/,
    model(() => ({ "tokenizer/merges.txt": null })),
  ],
  [
    MODEL,
    3,
    /config.json.*must exist/,
    model(() => ({ "unet/config.json": null })),
  ],
  [
    MODEL,
    3,
    /pickle files are not read/,
    model(() => ({ [CLIP]: null, "text_encoder/pytorch_model.bin": "pickle" })),
  ],
  [
    MODEL,
    3,
    /Cannot .*model.safetensors/,
    model(() => ({
      [CLIP]: bytesOf(CLIP).then((bytes) => bytes.slice(0, -100)),
    })),
  ],
  [
    MODEL,
    3,
    /Cannot .*model.safetensors/,
    model(() => ({
      [CLIP]: bytesOf(CLIP).then((bytes) => bytes.slice(0, 100)),
    })),
  ],
  [
    MODEL,
    3,
    /must be .*\[1, 96\]|shape/,
    model(() => ({
      [CLIP]: tensorsWith(CLIP, (tensors) => {
        const [name, tensor] = [...tensors].find(([, { shape }]) =>
          shape.length === 1
        )!;
        tensors.set(name, { ...tensor, shape: [1, ...tensor.shape] });
      }),
    })),
  ],
  [
    MODEL,
    3,
    /it must hold tensor/,
    model(() => ({
      [CLIP]: tensorsWith(
        CLIP,
        (tensors) => tensors.delete([...tensors.keys()].at(-1)!),
      ),
    })),
  ],
  [
    MODEL,
    3,
    /extra/,
    model(() => ({
      [UNET]: tensorsWith(UNET, (tensors) =>
        tensors.set("extra", {
          dtype: "F32",
          shape: [1],
          data: new Float32Array(1),
        })),
    })),
  ],
  [["inspect", "@/none"], 3, /must be a folder with model_index.json/],
  [
    ["inspect", "@/x.safetensors"],
    3,
    /Cannot open .*x.safetensors: the file must exist/,
  ],
  [
    ["inspect", "@/x.safetensors"],
    3,
    /Cannot read .*x.safetensors/,
    file("x.safetensors", "12345678{}"),
  ],
  [
    ["inspect", "--prompt", "x", "--variant", "fp16"],
    2,
    /Cannot use --variant: it goes with a model/,
  ],
  [
    ["inspect", "@/in.png", "--variant", "fp16"],
    2,
    /Cannot use --variant: it goes with a model/,
    png({}),
  ],
  [
    [...CAR, "--device", "dawn"],
    2,
    /Cannot use --device with --backend cpu/,
  ],
  [
    CAR,
    2,
    /Cannot write .*out\.png: it must not be there yet: current path is a file/,
    (folder) => symlink(join(folder, "none"), join(folder, "out.png")),
  ],
  [
    [...CAR.slice(0, -1), `@/${"x".repeat(300)}.png`],
    2,
    /it must be possible: current error is ENAMETOOLONG/,
  ],
  [
    ["inspect", "--prompt", "x", "--model", "@/none"],
    3,
    /must be a folder with model_index.json/,
  ],
];

for (
  const [title, rows] of Object.entries({ OPTIONS, LAYOUTS, FILES, WEIGHTS })
) {
  rows.forEach(([args, code, message, prepare], i) => {
    test(`the command line refuses ${title.toLowerCase()} ${i}: ${message.source}`, async () => {
      await using folder = await tempFolder({});
      await prepare?.(folder.path);
      const before = await filesIn(folder.path);
      const outcome = await run(
        args.map((word) => word.replace(/(?<=^|=)@/, folder.path)),
      );
      assert.equal(outcome.code, code, outcome.err.join("\n"));
      assert.deepEqual(outcome.out, []);
      assert.equal(outcome.err.length, 1, outcome.err.join("\n"));
      assert.match(outcome.err[0]!, message);
      assert.match(outcome.err[0]!, /^winwinlay: Cannot /);
      assert.doesNotMatch(outcome.err[0]!, /\n|undefined|\[object/);
      assert.deepEqual(await filesIn(folder.path), before);
    });
  });
}

test("the command line exits with 4 when the device that was asked for is missing", async () => {
  const owner = Object.getPrototypeOf(globalThis.navigator);
  const gpu = Object.getOwnPropertyDescriptor(owner, "gpu");
  await using folder = await tempFolder({});
  Object.defineProperty(owner, "gpu", {
    value: undefined,
    configurable: true,
  });
  try {
    const { code, out, err } = await run([
      "generate",
      "--prompt",
      "x",
      "--device",
      "native",
      "-o",
      join(folder.path, "out.png"),
    ]);
    assert.deepEqual([code, out], [4, []]);
    assert.match(
      err.join("\n"),
      /^winwinlay: Cannot open a native device: [^\n]*$/,
    );
  } finally {
    if (gpu) Object.defineProperty(owner, "gpu", gpu);
  }
});

test("the command line shows a stack only when asked", async () => {
  const args = ["generate", "--prompt", "x", "-o", "/no/such/out.png"];
  assert.equal((await run(args)).err.length, 1);
  assert.match(
    (await run([...args, "--debug"])).err.join("\n"),
    /\n\s+at .*cli\/files\.ts/,
  );
});

test("files are not written over one that came in the meantime, unless forced", async () => {
  await using folder = await tempFolder({});
  const path = join(folder.path, "a.png");
  const { signal } = new AbortController();
  const write = (byte: number, force: boolean) =>
    writeFiles([{ path, bytes: Uint8Array.of(byte) }], signal, { force });
  await checkTargets([path], { force: false });
  await writeFile(path, "x");
  await assert.rejects(() => write(1, false), /Cannot write .*a\.png.*EEXIST/);
  assert.equal(String(await readFile(path)), "x");
  await write(2, true);
  assert.deepEqual([...await readFile(path)], [2]);
  assert.deepEqual(await filesIn(folder.path), ["a.png"]);
});

test("--from keeps the method under another preset, and sizes that were the picture's follow it", async () => {
  await using folder = await tempFolder({});
  const path = join(folder.path, "in.png");
  const old = {
    ...REQUEST,
    originalSize: [64, 64],
    targetSize: [32, 32],
    guidance: { method: "rnb", scale: 7 },
    steps: 3,
  };
  const text = { winwinlay: JSON.stringify(old) };
  await writeFile(path, await encodePng(new Uint8Array(12), 2, 2, { text }));
  const read = async (...more: string[]): Promise<Record<string, unknown>> => {
    const flags = COMMANDS["generate"]!.flags.flatMap(([, list]) => list);
    const words = ["--from", path, ...more];
    return { ...await readRequest(parseFlags(words, "generate", flags)) };
  };
  const paper = await read("--preset", "paper");
  assert.deepEqual([paper["guidance"], paper["steps"]], [
    { method: "rnb" },
    undefined,
  ]);
  const { originalSize, targetSize, width } = await read("--size", "96");
  assert.deepEqual([originalSize, targetSize, width], [
    undefined,
    [32, 32],
    96,
  ]);
  assert.deepEqual((await read()).originalSize, [64, 64]);
});
