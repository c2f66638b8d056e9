/** `compare`: what it paints and scores, that it goes on where it was, and what it refuses. */
import { strict as assert } from "node:assert";
import { cp, readdir, readFile, rm, unlink, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { main } from "../../cli.ts";
import { COMPARE_KEY } from "../../cli/compare_folder.ts";
import { COMPARE_PRESETS } from "../../cli/presets.ts";
import {
  checkForModel,
  decodePng,
  describeModel,
  embeddedModel,
  encodePng,
  readPngText,
  REQUEST_KEY,
} from "../../mod.ts";
import { tempFolder } from "../weights/temp_folder.ts";
import { filesIn, run } from "./harness.ts";

const GUIDED = "winwinlay:steps=1,iterations=1,rho=1:0";
/** As small as the embedded model paints; the detector sees them enlarged. */
const SMALL = ["--steps", "1", "--size", "16", "--backend", "cpu"];

function args(folder: string, ...more: string[]): string[] {
  const out = join(folder, "out");
  return [
    "compare",
    "--methods",
    `none,${GUIDED}`,
    "--out",
    out,
    ...SMALL,
    ...more,
  ];
}

/** Every result file as text or base64. */
async function results(folder: string): Promise<Map<string, string>> {
  const out = join(folder, "out");
  const names = (await readdir(out)).filter((name) => name !== "images");
  return new Map(
    await Promise.all(
      names.sort().map(async (name) =>
        [name, await readFile(join(out, name), "base64")] as const
      ),
    ),
  );
}

const images = (folder: string) => readdir(join(folder, "out/images"));
const text = (folder: string, name: string) =>
  readFile(join(folder, "out", name), "utf8");

test("compare paints, goes on, mends, and scores the same from the pictures alone", async () => {
  await using folder = await tempFolder({});
  const { path } = folder;
  const line = args(path, "--random", "2", "--seed", "4");
  const first = await run(line);
  assert.equal(first.code, 0, first.err.join("\n"));
  const guided = "winwinlay-steps-1-iterations-1-rho-1-0";
  const files = [
    "0001.none.0.png",
    `0001.${guided}.0.png`,
    "0002.none.1.png",
    `0002.${guided}.1.png`,
  ];
  assert.deepEqual((await images(path)).sort(), files);
  assert.deepEqual([...(await results(path)).keys()], [
    "contact-sheet.png",
    "results.jsonl",
    "table.csv",
    "table.md",
  ]);
  // The same noise and layout for both methods.
  const lines = (await text(path, "results.jsonl")).trim().split("\n")
    .map((row) => JSON.parse(row));
  assert.deepEqual(lines.map((l) => [l.layout, l.seed, l.method]), [
    ["0001", 0, "none"],
    ["0001", 0, GUIDED],
    ["0002", 1, "none"],
    ["0002", 1, GUIDED],
  ]);
  for (const l of lines) {
    assert.equal(l.things.length, l.shares.length);
    for (const { share } of l.shares) assert.ok(share > 0 && share < 1);
  }
  assert.equal(lines[0].prompt, lines[1].prompt);
  const table = await text(path, "table.md");
  assert.equal(first.out.join("\n"), table);
  assert.match(table, /\| none \| 2 \| \d\.\d{3} \[/);
  assert.match(table, /Difference to none, paired over layouts/);
  const csv = (await text(path, "table.csv")).trim().split("\n");
  assert.deepEqual(csv.map((row) => row.split(",").length > 60), [
    true,
    true,
    true,
  ]);
  assert.ok(csv[2]!.startsWith(`"${GUIDED}",2,`));
  const whole = await results(path);

  // Nothing is painted again, and everything is scored again.
  for (const name of whole.keys()) await unlink(join(path, "out", name));
  const again = await run(line);
  assert.match(again.err[0]!, /4 of 4 are there already/);
  assert.deepEqual(await results(path), whole);

  // From nothing but the pictures.
  await cp(join(path, "out/images"), join(path, "copy/images"), {
    recursive: true,
  });
  const alone = await run(["compare", "--rescore", join(path, "copy")]);
  assert.equal(alone.code, 0, alone.err.join("\n"));
  for (const [name, bytes] of whole) {
    assert.equal(
      await readFile(join(path, "copy", name), "base64"),
      bytes,
      name,
    );
  }

  // A broken picture is made again, with the same pixels; a missing one too.
  const [torn, missing] = [files[1]!, files[2]!].map((name) =>
    join(path, "out/images", name)
  ) as [string, string];
  const bytes = await readFile(torn);
  await writeFile(torn, bytes.subarray(0, bytes.length / 2));
  await writeFile(`${missing}.partial`, "half");
  await unlink(missing);
  const mended = await run(line);
  assert.equal(mended.code, 0);
  assert.match(mended.err.join("\n"), /2 of 4 are there already/);
  assert.match(mended.err.join("\n"), /note: 0001\.winwinlay.* is broken/);
  assert.deepEqual(decodePng(await readFile(torn)).rgb, decodePng(bytes).rgb);
  assert.deepEqual((await images(path)).sort(), files);

  // More seeds: what is there stays.
  const more = await run([
    ...line,
    "--seeds",
    "2",
    "--json",
    "--against",
    GUIDED,
  ]);
  assert.match(more.err[0]!, /4 of 8 are there already/);
  const rows = more.out.map((row) => JSON.parse(row));
  assert.deepEqual(
    rows.map((r) => [r.variant, r.images, r.layouts, r.against]),
    [
      ["none", 4, 2, GUIDED],
      [GUIDED, 4, 2, GUIDED],
    ],
  );
  assert.ok(rows[0].scores.share.low <= rows[0].scores.share.value);

  assert.deepEqual(
    (await images(path)).filter((name) => /none/.test(name)).sort(),
    [
      "0001.none.0.png",
      "0001.none.100000.png",
      "0002.none.1.png",
      "0002.none.100001.png",
    ],
  );

  // Another request under the same name.
  const other = [
    ...args(path, "--random", "1", "--seed", "4"),
    "--guidance-scale",
    "3",
  ];
  const refused = await run(other);
  assert.equal(refused.code, 2);
  assert.match(refused.err.at(-1)!, /must not be there for another request/);
  assert.equal((await run([...other, "--force"])).code, 0);
});

test("compare in parts paints what one process would", async () => {
  await using folder = await tempFolder({});
  const { path } = folder;
  const line = args(path, "--random", "1", "--seed", "4");
  const second = await run([...line, "--part", "2/2"]);
  assert.equal(second.code, 0, second.err.join("\n"));
  assert.match(second.err.at(-1)!, /without --part scores all parts/);
  assert.deepEqual(second.out, []);
  assert.deepEqual(await images(path), [
    "0001.winwinlay-steps-1-iterations-1-rho-1-0.0.png",
  ]);
  assert.deepEqual([...(await results(path)).keys()], []);
  assert.equal((await run([...line, "--part", "1/2"])).code, 0);
  assert.equal((await images(path)).length, 2);
  const scored = await run(line);
  assert.match(scored.err[0]!, /2 of 2 are there already/);
  assert.match(scored.out.join("\n"), /\| none \| 1 \|/);
  for (const part of ["0/2", "3/2", "1/0", "1", "a/b", "1/1001"]) {
    const refused = await run([...line, "--part", part]);
    assert.equal(refused.code, 2);
    assert.match(refused.err.at(-1)!, /must be K\/N/);
  }
});

test("compare stopped by Ctrl+C goes on to the same scores", async () => {
  await using folder = await tempFolder({});
  const { path } = folder;
  const line = args(path, "--random", "2");
  const stop = new AbortController();
  const said: string[] = [];
  const code = await main(line, {
    out: () => {},
    say: (text) => {
      said.push(text);
      if (text.startsWith("3/4")) stop.abort();
    },
    columns: 80,
    colour: false,
    signal: stop.signal,
  });
  assert.equal(code, 130);
  assert.match(said.at(-1)!, /interrupted/);
  const there = await filesIn(join(path, "out"));
  assert.deepEqual(
    there.filter((name) => name.endsWith(".png")).length,
    2,
    there.join(),
  );
  assert.ok(!there.some((name) => /lock|partial|results/.test(name)));
  const went = await run(line);
  assert.equal(went.code, 0);
  assert.match(went.err[0]!, /2 of 4 are there already/);
  const lines = (await text(path, "results.jsonl")).trim().split("\n");
  assert.equal(lines.length, 4);

  // A picture of one method only is not scored, and said so.
  await unlink(join(path, "out/images/0002.none.1.png"));
  const part = await run(["compare", "--rescore", join(path, "out"), "--json"]);
  assert.match(part.err[0]!, /note: 1 pictures are not scored/);
  assert.deepEqual(part.out.map((row) => JSON.parse(row).images), [1, 1]);
});

test("compare takes layouts and methods from files", async () => {
  await using folder = await tempFolder({
    "layouts.jsonl": [
      {
        id: "car",
        prompt: "a red car on grass",
        regions: [{ phrase: "red car", boxes: [[0, 0, 0.5, 0.5]] }],
        seed: 7,
      },
      {
        prompt: "two blue fish at sea",
        regions: [{
          phrase: "blue fish",
          boxes: [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]],
        }],
        width: 24,
      },
    ].map((line) => JSON.stringify(line)).join("\n\n"),
    "variants.json": JSON.stringify({
      "A: nothing": { method: "none" },
      "B, one step": { steps: 1, iterations: 1 },
    }),
  });
  const { path } = folder;
  const { code, err } = await run([
    "compare",
    "--layouts",
    join(path, "layouts.jsonl"),
    "--variants",
    join(path, "variants.json"),
    "--out",
    join(path, "out"),
    "--backend",
    "cpu",
    "--steps",
    "1",
    "--size",
    "16",
  ]);
  assert.equal(code, 0, err.join("\n"));
  assert.deepEqual((await images(path)).sort(), [
    "0003.a-nothing.1.png",
    "0003.b-one-step.1.png",
    "car.a-nothing.7.png",
    "car.b-one-step.7.png",
  ]);
  const png = await readFile(join(path, "out/images/0003.b-one-step.1.png"));
  const texts = readPngText(png);
  const request = JSON.parse(texts.get(REQUEST_KEY)!);
  assert.deepEqual(
    [request.guidance.method, request.guidance.iterations, request.seed],
    ["winwinlay", 1, 1],
  );
  const making = JSON.parse(texts.get(COMPARE_KEY)!);
  assert.deepEqual(
    [making.layout, making.row, making.variant, making.column],
    ["0003", 1, "B, one step", 1],
  );
  const last = JSON.parse(
    (await text(path, "results.jsonl")).trim().split("\n").at(-1)!,
  );
  assert.equal(last.things.length, 2); // one per box
  assert.match(await text(path, "table.csv"), /\n"B, one step",2,/);
});

test("compare of a model without a detector has what needs none", async () => {
  await using folder = await tempFolder({});
  const { path } = folder;
  const model = fileURLToPath(embeddedModel("tiny-scenes")!);
  const line = args(path, "--random", "1", "--model", model);
  const bare = await run(line);
  assert.equal(bare.code, 0, bare.err.join("\n"));
  const table = bare.out.join("\n");
  assert.match(table, /\| method \| images \| attention in box \| s\/image \|/);
  assert.match(table, /No detector looked at the pictures/);
  const seen = await run([...line, "--detector", model]);
  assert.match(seen.out.join("\n"), /\| images \| AP \| AP50 \| AR \|/);
  assert.doesNotMatch(seen.out.join("\n"), /NaN/);
});

const LAYOUT = {
  prompt: "a red car",
  regions: [{ phrase: "red car", boxes: [[0, 0, 0.5, 0.5]] }],
};
type Line = readonly string[];
const BAD: readonly [
  words: Line,
  layouts: readonly unknown[],
  message: RegExp,
][] = [
  [
    ["--methods", "none"],
    [],
    /either --layouts or --random .*: current neither/,
  ],
  [
    ["--random", "2"],
    [],
    /one of --methods, --variants and --preset .*: current none/,
  ],
  [
    ["--random", "2", "--methods", "none", "--preset", "fig6"],
    [],
    /current --methods and --preset/,
  ],
  [
    ["--random", "0", "--methods", "none"],
    [],
    /--random: it must be a whole number from 1/,
  ],
  [
    ["--random", "2", "--seeds", "1.5", "--methods", "none"],
    [],
    /--seeds: it must be a whole number/,
  ],
  [
    ["--random", "2", "--seed", "-1", "--methods", "none"],
    [],
    /--seed: it must be a whole number from 0/,
  ],
  [
    ["--random", "2", "--methods", "none,,"],
    [],
    /--methods: each must be a method .*current ""/,
  ],
  [["--random", "2", "--methods", "none:x"], [], /current "none:x"/],
  [
    ["--random", "2", "--methods", "none,NONE"],
    [],
    /names must differ in letters/,
  ],
  [
    ["--random", "2", "--methods", "nothing"],
    [],
    /Cannot compare "nothing": guidance\.method must be/,
  ],
  [
    ["--random", "2", "--methods", "winwinlay:snr=x"],
    [],
    /Cannot compare "winwinlay:snr=x": guidance\.snr/,
  ],
  [["--random", "2", "--methods", "winwinlay:sn=1"], [], /did you mean "snr"/],
  [
    ["--random", "2", "--methods", "none", "--against", "no"],
    [],
    /--against: it must be one of none.*did you mean none/,
  ],
  [
    ["--random", "2", "--methods", "none", "--detector", "nowhere"],
    [],
    /nowhere.*detector\.json/,
  ],
  [["--random", "2", "--preset", "fig8"], [], /--preset: it must be table1 or/],
  [
    ["--random", "2", "--methods", "none", "--settings", "none"],
    [],
    /--settings: it must be model or paper/,
  ],
  [["--methods", "none", "--seed", "3"], [LAYOUT], /--seed with --layouts/],
  [["--methods", "none"], ["{"], /line 1: it must be JSON/],
  [
    ["--methods", "none"],
    [{ prompt: "a red car" }],
    /line 1: it must have regions/,
  ],
  [
    ["--methods", "none"],
    [{ ...LAYOUT, bestOf: 2 }],
    /line 1: bestOf must be left out/,
  ],
  [
    ["--methods", "none"],
    [{ ...LAYOUT, seeds: [1] }],
    /line 1: seeds must be left to the command line/,
  ],
  [
    ["--methods", "none"],
    [{ ...LAYOUT, guidance: {} }],
    /line 1: guidance must be left/,
  ],
  [
    ["--methods", "none"],
    [{ ...LAYOUT, id: "../x" }],
    /line 1: id must be a file name/,
  ],
  [["--methods", "none"], [{ ...LAYOUT, id: "a" }, {
    ...LAYOUT,
    id: "a",
    seed: 0,
  }], /line 2: its id "a" is that of line 1 too/],
  [
    ["--methods", "none"],
    [{ ...LAYOUT, seed: "x" }],
    /line 1: seed must be a number/,
  ],
  [["--methods", "none"], [{
    prompt: "a red thing",
    regions: [{ ...LAYOUT.regions[0], phrase: "red thing" }],
  }], /line 1: Cannot score "red thing": it must name a kind/],
  [
    ["--variants", "layouts.jsonl"],
    [{ "": {} }],
    /it must be names with guidance.*one is ""/,
  ],
  [
    ["--variants", "layouts.jsonl"],
    [[1]],
    /it must be names with guidance.*has none/,
  ],
];

test("compare says what is wrong before anything is painted", async () => {
  await using folder = await tempFolder({});
  const { path } = folder;
  for (const [words, layouts, message] of BAD) {
    const file = join(path, "layouts.jsonl");
    const lines = layouts.map((x) =>
      typeof x === "string" ? x : JSON.stringify(x)
    );
    await writeFile(file, lines.join("\n"));
    const line = [
      "compare",
      ...words.map((word) => word === "layouts.jsonl" ? file : word),
      ...(words.includes("--random") || layouts.length === 0 ||
          words.includes("--variants")
        ? []
        : ["--layouts", file]),
      ...(words.includes("--variants") ? ["--random", "1"] : []),
      "--out",
      join(path, "out"),
    ];
    const { code, err } = await run(line);
    assert.ok(code === 2 || code === 3, `${words}: ${code} ${err}`);
    assert.match(err.at(-1)!, message, words.join(" "));
    assert.deepEqual(await readdir(path), ["layouts.jsonl"], words.join(" "));
  }
  const none = await run(["compare", "--random", "1", "--methods", "none"]);
  assert.match(
    none.err[0]!,
    /there must be a folder for the results: give --out/,
  );
});

test("compare --rescore refuses what is no comparison", async () => {
  await using folder = await tempFolder({});
  const { path } = folder;
  const rescore = async (...more: string[]) => {
    const { code, err } = await run(["compare", "--rescore", path, ...more]);
    assert.equal(code, 2);
    return err.at(-1)!;
  };
  assert.match(await rescore(), /it must be a folder of pictures/);
  for (const words of [["--methods", "none"], ["--steps", "3"], ["--force"]]) {
    assert.match(
      await rescore(...words),
      new RegExp(`Cannot use ${words[0]} with --rescore`),
    );
  }
  const png = await encodePng(new Uint8Array(3), 1, 1);
  await using other = await tempFolder({ "images/x.png": png });
  const { code, err } = await run(["compare", "--rescore", other.path]);
  assert.equal(code, 2);
  assert.match(err[0]!, /x\.png: it must be a whole picture of a comparison/);
  await rm(join(other.path, "images/x.png"));
  assert.match(
    (await run(["compare", "--rescore", other.path])).err[0]!,
    /there must be pictures in its folder images: current 0/,
  );
});

test("every preset compares methods that there are, with one of them", async () => {
  const facts = await describeModel("tiny-scenes");
  for (const [name, { variants, against }] of Object.entries(COMPARE_PRESETS)) {
    assert.ok(Object.hasOwn(variants, against), name);
    for (const guidance of Object.values(variants)) {
      checkForModel({ ...LAYOUT, guidance }, facts);
    }
    const requests = Object.values(variants).map((v) => JSON.stringify(v));
    assert.equal(new Set(requests).size, requests.length, name);
  }
});

test("compare plans every size before it paints anything", async () => {
  await using folder = await tempFolder({});
  const file = join(folder.path, "layouts.jsonl");
  const box = { phrase: "red car", boxes: [[0, 0, 0.5, 0.5]] };
  const lines = [
    { prompt: "a red car", regions: [box, box], width: 16, height: 16 },
    { prompt: "a red car", regions: [box], width: 512, height: 512 },
  ];
  await writeFile(file, lines.map((x) => JSON.stringify(x)).join("\n"));
  const { code, err } = await run([
    ...args(folder.path, "--layouts", file, "--memory", "100MB").filter((x) =>
      x !== "--size" && x !== "16"
    ),
  ]);
  assert.equal(code, 5, err.join("\n"));
  assert.match(err.at(-1)!, /Cannot paint 512x512/);
  assert.deepEqual(await images(folder.path), []);
});

test("a comparison and a part of it do not share a folder, parts of one whole do", async () => {
  await using folder = await tempFolder({});
  const out = join(folder.path, "out");
  await run(args(folder.path, "--random", "1", "--part", "2/2"));
  const lock = join(out, ".compare-1-of-2.lock");
  await writeFile(lock, JSON.stringify({ pid: 1, host: hostname() }));
  const line = (...more: string[]) =>
    run(args(folder.path, "--random", "1", ...more));
  for (const more of [[], ["--part", "1/3"]]) {
    const { code, err } = await line(...more);
    assert.equal(code, 2);
    assert.match(
      err.at(-1)!,
      /current \.compare-1-of-2\.lock is of process 1$/,
    );
  }
  assert.equal((await line("--part", "2/2")).code, 0);
});
