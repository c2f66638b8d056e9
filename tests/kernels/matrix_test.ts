/** Matrix units: who has them, and what products through them give. Numbers need an adapter that has some. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { conv3x3 } from "../../kernels/conv.ts";
import { Cpu } from "../../kernels/cpu.ts";
import { linear } from "../../kernels/linear.ts";
import type { Backend, Tensor } from "../../kernels/backend.ts";
import { type MatrixInfo, matrixUnits } from "../../kernels/matrix_units.ts";
import { Plan } from "../../kernels/plan.ts";
import { recompute } from "../../kernels/recompute.ts";
import { Tape } from "../../kernels/tape.ts";
import { compare, rand } from "../compare.ts";
import { BACKEND, KERNELS, testBackend } from "../backend.ts";
import { toHalves } from "../../kernels/half.ts";

const FEATURES = [
  "shader-f16",
  "subgroups",
  "chromium-experimental-subgroup-matrix",
];
const config = (
  M: number,
  N: number,
  K: number,
  [componentType, resultComponentType] = ["f16", "f32"],
) => ({
  M,
  N,
  K,
  componentType: componentType!,
  resultComponentType: resultComponentType!,
});
const info = (
  size: number,
  ...subgroupMatrixConfigs: ReturnType<typeof config>[]
): MatrixInfo => ({
  subgroupMinSize: size,
  subgroupMaxSize: size,
  subgroupMatrixConfigs,
});

test("matrixUnits() takes what adds up in f32, the largest that fits", () => {
  const nvidia = info(
    32,
    config(16, 16, 16, ["f16", "f16"]),
    config(16, 8, 16),
    config(16, 16, 16),
    config(16, 16, 16, ["u8", "u32"]),
  );
  assert.deepEqual(matrixUnits(FEATURES, nvidia, "it"), {
    M: 16,
    N: 16,
    K: 16,
    subgroup: 32,
  });
  assert.deepEqual(matrixUnits(FEATURES, info(8, config(8, 8, 8)), "it"), {
    M: 8,
    N: 8,
    K: 8,
    subgroup: 8,
  });
});

test("matrixUnits() says what is missing", () => {
  const refused = (
    features: readonly string[],
    given: MatrixInfo,
    message: RegExp,
  ) =>
    assert.throws(() => matrixUnits(features, given, "it"), {
      name: "NoDeviceError",
      message,
    });
  const good = info(32, config(16, 16, 16));
  refused(["shader-f16"], good, /lacks subgroups, chromium-.*leave --kernels/);
  refused(FEATURES, info(32), /current tiles none/);
  refused(
    FEATURES,
    info(32, config(16, 16, 16, ["f16", "f16"])),
    /current tiles f16 x f16 -> f16 16x16x16/,
  );
  refused(FEATURES, info(32, config(12, 16, 16)), /f32 12x16x16/);
  refused(FEATURES, info(32, config(4, 4, 4)), /f32 4x4x4/); // 2048 threads
  refused(
    FEATURES,
    { ...good, subgroupMinSize: 16 },
    /current subgroups 16 to 32/,
  );
});

test("matrix units are used where a network bears it, by products they fit", () => {
  const kernels = (halfProducts: boolean, cells: number, channels = 64) => {
    const units = { M: 16, N: 16, K: 16, subgroup: 32 };
    using plan = new Plan(Infinity, "gpu", units);
    plan.halfProducts = halfProducts;
    using x = plan.alloc([1, channels, cells, cells]);
    using weight = plan.alloc([32, channels], "f16");
    using kernel = plan.alloc([32, channels, 3, 3]);
    linear(x, weight).dispose();
    conv3x3(x, kernel).dispose();
    return plan.kernels.map(({ kernel }) => kernel.name)
      .filter((name) => name !== "split_sum");
  };
  const matrix = ["gemm_matrix_16x16x16_32", "conv_matrix_16x16x16_32"];
  const tiled = ["gemm_tiled", "conv_tiled"];
  assert.deepEqual(kernels(true, 8), matrix);
  assert.deepEqual(kernels(false, 8), tiled);
  assert.deepEqual(kernels(true, 5), tiled); // no fours
  assert.deepEqual(kernels(true, 4), tiled); // few cells
  assert.deepEqual(kernels(true, 8, 4), tiled); // no eights
});

test("what is run again on the way back takes matrix units as before; gradients do not", () => {
  const units = { M: 16, N: 16, K: 16, subgroup: 32 };
  using plan = new Plan(Infinity, "gpu", units);
  const names: string[] = [];
  const dispatch = plan.dispatch.bind(plan);
  plan.dispatch = (kernel, what) => {
    names.push(kernel.name);
    dispatch(kernel, what);
  };
  using x = plan.alloc([1, 64, 8, 8]);
  using weight = plan.alloc([32, 64], "f16");
  using tape = new Tape(plan, [x]);
  plan.halfProducts = true;
  const [y] = tape.run(() => recompute([x], () => [linear(x, weight)]));
  plan.halfProducts = false;
  using seed = plan.alloc(y!.shape);
  for (const grad of tape.backward([[y!, seed]])) grad.dispose();
  y!.dispose();
  const matrix = "gemm_matrix_16x16x16_32";
  assert.deepEqual(names, [matrix, matrix, "gemm_tiled"]);
  assert.equal(plan.halfProducts, false);
});

test("a convolution's gradient takes no matrix units, whoever allows them", () => {
  using plan = new Plan(Infinity, "gpu", {
    M: 16,
    N: 16,
    K: 16,
    subgroup: 32,
  });
  using x = plan.alloc([1, 64, 8, 8]);
  using weight = plan.alloc([32, 64, 3, 3], "f16");
  using tape = new Tape(plan, [x]);
  plan.halfProducts = true;
  const [y] = tape.run(() => [conv3x3(x, weight)]);
  using seed = plan.alloc(y!.shape);
  for (const grad of tape.backward([[y!, seed]])) grad.dispose();
  y!.dispose();
  assert.deepEqual(
    plan.kernels.map(({ kernel }) => kernel.name)
      .filter((name) => name.startsWith("conv")),
    ["conv_matrix_16x16x16_32", "conv_tiled"],
  );
});

/** Of a sum of products whose operands were rounded to 11 bits each: sqrt(2 / 3) of half a unit, times 2. */
const HALF_BOUND = 2 * Math.sqrt(2 / 3) * 2 ** -11;

