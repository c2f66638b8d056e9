/**
 * The benchmark for a machine with a GPU, in one command: everything of `deno task bench`, then SD1.5's
 * exact architecture with random fp16 weights that are made here, and the same in PyTorch.
 *
 *   deno task bench-gpu [--size 512] [--steps 50] [--guided 10] [--only kernels|passes|image|torch]...
 *     [--model sd15|tiny-scenes] [--folder out/full-size] [--python python3] [--peak TFLOPS] [--quick]
 *     [--backend webgpu] [--device native|dawn] [--kernels auto|software|gpu|matrix] [--json FILE]
 *
 * Needs Deno, the GPU's Vulkan driver, 2.2 GB of disk, and nothing from the network: peers that are not in
 * Deno's cache, and PyTorch where Python has none, are reported as absent. `--peak` is what shares of the
 * peak are taken of; without it they are taken of measured rates. `--model tiny-scenes --size 128` puts the
 * embedded model in SD1.5's place, to try all of it without a GPU.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { embeddedModel, open } from "../mod.ts";
import { pixelsPerCell } from "../pipeline/decode.ts";
import { BACKEND_OPTIONS, expectOneOf, openOptions } from "./flags.ts";
import { benchImage, benchRequest, type ImageReport } from "./image.ts";
import { writeRandomCheckpoint } from "./random_checkpoint.ts";
import { type Bar, barLines } from "./report.ts";
import { bench, SECTIONS } from "./run.ts";
import { benchTorch, findTorch, type TorchReport } from "./torch.ts";
import { torchTable } from "./torch_table.ts";

const ALL = [...SECTIONS, "torch"] as const;
const { values } = parseArgs({
  options: {
    ...BACKEND_OPTIONS,
    only: { type: "string", multiple: true, default: [...ALL] },
    model: { type: "string", default: "sd15" },
    size: { type: "string", default: "512" },
    steps: { type: "string", default: "50" },
    guided: { type: "string", default: "10" },
    folder: { type: "string", default: "out/full-size" },
    python: { type: "string", default: "python3" },
    peak: { type: "string" },
    quick: { type: "boolean", default: false },
    json: { type: "string" },
  },
});
const { backend = "webgpu", device, kernels } = values;
const flags = { backend, device, kernels };
/** Beyond it torch and we do not compute the same. Matrix units take 16 bits. */
const MOST_ERROR = kernels === "matrix" ? 2e-2 : 1e-3;
for (const section of values.only) expectOneOf("--only", section, ALL);
expectOneOf("--model", values.model, ["sd15", "tiny-scenes"]);
const size = positive("--size"), steps = positive("--steps");
const guided = positive("--guided");
const peak = values.peak === undefined ? undefined : positive("--peak");
const sections = values.only.filter((x) => x !== "torch");

const report = await bench({
  only: sections,
  quick: values.quick,
  flags,
  side: size / 8,
});
console.log(report.markdown);
const bars: Bar[] = [...report.bars];
const beside = values.only.includes("torch") ? await besideTorch() : undefined;
if (bars.length) console.log("\n```text\n" + barLines(bars) + "\n```");
if (values.json) {
  const { markdown: _, ...numbers } = report;
  const all = { ...numbers, model: values.model, beside, bars };
  await writeFile(values.json, JSON.stringify(all, null, 2) + "\n");
}
process.exit(0); // peers keep timers and workers

function positive(flag: `--${"size" | "steps" | "guided" | "peak"}`): number {
  const text = values[flag.slice(2) as "size"];
  const value = Number(text);
  if (!(value > 0)) {
    throw new RangeError(
      `Cannot run the benchmark: ${flag} must be above 0: current value is "${text}"`,
    );
  }
  return value;
}

/** A picture of ours, and the same steps in torch. */
async function besideTorch(): Promise<
  { image: ImageReport; torch: TorchReport | { readonly reason: string } }
> {
  await mkdir(values.folder, { recursive: true });
  const { location, folder } = await checkpoint();
  console.error(`loading ${values.model}`);
  using model = await open(location, openOptions(flags));
  const request = { steps, guided, size };
  console.error(`a picture of ${size}x${size}`);
  await model.generate(benchRequest({ ...request, steps: 2, guided: 1 })); // compiles
  const image = await benchImage(model, request);
  const found = await findTorch(values.python);
  let torch: TorchReport | { readonly reason: string };
  if ("version" in found) {
    console.error(`PyTorch ${found.version}`);
    const { unet, vae } = model.networks;
    torch = await benchTorch(unet, {
      python: values.python,
      folder,
      task: join(values.folder, "torch-task.safetensors"),
      side: size / pixelsPerCell(vae),
      image: request,
      iterations: image.iterations,
    });
    bars.push({
      text:
        `${values.model}: noise and gradient are torch's within ${MOST_ERROR}`,
      passed: Math.max(torch.errors.output, torch.errors.grad) <= MOST_ERROR,
      found: `relative L2 ${torch.errors.output.toExponential(1)} and ${
        torch.errors.grad.toExponential(1)
      }`,
    });
  } else torch = found;
  const { model: name } = values;
  console.log(
    "\n" + torchTable({ name, image, torch, peak, rates: report.rates }),
  );
  return { image, torch };
}

/** What `open` takes, and the folder of the UNet; random weights are written unless they are there. */
async function checkpoint(): Promise<{ location: string; folder: string }> {
  const known = embeddedModel(values.model);
  if (known) {
    return {
      location: values.model,
      folder: fileURLToPath(new URL("unet", known)),
    };
  }
  const location = join(values.folder, "sd15");
  console.error("random weights of SD1.5");
  await writeRandomCheckpoint("sd15", location);
  return { location, folder: join(location, "unet") };
}
