/** Golden cases of kind `block`: one diffusers module with its weights, forward and back. */
import { activation } from "../../kernels/activation.ts";
import type { Tensor } from "../../kernels/backend.ts";
import {
  downsample,
  into,
  type Resnet,
  resnet,
  resnetParameters,
  upsample,
} from "../../pipeline/resnet.ts";
import {
  plainAttention,
  plainAttentionParameters,
  type ProbeHooks,
  type Transformer,
  transformer,
  transformerBlock,
  transformerBlockParameters,
  transformerParameters,
} from "../../pipeline/transformer.ts";
import { type Layer, Parameters } from "../../pipeline/parameters.ts";
import type { WeightSource } from "../../pipeline/weight_source.ts";
import { TimeLayers, timeShifts } from "../../pipeline/time_layers.ts";
import { checkModule, type GoldenCase } from "./case.ts";

type Run = (c: GoldenCase) => Promise<void>;

/** By the beginning of the id; the longer one first. */
const BLOCKS: Readonly<Record<string, Run>> = {
  "block-basic-transformer": transformerBlockCase,
  "block-downsample-vae": (c) => downsampleCase(c, "end"),
  "block-downsample": (c) => downsampleCase(c, "same"),
  "block-mid-crossattn": middleCase,
  "block-resnet": resnetCase,
  "block-transformer2d": transformerCase,
  "block-up-crossattn": upCase,
  "block-upsample": upsampleCase,
  "block-vae-attention": plainAttentionCase,
};

/** Runs a case of kind `block`. */
export async function runBlock(c: GoldenCase): Promise<void> {
  const found = Object.keys(BLOCKS).find((prefix) =>
    c.entry.id.startsWith(prefix)
  );
  if (!found) throw new Error(`${c.entry.id}: there is no such block`);
  await BLOCKS[found]!(c);
}

/** Builds a module from the case's weights. Fails if one is left over. */
async function build<T>(
  c: GoldenCase,
  make: (p: Parameters, shape: (name: string) => readonly number[]) => T,
): Promise<T> {
  const source: WeightSource = await c.weights();
  const p = c.own(new Parameters(c.backend, source));
  const module = make(p, (name) => source.tensors.get(name)?.shape ?? []);
  await p.load();
  return module;
}

/** A resnet whose sizes are those of its weights. */
function anyResnet(
  p: Parameters,
  name: string,
  shape: (name: string) => readonly number[],
  { groups, eps, time }: {
    groups: number;
    eps: number;
    time?: TimeLayers | undefined;
  },
): Resnet {
  const [to = 0, from = 0] = shape(`${name}conv1.weight`);
  return resnetParameters(p, name, { from, to, time, groups, eps });
}

/** A transformer whose sizes are those of its weights. */
function anyTransformer(
  p: Parameters,
  name: string,
  shape: (name: string) => readonly number[],
  { heads, groups, depth }: { heads: number; groups: number; depth: number },
): Transformer {
  const [, channels = 0] = shape(`${name}proj_in.weight`);
  const [, text = 0] = shape(
    `${name}transformer_blocks.0.attn2.to_k.weight`,
  );
  return transformerParameters(p, name, {
    channels,
    heads,
    text,
    groups,
    depth,
  });
}

/** Probes every text token where the file has `probs.<site>`. */
function probes(c: GoldenCase, text: Tensor): ProbeHooks {
  return {
    probe: (site) =>
      c.has(`expected.probs.${site}`)
        ? [...Array(text.shape[2]).keys()]
        : undefined,
    onProbe: (site, logProbs) =>
      c.expectProbabilities(`probs.${site}`, c.own(logProbs)),
  };
}

/** For the layers of a module's resnets. */
function timeLayers(c: GoldenCase): TimeLayers {
  return new TimeLayers(c.shape("input.temb").at(-1)!);
}

/** The time embedding `[batch, channels, 1]`. */
async function timeInput(c: GoldenCase): Promise<Tensor> {
  return await c.upload("input.temb", [...c.shape("input.temb"), 1]);
}

async function transformerBlockCase(c: GoldenCase): Promise<void> {
  const { heads } = c.attributes;
  const block = await build(c, (p, shape) =>
    transformerBlockParameters(p, "", {
      channels: shape("norm1.weight")[0]!,
      heads,
      text: shape("attn2.to_k.weight")[1]!,
      groups: 1,
      depth: 1,
    }));
  const x = await c.uploadSwapped("input.x");
  const text = await c.uploadSwapped("input.text");
  await checkModule(
    c,
    { x, text },
    ["x", "text", "out"],
    () => transformerBlock(block, x, { states: text }, "", probes(c, text)),
  );
}

async function transformerCase(c: GoldenCase): Promise<void> {
  const { heads, groups, depth } = c.attributes;
  const t = await build(
    c,
    (p, shape) => anyTransformer(p, "", shape, { heads, groups, depth }),
  );
  const x = await c.upload("input.x");
  const text = await c.uploadSwapped("input.text");
  await checkModule(
    c,
    { x, text },
    ["text"],
    () => transformer(t, x, { states: text }, "", probes(c, text)),
  );
}

