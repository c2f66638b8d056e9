/**
 * How fast is it? Kernels against other libraries, whole UNet passes against what their parts could do,
 * and a whole picture of the embedded model, each also without a GPU.
 *
 *   deno task bench [--only kernels|passes|image]... [--filter TEXT] [--quick]
 *     [--backend auto|webgpu|cpu] [--device native|dawn] [--kernels auto|software|gpu] [--json FILE]
 *
 * Prints Markdown, progress to stderr. `--filter` takes only kernels and UNets whose name contains the text.
 * Exits with 1 if any result of a kernel was wrong or a contender failed, not if a bar was missed.
 */
import { writeFile } from "node:fs/promises";
import process from "node:process";
import { parseArgs } from "node:util";
import { BACKEND_OPTIONS, expectOneOf } from "./flags.ts";
import { barLines } from "./report.ts";
import { bench, SECTIONS } from "./run.ts";

const { values } = parseArgs({
  options: {
    ...BACKEND_OPTIONS,
    only: { type: "string", multiple: true, default: [...SECTIONS] },
    filter: { type: "string" },
    quick: { type: "boolean", default: false },
    json: { type: "string" },
  },
});
const { only, filter, quick, json, ...flags } = values;
for (const section of only) expectOneOf("--only", section, SECTIONS);
const report = await bench({ only, filter, quick, flags });
console.log(report.markdown);
if (report.bars.length) {
  console.log("\n```text\n" + barLines(report.bars) + "\n```");
}
if (json) {
  const { markdown: _, ...numbers } = report;
  await writeFile(json, JSON.stringify(numbers, null, 2) + "\n");
}
const failed = report.kernels?.some(({ entries }) =>
  Object.values(entries).some((entry) => entry.failed)
);
process.exit(failed ? 1 : 0); // peers keep timers and workers
