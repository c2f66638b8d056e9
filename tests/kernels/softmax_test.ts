import { test } from "node:test";
import { softmaxColumns, type SoftmaxOptions } from "../../kernels/softmax.ts";
import { KERNELS } from "../backend.ts";
import { sumBound, U } from "../compare.ts";
import { checkOp, input } from "./check_op.ts";

interface Case {
  readonly size: readonly [z: number, keys: number, columns: number];
  /** Queries before and after those of the columns. */
  readonly others?: readonly [number, number];
  readonly causal?: boolean;
  readonly variant?: SoftmaxOptions["variant"];
}

async function checkSoftmax(c: Case): Promise<void> {
  const { size: [z, keys, columns], others: [first, after] = [0, 0] } = c;
  const { causal = false, variant = "auto" } = c;
  const queries = first + columns + after;
  const scores = input(1, [z, keys, columns]);
  const before = input(2, [z, 2, queries]);
  await checkOp(`softmax ${JSON.stringify(c)}`, {
    inputs: [scores, before],
    forward: (s, stats) => {
      softmaxColumns(s, stats, { first, causal, variant });
      return [s.retain(), stats.retain()];
    },
  }, {
    values: [8 * U, sumBound(keys) + 8 * U],
    formula: () => {
      const e = new Float64Array(scores.data.length);
      const stats = Float64Array.from(before.data);
      for (let i = 0; i < z; i++) {
        for (let n = 0; n < columns; n++) {
          const last = causal ? Math.min(keys, first + n + 1) : keys;
          const at = (j: number): number => (i * keys + j) * columns + n;
          let high = -Infinity;
          for (let j = 0; j < last; j++) {
            high = Math.max(high, scores.data[at(j)]!);
          }
          let sum = 0;
          for (let j = 0; j < last; j++) {
            sum += e[at(j)] = Math.exp(scores.data[at(j)]! - high);
          }
          stats[2 * i * queries + first + n] = high;
          stats[(2 * i + 1) * queries + first + n] = 1 / sum;
        }
      }
      return [e, stats];
    },
  });
}

test("softmaxColumns() matches its definition for any size", async () => {
  for (
    const size of [[1, 1, 1], [2, 3, 5], [3, 77, 65], [1, 33, 64]] as const
  ) {
    await checkSoftmax({ size, variant: "any" });
    await checkSoftmax({ size, variant: "any", others: [3, 2] });
    await checkSoftmax({ size, variant: "any", others: [3, 2], causal: true });
  }
});

if (KERNELS !== "gpu") {
  test("softmaxColumns() matches its definition through a stage", async () => {
    const variant = "texel";
    for (
      const size of [
        [1, 1, 4],
        [2, 3, 36],
        [3, 77, 64],
        [1, 32, 68],
        [2, 1025, 12],
      ] as const
    ) {
      await checkSoftmax({ size, variant });
      await checkSoftmax({ size, variant, others: [3, 2] });
    }
    // One matrix in each piece, and two.
    await checkSoftmax({ size: [3, 1025, 1028], variant });
    await checkSoftmax({ size: [3, 1000, 1000], variant, others: [4, 1] });
  });

  test("softmaxColumns() takes the stage by itself where it can", async () => {
    await checkSoftmax({ size: [2, 77, 64] });
    await checkSoftmax({ size: [2, 77, 63] });
  });
}
