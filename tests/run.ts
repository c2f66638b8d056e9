/**
 * `deno task test`: every suite in every configuration, with a count for each.
 *
 * ```text
 * unit (deno)    all tests that need no backend
 * unit (bun)     tests/weights and tests/pipeline once more, under Bun
 * cpu            tests/kernels, tests/networks, tests/golden_test.ts on the reference backend
 * deno-wgpu      the same on WebGPU: Deno's navigator.gpu
 * deno-dawn      the same on WebGPU: Dawn (npm webgpu) under Deno
 * bun-dawn       the same on WebGPU: Dawn under Bun
 * cpu-gpu        the references of the kernels that real GPUs get
 * deno-wgpu-gpu  these kernels on the same adapter, with memory, pixels and golden cases
 * deno-dawn-gpu  the same on Dawn, without memory and pixels
 * ```
 *
 * And where an adapter has matrix units (a GPU, or lavapipe from Mesa 26 on), only if asked for:
 *
 * ```text
 * deno-dawn-matrix  products by these
 * ```
 *
 * A configuration that cannot run is MISSING and fails the run unless
 * `--allow-missing` is given. The system is changed only with `--install` or in CI.
 */

import process from "node:process";
import { parseArgs } from "node:util";
import {
  CACHE,
  findBun,
  installVulkan,
  probe,
  readText,
  ROOT,
  softwareEnv,
} from "./machine.ts";
import { type Counts, readJunit, type Report } from "./setup.ts";

const HELP = `deno task test
deno task test --only unit --only cpu --filter softmax

  --only NAME       unit, cpu, deno-wgpu, deno-dawn, bun-dawn, cpu-gpu, deno-wgpu-gpu,
                    deno-dawn-gpu or deno-dawn-matrix; may be repeated. Default all but the last
  --filter TEXT     only tests whose name contains TEXT
  --install         install a missing software Vulkan driver (root, apt); default in CI
  --software        use the software adapter even if there is a GPU; default in CI
  --allow-missing   a configuration that cannot run is not a failure (never in CI)
  --jobs N          configurations at a time, default 2: most use one processor at a time
  --limit-min N     stop a configuration after N minutes, default 45`;

/** The suite that runs only where it is asked for. */
const MATRIX = "deno-dawn-matrix";

/** Lines of a failure that are said again at the end. */
const MESSAGE_LINES = 30;

type Runtime = "deno" | "bun";

interface Suite {
  readonly name: string;
  readonly only: string;
  readonly runtime: Runtime;
  readonly files: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

interface Outcome extends Report {
  readonly name: string;
  readonly adapter: string;
  readonly seconds: number;
  /** Why it failed beyond its tests, or "". */
  readonly note: string;
  readonly missing: boolean;
}

interface Setup {
  /** Program per runtime, or why there is none. */
  readonly programs: ReadonlyMap<Runtime, string>;
  readonly absent: ReadonlyMap<Runtime, string>;
  /** For every child: the choice of Vulkan driver. */
  readonly env: Readonly<Record<string, string>>;
}

/** The suites in the order in which they start: long ones first, so that no lane is left alone with one. */
async function listSuites(): Promise<Suite[]> {
  const all = await testFiles("tests");
  const backend = all.filter((path) =>
    /^tests\/(kernels|networks)\/|^tests\/golden_test\.ts$/.test(path)
  );
  const unit = all.filter((path) => !backend.includes(path));
  const cpu = { WINWINLAY_TEST_BACKEND: "cpu" };
  const gpu = (device: string) => ({
    WINWINLAY_TEST_BACKEND: "webgpu",
    WINWINLAY_TEST_DEVICE: device,
  });
  const suite = (
    name: string,
    runtime: Runtime,
    files: readonly string[],
    env: Record<string, string>,
  ) => ({ name, only: name.split(" ")[0]!, runtime, files, env });
  const both = /^tests\/(weights|pipeline)\//;
  // What a family changes; software adapters would never get to see the other one.
  const family = {
    WINWINLAY_TEST_KERNELS: "gpu",
    WINWINLAY_TEST_GOLDEN: "op-,block-,unet-tiny-sd15-32,unet-tiny-sdxl-32",
  };
  const ops =
    /\/(gemm|half_tiles|conv|attention|linear|family|group_norm|layer_norm)_test\.ts$/;
  const familyOps = backend.filter((path) => ops.test(path));
  const familyAll = backend.filter((path) =>
    ops.test(path) || /\/(golden|storage|same_pixels)_test\.ts$/.test(path)
  );
  return [
    suite("cpu", "deno", backend, cpu),
    suite("deno-wgpu", "deno", backend, gpu("native")),
    suite("unit (deno)", "deno", unit, cpu),
    suite("deno-dawn", "deno", backend, gpu("dawn")),
    suite("bun-dawn", "bun", backend, gpu("dawn")),
    suite("deno-wgpu-gpu", "deno", familyAll, { ...gpu("native"), ...family }),
    suite("cpu-gpu", "deno", familyOps, { ...cpu, ...family }),
    suite(
      "deno-dawn-gpu",
      "deno",
      familyAll.filter((path) => !path.startsWith("tests/networks/")),
      { ...gpu("dawn"), ...family },
    ),
    suite("unit (bun)", "bun", unit.filter((path) => both.test(path)), cpu),
    suite(
      MATRIX,
      "deno",
      backend.filter((path) => path.endsWith("matrix_test.ts")),
      { ...gpu("dawn"), WINWINLAY_TEST_KERNELS: "matrix" },
    ),
  ];
}

/** Every `_test.ts` under a folder, as paths from the repository root, sorted. */
async function testFiles(folder: string): Promise<string[]> {
  const found: string[] = [];
  for await (const entry of Deno.readDir(new URL(folder, ROOT))) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory && entry.name !== "fixtures") {
      found.push(...await testFiles(path));
    } else if (entry.isFile && entry.name.endsWith("_test.ts")) {
      found.push(path);
    }
  }
  return found.sort();
}

