/** `help`, `--version`, `inspect`, `doctor` and `demo`: what they print. */
import { strict as assert } from "node:assert";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import project from "../../deno.json" with { type: "json" };
import {
  CSG_DEFAULTS,
  decodePng,
  encodePng,
  methodNames,
  WINWINLAY_DEFAULTS,
} from "../../mod.ts";
import { tempFolder } from "../weights/temp_folder.ts";
import { bytesOf, filesIn, modelWith, run, runChild } from "./harness.ts";

const FLAGS: Readonly<Record<string, string>> = {
  generate:
    "prompt box mask layout from negative template seed best-of steps scheduler spacing guidance-scale size truncate original-size crop target-size preset method output force overlay count seeds attention-maps energy-svg json model variant prediction backend device kernels weights memory onnx energy update eta guided-steps iterations snr rho rho-schedule lambda units distance divergence heads tokens reduction priors raster sites score placement nu nu-factor noise noise-norm guard stop-below energy-floor guidance debug help",
  batch:
    "prompt negative template best-of steps scheduler spacing guidance-scale size truncate original-size crop target-size preset method output force keep-going json model variant prediction backend device kernels weights memory onnx energy update eta guided-steps iterations snr rho rho-schedule lambda units distance divergence heads tokens reduction priors raster sites score placement nu nu-factor noise noise-norm guard stop-below energy-floor guidance debug help",
  demo: "output force seed steps preset backend device kernels json debug help",
  inspect: "prompt phrase model variant json debug help",
  weights: "revision variant endpoint json debug help",
  methods: "json debug help",
  doctor:
    "model size variant prediction backend device kernels weights memory json debug help",
};

for (const [command, flags] of Object.entries(FLAGS)) {
  test(`help of ${command} starts with a command and lists every option`, async () => {
    const { code, out, err } = await run([command, "--help"]);
    assert.deepEqual([code, err], [0, []]);
    assert.deepEqual((await run(["help", command])).out, out);
    const text = out.join("\n");
    assert.match(text, new RegExp(`^\\S.* ${command}`));
    assert.deepEqual(
      [...text.matchAll(/^ {2}(?:-\w, )?--([\w-]+)/gm)].map((match) =>
        match[1]
      ),
      flags.split(" "),
    );
    for (const flag of flags.split(" ").filter((name) => name !== "help")) {
      // Not unknown: whatever else is wrong with it.
      const { err } = await run([command, `--${flag}`, "--no-such-option"]);
      assert.doesNotMatch(
        err.join("\n"),
        new RegExp(`Cannot use --${flag}: .*no such option`),
      );
    }
  });
}

test("help of generate has an option for every option of the method", () => {
  const dashed = Object.keys(WINWINLAY_DEFAULTS).map((key) =>
    key === "steps"
      ? "guided-steps"
      : key.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)
  );
  const listed = FLAGS["generate"]!.split(" ");
  assert.deepEqual(dashed.filter((name) => !listed.includes(name)), []);
});

test("methods lists the methods, and every option of one", async () => {
  const { code, out } = await run(["methods"]);
  assert.equal(code, 0);
  for (const name of methodNames()) {
    assert.ok(out.some((line) => line.startsWith(`${name}: `)), name);
  }
  const lines = (await run(["methods", "csg", "--json"])).out;
  const { name, options } = JSON.parse(lines[0]!);
  assert.equal(name, "csg");
  assert.deepEqual(
    Object.fromEntries(
      options.map((o: { key: string; default: unknown }) => [o.key, o.default]),
    ),
    CSG_DEFAULTS,
  );
});

test("the overview names every command, on stderr when no command is given", async () => {
  const asked = await run(["--help"]);
  assert.deepEqual([asked.code, asked.err], [0, []]);
  for (const command of Object.keys(FLAGS)) {
    assert.match(asked.out[0]!, new RegExp(`\n  ${command} `));
  }
  const bare = await run([]);
  assert.deepEqual([bare.code, bare.out, bare.err], [2, [], asked.out]);
});

test("a child prints the version on stdout, and one line on stderr when it fails", async () => {
  assert.deepEqual(await runChild(["--version"]), {
    code: 0,
    out: [project.version],
    err: [],
  });
  const { code, out, err } = await runChild(["generate", "--promt", "x"]);
  assert.deepEqual([code, out], [2, []]);
  assert.deepEqual(err, [
    "winwinlay: Cannot use --promt: generate has no such option; did you mean --prompt?",
  ]);
});

test("inspect shows tokens and phrases of a prompt", async () => {
  const args = ["inspect", "--prompt", "a red car", "--phrase", "red car"];
  const { code, out } = await run(args);
  assert.equal(code, 0);
  assert.match(
    out.join("\n"),
    /^position .*\n +1 +a .*\n +2 +red .* red car\n/,
  );
  const lines = (await run([...args, "--json"])).out.map((line) =>
    JSON.parse(line)
  );
  assert.deepEqual(
    lines.slice(0, 2).map(({ index, piece, span }) => [index, piece, span]),
    [
      [1, "a", [0, 1]],
      [2, "red", [2, 5]],
    ],
  );
  assert.equal(lines.at(-1).phrase, "red car");
  assert.equal(lines.at(-1).positions[0], 2);
});

