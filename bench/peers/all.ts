/** Every peer that can be had. */
import type { Absent, Contender } from "../contender.ts";
import { jaxJs } from "./jax.ts";
import { onnxRuntimeWeb } from "./ort.ts";
import { tensorFlowJs } from "./tfjs.ts";

const PEERS: readonly (readonly [
  name: string,
  where: Contender["where"],
  load: () => Promise<Contender>,
])[] = [
  ["jax-js", "adapter", jaxJs],
  ["ORT WebGPU", "adapter", () => onnxRuntimeWeb("webgpu")],
  ["tfjs WebGPU", "adapter", tensorFlowJs],
  ["ORT wasm", "cpu", () => onnxRuntimeWeb("wasm")],
];

/**
 * Loads them.
 *
 * @param adapter Undefined if the peers, which know `navigator.gpu` alone, run where we do; else why not.
 */
export async function loadPeers(
  adapter: string | undefined,
): Promise<{ contenders: Contender[]; absent: Absent[] }> {
  const contenders: Contender[] = [], absent: Absent[] = [];
  for (const [name, where, load] of PEERS) {
    if (where === "adapter" && adapter !== undefined) {
      absent.push({ name, reason: adapter });
      continue;
    }
    try {
      contenders.push(await load());
    } catch (error) {
      const reason = ((error as Error).message ?? String(error)).split(
        "\n",
      )[0]!;
      absent.push({ name, reason });
    }
  }
  return { contenders, absent };
}
