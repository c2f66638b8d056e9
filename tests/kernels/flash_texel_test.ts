/** Attention of the software family without a matrix of scores: when it is used, and its definitions. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { attention, selfAttention } from "../../kernels/attention.ts";
import type { Tensor } from "../../kernels/backend.ts";
import { Cpu } from "../../kernels/cpu.ts";
import {
  fitsFlashTexel,
  flashTexel,
  flashTexelGrad,
} from "../../kernels/flash_texel.ts";
import { type Heads, packedHeads, wholeHeads } from "../../kernels/heads.ts";
import { packLines } from "../../kernels/pack_lines.ts";
import { Plan } from "../../kernels/plan.ts";
import { Tape } from "../../kernels/tape.ts";
import { assertClose, rand } from "../compare.ts";
import {
  attentionKernels,
  type AttentionSizes,
  type AttentionWishes,
} from "./attention_kernels.ts";
import { checkOp, input } from "./check_op.ts";

/** Which kernels run, there and back. */
function kernels(
  sizes: AttentionSizes,
  wishes: AttentionWishes = {},
): ReturnType<typeof attentionKernels> {
  using plan = new Plan();
  return attentionKernels(plan, sizes, wishes);
}

test("attention of the software family stores no scores where queries come in fours", () => {
  const self = { heads: 2, width: 16, queries: 64, keys: 64, packed: true };
  assert.deepEqual(kernels(self), {
    there: ["flash_texel_16"],
    back: [
      "attention_rows",
      "pack_lines",
      "flash_texel_grad_queries_16",
      "flash_texel_grad_keys_16",
    ],
  });
  const cross = { heads: 2, width: 16, queries: 64, keys: 77 };
  assert.deepEqual(kernels(cross, { wrt: [0], probe: [3] }), {
    there: ["pack_lines", "flash_texel_16", "attention_probe"],
    back: [
      "attention_rows",
      "pack_lines",
      "pack_lines",
      "flash_texel_grad_queries_16",
    ],
  });
  // Gradients on keys that come in no fours.
  const { there, back } = kernels(cross);
  assert.deepEqual(there, ["pack_lines", "flash_texel_16"]);
  assert.ok(back.includes("softmax_grad_fours"));
  assert.ok(
    kernels({ ...cross, keys: 76 }, { probe: [3] }).back.includes(
      "softmax_grad_fours",
    ),
  );
  const grads = (sizes: AttentionSizes): boolean =>
    !kernels(sizes).back.includes("softmax_grad_fours");
  // Wide heads where there is much to do, but not on the way back to keys.
  const much = { ...self, queries: 2048, keys: 2048 };
  assert.ok(!grads({ ...self, width: 17 }));
  // However much is done beside it.
  assert.ok(!grads({ ...self, width: 17, batch: 2 ** 12 }));
  assert.ok(grads({ ...much, width: 48 }));
  assert.ok(!grads({ ...much, width: 49 }));
  const stores = (
    sizes: AttentionSizes,
    options: AttentionWishes = {},
  ): boolean => {
    const { there, back } = kernels(sizes, options);
    assert.ok(![...there, ...back].some((name) => name.startsWith("flash")));
    return there.some((name) => name.startsWith("softmax"));
  };
  assert.ok(stores({ ...cross, queries: 62 }));
  assert.ok(stores({ ...cross, width: 49 }));
  assert.ok(stores({ ...much, width: 65 }));
  assert.ok(stores(cross, { causal: true }));
  assert.ok(stores(cross, { edit: () => {} }));
  // A head's queries with their gradients, or its keys and values, that no stage holds.
  const most = 2 ** 21 / 128;
  const wide = { heads: 4, width: 64, queries: 64, keys: 64 };
  for (const large of [{ queries: most }, { keys: most }]) {
    const { there, back } = kernels({ ...wide, ...large }, { wrt: [0] });
    assert.ok(there.includes("flash_texel_64"));
    assert.ok(back.includes("flash_texel_grad_queries_64"));
  }
  assert.ok(stores({ ...wide, queries: most + 4 }));
  assert.ok(stores({ ...wide, keys: most + 4 }));
  using plan = new Plan();
  const heads = (cells: number) => wholeHeads(plan.alloc([64, cells]), 64);
  const fits = (q: Heads, k: Heads, keys: number): boolean =>
    fitsFlashTexel(plan, [q, k, k], {
      ...wide,
      keys,
      causal: false,
      work: Infinity,
    });
  // Keys are the values, too, but must be packed.
  const [q, k] = [heads(64), heads(most + 1)];
  assert.ok(fits(q, k, most - 1));
  assert.ok(!fits(q, k, most + 1));
});

