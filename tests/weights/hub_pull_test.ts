import { strict as assert } from "node:assert";
import {
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { hostname } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { MissingFileError, WeightsError } from "../../weights/errors.ts";
import {
  cachedSnapshot,
  hubCacheFolder,
  linkBlob,
  listCache,
  parseHubName,
} from "../../weights/hub_cache.ts";
import { pull, type PullOptions } from "../../weights/hub_client.ts";
import { openFolder } from "../../weights/folder.ts";
import { verifyRevision } from "../../weights/hub_verify.ts";
import { encodeSafetensors } from "./encode_safetensors.ts";
import { COMMIT, etagOf, fakeHub } from "./fake_hub.ts";
import { tempFolder } from "./temp_folder.ts";

if ("Deno" in globalThis) Deno.test.sanitizer({ ops: true, resources: true });

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const tensors = (value: number): Uint8Array =>
  encodeSafetensors(
    new Map([
      ["x", { dtype: "F32", shape: [1], data: new Float32Array([value]) }],
    ]),
  );

const REPO = "owner/name";
const MAIN = { repo: REPO, revision: "main" };
const FILES: Readonly<Record<string, Uint8Array>> = {
  "model_index.json": text('{"_class_name":"StableDiffusionPipeline"}'),
  "README.md": text("# no"),
  "scheduler/scheduler_config.json": text("{}"),
  "tokenizer/merges.txt": text("#version: 0.2\n"),
  "tokenizer/vocab.json": text('{"a":0}'),
  "text_encoder/config.json": text('{"a":1}'),
  "text_encoder/model.safetensors": tensors(1),
  "text_encoder/model.fp16.safetensors": tensors(2),
  "text_encoder/pytorch_model.bin": tensors(3),
  "unet/config.json": text('{"a":2}'),
  "unet/diffusion_pytorch_model.safetensors": tensors(4),
  "unet/diffusion_pytorch_model.fp16.safetensors": tensors(5),
  "unet/diffusion_pytorch_model.non_ema.safetensors": tensors(6),
  "vae/config.json": text('{"a":1}'), // the bytes of the text encoder's
  "vae/diffusion_pytorch_model.safetensors": tensors(7),
  "vae/diffusion_pytorch_model.fp16.safetensors": tensors(8),
  "safety_checker/model.safetensors": tensors(9),
  "single.safetensors": tensors(10),
};
const SMALL = [
  "model_index.json",
  "scheduler/scheduler_config.json",
  "text_encoder/config.json",
  "tokenizer/merges.txt",
  "tokenizer/vocab.json",
  "unet/config.json",
  "vae/config.json",
];

function options(
  endpoint: string,
  cache: string,
  more: PullOptions = {},
): PullOptions {
  const env = { HF_HOME: cache, HF_TOKEN: "hf_secret" };
  return { endpoint, cache, env, sleep: () => Promise.resolve(), ...more };
}

/** Every file and link below a folder; links with where they lead. */
async function tree(folder: string): Promise<string[]> {
  const out: string[] = [];
  for (const name of await readdir(folder, { recursive: true })) {
    const path = join(folder, name);
    const facts = await lstat(path);
    if (facts.isDirectory()) continue;
    out.push(
      facts.isSymbolicLink() ? `${name} -> ${await readlink(path)}` : name,
    );
  }
  return out.sort();
}

for (const variant of [undefined, "fp16"] as const) {
  test(`pull() fetches the files of a pipeline: variant ${variant}`, async () => {
    await using hub = await fakeHub(REPO, FILES);
    await using folder = await tempFolder({});
    const seen = new Set<string>();
    const pulled = await pull(
      MAIN,
      options(hub.hub.url, folder.path, {
        variant,
        onProgress: ({ file, done, size }) => done === size && seen.add(file),
      }),
    );
    const suffix = variant ? ".fp16" : "";
    const wanted = [
      ...SMALL,
      `text_encoder/model${suffix}.safetensors`,
      `unet/diffusion_pytorch_model${suffix}.safetensors`,
      `vae/diffusion_pytorch_model${suffix}.safetensors`,
    ].sort();
    assert.deepEqual([...pulled.files].sort(), wanted);
    assert.deepEqual([...seen].sort(), wanted);
    for (const name of wanted) {
      const bytes = await readFile(join(pulled.path, name));
      assert.ok(bytes.equals(FILES[name]!), name);
    }
    const etags = new Set(
      wanted.map((name) => etagOf(FILES[name]!, name.endsWith("s"))),
    );
    assert.equal(etags.size, wanted.length - 1, "two configs are one blob");
    const up = (name: string) => "../".repeat(name.split("/").length + 1);
    assert.deepEqual(
      (await tree(folder.path)).filter((name) => !name.startsWith(".locks")),
      [
        ...[...etags].map((etag) => `models--owner--name/blobs/${etag}`),
        "models--owner--name/refs/main",
        ...wanted.map((name) =>
          `models--owner--name/snapshots/${COMMIT}/${name} -> ${
            up(name)
          }blobs/${etagOf(FILES[name]!, name.endsWith("s"))}`
        ),
      ].sort(),
    );
    const ref = join(folder.path, "models--owner--name/refs/main");
    assert.equal(await readFile(ref, "utf8"), COMMIT);
    // The token went to the hub, and not to where large files lie.
    assert.deepEqual([...hub.tokens.hub], ["Bearer hf_secret"]);
    assert.deepEqual([...hub.tokens.cdn], []);
    assert.ok(hub.cdn.log.length >= 3);
    assert.equal(await cachedSnapshot(MAIN, folder.path), pulled.path);

    const before = hub.cdn.log.length;
    const again = await pull(
      MAIN,
      options(hub.hub.url, folder.path, { variant }),
    );
    assert.equal(again.fetchedBytes, 0);
    assert.equal(hub.cdn.log.length, before, "nothing is fetched again");
  });
}

test("pull() fetches files by name and pattern", async () => {
  await using hub = await fakeHub(REPO, FILES);
  await using folder = await tempFolder({});
  const get = async (...files: string[]) =>
    (await pull(MAIN, options(hub.hub.url, folder.path, { files }))).files;
  assert.deepEqual(await get("single.safetensors"), ["single.safetensors"]);
  assert.deepEqual(await get("unet/*.json"), ["unet/config.json"]);
  await assert.rejects(get("nothing.safetensors"), {
    name: "MissingFileError",
    message: /Cannot pull "nothing.safetensors" of owner\/name/,
  });
});

test("pull() of a revision notes it under its name; a commit needs no note", async () => {
  await using hub = await fakeHub(REPO, FILES, { revisions: ["refs/pr/1"] });
  await using folder = await tempFolder({});
  const files = ["single.safetensors"];
  for (const revision of ["refs/pr/1", COMMIT]) {
    const name = { repo: REPO, revision };
    const { path } = await pull(
      name,
      options(hub.hub.url, folder.path, { files }),
    );
    assert.equal(await cachedSnapshot(name, folder.path), path);
  }
  const refs = join(folder.path, "models--owner--name", "refs");
  assert.deepEqual(await tree(refs), ["refs/pr/1"]);
});

test("pull() says what is missing, and that the token or the terms are", async () => {
  for (
    const [code, headers, wanted] of [
      [401, { "x-error-code": "RepoNotFound" }, /401.*HF_TOKEN/],
      [403, { "x-error-code": "GatedRepo" }, /403 \(GatedRepo\).*terms/],
      [404, { "x-error-code": "RepoNotFound" }, /404 \(RepoNotFound\)/],
      [404, { "x-error-code": "RevisionNotFound" }, /RevisionNotFound/],
      [429, { "retry-after": "1" }, /429/],
      [200, {}, /Cannot read .*revision\/main/],
    ] as const
  ) {
    await using hub = await fakeHub(REPO, FILES, {
      fault: (_, response) => {
        response.writeHead(code, headers).end("{}");
        return true;
      },
    });
    await using folder = await tempFolder({});
    await assert.rejects(
      pull(MAIN, options(hub.hub.url, folder.path)),
      (error: Error) => {
        assert.ok(error instanceof WeightsError);
        assert.equal(error instanceof MissingFileError, code === 404);
        assert.match(error.message, wanted);
        assert.ok(!error.message.includes("hf_secret"));
        return true;
      },
    );
    assert.deepEqual(await readdir(folder.path), []);
  }
});

for (
  const [what, path, begin] of [
    ["the list of files", "/api/", (r: ServerResponse) => {
      r.writeHead(200, { "content-length": 1000 });
      r.write('{"sha":');
    }],
    ["any answer for the list", "/api/", () => {}],
    ["any answer for a file", "/resolve/", () => {}],
  ] as const
) {
  test(`pull() asks again when the hub keeps back ${what}`, async () => {
    let asked = 0;
    await using hub = await fakeHub(REPO, FILES, {
      fault: (request, response) => {
        if (!request.url!.includes(path) || ++asked > 1) return false;
        begin(response);
        return true;
      },
    });
    await using folder = await tempFolder({});
    const pulled = await pull(
      MAIN,
      options(hub.hub.url, folder.path, {
        files: ["single.safetensors"],
        idleMs: 1000,
      }),
    );
    assert.ok(asked > 1);
    assert.equal(pulled.files.length, 1);
  });
}

test("pull() asks again when the list of files is cut", async () => {
  let asked = 0;
  await using hub = await fakeHub(REPO, FILES, {
    fault: (request, response) => {
      if (!request.url!.startsWith("/api/") || ++asked > 1) return false;
      response.writeHead(200, { "content-length": 1000 });
      response.write('{"sha":');
      setTimeout(() => response.destroy(), 30);
      return true;
    },
  });
  await using folder = await tempFolder({});
  const files = ["single.safetensors"];
  await pull(MAIN, options(hub.hub.url, folder.path, { files }));
  assert.equal(asked, 2);
});

for (
  const [value, offline] of [["1", true], ["ON", true], ["true", true], [
    "0",
    false,
  ], ["", false]] as const
) {
  test(`pull() ${offline ? "asks nobody" : "asks"} with HF_HUB_OFFLINE=${value}`, async () => {
    await using hub = await fakeHub(REPO, FILES);
    await using folder = await tempFolder({});
    const run = pull(
      MAIN,
      options(hub.hub.url, folder.path, {
        files: ["single.safetensors"],
        env: { HF_HUB_OFFLINE: value, HF_HOME: folder.path },
      }),
    );
    if (offline) await assert.rejects(run, /HF_HUB_OFFLINE/);
    else await run;
    assert.equal(hub.hub.log.length === 0, offline);
  });
}

for (
  const name of [
    "../x",
    "/etc/x",
    "a/../../x",
    "a\\..\\x",
    "a\0b",
    "C:x",
    "a//b",
    ".",
    "a/./b",
    "",
  ]
) {
  test(`pull() refuses to fetch the file ${JSON.stringify(name)}, and only that`, async () => {
    const part = `tokenizer/${name}/x.json`; // wanted of a pipeline
    await using hub = await fakeHub(REPO, FILES, {
      names: [...Object.keys(FILES), name, "samples/12:30.png"],
    });
    await using odd = await fakeHub(REPO, FILES, {
      names: [...Object.keys(FILES), part],
    });
    await using folder = await tempFolder({});
    for (
      const run of [
        () => pull(MAIN, options(hub.hub.url, folder.path, { files: [name] })),
        () => pull(MAIN, options(odd.hub.url, folder.path)),
      ]
    ) {
      await assert.rejects(run, {
        name: "WeightsError",
        message: /it must stay inside its repository/,
      });
    }
    assert.deepEqual(await readdir(folder.path), []);
    const { files } = await pull(MAIN, options(hub.hub.url, folder.path));
    assert.ok(!files.includes(name) && files.length === SMALL.length + 3);
  });
}

for (const tag of ['"../../x"', '""', `"${"a".repeat(200)}"`, '"a/b"']) {
  test(`pull() refuses the ETag ${tag.slice(0, 20)}`, async () => {
    await using hub = await fakeHub(REPO, FILES, {
      fault: (request, response, where) => {
        if (where === "cdn" || !request.url!.includes("/resolve/")) {
          return false;
        }
        response.writeHead(200, { etag: tag, "content-length": 1 }).end();
        return true;
      },
    });
    await using folder = await tempFolder({});
    await assert.rejects(
      pull(MAIN, options(hub.hub.url, folder.path)),
      /the hub must say its ETag and size/,
    );
    assert.deepEqual(await readdir(folder.path), []);
  });
}

test("pull() replaces an entry of a snapshot that leads elsewhere, and writes nothing there", async () => {
  await using hub = await fakeHub(REPO, FILES);
  await using folder = await tempFolder({ "victim": "untouched" });
  const files = ["single.safetensors"];
  const { path } = await pull(
    MAIN,
    options(hub.hub.url, folder.path, { files }),
  );
  const entry = join(path, files[0]!);
  await rm(entry);
  await symlink(join(folder.path, "victim"), entry);
  const [revision] = await listCache(folder.path);
  const problems = [];
  for await (const { problem } of verifyRevision(revision!)) {
    problems.push(problem);
  }
  assert.match(problems[0]!, /does not lead to a blob/);
  await pull(MAIN, options(hub.hub.url, folder.path, { files }));
  assert.ok((await readFile(entry)).equals(FILES[files[0]!]!));
  assert.equal(
    await readFile(join(folder.path, "victim"), "utf8"),
    "untouched",
  );
});

test("two pulls at once in one process: files are right, no partial is left", async () => {
  await using hub = await fakeHub(REPO, FILES);
  await using folder = await tempFolder({});
  const runs = await Promise.allSettled(
    Array.from(
      { length: 4 },
      () => pull(MAIN, options(hub.hub.url, folder.path)),
    ),
  );
  for (const run of runs) {
    if (run.status === "fulfilled") continue;
    assert.match(String(run.reason), /no other pull may be at work/);
  }
  assert.ok(runs.some(({ status }) => status === "fulfilled"));
  const names = await tree(folder.path);
  assert.deepEqual(names.filter((n) => /partial|winwinlay$/.test(n)), []);
  for (const { name, size, path } of (await listCache(folder.path))[0]!.files) {
    assert.equal(size, FILES[name]!.length, name);
    assert.ok((await readFile(path)).equals(FILES[name]!), name);
  }
});

test("linkBlob() many times at once leaves the blob as it is", async () => {
  await using folder = await tempFolder({ "blobs/abc": "content" });
  await Promise.all(
    Array.from(
      { length: 50 },
      () => linkBlob(folder.path, COMMIT, "unet/x", "abc"),
    ),
  );
  assert.equal(
    await readFile(join(folder.path, "blobs/abc"), "utf8"),
    "content",
  );
  assert.deepEqual(await tree(folder.path), [
    "blobs/abc",
    `snapshots/${COMMIT}/unet/x -> ../../../blobs/abc`,
  ]);
});

test("pull() takes over the lock of a process that is gone, not that of another machine", async () => {
  const etag = etagOf(FILES["single.safetensors"]!, true);
  const at = `.locks/models--owner--name/${etag}.winwinlay`;
  for (
    const [host, held] of [[hostname(), false], ["elsewhere", true]] as const
  ) {
    await using hub = await fakeHub(REPO, FILES);
    await using folder = await tempFolder({
      [at]: JSON.stringify({ pid: 2 ** 22 + 1, host }),
    });
    const files = ["single.safetensors"];
    const run = pull(MAIN, options(hub.hub.url, folder.path, { files }));
    const lock = join(folder.path, at);
    if (held) {
      await assert.rejects(
        run,
        (error: Error) =>
          error.message.endsWith(
            `current lock is process ${
              2 ** 22 + 1
            } of elsewhere; remove ${lock} if that one is gone or another program`,
          ),
      );
    } else await run;
  }
});

test("verifyRevision() names each file that is not what its name says", async () => {
  await using hub = await fakeHub(REPO, {
    ...FILES,
    "vae/diffusion_pytorch_model.safetensors": text("no tensors in here"),
  });
  await using folder = await tempFolder({});
  const { path } = await pull(MAIN, options(hub.hub.url, folder.path));
  const check = async () => {
    const bad: string[] = [];
    const [revision] = await listCache(folder.path);
    for await (const { file, problem } of verifyRevision(revision!)) {
      if (problem) bad.push(`${file.name}: ${problem}`);
    }
    return bad;
  };
  // Its hash is right, and it is no safetensors file.
  const [first, ...none] = await check();
  assert.match(
    first!,
    /^vae\/diffusion_pytorch_model.safetensors: Cannot read/,
  );
  assert.deepEqual(none, []);
  const flip = async (name: string) => {
    const bytes = await readFile(join(path, name));
    bytes[bytes.length - 1]! ^= 1;
    await writeFile(join(path, name), bytes); // through the link
  };
  await flip("unet/diffusion_pytorch_model.safetensors");
  await flip("tokenizer/vocab.json");
  await rm(
    join(
      folder.path,
      "models--owner--name/blobs",
      etagOf(FILES["unet/config.json"]!, false),
    ),
  );
  const bad = await check();
  const wanted = [
    /^tokenizer\/vocab.json: its git hash is [0-9a-f]{40}$/,
    /^unet\/config.json: its blob is missing$/,
    /^unet\/diffusion_pytorch_model.safetensors: its sha256 is [0-9a-f]{64}$/,
    /^vae\/diffusion_pytorch_model.safetensors: Cannot read/,
  ];
  assert.equal(bad.length, wanted.length, bad.join("\n"));
  for (const [i, line] of bad.entries()) assert.match(line, wanted[i]!);
});

test("hubCacheFolder() reads the variables as huggingface_hub does", () => {
  const all = {
    HF_HUB_CACHE: "/1",
    HUGGINGFACE_HUB_CACHE: "/2",
    HF_HOME: "/3",
    XDG_CACHE_HOME: "/4",
  };
  assert.equal(hubCacheFolder(all), "/1");
  assert.equal(hubCacheFolder({ ...all, HF_HUB_CACHE: "" }), "/2");
  assert.equal(
    hubCacheFolder({ HF_HOME: "/3", XDG_CACHE_HOME: "/4" }),
    "/3/hub",
  );
  assert.equal(hubCacheFolder({ XDG_CACHE_HOME: "/4" }), "/4/huggingface/hub");
  assert.match(hubCacheFolder({}), /\.cache[/\\]huggingface[/\\]hub$/);
});

test("pull() sends the token of HF_TOKEN_PATH, or of HF_HOME, where there is no HF_TOKEN", async () => {
  for (
    const [env, wanted] of [
      [{ HF_TOKEN: "a" }, "a"],
      [{ HF_TOKEN_PATH: "other" }, "b"],
      [{}, "c"],
    ] as const
  ) {
    await using hub = await fakeHub(REPO, FILES);
    await using folder = await tempFolder({ other: "b\n", token: "c\n" });
    await pull(
      MAIN,
      options(hub.hub.url, join(folder.path, "hub"), {
        files: ["single.safetensors"],
        env: {
          ...env,
          HF_HOME: folder.path,
          ...("HF_TOKEN_PATH" in env
            ? { HF_TOKEN_PATH: join(folder.path, env.HF_TOKEN_PATH) }
            : {}),
        },
      }),
    );
    assert.deepEqual([...hub.tokens.hub], [`Bearer ${wanted}`]);
  }
});

test("pull() refuses a token that no header can hold, and does not show it", async () => {
  for (
    const [env, file, where] of [
      [{ HF_TOKEN: "hf_se\ncret" }, "x", /HF_TOKEN/],
      [{ HF_TOKEN: "hf_sé" }, "x", /HF_TOKEN/],
      [{}, "hf_se\r\ncret\n", /[/\\]token:/],
    ] as const
  ) {
    await using hub = await fakeHub(REPO, FILES);
    await using folder = await tempFolder({ token: file });
    const slept: number[] = [];
    await assert.rejects(
      pull(
        MAIN,
        options(hub.hub.url, join(folder.path, "hub"), {
          env: { ...env, HF_HOME: folder.path },
          sleep: (ms) => (slept.push(ms), Promise.resolve()),
        }),
      ),
      (error: Error) => {
        assert.ok(error instanceof WeightsError);
        assert.match(error.message, /^Cannot use the token of /);
        assert.match(error.message, where);
        assert.ok(!/hf_s|cret/.test(error.message));
        return true;
      },
    );
    assert.deepEqual([slept, hub.hub.log], [[], []]);
  }
});

test("pull() brings a model's own preset, and ONNX exports where there are no safetensors", async () => {
  const without = (...parts: readonly string[]) =>
    Object.entries(FILES).filter(([name]) =>
      !parts.includes(name.split("/")[0]!)
    );
  const onnx = (folder: string, data = false) => ({
    [`${folder}/config.json`]: text("{}"),
    [`${folder}/model.onnx`]: text("o"),
    ...(data ? { [`${folder}/model.onnx_data`]: text("d") } : {}),
    [`${folder}/other.onnx`]: text("x"),
  });
  const all = {
    ...Object.fromEntries(without("text_encoder", "vae", "unet")),
    "winwinlay.json": text("{}"),
    "unet/config.json": text("{}"),
    "unet/diffusion_pytorch_model.safetensors": tensors(1),
    ...onnx("text_encoder"),
    ...onnx("text_encoder_2", true),
    ...onnx("vae_decoder", true),
    ...onnx("vae_encoder"),
  };
  const SMALLER = [
    "model_index.json",
    "winwinlay.json",
    "scheduler/scheduler_config.json",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
  ];
  const UNET = [
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
  ];
  const names = (folder: string) => [
    `${folder}/config.json`,
    `${folder}/model.onnx`,
    `${folder}/model.onnx_data`,
  ];
  const get = async (files: Readonly<Record<string, Uint8Array>>) => {
    await using hub = await fakeHub(REPO, files);
    await using folder = await tempFolder({});
    return (await pull(MAIN, options(hub.hub.url, folder.path))).files
      .toSorted();
  };
  assert.deepEqual(
    await get(all),
    [
      ...SMALLER,
      ...UNET,
      ...names("text_encoder").slice(0, 2),
      ...names("text_encoder_2"),
      ...names("vae_decoder"),
    ].toSorted(),
  );
  // A VAE with a config and a pickle only; safetensors before an export.
  const model = "text_encoder/model.safetensors";
  const config = "vae/config.json";
  assert.deepEqual(
    await get({
      ...all,
      [model]: tensors(2),
      [config]: text("{}"),
      "vae/diffusion_pytorch_model.bin": text("b"),
    }),
    [
      ...SMALLER,
      ...UNET,
      "text_encoder/config.json",
      model,
      config,
      ...names("text_encoder_2"),
      ...names("vae_decoder"),
    ].toSorted(),
  );
  await assert.rejects(
    get({ ...Object.fromEntries(without("unet")), ...onnx("unet") }),
    /unet must have safetensors: current files are unet\/config.json, unet\/model.onnx/,
  );
  await assert.rejects(
    get({
      ...Object.fromEntries(without("vae")),
      [config]: text("{}"),
      ...onnx("vae_encoder"),
    }),
    /vae must have safetensors: current files are vae\/config.json$/,
  );
});

test("pull() of named files leaves a name that opened more where it was, or brings that along", async () => {
  const NEXT = "f".repeat(40);
  const file = "single.safetensors";
  for (
    const [what, changes, moves] of [
      ["nothing", {}, true],
      ["a readme", { "README.md": text("# other") }, true],
      ["the file itself", { [file]: tensors(11) }, true],
      ["a config", { "unet/config.json": text('{"a":3}') }, false],
      ["the index, which is gone", { "model_index.json": undefined }, false],
    ] as const
  ) {
    await using folder = await tempFolder({});
    const path = (commit: string) =>
      join(folder.path, "models--owner--name", "snapshots", commit);
    const after = Object.fromEntries(
      Object.entries({ ...FILES, ...changes }).filter(([, v]) => v),
    ) as Record<string, Uint8Array>;
    await using old = await fakeHub(REPO, FILES);
    await using next = await fakeHub(REPO, after, { commit: NEXT });
    await pull(MAIN, options(old.hub.url, folder.path));
    await pull(MAIN, options(old.hub.url, folder.path, { files: [file] }));
    assert.equal(await cachedSnapshot(MAIN, folder.path), path(COMMIT));
    const pulled = await pull(
      MAIN,
      options(next.hub.url, folder.path, { files: [file] }),
    );
    assert.deepEqual(
      [pulled.path, pulled.commit, pulled.named, pulled.files],
      [path(NEXT), NEXT, moves, [file]],
      what,
    );
    assert.ok((await readFile(join(path(NEXT), file))).equals(after[file]!));
    const opened = (await cachedSnapshot(MAIN, folder.path))!;
    assert.equal(opened, path(moves ? NEXT : COMMIT), what);
    await using model = await openFolder(opened); // as before
    assert.ok(model.index);
    for (const name of [...SMALL, "unet/diffusion_pytorch_model.safetensors"]) {
      const wanted = (moves ? after : FILES)[name]!;
      assert.ok((await readFile(join(opened, name))).equals(wanted), name);
    }
    // All of the next commit: the name moves, and what was pulled by name stays.
    if (what !== "a config") continue;
    const full = await pull(MAIN, options(next.hub.url, folder.path));
    assert.equal(full.named, true);
    assert.equal(await cachedSnapshot(MAIN, folder.path), path(NEXT));
    assert.ok((await readFile(join(path(NEXT), file))).equals(after[file]!));
  }
});

test("a snapshot without model_index.json says what to run", async () => {
  await using hub = await fakeHub(REPO, FILES);
  await using folder = await tempFolder({});
  const { path } = await pull(
    MAIN,
    options(hub.hub.url, folder.path, { files: ["single.safetensors"] }),
  );
  await assert.rejects(
    openFolder(path),
    /current folder has none, only single.safetensors; run `weights pull owner\/name`$/,
  );
});

test("parseHubName() takes owner/name and a revision, and nothing that could be another path", () => {
  assert.deepEqual(parseHubName("a/b"), { repo: "a/b", revision: "main" });
  assert.deepEqual(parseHubName("a/b.c@refs/pr/1"), {
    repo: "a/b.c",
    revision: "refs/pr/1",
  });
  for (
    const bad of [
      "a",
      "a/b/c",
      "../b",
      "a/..",
      "/a/b",
      "a\\b",
      "a/b@",
      "a/b@../x",
      "a--b/c",
      "a/b@x/",
      "http://a/b",
    ]
  ) {
    assert.equal(parseHubName(bad), undefined, bad);
  }
});

test("listCache() tells what is missing and what is unfinished", async () => {
  await using hub = await fakeHub(REPO, FILES);
  await using folder = await tempFolder({});
  await pull(
    MAIN,
    options(hub.hub.url, folder.path, { files: ["single.safetensors"] }),
  );
  const blobs = join(folder.path, "models--owner--name", "blobs");
  await rm(join(blobs, etagOf(FILES["single.safetensors"]!, true)));
  await writeFile(join(blobs, "abc.partial"), "x");
  await mkdir(join(folder.path, "datasets--x--y"));
  const found = await listCache(folder.path);
  assert.equal(found.length, 1);
  const { repo, commit, refs, files, state, unfinished } = found[0]!;
  assert.deepEqual(
    {
      repo,
      commit,
      refs,
      files: files.map(({ size }) => size),
      state,
      unfinished,
    },
    {
      repo: REPO,
      commit: COMMIT,
      refs: ["main"],
      files: [undefined],
      state: "single files",
      unfinished: ["abc.partial"],
    },
  );
});
