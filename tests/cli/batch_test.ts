/** `batch`: what it paints, what it refuses, and that it may be killed at any point. */
import { strict as assert } from "node:assert";
import { Buffer } from "node:buffer";
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import {
  mkdir,
  readdir,
  readFile,
  rm,
  unlink,
  writeFile,
} from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { main } from "../../cli.ts";
import {
  decodePng,
  DeviceLostError,
  encodePng,
  Model,
  readPngText,
  REQUEST_KEY,
} from "../../mod.ts";
import { rand } from "../compare.ts";
import { tempFolder } from "../weights/temp_folder.ts";
import { filesIn, run } from "./harness.ts";

/** As small as the embedded model paints. */
const TINY = { steps: 1, width: 16, height: 16, guidance: { method: "none" } };
const LINES = [
  { id: "car", prompt: "a red car", ...TINY },
  { prompt: "a blue house", seeds: [3, 5], ...TINY },
  { id: "tree 1", prompt: "a green tree", seed: 9, count: 2, ...TINY },
];
const FILES = [
  "0003-3.png",
  "0003-5.png",
  "car.png",
  "tree 1-10.png",
  "tree 1-9.png",
];

function args(folder: string, ...more: string[]): string[] {
  return [
    "batch",
    join(folder, "layouts.jsonl"),
    "-o",
    join(folder, "out"),
    "--backend",
    "cpu",
    ...more,
  ];
}

async function layouts(
  folder: string,
  lines: readonly unknown[] = LINES,
): Promise<void> {
  const text = lines.map((line) =>
    `${typeof line === "string" ? line : JSON.stringify(line)}\n`
  ).join("\n");
  await writeFile(join(folder, "layouts.jsonl"), text);
}

/** The lines of results.jsonl, without what differs from run to run. */
async function results(folder: string): Promise<Record<string, unknown>[]> {
  const text = await readFile(join(folder, "out/results.jsonl"), "utf8");
  assert.ok(text.endsWith("\n"));
  return text.trimEnd().split("\n").map((line) => {
    const { file, seed, request } = JSON.parse(line);
    return { file, seed, request };
  }).sort((a, b) => a.file < b.file ? -1 : 1);
}

async function pictures(folder: string): Promise<Map<string, string>> {
  const out = new Map<string, string>();
  for (const name of await readdir(join(folder, "out"))) {
    if (!name.endsWith(".png")) continue;
    const bytes = await readFile(join(folder, "out", name));
    decodePng(bytes); // whole
    out.set(name, bytes.toString("base64"));
  }
  return out;
}

test("batch paints every line and seed, and prints files with their seeds", async () => {
  await using folder = await tempFolder({});
  await layouts(folder.path);
  const { code, out } = await run(args(folder.path, "--json"));
  assert.equal(code, 0);
  const printed = out.map((line) => JSON.parse(line));
  assert.deepEqual(printed.map(({ id, line, seed }) => [id, line, seed]), [
    ["car", 1, 0],
    ["0003-3", 3, 3],
    ["0003-5", 3, 5],
    ["tree 1-9", 5, 9],
    ["tree 1-10", 5, 10],
  ]);
  assert.deepEqual([...(await pictures(folder.path)).keys()].sort(), FILES);
  assert.deepEqual((await results(folder.path)).map(({ file }) => file), FILES);
  const png = await readFile(join(folder.path, "out/tree 1-9.png"));
  const request = JSON.parse(readPngText(png).get(REQUEST_KEY)!);
  assert.deepEqual([request.prompt, request.seed, request.width], [
    "a green tree",
    9,
    16,
  ]);
  // Nothing else is left behind, such as a lock.
  assert.deepEqual(
    (await readdir(join(folder.path, "out"))).sort(),
    [...FILES, "results.jsonl"].sort(),
  );
});