test("the definitions of flash_texel are those of attention", async () => {
  using cpu = new Cpu();
  for (
    const { heads, width, queries, keys, packed } of [
      { heads: 1, width: 1, queries: 4, keys: 1 },
      { heads: 3, width: 5, queries: 8, keys: 7 },
      { heads: 2, width: 3, queries: 4, keys: 8 },
      { heads: 2, width: 4, queries: 12, keys: 12, packed: true },
    ]
  ) {
    const cells = packed ? [queries] : [queries, keys, keys];
    const channels = (packed ? 3 : 1) * heads * width;
    const inputs = cells.map((n, i) =>
      cpu.upload(rand(i, channels * n, 3), [1, channels, n])
    ) as [Tensor, Tensor, Tensor];
    const probe = packed ? undefined : [keys - 1, 0];
    using tape = new Tape(cpu, inputs);
    const outputs = tape.run(() => {
      const [q, k, v] = inputs;
      const { out, logProbs } = packed
        ? selfAttention(q, { heads })
        : attention(q, k, v, { heads, probe });
      return logProbs ? [out, logProbs] : [out];
    });
    const seeds = outputs.map((y, i) =>
      [y, cpu.upload(rand(10 + i, y.size), y.shape)] as const
    );
    const expected = tape.backward(seeds);
    const parts: readonly [Heads, Heads, Heads] = packed
      ? packedHeads(inputs[0], width)
      : inputs.map((x) => wholeHeads(x, width)) as [Heads, Heads, Heads];
    const shape = { heads, queries, keys, width, causal: false, work: 0 };
    const [first] = outputs;
    const stats = cpu.alloc([heads, 2, queries]);
    const out = cpu.alloc(first!.shape);
    flashTexel(parts, shape, { stats, out });
    const grads = inputs.map((x) => cpu.alloc(x.shape)) as typeof inputs;
    const gradParts = packed
      ? packedHeads(grads[0], width)
      : [wholeHeads(grads[0], width)]; // keys and values come in one tensor
    const [q, k, v] = parts;
    const probed = probe && cpu.upload(probe, [probe.length]);
    const [go, h] = seeds.map(([, seed]) => seed);
    flashTexelGrad({ q, k, v, out, stats, go, h, probed }, shape, gradParts);
    const [value, ...found] = await cpu.read([out, ...grads]);
    const [known, ...knownGrads] = await cpu.read([first!, ...expected]);
    const bound = { relL2: 1e-12 };
    assertClose(value!, known!, bound, "result");
    for (let i = 0; i < (packed ? inputs.length : 1); i++) {
      assertClose(found[i]!, knownGrads[i]!, bound, `gradient ${i}`);
    }
  }
});

test("packLines() puts lines of two tensors side by side, up to fours", async () => {
  for (
    const [heads, width, cells] of [[1, 1, 1], [2, 3, 77], [3, 2, 8], [
      2,
      70,
      1001,
    ]] as const
  ) {
    const line = 4 * Math.ceil(cells / 4);
    const x = input(1, [heads, width, cells]);
    const y = input(2, [heads, width + 1, cells]); // of which the first line is another's
    await checkOp(`packLines ${heads}, ${width}, ${cells}`, {
      inputs: [x, y],
      forward: (x, y) => [
        packLines(
          wholeHeads(x!, width),
          { tensor: y!, pitch: width + 1, first: 1 },
          { heads, width, cells },
        ),
      ],
    }, {
      values: 0,
      formula: () => {
        const out = new Float64Array(heads * 2 * width * line);
        for (let z = 0; z < heads; z++) {
          for (let d = 0; d < width; d++) {
            for (let j = 0; j < cells; j++) {
              const at = ((2 * z * width) + d) * line + j;
              out[at] = x.data[(z * width + d) * cells + j]!;
              out[at + width * line] = y
                .data[(z * (width + 1) + 1 + d) * cells + j]!;
            }
          }
        }
        return [out];
      },
    });
  }
});
