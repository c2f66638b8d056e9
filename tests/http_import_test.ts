/** The toolkit from a web server, without import map, config or install: as `deno run https://...` has it. */
import { strict as assert } from "node:assert";
import { readFile, writeFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { decodePng } from "../mod.ts";
import { runChild } from "./cli/harness.ts";
import { sendRange, serve, type TestServer } from "./weights/http_server.ts";
import { tempFolder } from "./weights/temp_folder.ts";
import { fileOf, tinyLdm } from "./weights/tiny_ldm.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const TYPES: Readonly<Record<string, string>> = {
  ".ts": "application/typescript",
  ".json": "application/json",
  ".wgsl": "text/plain",
  ".txt": "text/plain",
};
// What a bare folder has: neither the import map nor the packages of this repository.
const BARE = { flags: ["--no-config", "--no-lock"] };

function serveRepository(): Promise<TestServer> {
  return serve(async (request, response) => {
    const { pathname } = new URL(request.url!, "http://host");
    try {
      const bytes = await readFile(join(ROOT, decodeURIComponent(pathname)));
      const type = TYPES[extname(pathname)] ?? "application/octet-stream";
      response.setHeader("content-type", type);
      if (request.headers.range) sendRange(bytes)(request, response);
      else response.end(bytes);
    } catch {
      response.writeHead(404).end();
    }
  });
}

test("mod.ts paints when imported over http without a config", async () => {
  await using server = await serveRepository();
  await using folder = await tempFolder({});
  const script = join(folder.path, "paint.ts");
  await writeFile(
    script,
    `import { open } from "${server.url}/mod.ts";
     await using model = await open("tiny-scenes", { backend: "cpu" });
     const { png } = await model.generate({
       prompt: "a red car",
       regions: [{ phrase: "red car", boxes: [[0, 0, 0.5, 0.5]] }],
       width: 64, height: 64, steps: 1,
       guidance: { steps: 1, iterations: 1 },
     });
     await Deno.writeFile("out.png", png);`,
  );
  const { code, err } = await runChild([], {
    ...BARE,
    script,
    cwd: folder.path,
  });
  assert.equal(code, 0, err.join("\n"));
  const { width, height } = decodePng(
    await readFile(join(folder.path, "out.png")),
  );
  assert.deepEqual([width, height], [64, 64]);
  assert.ok(
    server.log.some((line) => line.startsWith("/weights/tiny-scenes/unet/")),
  );
});

test("mod.ts passes the type check of a project with Deno's own options", async () => {
  await using folder = await tempFolder({ "deno.json": "{}" });
  const script = join(folder.path, "use.ts");
  const module = JSON.stringify(join(ROOT, "mod.ts"));
  await writeFile(script, `export { open } from ${module};\n`);
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["check", script],
    cwd: folder.path,
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
});

test("mod.ts opens a single file when imported over http: CLIP's merges come along", async () => {
  await using server = await serveRepository();
  const { ldm } = await tinyLdm("sdxl");
  await using folder = await tempFolder({
    "one.safetensors": fileOf(ldm),
    "ids.ts": `import { describeModel } from "${server.url}/mod.ts";
     const { tokenizers } = await describeModel("one.safetensors");
     for (const t of tokenizers) console.log(...t.encode("a red car").ids);`,
  });
  const { code, out, err } = await runChild([], {
    ...BARE,
    script: join(folder.path, "ids.ts"),
    cwd: folder.path,
  });
  assert.equal(code, 0, err.join("\n"));
  const ids = "49406 320 736 1615 49407";
  assert.deepEqual(out, [49407, 0].map((pad) => ids + ` ${pad}`.repeat(72)));
});

test("cli.ts runs from http: inspect, help, and the demo's workers", async () => {
  await using server = await serveRepository();
  await using folder = await tempFolder({});
  const script = `${server.url}/cli.ts`;
  const cli = (...args: string[]) =>
    runChild(args, { ...BARE, script, cwd: folder.path });
  const tokens = await cli("inspect", "--prompt", "a red car", "--json");
  assert.equal(tokens.code, 0, tokens.err.join("\n"));
  assert.equal(JSON.parse(tokens.out[1]!).piece, "red");
  const help = await cli("--help");
  assert.ok(
    help.out[0]!.startsWith(`deno run -A ${script} generate --prompt `),
  );
  const demo = await cli("demo", "--backend", "cpu", "--steps", "1");
  assert.equal(demo.code, 0, demo.err.join("\n"));
  assert.equal(demo.out.at(-1), join("winwinlay-demo", "demo.png"));
});