test("batch goes on where it was, whatever is missing, torn or left over", async () => {
  await using folder = await tempFolder({});
  await layouts(folder.path);
  assert.equal((await run(args(folder.path))).code, 0);
  const [whole, lines] = [
    await pictures(folder.path),
    await results(folder.path),
  ];
  const out = join(folder.path, "out");
  const list = join(out, "results.jsonl");
  const text = await readFile(list, "utf8");
  const rows = text.trimEnd().split("\n");
  const dead = JSON.stringify({ pid: 2 ** 22 + 1, host: hostname() });
  const damages: [string, number, () => Promise<unknown>][] = [
    ["nothing", 0, () => Promise.resolve()],
    [
      "a picture without its line",
      0,
      () => writeFile(list, rows.slice(1).join("\n") + "\n"),
    ],
    ["no lines at all", 0, () => unlink(list)],
    ["a torn last line", 0, () => writeFile(list, text.slice(0, -20))],
    ["a line twice", 0, () => writeFile(list, text + rows[0] + "\n")],
    ["a line without its picture", 1, () => unlink(join(out, "car.png"))],
    ["a picture and its line", 1, async () => {
      await unlink(join(out, "0003-3.png"));
      await writeFile(
        list,
        rows.filter((row) => !row.includes("0003-3")).join("\n") + "\n",
      );
    }],
    [
      "half a picture under another name",
      0,
      () => writeFile(join(out, "car.png.partial"), "half"),
    ],
    ["a half picture and no whole one", 1, async () => {
      await unlink(join(out, "car.png"));
      await writeFile(join(out, "car.png.partial"), "half");
    }],
    ["half of the mended list", 0, () => writeFile(`${list}.partial`, "{")],
    [
      "the lock of a process that is gone",
      0,
      () => writeFile(join(out, ".batch.lock"), dead),
    ],
    ["a torn lock", 0, () => writeFile(join(out, ".batch.lock"), "{")],
    ["everything", 5, () => rm(out, { recursive: true })],
  ];
  for (const [what, count, damage] of damages) {
    await damage();
    const again = await run(args(folder.path));
    assert.equal(again.code, 0, `${what}: ${again.err}`);
    assert.equal(again.out.length, count, `${what}: painted`);
    assert.deepEqual(await pictures(folder.path), whole, what);
    assert.deepEqual(await results(folder.path), lines, what);
    const rest = (await readdir(out)).filter((name) =>
      /partial|lock/.test(name)
    );
    assert.deepEqual(
      rest.filter((name) => !name.startsWith("results")),
      [],
      what,
    );
  }
});

test("batch keeps what belongs to others, and refuses another request's picture unless forced", async () => {
  await using folder = await tempFolder({});
  const out = join(folder.path, "out");
  await layouts(folder.path, LINES.slice(0, 1));
  await mkdir(out);
  await writeFile(join(out, "results.jsonl"), '{"file":"other.png"}\n');
  await writeFile(join(out, "other.png"), "not ours");
  assert.equal((await run(args(folder.path))).code, 0);
  assert.deepEqual((await results(folder.path)).map((r) => r.file), [
    "car.png",
    "other.png",
  ]);
  const before = await readFile(join(out, "car.png"));
  await layouts(folder.path, [{ ...LINES[0], seed: 1 }]);
  const refused = await run(args(folder.path));
  assert.deepEqual([refused.code, refused.out], [2, []]);
  assert.match(
    refused.err[0]!,
    /Cannot paint line 1: .*car.png must not be there for another request/,
  );
  assert.deepEqual(await readFile(join(out, "car.png")), before);
  assert.equal((await run(args(folder.path, "--force"))).code, 0);
  assert.notDeepEqual(await readFile(join(out, "car.png")), before);
  const rows = await results(folder.path);
  assert.deepEqual(rows.map(({ file, seed }) => [file, seed]), [
    ["car.png", 1],
    ["other.png", undefined],
  ]);
  assert.equal(await readFile(join(out, "other.png"), "utf8"), "not ours");
});

test("two batches do not share a folder", async () => {
  await using folder = await tempFolder({});
  await layouts(folder.path);
  await mkdir(join(folder.path, "out"));
  const lock = join(folder.path, "out/.batch.lock");
  await writeFile(lock, JSON.stringify({ pid: 1, host: hostname() })); // alive: init
  const refused = await run(args(folder.path));
  assert.equal(refused.code, 2);
  assert.match(
    refused.err[0]!,
    /no other batch may be at work in it: current lock is process 1/,
  );
  await writeFile(lock, JSON.stringify({ pid: 1, host: "elsewhere" }));
  assert.match(
    (await run(args(folder.path))).err[0]!,
    /lock is process 1 of elsewhere; remove/,
  );
  assert.deepEqual(await readdir(join(folder.path, "out")), [".batch.lock"]);
});

test("batch stops at a picture that fails, or notes it and goes on", async () => {
  await using folder = await tempFolder({});
  const lines = ["a", "b", "c"].map((id) => ({ ...LINES[0], id }));
  await layouts(folder.path, lines);
  const out = join(folder.path, "out");
  const batch = async (...more: string[]) => {
    const err: string[] = [];
    const code = await main(args(folder.path, ...more), {
      // Once the first picture is there, a folder stands where the second is to be written.
      out: () => mkdirSync(join(out, "b.png.partial/x"), { recursive: true }),
      say: (line) => void err.push(line),
      columns: 80,
      colour: false,
      signal: new AbortController().signal,
    });
    const made = [...(await pictures(folder.path)).keys()].sort();
    await rm(join(out, "b.png.partial"), { recursive: true });
    return { code, err, made };
  };
  const stopped = await batch();
  assert.deepEqual([stopped.code, stopped.made], [1, ["a.png"]]);
  assert.match(stopped.err.at(-1)!, /Cannot write .*b\.png/);
  await rm(out, { recursive: true });
  const went = await batch("--keep-going");
  assert.deepEqual([went.code, went.made], [1, ["a.png", "c.png"]]);
  assert.match(went.err.at(-1)!, /2 painted, 0 were there, 1 failed/);
  const noted = JSON.parse(await readFile(join(out, "errors.jsonl"), "utf8"));
  assert.deepEqual([noted.id, noted.line], ["b", 3]);
  assert.match(noted.error, /Cannot write .*b\.png/);
  // Run again, it is painted.
  assert.equal((await run(args(folder.path))).code, 0);
  assert.equal((await results(folder.path)).length, 3);
  assert.ok(!(await readdir(out)).includes("errors.jsonl"));
});

