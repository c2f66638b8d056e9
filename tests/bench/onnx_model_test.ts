/** ONNX networks written by hand, read by ONNX Runtime. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import ort from "onnxruntime-web";
import { onnxModel } from "../../bench/peers/onnx_model.ts";

test("onnxModel() makes a network that ONNX Runtime runs", async () => {
  ort.env.wasm.numThreads = 1;
  const bytes = onnxModel({
    nodes: [
      { op: "MatMul", inputs: ["x", "w"], outputs: ["y"] },
      { op: "Softmax", inputs: ["y"], outputs: ["p"], ints: { axis: -2 + 2 } },
      {
        op: "LeakyRelu",
        inputs: ["y"],
        outputs: ["r"],
        floats: { alpha: 0.25 },
      },
      {
        op: "Transpose",
        inputs: ["r"],
        outputs: ["t"],
        ints: { perm: [1, 0] },
      },
    ],
    constants: [{
      name: "w",
      dims: [3, 200],
      data: Float32Array.from({ length: 600 }, (_, i) => i < 200 ? 1 : -1),
    }],
    inputs: [{ name: "x", dims: [2, 3] }],
    outputs: [{ name: "p", dims: [2, 200] }, { name: "t", dims: [200, 2] }],
  });
  const session = await ort.InferenceSession.create(bytes);
  const x = Float32Array.of(1, 2, 3, 6, 1, 1); // rows give -4 and 4
  const { p, t } = await session.run({
    x: new ort.Tensor("float32", x, [2, 3]),
  });
  assert.deepEqual(t!.dims, [200, 2]);
  assert.deepEqual([...t!.data as Float32Array].slice(0, 2), [-1, 4]);
  const low = 1 / (1 + Math.exp(8)); // softmax over the two rows
  assert.ok(Math.abs((p!.data as Float32Array)[0]! - low) < 1e-6);
  await session.release();
});
