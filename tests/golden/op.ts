/** Golden cases of kind `op`: one kernel, forward and back. */
import { activation } from "../../kernels/activation.ts";
import { attention, type AttentionOptions } from "../../kernels/attention.ts";
import { sizeOf, type Tensor } from "../../kernels/backend.ts";
import {
  conv,
  conv3x3,
  prefersWinograd,
  winogradWeight,
} from "../../kernels/conv.ts";
import { geglu } from "../../kernels/geglu.ts";
import { groupNorm } from "../../kernels/group_norm.ts";
import { layerNorm } from "../../kernels/layer_norm.ts";
import { linear } from "../../kernels/linear.ts";
import { Tape } from "../../kernels/tape.ts";
import { upsampleNearest } from "../../kernels/upsample.ts";
import { into, upsample } from "../../pipeline/resnet.ts";
import { sinusoid } from "../../pipeline/timestep.ts";
import { checkModule, type GoldenCase, swapLast } from "./case.ts";

type Run = (c: GoldenCase) => Promise<void>;

/** By the beginning of the id. */
const OPS: Readonly<Record<string, Run>> = {
  "op-attention": attentionCase,
  "op-conv": convCase,
  "op-geglu": gegluCase,
  "op-gelu": (c) => activationCase(c, "gelu"),
  "op-groupnorm": groupNormCase,
  "op-layernorm": layerNormCase,
  "op-linear": linearCase,
  "op-quick-gelu": (c) => activationCase(c, "quick_gelu"),
  "op-silu": (c) => activationCase(c, "silu"),
  "op-softmax": softmaxCase,
  "op-timestep-embedding": sinusoidCase,
  "op-timestep-mlp": timestepMlpCase,
  "op-upsample-conv": upsampleConvCase,
  "op-upsample-nearest": upsampleCase,
};

/** Runs a case of kind `op`. */
export async function runOp(c: GoldenCase): Promise<void> {
  const found = Object.keys(OPS).find((prefix) =>
    c.entry.id.startsWith(prefix)
  );
  if (!found) throw new Error(`${c.entry.id}: there is no such op`);
  await OPS[found]!(c);
}

async function bias(c: GoldenCase, name: string): Promise<Tensor | undefined> {
  return c.has(name) ? await c.upload(name) : undefined;
}

async function attentionCase(c: GoldenCase): Promise<void> {
  const [q, k, v] = [
    await c.uploadSwapped("input.q"),
    await c.uploadSwapped("input.k"),
    await c.uploadSwapped("input.v"),
  ];
  const { heads, causal = false } = c.attributes;
  const keys = k.shape[2]!;
  const probed = c.has("expected.probs") || c.has("input.grad_probs");
  const options: AttentionOptions = {
    heads,
    causal,
    probe: probed ? [...Array(keys).keys()] : undefined,
  };
  let logProbs: Tensor | undefined;
  await checkModule(c, { q, k, v }, ["q", "k", "v", "out"], () => {
    const attended = attention(q, k, v, options);
    if (attended.logProbs) logProbs = c.own(attended.logProbs);
    return attended.out;
  });
  if (!logProbs) return;
  for (const name of ["probs", "probs_head_mean"]) {
    if (c.has(`expected.${name}`)) c.expectProbabilities(name, logProbs);
  }
  if (!c.has("input.grad_probs")) return;
  // The gradient on log p is h = p dE/dp.
  const [values] = await c.backend.read([logProbs]);
  const upstream = swapLast(
    await c.floats("input.grad_probs"),
    q.shape[2]!,
    keys,
  );
  const h = c.own(c.backend.upload(
    upstream.map((g, i) => g * Math.exp(values![i]!)),
    logProbs.shape,
  ));
  const leaves = { q, k, v };
  const names = (["q", "k", "v"] as const).filter((name) =>
    c.has(`expected.grad_${name}_from_probs`)
  );
  using tape = new Tape(c.backend, names.map((name) => leaves[name]));
  const again = tape.run(() => attention(q, k, v, options));
  using _ = again.out;
  using seeded = again.logProbs!;
  tape.backward([[seeded, h]]).forEach((grad, i) =>
    c.expectSwapped(`grad_${names[i]}_from_probs`, c.own(grad))
  );
}

async function convCase(c: GoldenCase): Promise<void> {
  const { kernel, stride, padding, pad_before_lrtb } = c.attributes;
  const [left, right, top, bottom]: number[] = pad_before_lrtb ?? [0, 0, 0, 0];
  const x = await c.upload("input.x");
  const weight = await c.upload("weight.weight");
  const b = await bias(c, "weight.bias");
  const forward = kernel === 1 && stride === 1
    ? () => linear(x, weight, { bias: b })
    : kernel === 3 && stride === 1 && padding === 1 && !pad_before_lrtb
    ? () => conv3x3(x, kernelForm(c, weight), { bias: b })
    : () =>
      conv(x, weight, {
        bias: b,
        kernel,
        stride,
        padding: [
          padding + left,
          padding + right,
          padding + top,
          padding + bottom,
        ],
      });
  await checkModule(c, { x }, [], forward);
}