/** A product by matrix units against the float64 references. */
async function check(
  what: string,
  shapes: readonly (readonly number[])[],
  type: "f32" | "f16",
  run: (x: Tensor, weight: Tensor, ...more: Tensor[]) => Tensor,
): Promise<void> {
  const numbers = shapes.map((shape, i) =>
    rand(i + 1, shape.reduce((a, b) => a * b, 1))
  );
  const on = async (backend: Backend) => {
    const tensors = shapes.map((shape, i) => {
      const x = backend.alloc(shape, i === 1 ? type : "f32");
      if (x.type === "f16") backend.writeHalf(x, toHalves(numbers[i]!));
      else backend.write(x, numbers[i]!);
      return x;
    });
    backend.halfProducts = true;
    const [x, weight, ...more] = tensors as [Tensor, Tensor, ...Tensor[]];
    using y = run(x, weight, ...more);
    backend.halfProducts = false;
    const [found] = await backend.read([y]);
    for (const t of tensors) t.dispose();
    return found!;
  };
  using cpu = new Cpu("gpu");
  const wanted = Float64Array.from(await on(cpu));
  const found = await on(await testBackend());
  const { relL2 } = compare(Float64Array.from(found), wanted);
  assert.ok(relL2 < HALF_BOUND, `${what} ${type}: ${relL2}`);
  // Were it not by 16 bits, it would not be this far off.
  assert.ok(relL2 > HALF_BOUND / 100, `${what} ${type}: ${relL2}`);
}

if (BACKEND === "webgpu" && KERNELS === "matrix") {
  test("linear() by matrix units gives what float64 gives, but for 16 bits", async () => {
    for (const type of ["f32", "f16"] as const) {
      for (
        const [batch, to, from, cells] of [
          [1, 64, 32, 64],
          [2, 40, 24, 36], // ends inside of tiles
          [1, 1280, 1280, 64], // a cut sum
          [2, 130, 320, 100],
        ] as const
      ) {
        const sizes = [[batch, from, cells], [to, from], [to], [
          batch,
          to,
          cells,
        ]];
        await check(
          `linear ${sizes}`,
          sizes,
          type,
          (x, w, bias, residual) => linear(x, w, { bias, residual }),
        );
      }
    }
  });

  test("conv3x3() by matrix units gives what float64 gives, but for 16 bits", async () => {
    for (const type of ["f32", "f16"] as const) {
      for (const doubled of [false, true]) {
        for (
          const [batch, to, from, height, width] of [
            [1, 64, 32, 8, 8],
            [2, 40, 24, 7, 5], // columns of a tile belong to two images
            [1, 320, 640, 8, 8], // a cut sum
          ] as const
        ) {
          const size = doubled ? [2 * height, 2 * width] : [height, width];
          const sizes = [
            [batch, from, height, width],
            [to, from, 3, 3],
            [to],
            [batch, to],
            [batch, to, ...size],
          ];
          await check(
            `conv ${sizes} ${doubled}`,
            sizes,
            type,
            (x, w, bias, shift, residual) =>
              conv3x3(x, w, { bias, shift, residual, doubled }),
          );
        }
      }
    }
  });
}