/** The runtimes and the driver, as far as the chosen suites need them. */
async function prepare(
  suites: readonly Suite[],
  options: { software: boolean; install: boolean },
): Promise<Setup> {
  const programs = new Map<Runtime, string>([["deno", Deno.execPath()]]);
  const absent = new Map<Runtime, string>();
  if (suites.some(({ runtime }) => runtime === "bun")) {
    try {
      programs.set("bun", await findBun());
    } catch (error) {
      absent.set("bun", (error as Error).message);
    }
  }
  const choose = async () => options.software ? await softwareEnv() : {};
  let env: Record<string, string> = await choose();
  const bun = programs.get("bun"); // for the tests that compare runtimes
  const devices = new Set(
    suites.flatMap(({ env }) => env.WINWINLAY_TEST_DEVICE ?? []),
  );
  for (const device of devices) {
    if ("adapter" in await probe(Deno.execPath(), device, env)) continue;
    if (await installVulkan(options.install)) env = await choose();
    break;
  }
  if (bun !== undefined) env = { ...env, WINWINLAY_TEST_BUN: bun };
  return { programs, absent, env };
}

/** Copies a child's output line by line behind the suite's name. */
async function copyLines(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  prefix: string,
): Promise<void> {
  let rest = "";
  const print = (line: string) => {
    // Dawn says this of every Mesa adapter
    if (!/^Warning: maxDynamic\w+ artificially reduced/.test(line)) {
      console.log(`${prefix} | ${line}`);
    }
  };
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split(/\r?\n/);
    rest = lines.pop()!;
    lines.forEach(print);
  }
  if (rest !== "") print(rest);
}