test("batch ends when the device is lost, whatever it was told", async () => {
  await using folder = await tempFolder({});
  await layouts(folder.path, ["a", "b"].map((id) => ({ ...LINES[0], id })));
  const { generate } = Model.prototype;
  let asked = 0;
  Model.prototype.generate = () => {
    asked++;
    return Promise.reject(new DeviceLostError("Cannot go on: lost"));
  };
  try {
    const { code } = await run(args(folder.path, "--keep-going"));
    assert.deepEqual([code, asked], [4, 1]);
  } finally {
    Model.prototype.generate = generate;
  }
});

const P = { prompt: "a red car", ...TINY };
const BAD: readonly [lines: readonly unknown[], message: RegExp][] = [
  [["{"], /line 1: it must be JSON/],
  [["[]"], /line 1: it must be an object with a prompt/],
  [["null"], /line 1: it must be an object/],
  [["1"], /line 1: it must be an object/],
  [[P, "{"], /line 3: it must be JSON/],
  [[""], /must hold a request such as .* current file has none/],
  [[{ ...P, id: "" }], /id must be a file name .*current ""/],
  [[{ ...P, id: "../x" }], /id must be a file name/],
  [[{ ...P, id: "a/b" }], /id must be a file name/],
  [[{ ...P, id: "a\\b" }], /id must be a file name/],
  [[{ ...P, id: "con" }], /id must be a file name/],
  [[{ ...P, id: "NUL.x" }], /id must be a file name/],
  [[{ ...P, id: "results" }], /id must be a file name/],
  [[{ ...P, id: ".hidden" }], /id must be a file name/],
  [[{ ...P, id: "a..b" }], /id must be a file name/],
  [[{ ...P, id: "end." }], /id must be a file name/],
  [[{ ...P, id: 7 }], /id must be a file name .*current 7/],
  [[{ ...P, id: "x".repeat(101) }], /id must be a file name/],
  [[{ ...P, id: "猫".repeat(60) }], /id must be a file name .* 120 bytes/],
  [
    [{ ...P, id: "a" }, { ...P, id: "A" }],
    /line 3: id "A" is that of line 1 too/,
  ],
  [
    [{ ...P, id: "a-1" }, { ...P, id: "a", seeds: [1, 2] }],
    /line 3: id "a-1" is that of line 1 too/,
  ],
  [[{ ...P, seeds: [] }], /seeds must be a list of 1 to/],
  [[{ ...P, seeds: [1, 1] }], /seeds must be a list of .*different/],
  [[{ ...P, seeds: [1.5] }], /seeds must be a list/],
  [[{ ...P, seeds: [-1, 2] }], /seed must be from 0/],
  [[{ ...P, seeds: [1], seed: 2 }], /seeds must stand alone/],
  [[{ ...P, count: 0 }], /count must be a whole number/],
  [[{ ...P, promt: "x" }], /did you mean "prompt"/],
  [[{ id: "x" }], /prompt must be a string: current nothing/],
  [
    [{ ...P, regions: [{ phrase: "dog", boxes: [[0, 0, 1, 1]] }] }],
    /line 1: Cannot place "dog"/,
  ],
  [[{ ...P, width: 18 }], /width must be a multiple of 4/],
  [Array(8).fill({ prompt: 1 }), /line 1: .*line 9: .*; and 3 more/],
];

BAD.forEach(([lines, message], i) => {
  test(`batch refuses file ${i}: ${message.source}`, async () => {
    await using folder = await tempFolder({});
    await layouts(folder.path, lines);
    const before = await filesIn(folder.path);
    const { code, out, err } = await run(args(folder.path));
    assert.deepEqual([code, out, err.length], [2, [], 1], err.join("\n"));
    assert.match(err[0]!, message);
    assert.match(err[0]!, /^winwinlay: Cannot use /);
    assert.deepEqual(await filesIn(folder.path), before);
  });
});

