import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { open } from "../../mod.ts";
import { COMMIT, etagOf, fakeHub, sendBody } from "../weights/fake_hub.ts";
import { tempFolder } from "../weights/temp_folder.ts";
import { filesIn, type Outcome, run } from "./harness.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const REPO = "owner/tiny-scenes";

/** The embedded model as a repository. */
const FILES: Record<string, Uint8Array> = {};
const SAVED = { ...process.env };

before(async () => {
  const model = join(ROOT, "weights", "tiny-scenes");
  for (const name of await filesIn(model)) {
    const bytes = await readFile(join(model, name)).catch(() => undefined);
    if (bytes) FILES[name.replaceAll("\\", "/")] = bytes;
  }
  for (const name of Object.keys(process.env)) {
    if (/^(HF_|HUGGING|XDG_CACHE)/.test(name)) delete process.env[name];
  }
});
after(() => void Object.assign(process.env, SAVED));

/** Runs `weights` against a cache of its own. */
function weights(cache: string, ...args: string[]): Promise<Outcome> {
  process.env["HF_HUB_CACHE"] = cache;
  process.env["HF_HOME"] = cache; // no token of this machine
  return run(["weights", ...args]);
}

test("weights: pull, list, verify, and open() by name", async () => {
  await using hub = await fakeHub(REPO, FILES);
  await using cache = await tempFolder({});
  const run = (...args: string[]) => weights(cache.path, ...args);
  const none = await run("list");
  assert.deepEqual([none.code, none.out], [0, [`nothing in ${cache.path}`]]);
  await assert.rejects(open(REPO, { backend: "cpu" }), {
    name: "WeightsError",
    message: /run `weights pull owner\/tiny-scenes`/,
  });

  const pulled = await run("pull", REPO, "--endpoint", hub.hub.url);
  assert.equal(pulled.code, 0, pulled.err.join("\n"));
  const path = join(
    cache.path,
    "models--owner--tiny-scenes",
    "snapshots",
    COMMIT,
  );
  assert.deepEqual(pulled.out, [path]);
  assert.match(pulled.err.at(-1)!, /fetched, \d+ files at 01234567$/);
  const said = pulled.err.slice(0, -1).map((line) => line.split(" ")[1]);
  assert.equal(new Set(said).size, said.length, "a line for each file");
  for (const name of await readdir(path, { recursive: true })) {
    const bytes = await readFile(join(path, name)).catch(() => undefined);
    if (bytes) assert.ok(bytes.equals(FILES[name]!), name);
  }

  const list = await run("list");
  assert.match(
    list.out[1]!,
    /^owner\/tiny-scenes +main +01234567 .* complete$/,
  );
  const [entry] = (await run("list", "--json")).out.map((l) => JSON.parse(l));
  assert.equal(entry.repo, REPO);
  assert.deepEqual(
    [entry.refs, entry.missing, entry.state],
    [["main"], [], "complete"],
  );

  const verified = await run("verify", REPO);
  assert.equal(verified.code, 0, verified.err.join());
  assert.match(verified.err[0]!, /^\d+ files, 0 bad, 0 without a hash/);

  for (const name of [REPO, `${REPO}@main`, `${REPO}@${COMMIT}`]) {
    await using model = await open(name, { backend: "cpu" });
    assert.ok(model.facts);
  }
  await assert.rejects(
    open(`${REPO}@other`, { backend: "cpu" }),
    /weights pull/,
  );

  const bad = join(path, "vae", "diffusion_pytorch_model.safetensors");
  const bytes = await readFile(bad);
  bytes[bytes.length - 1]! ^= 1;
  await writeFile(bad, bytes);
  const wrong = await run("verify");
  assert.equal(wrong.code, 3);
  assert.match(
    wrong.out[0]!,
    /vae\/diffusion_pytorch_model.safetensors: its sha256 is /,
  );
  assert.match(wrong.err[0]!, /, 1 bad,/);
});