async function runSuite(
  suite: Suite,
  setup: Setup,
  options: { filter: string | undefined; limitMin: number },
): Promise<Outcome> {
  const { name, runtime, files } = suite;
  const start = performance.now();
  const outcome = (
    report: Report,
    note: string,
    missing = false,
    adapter = "",
  ): Outcome => ({
    ...report,
    name,
    adapter,
    note,
    missing,
    seconds: (performance.now() - start) / 1000,
  });
  const none = { passed: 0, failed: 0, skipped: 0, failures: [] };
  const program = setup.programs.get(runtime);
  if (program === undefined) {
    return outcome(none, setup.absent.get(runtime) ?? "", true);
  }
  const device = suite.env.WINWINLAY_TEST_DEVICE;
  let adapter = "";
  if (device !== undefined) {
    const found = await probe(program, device, setup.env);
    if ("reason" in found) return outcome(none, found.reason, true);
    adapter = found.adapter;
  }
  if (files.length === 0) {
    return outcome({ ...none, failed: 1 }, "no test files", false, adapter);
  }
  console.log(`\n== ${name}${adapter && `: ${adapter}`}`);
  const report = decodeURIComponent(
    new URL(`junit-${name.replace(/\W+/g, "-")}.xml`, CACHE).pathname,
  );
  await Deno.remove(report).catch(() => {});
  const { filter } = options;
  const args = runtime === "deno"
    ? [
      "test",
      "-A",
      "--no-check", // `deno task ok` checks types
      `--junit-path=${report}`,
      ...filter === undefined ? [] : ["--filter", filter],
      ...files,
    ]
    : [
      "test",
      "--timeout=600000", // compiling for lavapipe can take minutes
      "--reporter=junit",
      `--reporter-outfile=${report}`,
      ...filter === undefined ? [] : ["-t", escapeRegExp(filter)],
      ...files.map((path) => `./${path}`),
    ];
  const child = new Deno.Command(program, {
    args,
    cwd: ROOT,
    env: {
      ...Deno.stdout.isTerminal() ? {} : { NO_COLOR: "1" },
      ...setup.env,
      ...suite.env,
    },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill("SIGKILL"); // a hung driver ignores anything less
  }, options.limitMin * 60_000);
  const [status] = await Promise.all([
    child.status,
    copyLines(child.stdout, name),
    copyLines(child.stderr, name),
  ]);
  clearTimeout(timer);
  let counts = readJunit(await readText(report));
  let note = "";
  const ran = counts.passed + counts.failed;
  if (late) note = `stopped after ${options.limitMin} minutes`;
  else if (status.signal) note = `ended with ${status.signal}`;
  else if (ran === 0 && filter === undefined) note = "ran no test";
  else if (
    !status.success && counts.failed === 0 &&
    // Bun takes it for a failure when the filter leaves nothing
    !(runtime === "bun" && filter !== undefined && ran === 0)
  ) {
    note = `ended with exit code ${status.code}`;
  }
  if (note !== "") counts = { ...counts, failed: counts.failed + 1 };
  return outcome(counts, note, false, adapter);
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

function printTable(outcomes: readonly Outcome[]): void {
  const rows = [
    ["configuration", "passed", "failed", "skipped", "seconds", "adapter"],
    ...outcomes.map((o) => [
      o.name,
      ...o.missing
        ? ["MISSING", "", ""]
        : [o.passed, o.failed, o.skipped].map(String),
      o.seconds.toFixed(1),
      o.adapter,
    ]),
  ];
  const widths = rows[0]!.map((_, i) =>
    Math.max(...rows.map((row) => row[i]!.length))
  );
  console.log();
  for (const row of rows) {
    console.log(
      row.map((cell, i) =>
        i >= 1 && i <= 4 ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)
      ).join("  ").trimEnd(),
    );
  }
  for (const { name, note, missing, failures } of outcomes) {
    if (note) console.log(`${missing ? "MISSING" : "FAILED"} ${name}: ${note}`);
    for (const failure of failures) { // the log above may be cut off
      console.log(`FAILED ${name}: ${failure.name}`);
      const lines = failure.text.trimEnd().split("\n").slice(0, MESSAGE_LINES);
      for (const line of lines) console.log(`    ${line.slice(0, 500)}`);
    }
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    args: Deno.args,
    allowNegative: true,
    options: {
      only: { type: "string", multiple: true },
      filter: { type: "string" },
      install: { type: "boolean" },
      software: { type: "boolean" },
      "allow-missing": { type: "boolean", default: false },
      jobs: { type: "string", default: "2" },
      "limit-min": { type: "string", default: "45" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const ci = !["", "0", "false"].includes(process.env.CI ?? "");
  const limitMin = Number(values["limit-min"]), jobs = Number(values.jobs);
  const all = await listSuites();
  const only = values.only ??
    all.map((suite) => suite.only).filter((name) => name !== MATRIX);
  const unknown = only.filter((name) => !all.some((s) => s.only === name));
  const wrong = unknown.length > 0
    ? `Cannot run ${unknown.join(", ")}: there is no such configuration`
    : !(limitMin > 0)
    ? `Cannot use --limit-min: it must be above 0: current ${
      values["limit-min"]
    }`
    : !(Number.isInteger(jobs) && jobs > 0)
    ? `Cannot use --jobs: it must be a whole number from 1: current ${values.jobs}`
    : "";
  if (wrong !== "") {
    console.error(wrong);
    console.error(`\n${HELP}`);
    return 2;
  }
  const suites = all.filter((suite) => only.includes(suite.only));
  await Deno.mkdir(CACHE, { recursive: true });
  const setup = await prepare(suites, {
    software: values.software ?? ci,
    install: values.install ?? ci,
  });
  const { filter } = values;
  const outcomes: Outcome[] = new Array(suites.length);
  let next = 0;
  const lane = async () => {
    while (next < suites.length) {
      const i = next++;
      outcomes[i] = await runSuite(suites[i]!, setup, { filter, limitMin });
    }
  };
  await Promise.all(Array.from({ length: jobs }, lane));
  printTable(outcomes);
  const sum = (key: keyof Counts) =>
    outcomes.reduce((total, outcome) => total + outcome[key], 0);
  const missing = outcomes.filter((outcome) => outcome.missing).length;
  const forgiven = values["allow-missing"] && !ci;
  const failed = sum("failed") + (forgiven ? 0 : missing);
  const skipped = values.filter === undefined ? sum("skipped") : 0;
  const tail = skipped > 0 ? `, ${skipped} skipped` : "";
  console.log(`\n${sum("passed")} passed, ${failed} failed${tail}`);
  return failed > 0 || sum("passed") === 0 ? 1 : 0;
}

if (import.meta.main) Deno.exit(await main());