/** A 3x3 kernel in the form in which networks keep it. */
function kernelForm(c: GoldenCase, weight: Tensor): Tensor {
  const [out = 0, channels = 0] = weight.shape;
  return prefersWinograd(c.backend, [out, channels])
    ? c.own(winogradWeight(weight))
    : weight;
}

async function gegluCase(c: GoldenCase): Promise<void> {
  const x = await c.uploadSwapped("input.x");
  const weight = await c.upload("weight.proj.weight");
  const b = await bias(c, "weight.proj.bias");
  await checkModule(
    c,
    { x },
    ["x", "out"],
    () => into(linear(x, weight, { bias: b }), geglu),
  );
}

async function activationCase(
  c: GoldenCase,
  kind: "silu" | "gelu" | "quick_gelu",
): Promise<void> {
  const x = await c.upload("input.x");
  await checkModule(c, { x }, [], () => activation(x, kind));
}

async function groupNormCase(c: GoldenCase): Promise<void> {
  const { groups, eps, silu } = c.attributes;
  const x = await c.upload("input.x");
  const weight = await c.upload("weight.weight");
  const b = await c.upload("weight.bias");
  await checkModule(
    c,
    { x },
    [],
    () => groupNorm(x, weight, b, { groups, eps, silu }),
  );
}

async function layerNormCase(c: GoldenCase): Promise<void> {
  const x = await c.uploadSwapped("input.x");
  const weight = await c.upload("weight.weight");
  const b = await c.upload("weight.bias");
  await checkModule(
    c,
    { x },
    ["x", "out"],
    () => layerNorm(x, weight, b, c.attributes.eps),
  );
}

async function linearCase(c: GoldenCase): Promise<void> {
  const x = await c.uploadSwapped("input.x");
  const weight = await c.upload("weight.weight");
  const b = await bias(c, "weight.bias");
  await checkModule(
    c,
    { x },
    ["x", "out"],
    () => linear(x, weight, { bias: b }),
  );
}

/**
 * Softmax is no op of its own here: attention with identities for keys and values is one.
 *
 * `softmax(x^T (s I) / s) I`, where s^2, the width, is a power of 4, so that every product is exact.
 */
async function softmaxCase(c: GoldenCase): Promise<void> {
  const shape = c.shape("input.x");
  const columns = shape.at(-1)!;
  const rows = sizeOf(shape) / columns;
  let width = 1;
  while (width < columns) width *= 4;
  const padded = async (name: string): Promise<Tensor> => {
    const data = new Float64Array(width * rows);
    data.set(swapLast(await c.floats(name), rows, columns));
    return c.own(c.backend.upload(data, [1, width, rows]));
  };
  const identity = (scale: number): Tensor => {
    const data = new Float64Array(width * columns);
    for (let i = 0; i < columns; i++) data[i * columns + i] = scale;
    return c.own(c.backend.upload(data, [1, width, columns]));
  };
  const x = await padded("input.x");
  const grad = await padded("input.grad_out");
  const [k, v] = [identity(Math.sqrt(width)), identity(1)];
  using tape = new Tape(c.backend, [x]);
  const out = c.own(tape.run(() => attention(x, k, v, { heads: 1 }).out));
  const [dx] = tape.backward([[out, grad]]);
  const cut = (values: ArrayLike<number>) =>
    swapLast(
      Float64Array.from(values).slice(0, columns * rows),
      columns,
      rows,
    );
  c.expect("out", out, cut);
  c.expect("grad_x", c.own(dx!), cut);
}

async function sinusoidCase(c: GoldenCase): Promise<void> {
  const { dim, flip_sin_to_cos, downscale_freq_shift, max_period } =
    c.attributes;
  if (max_period !== 10000) throw new Error("max_period must be 10000");
  const timesteps = await c.ints("input.timesteps");
  c.expect(
    "emb",
    [...timesteps].flatMap((t) => [
      ...sinusoid(t, dim, {
        flipSinToCos: flip_sin_to_cos,
        freqShift: downscale_freq_shift,
      }),
    ]),
  );
}

async function timestepMlpCase(c: GoldenCase): Promise<void> {
  const [batch = 1, channels = 1] = c.shape("input.x");
  const x = await c.upload("input.x", [batch, channels, 1]);
  const layer = async (name: string) => ({
    weight: await c.upload(`weight.${name}.weight`),
    bias: await c.upload(`weight.${name}.bias`),
  });
  const [first, second] = [await layer("linear_1"), await layer("linear_2")];
  await checkModule(c, { x }, [], () => {
    using hidden = linear(x, first.weight, first);
    using active = activation(hidden, "silu");
    return linear(active, second.weight, second);
  });
}

async function upsampleConvCase(c: GoldenCase): Promise<void> {
  const x = await c.upload("input.x");
  const [, , height = 1, width = 1] = c.shape("expected.out");
  const weight = kernelForm(c, await c.upload("weight.conv.weight"));
  const layer = { weight, bias: await bias(c, "weight.conv.bias") };
  await checkModule(c, { x }, [], () => upsample(layer, x, [height, width]));
}

async function upsampleCase(c: GoldenCase): Promise<void> {
  const x = await c.upload("input.x");
  const [, , height = 1, width = 1] = c.shape("expected.out");
  await checkModule(c, { x }, [], () => upsampleNearest(x, [height, width]));
}
