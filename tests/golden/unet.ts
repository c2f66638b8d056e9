/** Golden cases of kind `unet`: output, stages, attention maps, energies and both gradients. */
import { sizeOf, type Tensor } from "../../kernels/backend.ts";
import { sliceBatch } from "../../kernels/concat.ts";
import { Tape } from "../../kernels/tape.ts";
import { type Conditioning, withTimeIds } from "../../pipeline/conditioning.ts";
import { LayoutEnergy } from "../../pipeline/energy.ts";
import { deviceEnergy } from "../../pipeline/guidance/device_energy.ts";
import { guidedSites } from "../../pipeline/guidance/sites.ts";
import { loadUnet, type Unet, unetForward } from "../../pipeline/unet.ts";
import { energyGradient } from "../../pipeline/unet_grad.ts";
import type { GoldenCase } from "./case.ts";
import { subjectsOf, type Variant, variantOf } from "./variant.ts";

/** Latents of one timestep, with their text states. */
interface Batch {
  readonly sample: Tensor;
  readonly text: Conditioning;
  readonly timestep: number;
}

/** Runs a case of kind `unet`. */
export async function runUnet(c: GoldenCase): Promise<void> {
  const unet = c.own(await loadUnet(c.backend, await c.weights()));
  const sample = await c.upload("input.sample");
  const states = await c.uploadSwapped("input.encoder_hidden_states");
  const added = await addedOf(c, unet);
  const text: Conditioning = { states, added };
  const timesteps = [...await c.ints("input.timesteps")];
  const items = timesteps.map((timestep, i): Batch => ({
    sample: c.own(sliceBatch(sample, i, 1)),
    text: {
      states: c.own(sliceBatch(states, i, 1)),
      added: added && c.own(sliceBatch(added, i, 1)),
    },
    timestep,
  }));
  // One pass has one timestep.
  const together = timesteps.every((t) => t === timesteps[0]);
  const batches = together
    ? [{ sample, text, timestep: timesteps[0]! }]
    : items;

  await wholeNetwork(c, unet, batches);
  for (const name of c.expected()) {
    const [, t] = name.match(/^eps_at_t(\d+)$/) ?? [];
    if (t) c.expect(name, c.own(unetForward(unet, sample, Number(t), text)));
  }
  await energies(c, unet, items);
}

/** SDXL's pooled text and sizes, one row per item of the batch. */
async function addedOf(
  c: GoldenCase,
  { config }: Unet,
): Promise<Tensor | undefined> {
  if (!config.added) return undefined;
  const [batch = 1, channels = 1] = c.shape("input.text_embeds");
  const pooled = await c.upload("input.text_embeds", [batch, channels, 1]);
  const ids = await c.floats("input.time_ids");
  return c.own(withTimeIds(pooled, config.added, ids));
}

/** `eps`, stages, maps, and the way back through everything. */
async function wholeNetwork(
  c: GoldenCase,
  unet: Unet,
  batches: readonly Batch[],
): Promise<void> {
  const parts = new Map<string, Tensor[]>();
  const keep = (name: string, value: Tensor): void => {
    parts.set(name, [...parts.get(name) ?? [], c.own(value)]);
  };
  const names = c.expected();
  const chosen: readonly number[] = c.attributes.map_tokens ?? [];
  let offset = 0;
  for (const { sample, text, timestep } of batches) {
    using tape = new Tape(c.backend, [sample]);
    const all = [...Array(text.states.shape[2]).keys()];
    const eps = tape.run(() =>
      unetForward(unet, sample, timestep, text, {
        probe: (site) => {
          if (names.includes(`map_tokens.${site}`)) return chosen;
          return names.some((n) =>
              /^map(_heads)?\./.test(n) && n.endsWith(site)
            )
            ? all
            : undefined;
        },
        onProbe: (site, logProbs) => keep(`map.${site}`, logProbs),
        onStage: (name, value) => keep(`intermediate.${name}`, value.retain()),
      })
    );
    keep("eps", eps);
    if (names.includes("grad_sample.from_eps")) {
      using whole = c.backend.upload(
        await c.floats("input.grad_eps"),
        c.shape("input.grad_eps"),
      );
      const count = sample.shape[0]!;
      using seed = sliceBatch(whole, offset, count);
      offset += count;
      keep("grad_sample.from_eps", tape.backward([[eps, seed]])[0]!);
    }
  }
  for (const name of names) {
    const [, kind, site] = name.match(/^(map|map_heads|map_tokens)\.(.*)$/) ??
      [];
    if (kind) c.expectProbabilities(name, parts.get(`map.${site}`)!);
    else if (parts.has(name)) {
      // One time embedding serves all items of a batch.
      const size = sizeOf(c.shape(`expected.${name}`));
      c.expect(
        name,
        parts.get(name)!,
        (values) =>
          name === "intermediate.time_embedding"
            ? Float64Array.from(
              { length: size },
              (_, i) => values[i % values.length]!,
            )
            : values,
      );
    }
  }
}

/** `energy.*` and `grad_sample.*`, by the passes that guidance makes. */
async function energies(
  c: GoldenCase,
  unet: Unet,
  items: readonly Batch[],
): Promise<void> {
  const names = c.expected();
  const variants = new Map<string, Variant>();
  for (const name of names) {
    const [, energy] = name.match(/^(?:energy|grad_sample)\.(.*)$/) ?? [];
    const variant = energy === undefined ? undefined : variantOf(energy);
    if (variant) variants.set(variant.key, variant);
  }
  for (const variant of variants.values()) {
    const rho = variant.prior ? c.attributes.rho : 0;
    const sites = guidedSites(unet.config, variant.sites);
    const values = { aef: [] as number[], nap: [] as number[] };
    const grads: Tensor[] = [];
    for (const { sample, text, timestep } of items) {
      const [, , height = 1, width = 1] = sample.shape;
      const layout = new LayoutEnergy(
        c.backend,
        subjectsOf(c),
        sites,
        [8 * width, 8 * height],
        variant.options,
      );
      using energy = deviceEnergy(layout, { rho: () => rho });
      const pass = await energyGradient(unet, sample, timestep, text, {
        energy,
        at: { step: 0, steps: 1, iteration: 0 },
      });
      for (const x of [pass.output, ...pass.terms]) c.own(x);
      grads.push(c.own(pass.grad));
      const report = pass.report(await c.backend.read(pass.terms));
      const naps = report.subjects.map(({ nap }) => nap!);
      values.aef.push(report.energy);
      values.nap.push(naps.reduce((a, b) => a + b, 0) / naps.length);
    }
    for (const what of variant.prior ? ["naef", "nap"] : ["aef"]) {
      const name = `${what}.${variant.key}`;
      const value = what === "nap" ? values.nap : values.aef;
      if (names.includes(`energy.${name}`)) c.expect(`energy.${name}`, value);
      if (names.includes(`grad_sample.${name}`) && what !== "nap") {
        c.expect(`grad_sample.${name}`, grads);
      }
    }
  }
}