test("inspect shows the request in a PNG, and says when there is none", async () => {
  await using folder = await tempFolder({});
  const path = join(folder.path, "a.png");
  const request = { prompt: "a cat", seed: 3 };
  const text = {
    parameters: "a cat\nSteps: 1",
    winwinlay: JSON.stringify(request),
  };
  await writeFile(path, await encodePng(new Uint8Array(12), 2, 2, { text }));
  const { code, out } = await run(["inspect", path]);
  assert.equal(code, 0);
  assert.match(
    out.join("\n"),
    /2x2\n\nparameters:\na cat\nSteps: 1\n\nrequest:\n\{\n {2}"prompt": "a cat"/,
  );
  const [line] = (await run(["inspect", path, "--json"])).out;
  assert.deepEqual(JSON.parse(line!), {
    file: path,
    width: 2,
    height: 2,
    parameters: text.parameters,
    request,
  });
  await writeFile(path, await encodePng(new Uint8Array(12), 2, 2));
  assert.match(
    (await run(["inspect", path])).out.join("\n"),
    /no request of winwinlay inside/,
  );
});

test("inspect lists the tensors of a model and of a safetensors file", async () => {
  const { code, out } = await run(["inspect", "tiny-scenes"]);
  assert.equal(code, 0);
  const text = out.join("\n");
  for (const part of ["text_encoder", "unet", "vae"]) {
    assert.match(
      text,
      new RegExp(
        `^tiny-scenes/${part}  \\d+ tensors, \\d+ values, [\\d.]+ [KM]iB, F\\d+$`,
        "m",
      ),
    );
  }
  assert.match(text, /^ {2}conv_in.bias +F\d+ +\[32\] +\d+ B$/m);
  assert.match(text, /^ {2}block_out_channels: \[32,96,160\]$/m);
  await using folder = await tempFolder({});
  const path = join(folder.path, "clip.safetensors");
  await writeFile(path, await bytesOf("text_encoder/model.safetensors"));
  const lines = (await run(["inspect", path, "--json"])).out.map((line) =>
    JSON.parse(line)
  );
  assert.equal(lines[0].tensors, lines.length - 1);
  assert.deepEqual(Object.keys(lines[1]), [
    "name",
    "tensor",
    "dtype",
    "shape",
    "bytes",
  ]);
});

test("doctor reports and exits with 0, since the cpu backend can always run", async () => {
  const { code, out, err } = await run(["doctor", "--json"]);
  assert.equal(code, 0, err.join("\n"));
  const report = JSON.parse(out[0]!);
  assert.equal(report.winwinlay, project.version);
  assert.deepEqual(
    report.adapters.map(({ choice }: { choice: string }) => choice),
    ["native", "dawn"],
  );
  assert.equal(report.tests.at(-1).backend, "cpu");
  const tested = report.tests.map(({ backend }: { backend: string }) =>
    backend
  );
  assert.ok(tested.includes(report.auto));
  const text = await run(["doctor"]);
  assert.match(
    text.out.join("\n"),
    /^winwinlay .*\n\nnative .*\n {2}cpu +right .*\n\n.+$/s,
  );
});

test("demo writes three pictures from two workers, with the shares of both", async () => {
  await using folder = await tempFolder({});
  const path = join(folder.path, "new", "demo");
  const { code, out, err } = await run([
    "demo",
    "--backend",
    "cpu",
    "--steps",
    "1",
    "-o",
    path,
  ]);
  assert.equal(code, 0, err.join("\n"));
  const paths = ["unguided", "guided", "demo"].map((name) =>
    join(path, `${name}.png`)
  );
  assert.deepEqual(out.slice(-3), paths);
  assert.match(
    out.join("\n"),
    /^attention inside the box +unguided +guided\norange cat +\d+ % +\d+ %\n/,
  );
  const sheet = decodePng(await readFile(paths[2]!));
  assert.ok(sheet.width > 1024 && sheet.height > 512);
  assert.deepEqual(await filesIn(path), [
    "demo.png",
    "guided.png",
    "unguided.png",
  ]);
});

test("inspect names the ONNX parts of a folder, and looks into the hub's cache", async () => {
  await using folder = await tempFolder({});
  await modelWith(join(folder.path, "model"), {
    "text_encoder/model.safetensors": null,
    "text_encoder/model.onnx": "x",
  });
  const { code, out, err } = await run(["inspect", join(folder.path, "model")]);
  assert.deepEqual([code, err], [0, []]);
  const text = out.join("\n");
  assert.match(text, /^model\/text_encoder {2}an ONNX network, model\.onnx$/m);
  assert.match(text, /^model\/unet {2}\d+ tensors/m);
  const other = await run(["inspect", "no-such-owner/name"]);
  assert.equal(other.code, 3);
  assert.match(other.err[0]!, /run `weights pull no-such-owner\/name`/);
});