test("weights: what is wrong with a command line ends with 2, with weights with 3", async () => {
  await using hub = await fakeHub(REPO, FILES);
  await using cache = await tempFolder({});
  const at = ["--endpoint", hub.hub.url];
  for (
    const [code, message, ...args] of [
      [2, /list, verify or pull/],
      [2, /list, verify or pull/, "fetch"],
      [2, /there must be a repository/, "pull"],
      [2, /must be a repository, owner\/name/, "pull", "name"],
      [2, /must be a repository, owner\/name/, "pull", "../x"],
      [2, /no such option/, "list", "--revision", "x"],
      [2, /--endpoint/, "verify", ...at],
      [
        2,
        /--revision: there must be a repository/,
        "verify",
        "--revision",
        "x",
      ],
      [
        2,
        /--variant: files that are named .*: current x.safetensors/,
        "pull",
        REPO,
        "x.safetensors",
        "--variant",
        "fp16",
        ...at,
      ],
      [2, /said once/, "pull", `${REPO}@a`, "--revision", "b"],
      [3, /must be in/, "verify", REPO],
      [3, /check owner, name and revision/, "pull", "owner/other", ...at],
      [3, /RevisionNotFound/, "pull", REPO, "--revision", "none", ...at],
      [3, /current files are/, "pull", REPO, "x.safetensors", ...at],
      [
        3,
        /must have fp16 safetensors/,
        "pull",
        REPO,
        "--variant",
        "fp16",
        ...at,
      ],
      [3, /http: or https:/, "pull", REPO, "--endpoint", "ftp://x"],
    ] as const
  ) {
    const { code: got, err } = await weights(cache.path, ...args);
    assert.equal(got, code, `${args}: ${err}`);
    assert.match(err[0]!, message);
  }
  assert.deepEqual(await readdir(cache.path), []);
});

test("weights list says where a pull did not end, and where there are single files", async () => {
  const state = async (cache: string) => {
    const [, line] = (await weights(cache, "list")).out;
    const [json] = (await weights(cache, "list", "--json")).out;
    return [/B +(.*)$/.exec(line!)?.[1], JSON.parse(json!).state];
  };
  let denied = "/unet";
  await using hub = await fakeHub(REPO, FILES, {
    fault: (request, response) => {
      if (!decodeURIComponent(request.url!).includes(denied)) return false;
      response.writeHead(403).end();
      return true;
    },
  });
  const at = ["--endpoint", hub.hub.url];
  for (denied of ["tokenizer/vocab", "unet/", "vae/", "text_encoder/model"]) {
    await using cache = await tempFolder({});
    const cut = await weights(cache.path, "pull", REPO, ...at);
    assert.equal(cut.code, 3);
    assert.deepEqual(
      await state(cache.path),
      ["no finished pull", "no finished pull"],
      denied,
    );
  }
  denied = "nothing";
  await using cache = await tempFolder({});
  const config = "unet/config.json";
  assert.equal(
    (await weights(cache.path, "pull", REPO, config, ...at)).code,
    0,
  );
  assert.deepEqual(await state(cache.path), ["single files", "single files"]);
  // A commit has no ref, and is whole all the same.
  await using whole = await tempFolder({});
  await weights(whole.path, "pull", `${REPO}@${COMMIT}`, ...at);
  assert.deepEqual(await state(whole.path), ["complete", "complete"]);
});

test("weights pull says where a name stays with an earlier commit", async () => {
  await using old = await fakeHub(REPO, FILES);
  const next = "f".repeat(40);
  const config = "vae/config.json";
  await using hub = await fakeHub(
    REPO,
    { ...FILES, [config]: new TextEncoder().encode("{}") },
    { commit: next },
  );
  await using cache = await tempFolder({});
  const pull = (endpoint: string, ...args: string[]) =>
    weights(cache.path, "pull", REPO, ...args, "--endpoint", endpoint);
  const { err } = await pull(old.hub.url);
  assert.doesNotMatch(err.join(), /note/);
  const file = "unet/config.json";
  const named = await pull(hub.hub.url, file, "--json");
  assert.equal(named.code, 0);
  assert.equal(JSON.parse(named.out.at(-1)!).named, false);
  assert.match(
    named.err.at(-1)!,
    new RegExp(`^note: main stays at an earlier commit.* open ${REPO}@${next}`),
  );
  await using model = await open(REPO, { backend: "cpu" });
  assert.ok(model.facts);
});

/** Starts a pull as a process of the same runtime. */
function start(cache: string, endpoint: string) {
  const flags = "Deno" in globalThis ? ["run", "-A", "--no-check"] : [];
  const child = spawn(process.execPath, [
    ...flags,
    join(ROOT, "cli.ts"),
    ..."weights pull".split(" "),
    REPO,
    "--endpoint",
    endpoint,
  ], { env: { ...process.env, HF_HUB_CACHE: cache, HF_HOME: cache } });
  let err = "";
  child.stdout.resume();
  child.stderr.on("data", (chunk) => err += chunk);
  const ended = new Promise<{ code: number | null; err: string }>((resolve) =>
    child.on("close", (code) => resolve({ code, err }))
  );
  return { pid: child.pid!, ended };
}

