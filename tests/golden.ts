/**
 * `deno task golden`: runs a folder of golden cases, the numbers of public reference code.
 *
 * Needs no test framework; runs under Deno and Bun.
 */
import { existsSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { DeviceChoice } from "../kernels/adapter.ts";
import type { Backend } from "../kernels/backend.ts";
import { Cpu } from "../kernels/cpu.ts";
import { NoDeviceError } from "../kernels/errors.ts";
import { KERNEL_CHOICES } from "../kernels/family.ts";
import { WebGpu } from "../kernels/webgpu.ts";
import type { Check } from "./golden/compare.ts";
import { type Outcome, readCases, runCase } from "./golden/runner.ts";

const HELP = `deno task golden
deno task golden --backend cpu --filter op-
bun tests/golden.ts --dir ../shared/golden

  --dir DIR         a folder with index.json; default ../shared/golden if it is there,
                    else tests/fixtures/golden
  --models DIR      where models lie that cases name; default ../shared/models, then tests/fixtures/golden
  --backend NAME    webgpu (default) or cpu
  --device NAME     native or dawn; default is the runtime's choice
  --kernels NAME    auto (default), software or gpu
  --filter TEXT     only cases whose id or kind contains TEXT; may be repeated
  --json            one object per case, with every tensor
  -v, --verbose     every tensor of every case

Exit code: 0 all passed, 1 failed, 2 usage, 4 no device.`;

const path = (relative: string): string =>
  fileURLToPath(new URL(relative, import.meta.url));

function defaultDir(): string {
  const shared = path("../../shared/golden");
  return existsSync(shared) ? shared : path("fixtures/golden");
}

async function main(args: readonly string[]): Promise<number> {
  const usage = (problem: string): number => {
    console.error(`${problem}\n\n${HELP}`);
    return 2;
  };
  let values;
  try {
    ({ values } = parseArgs({
      args: [...args],
      options: {
        dir: { type: "string" },
        models: { type: "string" },
        backend: { type: "string", default: "webgpu" },
        device: { type: "string" },
        kernels: { type: "string", default: "auto" },
        filter: { type: "string", multiple: true, default: [] },
        json: { type: "boolean", default: false },
        verbose: { type: "boolean", short: "v", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    }));
  } catch (error) {
    return usage((error as Error).message);
  }
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const { dir = defaultDir(), device, filter } = values;
  const kernels = KERNEL_CHOICES.find((name) => name === values.kernels);
  if (kernels === undefined) {
    return usage(
      `Cannot run ${values.kernels} kernels: they must be one of ${KERNEL_CHOICES}`,
    );
  }
  if (!["cpu", "webgpu"].includes(values.backend)) {
    return usage(`Cannot run on ${values.backend}: it must be cpu or webgpu`);
  }
  if (device !== undefined && !["native", "dawn"].includes(device)) {
    return usage(`Cannot run on ${device}: it must be native or dawn`);
  }
  const cases = (await readCases(dir)).filter(({ id, kind }) =>
    filter.length === 0 ||
    filter.some((text) => id.includes(text) || kind.includes(text))
  );
  if (cases.length === 0) return usage("Cannot run: no case is left to run");
  let backend: Backend;
  try {
    backend = values.backend === "cpu"
      ? new Cpu(kernels === "gpu" ? "gpu" : "software")
      : await WebGpu.open({
        device: device as DeviceChoice | undefined,
        kernels,
      });
  } catch (error) {
    if (!(error instanceof NoDeviceError)) throw error;
    console.error(error.message);
    return 4;
  }
  using open = backend;
  console.error(`${dir} on ${open.description}`);
  const models = [
    values.models ?? path("../../shared/models"),
    path("fixtures/golden"),
  ];
  const outcomes: Outcome[] = [];
  const start = performance.now();
  for (const entry of cases) {
    const outcome = await runCase(entry, { dir, models, backend: open });
    outcomes.push(outcome);
    if (values.json) console.log(JSON.stringify(plain(outcome)));
    else print(outcome, values.verbose);
  }
  const count = (status: Outcome["status"], optional = false) =>
    outcomes.filter((o) => o.status === status && (!optional || !o.optional))
      .length;
  const failed = count("failed", true);
  const forgiven = count("failed") - failed;
  const later = count("not yet supported");
  console.error(
    `\n${count("passed")} passed, ${failed} failed` +
      (forgiven ? `, ${forgiven} optional failed` : "") +
      (later ? `, ${later} not yet supported` : "") +
      ` in ${((performance.now() - start) / 1000).toFixed(1)} s`,
  );
  return failed > 0 ? 1 : 0;
}

/** JSON has no infinity. */
function plain(outcome: Outcome): unknown {
  const number = (x: number): number | null => Number.isFinite(x) ? x : null;
  const checks = outcome.checks.map((check) => ({
    ...check,
    relL2: number(check.relL2),
    maxAbs: number(check.maxAbs),
    ratio: number(check.ratio),
  }));
  return { ...outcome, checks };
}

function print(outcome: Outcome, verbose: boolean): void {
  const { id, status, note, checks, seconds, optional } = outcome;
  const word = { passed: "ok  ", failed: "FAIL", "not yet supported": "-   " };
  const worst = checks[0];
  const detail = status === "not yet supported"
    ? `not yet supported: ${note}`
    : worst
    ? `${describe(worst)}  (${seconds.toFixed(2)} s)`
    : "";
  console.log(
    `${word[status]} ${id.padEnd(30)} ${detail}${optional ? " optional" : ""}`,
  );
  if (status === "failed") console.log(`     ${note}`);
  if (verbose) {
    for (const check of checks) console.log(`     ${describe(check)}`);
  }
}

function describe(check: Check): string {
  const { tensor, ratio, relL2, relL2Bound, maxAbs, maxAbsBound } = check;
  const e = (x: number): string => x.toExponential(1);
  return relL2Bound === 0
    ? `${ratio === 0 ? "equal" : "differs"}  ${tensor}`
    : `${ratio.toFixed(3)}  ${tensor}: rel_l2 ${e(relL2)} of ${
      e(relL2Bound)
    }, max_abs ${e(maxAbs)} of ${e(maxAbsBound)}`;
}

process.exitCode = await main(process.argv.slice(2));
