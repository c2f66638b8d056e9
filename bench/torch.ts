/**
 * PyTorch as a peer, where `python3` has it: the same UNet with the same weights in plain torch modules
 * (`torch_unet.py`), first checked against our noise and gradient, then timed.
 */
import { spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { ENERGY_DEFAULTS } from "../pipeline/energy.ts";
import { guidedSites } from "../pipeline/guidance/sites.ts";
import { WINWINLAY_DEFAULTS } from "../pipeline/guidance/winwinlay.ts";
import { logPrior, rasterizeUnion } from "../pipeline/raster.ts";
import type { Unet } from "../pipeline/unet.ts";
import { attentionSites } from "../pipeline/unet_config.ts";
import {
  encodeSafetensors,
  type TensorData,
} from "../tests/weights/encode_safetensors.ts";
import type { ImageRequest } from "./image.ts";
import { passInputs, RHO, SUBJECTS, TIMESTEP } from "./pass_inputs.ts";
import { transposed } from "./transpose.ts";

/** What `torch_unet.py` prints. */
export interface TorchReport {
  /** Version. */
  readonly torch: string;
  /** GPU, or `cpu`. */
  readonly device: string;
  /** Of weights and activations while it was timed. */
  readonly dtype: string;
  /** Relative L2 errors of noise and gradient between torch in float32 and us. */
  readonly errors: { readonly output: number; readonly grad: number };
  /** Each step. */
  readonly plainStepSeconds: readonly number[];
  /** Each step that updates precede. */
  readonly guidedStepSeconds: readonly number[];
  /** All steps, without text encoder and decoder. */
  readonly imageSeconds: number;
  /** Of a large product in that type. */
  readonly matmulTflops: number;
  /** Most bytes of its tensors on a GPU: the UNet's weights and its steps, nothing of text and decoder. */
  readonly peakBytes: number | null;
}

/** Whether a Python has torch, and why not. */
export async function findTorch(
  python: string,
): Promise<{ readonly version: string } | { readonly reason: string }> {
  const { code, stdout, stderr } = await run(python, [
    "-c",
    "import torch; print(torch.__version__)",
  ]);
  return code === 0
    ? { version: stdout.trim() }
    : { reason: stderr.trim().split("\n").at(-1) || `${python} does not run` };
}

/**
 * Runs torch on a UNet's folder and on our inputs.
 *
 * @param unet Loaded from that folder.
 * @param options.folder With `config.json` and one safetensors file.
 * @param options.task Where the inputs are written for it.
 * @throws If Python fails.
 */
export async function benchTorch(
  unet: Unet,
  { python, folder, task, side, image, iterations }: {
    readonly python: string;
    readonly folder: string;
    readonly task: string;
    readonly side: number;
    readonly image: ImageRequest;
    readonly iterations: number;
  },
): Promise<TorchReport> {
  await writeFile(task, encodeSafetensors(await makeTask(unet, side)));
  const { code, stdout, stderr } = await run(python, [
    fileURLToPath(new URL("torch_unet.py", import.meta.url)),
    "--unet",
    folder,
    "--task",
    task,
    "--steps",
    String(image.steps),
    "--guided",
    String(image.guided),
    "--iterations",
    String(iterations),
  ]);
  if (code !== 0) {
    throw new Error(
      `Cannot compare with PyTorch: torch_unet.py must succeed: ${stderr.trim()}`,
    );
  }
  return JSON.parse(stdout.trim().split("\n").at(-1)!);
}

/** Inputs, the energy's tables per site, and what we find; see `torch_unet.py`. */
async function makeTask(
  unet: Unet,
  side: number,
): Promise<Map<string, TensorData>> {
  const { backend, config } = unet;
  using inputs = passInputs(unet, side);
  const { output, grad, terms } = await inputs.gradient();
  const [z, states, noise, slope] = await backend.read(
    [inputs.z, inputs.states, output, grad],
  );
  for (const x of [output, grad, ...terms]) x.dispose();
  const task = new Map<string, TensorData>();
  const add = (
    name: string,
    shape: readonly number[],
    data: ArrayLike<number>,
  ): void => {
    task.set(name, { dtype: "F32", shape, data: Float32Array.from(data) });
  };
  const { shape } = inputs.z;
  const [, text = 0, tokens = 0] = inputs.states.shape;
  add("z", shape, z!);
  add("states", [1, tokens, text], transposed(states!, [1, text, tokens]));
  add("timestep", [1], [TIMESTEP]);
  add("rho", [1], [RHO]);
  const probed = SUBJECTS.flatMap((s) => s.tokens);
  add("tokens", [probed.length], probed);
  const region = SUBJECTS.flatMap((s, i) => s.tokens.map(() => i));
  add("region", [region.length], region);
  const guided = guidedSites(config, WINWINLAY_DEFAULTS.sites);
  const sites = attentionSites(config).filter(({ id }) => guided.includes(id));
  for (const [i, { level }] of sites.entries()) {
    let cells = side;
    for (let l = 0; l < level; l++) cells = Math.ceil(cells / 2);
    const shape = [SUBJECTS.length, cells * cells];
    const masks = SUBJECTS.map(({ boxes }) =>
      rasterizeUnion(boxes, cells, cells, ENERGY_DEFAULTS.raster)
    );
    const priors = SUBJECTS.map(({ boxes: [box] }, s) =>
      logPrior(box!, masks[s]!, cells, cells, ENERGY_DEFAULTS)
    );
    add(`mask.${i}`, shape, masks.flatMap((x) => [...x]));
    const finite = priors.flatMap((x) => [...x]).map((x) => Math.max(x, -2e30));
    add(`prior.${i}`, shape, finite);
  }
  add("output", shape, noise!);
  add("grad", shape, slope!);
  return task;
}

function run(
  program: string,
  args: readonly string[],
): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "", stderr = "";
    child.stdout.on("data", (part) => stdout += part);
    child.stderr.on("data", (part) => stderr += part);
    child.on(
      "error",
      ({ message }) => resolve({ code: 127, stdout, stderr: message }),
    );
    child.on("close", (code) => resolve({ code: code ?? 1, stdout, stderr }));
  });
}