/** No name in a cache stands for anything but what it should be. */
async function checkCache(cache: string): Promise<string[]> {
  const names = await filesIn(cache);
  for (const name of names) {
    const match = /blobs[/\\]([0-9a-f]+)$/.exec(name);
    if (!match) continue;
    const bytes = await readFile(join(cache, name));
    assert.equal(etagOf(bytes, match[1]!.length === 64), match[1], name);
  }
  return names;
}

/** How much there is of a file that is being downloaded, in bytes; 0 if none is. */
async function partialSize(cache: string): Promise<number> {
  const name = (await filesIn(cache)).find((name) => name.endsWith(".partial"));
  if (name === undefined) return 0;
  return await stat(join(cache, name)).then(({ size }) => size, () => 0);
}

for (const signal of ["SIGKILL", "SIGINT"] as const) {
  test(`weights pull: ${signal} in mid-download leaves no wrong file, and the next run goes on`, async () => {
    let onPart: (() => void) | undefined;
    let sent = 0;
    await using hub = await fakeHub(REPO, FILES, {
      fault: (request, response, where) => {
        const name = decodeURIComponent(request.url!.slice(1));
        const body = where === "cdn" ? FILES[name] : undefined;
        if (!body || !onPart) return false;
        // Half of what was asked for; then the process is ended.
        const first = Number(/\d+/.exec(request.headers.range ?? "")?.[0] ?? 0);
        const half = first + Math.ceil((body.length - first) / 2);
        response.writeHead(request.headers.range ? 206 : 200, {
          "content-length": body.length - first,
          ...(request.headers.range
            ? {
              "content-range": `bytes ${first}-${
                body.length - 1
              }/${body.length}`,
            }
            : {}),
        });
        const end = onPart;
        sent = half;
        response.write(body.slice(first, half), () => end());
        return true;
      },
    });
    await using cache = await tempFolder({});
    for (let i = 0; i < 3; i++) {
      const { promise, resolve } = Promise.withResolvers<void>();
      onPart = resolve;
      const child = start(cache.path, hub.hub.url);
      await promise;
      let over = false; // a child that ends by itself is not waited for
      child.ended.then(() => over = true);
      while (!over && await partialSize(cache.path) < sent) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      process.kill(child.pid, signal);
      const { code, err } = await child.ended;
      if (signal === "SIGINT") assert.equal(code, 130, err);
      const names = await checkCache(cache.path);
      assert.equal(
        names.filter((name) => /refs/.test(name) && /main/.test(name)).length,
        0,
      );
      assert.equal(names.filter((name) => name.endsWith(".partial")).length, 1);
    }
    onPart = undefined;
    hub.cdn.log.length = 0;
    const { code, err } = await weights(
      cache.path,
      "pull",
      REPO,
      "--endpoint",
      hub.hub.url,
    );
    assert.equal(code, 0, err.join("\n"));
    assert.match(hub.cdn.log[0]!, new RegExp(` bytes=${sent}-$`), "resumed");
    const names = await checkCache(cache.path);
    assert.deepEqual(names.filter((name) => /partial/.test(name)), []);
    assert.equal((await weights(cache.path, "verify")).code, 0);
  });
}

test("weights pull: two processes at once", async () => {
  await using hub = await fakeHub(REPO, FILES, {
    fault: (request, response, where) => {
      const body = where === "cdn"
        ? FILES[decodeURIComponent(request.url!.slice(1))]
        : undefined;
      if (body) setTimeout(() => sendBody(request, response, body), 100);
      return body !== undefined;
    },
  });
  await using cache = await tempFolder({});
  const runs = [start(cache.path, hub.hub.url), start(cache.path, hub.hub.url)];
  const ends = await Promise.all(runs.map(({ ended }) => ended));
  assert.ok(ends.some(({ code }) => code === 0), JSON.stringify(ends));
  for (const { code, err } of ends) {
    if (code !== 0) assert.match(err, /no other pull may be at work/);
  }
  await checkCache(cache.path);
  assert.equal((await weights(cache.path, "verify")).code, 0);
});
