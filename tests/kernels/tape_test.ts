import { strict as assert } from "node:assert";
import { test } from "node:test";
import { activation } from "../../kernels/activation.ts";
import { attention } from "../../kernels/attention.ts";
import type { Backend, Tensor } from "../../kernels/backend.ts";
import { add, combine } from "../../kernels/combine.ts";
import { concatChannels } from "../../kernels/concat.ts";
import { conv3x3, winogradWeight } from "../../kernels/conv.ts";
import { groupNorm } from "../../kernels/group_norm.ts";
import { layerNorm } from "../../kernels/layer_norm.ts";
import { linear } from "../../kernels/linear.ts";
import { Tape } from "../../kernels/tape.ts";
import { upsampleNearest } from "../../kernels/upsample.ts";
import { testBackend } from "../backend.ts";
import { U } from "../compare.ts";
import { checkOp, input } from "./check_op.ts";

async function numbers(backend: Backend, x: Tensor): Promise<number[]> {
  const [values] = await backend.read([x]);
  return [...values!];
}

/** Runs a test body and checks that it leaves no bytes and no tape behind. */
async function clean(body: (backend: Backend) => Promise<void>): Promise<void> {
  const backend = await testBackend();
  const before = backend.memory.liveBytes;
  await body(backend);
  assert.equal(backend.memory.liveBytes, before);
  assert.equal(backend.tape, undefined);
}

test("Tape.backward() adds the gradients of a value that is used twice", () =>
  clean(async (backend) => {
    using x = backend.upload([1, 2], [2]);
    using tape = new Tape(backend, [x]);
    const y = tape.run(() => {
      using a = combine(x, 2, x, 3); // 5 x
      using b = combine(a, 1, x, 1); // 6 x
      return combine(a, 1, b, 10); // 65 x
    });
    using seed = backend.upload([1, -1], [2]);
    const [grad] = tape.backward([[y, seed]]);
    y.dispose();
    assert.deepEqual(await numbers(backend, grad!), [65, -65]);
    grad!.dispose();
    assert.deepEqual(await numbers(backend, seed), [1, -1]);
  }));

test("Tape.backward() takes several seeds, also on a leaf and twice on one value", () =>
  clean(async (backend) => {
    using x = backend.upload([1, 2], [2]);
    using tape = new Tape(backend, [x]);
    const [a, b] = tape.run(() => {
      const a = combine(x, 2, x, 0);
      return [a, combine(a, 3, a, 0)];
    });
    using one = backend.upload([1, 10], [2]);
    const [grad] = tape.backward([[a!, one], [b!, one], [x, one], [b!, one]]);
    a!.dispose();
    b!.dispose();
    // 2 + 6 + 1 + 6
    assert.deepEqual(await numbers(backend, grad!), [15, 150]);
    grad!.dispose();
  }));

test("Tape.backward() gives one gradient per leaf, zeros where nothing arrives", () =>
  clean(async (backend) => {
    using x = backend.upload([1, 2], [2]);
    using y = backend.upload([3, 4], [2]);
    using unused = backend.upload([5, 6, 7], [3]);
    using tape = new Tape(backend, [unused, x, y]);
    using z = tape.run(() => combine(x, 4, y, -1));
    using seed = backend.upload([1, 2], [2]);
    const grads = tape.backward([[z, seed]]);
    const values = await backend.read(grads);
    assert.deepEqual(values.map((v) => [...v]), [[0, 0, 0], [4, 8], [-1, -2]]);
    for (const grad of grads) grad.dispose();
  }));

test("Tape records only what depends on a leaf", () =>
  clean(async (backend) => {
    using x = backend.upload([1], [1]);
    using other = backend.upload([2], [1]);
    using tape = new Tape(backend, [x]);
    using before = add(x, x);
    assert.equal(tape.length, 0, "nothing runs on the tape yet");
    tape.run(() => {
      using a = activation(other, "silu");
      assert.equal(tape.length, 0);
      assert.equal(tape.tracks(a), false);
      using b = combine(a, 1, x, 2);
      assert.equal(tape.length, 1);
      assert.equal(tape.tracks(b), true);
    });
    assert.equal(tape.tracks(before), false);
    assert.equal(tape.tracks(other), false);
    await Promise.resolve();
  }));