test("batch refuses folders, words and options that do not fit", async () => {
  await using folder = await tempFolder({});
  await layouts(folder.path);
  const file = join(folder.path, "layouts.jsonl");
  const cases: [string[], number, RegExp][] = [
    [["batch"], 2, /file is missing/],
    [["batch", file], 2, /folder is missing/],
    [
      ["batch", join(folder.path, "none.jsonl"), "-o", "x"],
      2,
      /path has no file/,
    ],
    [
      ["batch", file, "-o", join(folder.path, "no/such")],
      2,
      /its folder must exist/,
    ],
    [["batch", file, "-o", file], 2, /must be a folder/],
    [["batch", file, "-o", "x", "--seed", "1"], 2, /batch has no such option/],
    [args(folder.path, "--scheduler", "x"), 2, /--scheduler: it must be/],
    [args(folder.path, "--memory", "1MB"), 5, /Cannot paint/],
  ];
  for (const [words, wanted, message] of cases) {
    const { code, err } = await run(words);
    assert.equal(code, wanted, err.join("\n"));
    assert.match(err[0]!, message);
  }
});

test("a picture that is not ours in the way is refused, not replaced", async () => {
  await using folder = await tempFolder({});
  await layouts(folder.path);
  await mkdir(join(folder.path, "out"));
  const path = join(folder.path, "out/car.png");
  for (
    const bytes of [
      Buffer.from("junk"),
      Buffer.from(await encodePng(new Uint8Array(12), 2, 2, {})),
    ]
  ) {
    await writeFile(path, bytes);
    const { code, err } = await run(args(folder.path));
    assert.equal(code, 2);
    assert.match(err[0]!, /is no picture of ours/);
    assert.deepEqual(await readFile(path), bytes);
  }
});

const KILLS = 100;

test(`batch survives ${KILLS} kills: nothing double, nothing half`, async () => {
  await using calm = await tempFolder({});
  await using wild = await tempFolder({});
  const lines = Array.from(
    { length: 40 },
    (_, i) => ({ ...P, id: `p${i}`, seed: i }),
  );
  for (const { path } of [calm, wild]) await layouts(path, lines);
  assert.equal((await run(args(calm.path))).code, 0);
  const cli = fileURLToPath(new URL("../../cli.ts", import.meta.url));
  const out = join(wild.path, "out");
  const start = (): { pid: number; ended: Promise<string | null> } => {
    const child = spawn(
      process.execPath,
      ["run", "-A", "--no-check", cli, ...args(wild.path)],
      { stdio: "ignore" },
    );
    const ended = new Promise<string | null>((resolve) =>
      child.on("exit", (_, signal) => resolve(signal))
    );
    return { pid: child.pid!, ended };
  };
  const count = async (): Promise<number> =>
    (await readdir(out).catch(() => [])).filter((n) => n.endsWith(".png"))
      .length;
  // How long a run takes until its first picture, and for each after it.
  const begin = performance.now();
  const first = start();
  while (await count() === 0) await new Promise((r) => setTimeout(r, 5));
  const untilFirst = performance.now() - begin;
  await first.ended;
  const each = (performance.now() - begin - untilFirst) / (lines.length - 1);
  await rm(out, { recursive: true });
  const delays = rand(2026, KILLS);
  let killed = 0, finished = 0, grew = 0, before = 0;
  for (let i = 0; i < KILLS; i++) {
    const { pid, ended } = start();
    // From start-up to a few pictures later.
    const ms = untilFirst * 0.6 +
      (delays[i]! + 1) / 2 * (0.5 * untilFirst + 4 * each);
    const timer = setTimeout(() => process.kill(pid, "SIGKILL"), ms);
    if (await ended === null) finished++;
    else killed++;
    clearTimeout(timer);
    // What is there is whole; only the last line may be torn.
    const made = await pictures(wild.path).catch(() =>
      new Map<string, string>()
    );
    for (const name of made.keys()) assert.ok(/^p\d+\.png$/.test(name), name);
    if (made.size > before) grew++;
    before = made.size;
    const text = await readFile(join(out, "results.jsonl"), "utf8")
      .catch(() => "");
    for (const line of text.split("\n").slice(0, -1)) JSON.parse(line);
    // When all is there all is lost, so that something is left to paint.
    if (made.size === lines.length && i < KILLS - 1) {
      await rm(out, { recursive: true });
      before = 0;
    }
  }
  assert.equal(killed + finished, KILLS);
  assert.ok(killed > KILLS / 2, `${killed} were killed`);
  assert.ok(grew > KILLS / 10, `${grew} were killed while they painted`);
  assert.equal((await run(args(wild.path))).code, 0);
  assert.deepEqual(await pictures(wild.path), await pictures(calm.path));
  assert.deepEqual(await results(wild.path), await results(calm.path));
  console.log(
    `${killed} killed, ${grew} of them after a picture or more; ${finished} came to their end before`,
  );
});
