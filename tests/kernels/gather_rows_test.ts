import { strict as assert } from "node:assert";
import { test } from "node:test";
import { gatherRows } from "../../kernels/gather_rows.ts";
import { testBackend } from "../backend.ts";
import { rand, U } from "../compare.ts";
import { checkOp, halfInput, input } from "./check_op.ts";

// [batch, rows, channels, cells, positions]
const CASES = [
  [1, 1, 1, 1, 1],
  [2, 7, 5, 3, 4],
  [1, 65, 64, 63, 63],
  [2, 1000, 768, 77, 77],
] as const;

test("gatherRows() adds the position to the row of the id, channels first", async () => {
  for (const [batch, rows, channels, cells, positions] of CASES) {
    for (const half of [false, true]) {
      const table = (half ? halfInput : input)(1, [rows, channels]);
      const place = input(2, [positions, channels]);
      const ids = Array.from(
        { length: batch },
        (_, b) =>
          Int32Array.from(
            rand(b, cells),
            (v, n) => n === 0 ? rows - 1 : Math.floor((v + 1) / 2 * rows),
          ),
      );
      await checkOp(`gather_rows [${batch}, ${rows}, ${channels}, ${cells}]`, {
        inputs: [table, place],
        forward: (table, place) => {
          const out = gatherRows([table], place, ids);
          assert.deepEqual(out.shape, [batch, channels, cells]);
          return [out];
        },
      }, {
        values: U, // one addition
        formula: () => {
          const out: number[] = [];
          for (const list of ids) {
            for (let c = 0; c < channels; c++) {
              for (const [n, id] of list.entries()) {
                out.push(
                  table.data[id * channels + c]! +
                    place.data[n * channels + c]!,
                );
              }
            }
          }
          return [Float64Array.from(out)];
        },
      });
    }
  }
});

test("gatherRows() takes a table in parts", async () => {
  const parts = [input(1, [4, 3]), halfInput(2, [1, 3]), input(3, [5, 3])];
  const rows = parts.flatMap(({ data }) =>
    Array.from(
      { length: data.length / 3 },
      (_, r) => data.slice(3 * r, 3 * r + 3),
    )
  );
  const ids = [Int32Array.of(0, 3, 4, 5, 9), Int32Array.of(9, 5, 4, 3, 0)];
  const place = input(4, [5, 3]);
  await checkOp("gather_rows of three parts", {
    inputs: [...parts, place],
    forward: (a, b, c, place) => [gatherRows([a!, b!, c!], place!, ids)],
  }, {
    values: U,
    formula: () => [Float64Array.from(
      ids.flatMap((list) =>
        [0, 1, 2].flatMap((c) =>
          [...list].map((id, n) => rows[id]![c]! + place.data[3 * n + c]!)
        )
      ),
    )],
  });
});

test("gatherRows() refuses ids and lists that do not fit", async () => {
  const backend = await testBackend();
  const before = backend.memory.liveBytes;
  {
    using table = backend.alloc([5, 3]);
    using place = backend.alloc([2, 3]);
    using narrow = backend.alloc([2, 2]);
    const ids = (...list: number[]) => Int32Array.from(list);
    const refused = (run: () => unknown, message: RegExp) =>
      assert.throws(run, { name: "RangeError", message });
    refused(() => gatherRows([table], place, [ids(5)]), /below 5: current 5/);
    refused(() => gatherRows([table], place, [ids(0, -1)]), /current -1/);
    refused(() => gatherRows([table], place, [ids(0, 1, 2)]), /1 to 2 ids/);
    refused(
      () => gatherRows([table], place, [ids(0), ids(1, 2)]),
      /1 to 2 ids/,
    );
    refused(() => gatherRows([table], place, []), /1 to 2 ids/);
    refused(() => gatherRows([table], narrow, [ids(0)]), /hold 6 numbers/);
    refused(
      () => gatherRows([table, narrow], place, [ids(0)]),
      /must be \[2,3\]/,
    );
    gatherRows([table], place, [ids(0, 4)]).dispose();
  }
  assert.equal(backend.memory.liveBytes, before);
});