/** The shifts of a module's resnets. */
function shiftsOf(layer: Layer, temb: Tensor): Tensor {
  using time = activation(temb, "silu");
  return timeShifts(layer, time);
}

async function resnetCase(c: GoldenCase): Promise<void> {
  const { groups, eps } = c.attributes;
  const timed = c.has("input.temb");
  const [r, layer] = await build(c, (p, shape) => {
    const time = timed ? timeLayers(c) : undefined;
    const made = anyResnet(p, "", shape, { groups, eps, time });
    return [made, time?.parameters(p)] as const;
  });
  const x = await c.upload("input.x");
  if (!layer) return await checkModule(c, { x }, [], () => resnet(r, x));
  const temb = await timeInput(c);
  await checkModule(c, { x, temb }, [], () => {
    using shifts = shiftsOf(layer, temb);
    return resnet(r, x, shifts);
  });
}

async function middleCase(c: GoldenCase): Promise<void> {
  const { heads, groups, resnet_eps: eps } = c.attributes;
  const time = timeLayers(c);
  const [first, t, second, layer] = await build(c, (p, shape) =>
    [
      anyResnet(p, "resnets.0.", shape, { groups, eps, time }),
      anyTransformer(p, "attentions.0.", shape, { heads, groups, depth: 1 }),
      anyResnet(p, "resnets.1.", shape, { groups, eps, time }),
      time.parameters(p),
    ] as const);
  const x = await c.upload("input.x");
  const temb = await timeInput(c);
  const text = await c.uploadSwapped("input.text");
  await checkModule(c, { x, temb, text }, ["text"], () => {
    using shifts = shiftsOf(layer, temb);
    using before = resnet(first, x, shifts);
    using attended = transformer(
      t,
      before,
      { states: text },
      "attentions.0.",
      probes(c, text),
    );
    return resnet(second, attended, shifts);
  });
}

async function upCase(c: GoldenCase): Promise<void> {
  const { heads, groups, resnet_eps: eps } = c.attributes;
  const names = [...c.entry.tensors ? Object.keys(c.entry.tensors) : []]
    .filter((name) => /^input\.skip\d+$/.test(name)).sort();
  const time = timeLayers(c);
  const { layers, layer, resample } = await build(c, (p, shape) => {
    const layers = names.map((_, i) => ({
      r: anyResnet(p, `resnets.${i}.`, shape, { groups, eps, time }),
      t: anyTransformer(p, `attentions.${i}.`, shape, {
        heads,
        groups,
        depth: 1,
      }),
    }));
    const [to = 0, from = 0] = shape("upsamplers.0.conv.weight");
    return {
      layers,
      layer: time.parameters(p),
      resample: p.conv3x3("upsamplers.0.conv", to, from),
    };
  });
  const skips: Record<string, Tensor> = {};
  for (const name of names) {
    skips[name.slice("input.".length)] = await c.upload(name);
  }
  const x = await c.upload("input.x");
  const temb = await timeInput(c);
  const text = await c.uploadSwapped("input.text");
  const [, , height = 1, width = 1] = c.shape("expected.out");
  const leaves = { x, temb, text, ...skips };
  await checkModule(c, leaves, ["text"], () => {
    using shifts = shiftsOf(layer, temb);
    const stack = Object.values(skips);
    let hidden = x.retain();
    layers.forEach(({ r, t }, i) => {
      hidden = into(hidden, (h) => resnet(r, h, shifts, stack.pop()!));
      hidden = into(
        hidden,
        (h) =>
          transformer(
            t,
            h,
            { states: text },
            `attentions.${i}.`,
            probes(c, text),
          ),
      );
    });
    return into(hidden, (h) => upsample(resample, h, [height, width]));
  });
}

async function downsampleCase(
  c: GoldenCase,
  padding: "same" | "end",
): Promise<void> {
  const layer = await build(c, (p, shape) => {
    const [to = 0, from = 0] = shape("conv.weight");
    return p.conv("conv", to, from);
  });
  const x = await c.upload("input.x");
  await checkModule(c, { x }, [], () => downsample(layer, x, padding));
}

async function upsampleCase(c: GoldenCase): Promise<void> {
  const layer = await build(c, (p, shape) => {
    const [to = 0, from = 0] = shape("conv.weight");
    return p.conv3x3("conv", to, from);
  });
  const x = await c.upload("input.x");
  const [, , height = 1, width = 1] = c.shape("expected.out");
  await checkModule(c, { x }, [], () => upsample(layer, x, [height, width]));
}

async function plainAttentionCase(c: GoldenCase): Promise<void> {
  const { groups } = c.attributes;
  const block = await build(c, (p, shape) =>
    plainAttentionParameters(
      p,
      "",
      shape("group_norm.weight")[0]!,
      groups,
    ));
  const x = await c.upload("input.x");
  await checkModule(c, { x }, [], () => plainAttention(block, x));
}
