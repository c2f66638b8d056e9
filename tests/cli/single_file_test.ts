/** The command line with a model in one .safetensors file, on disk and from a URL. */
import { strict as assert } from "node:assert";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { decodePng } from "../../mod.ts";
import { sendRange, serve } from "../weights/http_server.ts";
import { tempFolder } from "../weights/temp_folder.ts";
import { fileOf, tinyLdm } from "../weights/tiny_ldm.ts";
import { run } from "./harness.ts";

const { ldm } = await tinyLdm("sd1");
const BYTES = fileOf(ldm, { "modelspec.title": "tiny" });
const CAR = ["generate", "--prompt", "a red car", "--backend", "cpu"];
const SMALL = ["--size", "16", "--steps", "1", "--method", "none"];

async function pixels(path: string): Promise<Uint8Array> {
  return decodePng(await readFile(path)).rgb;
}

test("generate takes a .safetensors file, its URL, and --prediction", async () => {
  await using temp = await tempFolder({ "one.safetensors": BYTES });
  await using server = await serve(sendRange(BYTES));
  const painted: Uint8Array[] = [];
  for (
    const [i, words] of [
      ["--model", join(temp.path, "one.safetensors")],
      ["--model", `${server.url}/one.safetensors?download=true`],
      [
        "--model",
        join(temp.path, "one.safetensors"),
        "--prediction",
        "v_prediction",
      ],
    ].entries()
  ) {
    const output = join(temp.path, `${i}.png`);
    const { code, err } = await run([...CAR, ...SMALL, ...words, "-o", output]);
    assert.equal(code, 0, err.join("\n"));
    painted.push(await pixels(output));
  }
  assert.deepEqual(painted[1], painted[0]);
  assert.notDeepEqual(painted[2], painted[0]);
});

test("generate refuses a single file's faults and --prediction for a folder", async () => {
  const lora = new Map(ldm).set("lora_unet_conv_in.alpha", {
    dtype: "F16",
    shape: [1],
    data: new Uint16Array(1),
  });
  await using temp = await tempFolder({
    "merge.safetensors": fileOf(lora),
    "v1.ckpt": "PK",
  });
  const rows: readonly (readonly [string[], number, RegExp])[] = [
    [["--model", join(temp.path, "merge.safetensors")], 3, /a LoRA must be/],
    [["--model", join(temp.path, "v1.ckpt")], 3, /a pickle file/],
    [["--model", join(temp.path, "no.safetensors")], 3, /must exist|no file/],
    [["--prediction", "epsilon"], 3, /must be for a single file/],
    [["--prediction", "v"], 2, /epsilon or v_prediction/],
  ];
  for (const [words, code, message] of rows) {
    const output = join(temp.path, "out.png");
    const outcome = await run([...CAR, ...words, "-o", output]);
    assert.equal(outcome.code, code, outcome.err.join("\n"));
    assert.equal(outcome.err.length, 1);
    assert.match(outcome.err[0]!, message);
  }
});

test("inspect shows a single file by its networks, and a faulty one as it is", async () => {
  const lame = new Map(ldm);
  lame.delete("first_stage_model.decoder.conv_out.bias");
  await using temp = await tempFolder({
    "one.safetensors": BYTES,
    "lame.safetensors": fileOf(lame),
  });
  const path = join(temp.path, "one.safetensors");
  const { code, out, err } = await run(["inspect", path, "--json"]);
  assert.equal(code, 0, err.join("\n"));
  const lines = out.map((line) => JSON.parse(line));
  assert.deepEqual(lines[0], {
    name: "one",
    family: "sd1",
    prediction: "epsilon",
    metadata: { "modelspec.title": "tiny" },
  });
  assert.deepEqual(
    lines.filter((line) => line.config).map((line) => line.name),
    ["one/text_encoder", "one/unet", "one/vae"],
  );
  assert.ok(
    lines.some((line) =>
      line.tensor === "down_blocks.0.resnets.0.conv1.weight"
    ),
  );

  const faulty = await run(["inspect", join(temp.path, "lame.safetensors")]);
  assert.equal(faulty.code, 0);
  assert.match(
    faulty.err[0]!,
    /^note: .*decoder\.conv_out\.bias \(diffusers: decoder\.conv_out\.bias/,
  );
  assert.ok(faulty.out.some((line) => line.includes("model.diffusion_model.")));

  const tokens = await run([
    "inspect",
    "--prompt",
    "a red car",
    "--model",
    path,
    "--json",
  ]);
  assert.equal(JSON.parse(tokens.out[1]!).id, 736);
});