test("Tape.stop() ends the recording and the rest is still computed", () =>
  clean(async (backend) => {
    using x = backend.upload([3], [1]);
    using tape = new Tape(backend, [x]);
    const [kept, late] = tape.run(() => {
      const kept = combine(x, 2, x, 0);
      tape.stop();
      return [kept, combine(kept, 5, x, 1)];
    });
    assert.equal(tape.length, 1);
    assert.equal(tape.tracks(late!), false);
    assert.deepEqual(await numbers(backend, late!), [33]);
    using seed = backend.upload([1], [1]);
    assert.throws(() => tape.backward([[late!, seed]]), /watched tensor/);
    const [grad] = tape.backward([[kept!, seed]]);
    assert.deepEqual(await numbers(backend, grad!), [2]);
    for (const t of [grad, kept, late]) t!.dispose();
  }));

test("Tape.run() gives the backend its former tape back, also after an error", () =>
  clean(async (backend) => {
    using x = backend.upload([1], [1]);
    using outer = new Tape(backend, [x]);
    using inner = new Tape(backend, [x]);
    outer.run(() => {
      inner.run(() => add(x, x).dispose());
      assert.equal(backend.tape, outer);
      assert.throws(() =>
        inner.run(() => {
          throw new Error("forward");
        }), /forward/);
      assert.equal(backend.tape, outer);
      add(x, x).dispose();
      add(x, x).dispose();
    });
    assert.deepEqual([inner.length, outer.length], [1, 2]);
    await Promise.resolve();
  }));

test("Tape lets go of what it saved when it is disposed", () =>
  clean(async (backend) => {
    using x = backend.upload([1, 2, 3, 4], [1, 2, 2]);
    const tape = new Tape(backend, [x]);
    tape.run(() => {
      using a = activation(x, "gelu"); // saves x
      activation(a, "silu").dispose(); // saves a
    });
    const held = backend.memory.liveBytes;
    tape[Symbol.dispose]();
    assert.ok(backend.memory.liveBytes < held);
    tape[Symbol.dispose](); // twice does no harm
    await Promise.resolve();
  }));

test("Tape.backward() refuses foreign and ill-sized seeds and leaves nothing behind", () =>
  clean(async (backend) => {
    using x = backend.upload([1, 2], [2]);
    using foreign = backend.upload([1, 2], [2]);
    using short = backend.upload([1], [1]);
    using tape = new Tape(backend, [x]);
    using y = tape.run(() => add(x, x));
    const refused = (seeds: [Tensor, Tensor][], message: RegExp) =>
      assert.throws(() => tape.backward(seeds), {
        name: "RangeError",
        message,
      });
    refused([[y, x], [foreign, x]], /watched tensor/);
    refused([[y, x], [y, short]], /same size/);
    const [grad] = tape.backward([[y, x]]); // the control
    grad!.dispose();
    // Its record is used up.
    refused([[y, x]], /watched tensor/);
    await Promise.resolve();
  }));

test("Tape goes back through a small network of every op", async () => {
  const inputs = [
    input(1, [2, 4, 3, 5]),
    input(2, [4, 4, 3, 3], 0.5),
    input(3, [4], 1, 1.5),
    input(4, [6, 4], 0.5),
    input(5, [6, 6], 0.5),
    input(6, [6], 1, 1.5),
    input(7, [2, 4], 0.5),
  ];
  const held: Tensor[] = [];
  await checkOp("network", {
    inputs,
    held,
    wrt: [0, 6],
    forward: (x, weight, scale, mix, project, scale6, shift) => {
      const u = winogradWeight(weight);
      held.push(u);
      using a = groupNorm(x, scale, scale, {
        groups: 2,
        eps: 1e-5,
        silu: true,
      });
      using b = conv3x3(a, u, { shift, residual: x });
      using up = upsampleNearest(b, [5, 9]);
      using down = upsampleNearest(x, [5, 9]);
      using both = add(up, down);
      using tokens = linear(both, mix);
      using q = layerNorm(tokens, scale6, scale6, 1e-5);
      using k = linear(q, project);
      const { out, logProbs } = attention(q, k, tokens, {
        heads: 2,
        probe: [7],
      });
      using mid = linear(out, project, { residual: tokens });
      out.dispose();
      using wide = concatChannels(mid, tokens);
      return [activation(wide, "quick_gelu"), logProbs!];
    },
  }, {
    // Eight layers of some 5 U each, there and back; norms keep the errors from growing.
    values: 40 * U,
    grads: 80 * U,
  });
});
