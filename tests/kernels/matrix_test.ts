/** Matrix units: who has them, and what products through them give. Numbers need an adapter that has some. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { conv, conv3x3 } from "../../kernels/conv.ts";
import { Cpu } from "../../kernels/cpu.ts";
import { gemm } from "../../kernels/gemm.ts";
import { halve } from "../../kernels/halve.ts";
import { largest } from "../../kernels/largest.ts";
import { matrixProduct } from "../../kernels/matrix_product.ts";
import type { MatrixCut } from "../../kernels/tiles.ts";
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
  assert.deepEqual(matrixUnits(FEATURES, nvidia, 49152, "it"), {
    M: 16,
    N: 16,
    K: 16,
    subgroup: 32,
    memory: 49152,
  });
  assert.deepEqual(
    matrixUnits(FEATURES, info(8, config(8, 8, 8)), 32768, "it"),
    {
      M: 8,
      N: 8,
      K: 8,
      subgroup: 8,
      memory: 32768,
    },
  );
});

test("matrixUnits() says what is missing", () => {
  const refused = (
    features: readonly string[],
    given: MatrixInfo,
    message: RegExp,
    memory = 32768,
  ) =>
    assert.throws(() => matrixUnits(features, given, memory, "it"), {
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
  refused(FEATURES, good, /at least 22528 bytes: current 16384/, 16384);
});

const UNITS = { M: 16, N: 16, K: 16, subgroup: 32, memory: 48 * 1024 };
const SQUARE = "matrix_product_row_64x64_16x16x16_32";

/** Names of what a plan would run. */
function namesOf(run: (plan: Plan) => void): string[] {
  using plan = new Plan(Infinity, "gpu", UNITS);
  const names: string[] = [];
  const dispatch = plan.dispatch.bind(plan);
  plan.dispatch = (kernel, what) => {
    if (kernel.name !== "split_sum") names.push(kernel.name);
    dispatch(kernel, what);
  };
  run(plan);
  assert.equal(plan.halfProducts, false);
  return names;
}

test("matrix units are used where a network bears it, by products they fit", () => {
  const kernels = (halfProducts: boolean, side: number, channels = 64) =>
    namesOf((plan) => {
      plan.halfProducts = halfProducts;
      using x = plan.alloc([1, channels, side, side]);
      using weight = plan.alloc([32, channels], "f16");
      using kernel = plan.alloc([32, channels, 3, 3]);
      linear(x, weight).dispose();
      conv3x3(x, kernel).dispose();
      plan.halfProducts = false;
    });
  const tiled = (columns: number) => [
    `gemm_tiled_32x${columns}`,
    `conv_tiled_32x${columns}`,
  ];
  assert.deepEqual(kernels(true, 8), ["halve", SQUARE, "halve_taps", SQUARE]);
  assert.deepEqual(
    kernels(true, 12).filter((name) => name.includes("product")),
    Array(2).fill("matrix_product_row_64x128_16x16x16_32"),
  );
  assert.deepEqual(kernels(false, 8), tiled(32));
  assert.deepEqual(kernels(true, 9), tiled(128)); // no fours
  assert.deepEqual(kernels(true, 4), tiled(32)); // few cells
  assert.deepEqual(kernels(true, 8, 4), tiled(32)); // no eights
});

test("matrix units do convolutions of networks alone, and products whose result lies in fours", () => {
  const kernels = (run: (plan: Plan) => void) =>
    namesOf((plan) => {
      plan.halfProducts = true;
      run(plan);
      plan.halfProducts = false;
    });
  const tiled = ["conv_tiled_32x32"];
  for (
    const [kernel, stride, padding] of [
      [3, 2, [1, 1, 1, 1]],
      [3, 1, [0, 2, 1, 1]],
      [3, 1, [1, 1, 0, 2]],
      [5, 1, [1, 3, 1, 3]],
    ] as const
  ) {
    const names = kernels((plan) => {
      using x = plan.alloc([1, 64, 8 * stride, 8 * stride]);
      using weight = plan.alloc([32, 64, kernel, kernel]);
      conv(x, weight, { kernel, stride, padding }).dispose();
    });
    assert.deepEqual(names, tiled, `${kernel} ${stride} ${padding}`);
  }
  const into = (offset: number) =>
    kernels((plan) => {
      using a = plan.alloc([32, 64]);
      using b = plan.alloc([64, 64]);
      using c = plan.alloc([33, 64]);
      const at = { tensor: c, stride: 64, offset };
      gemm(
        [32, 64, 64],
        { tensor: a, stride: 64 },
        { tensor: b, stride: 64 },
        at,
      );
    });
  assert.deepEqual(into(4), ["halve", SQUARE]);
  assert.deepEqual(into(2), ["gemm_tiled_32x32"]);
});

test("gradients and what is run again on the way back take matrix units as on the way there", () => {
  const names = namesOf((plan) => {
    using x = plan.alloc([1, 64, 8, 8]);
    using weight = plan.alloc([32, 64], "f16");
    using kernel = plan.alloc([32, 32, 3, 3], "f16");
    using tape = new Tape(plan, [x]);
    plan.halfProducts = true;
    const [y] = tape.run(() =>
      recompute([x], () => {
        using h = linear(x, weight);
        return [conv3x3(h, kernel)];
      })
    );
    plan.halfProducts = false;
    using seed = plan.alloc(y!.shape);
    for (const grad of tape.backward([[y!, seed]])) grad.dispose();
    y!.dispose();
  });
  const there = ["halve", SQUARE, "halve_taps", SQUARE];
  const column = SQUARE.replace("row", "column");
  assert.deepEqual(names, [
    ...there,
    ...there,
    ...["turned_weight", "largest", "halve_taps", SQUARE],
    ...["largest", "halve", column],
  ]);
});

test("a gradient takes no matrix units where the way there did not, whoever allows them then", () => {
  const names = namesOf((plan) => {
    using x = plan.alloc([1, 64, 8, 8]);
    using kernel = plan.alloc([32, 64, 3, 3], "f16");
    using tape = new Tape(plan, [x]);
    const [y] = tape.run(() => [conv3x3(x, kernel)]);
    using seed = plan.alloc(y!.shape);
    plan.halfProducts = true;
    for (const grad of tape.backward([[y!, seed]])) grad.dispose();
    assert.equal(plan.halfProducts, true);
    plan.halfProducts = false;
    y!.dispose();
  });
  assert.deepEqual(names, ["conv_tiled_32x32", "conv_tiled_32x32"]);
});

test("largest() refuses what it would read past the end of", () => {
  using cpu = new Cpu("gpu");
  using x = cpu.alloc([6]);
  assert.throws(() => largest(x), /multiple of 4: current shape is \[6\]/);
});

/** Of a sum of products whose operands were rounded to 11 bits each: sqrt(2 / 3) of half a unit, times 2. */
const HALF_BOUND = 2 * Math.sqrt(2 / 3) * 2 ** -11;

interface Case {
  readonly shapes: readonly (readonly number[])[];
  readonly type: "f32" | "f16";
  /** Of the gradient that goes back. */
  readonly size: number;
  readonly run: (x: Tensor, weight: Tensor, ...more: Tensor[]) => Tensor;
}

/** Result of an op and the gradient of its first tensor. */
async function thereAndBack(
  backend: Backend,
  { shapes, type, size, run }: Case,
): Promise<Float64Array[]> {
  const random = (seed: number, shape: readonly number[]) =>
    rand(seed, shape.reduce((a, b) => a * b, 1));
  const tensors = shapes.map((shape, i) => {
    const numbers = random(i + 1, shape);
    const x = backend.alloc(shape, i === 1 ? type : "f32");
    if (x.type === "f16") backend.writeHalf(x, toHalves(numbers));
    else backend.write(x, numbers);
    return x;
  });
  const [x, weight, ...more] = tensors as [Tensor, Tensor, ...Tensor[]];
  using tape = new Tape(backend, [x]);
  backend.halfProducts = true;
  using y = tape.run(() => run(x, weight, ...more));
  backend.halfProducts = false;
  using seed = backend.upload(
    random(9, y.shape).map((value) => value * size),
    y.shape,
  );
  const [grad] = tape.backward([[y, seed]]);
  const found = await backend.read([y, grad!]);
  for (const t of [...tensors, grad!]) t.dispose();
  return found.map((numbers) => Float64Array.from(numbers));
}

/** Products by matrix units: what they round, and that devices compute the rest as float64 does. */
async function check(what: string, wanted: Case): Promise<void> {
  const device = BACKEND === "webgpu" && KERNELS === "matrix"
    ? await testBackend()
    : undefined;
  using exact = new Cpu("gpu");
  using rounding = new Cpu("gpu", device?.matrix ?? UNITS);
  const exactly = await thereAndBack(exact, wanted);
  const rounded = await thereAndBack(rounding, wanted);
  for (const i of [0, 1]) {
    const { relL2 } = compare(rounded[i]!, exactly[i]!);
    assert.ok(relL2 < HALF_BOUND, `${what}, ${i}: ${relL2}`);
    // Were it not by 16 bits, it would not be this far off.
    assert.ok(relL2 > HALF_BOUND / 100, `${what}, ${i}: ${relL2}`);
  }
  if (!device) return;
  const found = await thereAndBack(device, wanted);
  for (const i of [0, 1]) {
    const { relL2 } = compare(found[i]!, rounded[i]!);
    assert.ok(relL2 < 1e-6, `${what}, ${i}, device: ${relL2}`);
  }
}

test("linear() by matrix units gives what float64 gives, but for 16 bits", async () => {
  for (const type of ["f32", "f16"] as const) {
    for (
      const [size, batch, to, from, cells] of [
        [1, 1, 64, 32, 64],
        [1e-7, 2, 40, 24, 36], // ends inside of tiles
        [1e7, 1, 72, 1024, 64], // a cut sum; gradients beyond 16 bits
        [1e-12, 2, 136, 48, 132],
      ] as const
    ) {
      const shapes = [
        [batch, from, cells],
        [to, from],
        [to],
        [batch, to, cells],
      ];
      await check(`linear ${type} ${shapes}`, {
        shapes,
        type,
        size,
        run: (x, w, bias, residual) => linear(x, w, { bias, residual }),
      });
    }
  }
});

test("conv3x3() by matrix units gives what float64 gives, but for 16 bits", async () => {
  for (const type of ["f32", "f16"] as const) {
    for (const doubled of [false, true]) {
      for (
        const [size, batch, to, from, height, width] of [
          [1, 1, 64, 32, 8, 8],
          [1e-7, 2, 40, 24, 7, 12], // lines of 12 in 16
          [1e7, 1, 16, 120, 4, 16], // a cut sum
          [1, 2, 24, 8, 12, 12],
        ] as const
      ) {
        const space = doubled ? [2 * height, 2 * width] : [height, width];
        const shapes = [
          [batch, from, height, width],
          [to, from, 3, 3],
          [to],
          [batch, to],
          [batch, to, ...space],
        ];
        await check(`conv ${type} ${shapes} ${doubled}`, {
          shapes,
          type,
          size,
          run: (x, w, bias, shift, residual) =>
            conv3x3(x, w, { bias, shift, residual, doubled }),
        });
      }
    }
  }
});

test("gradients of zeros and beyond all bounds go back by matrix units as they are", async () => {
  const backend = BACKEND === "webgpu" && KERNELS === "matrix"
    ? await testBackend()
    : new Cpu("gpu", UNITS);
  using x = backend.upload(rand(1, 32 * 64), [1, 32, 64]);
  using w = backend.upload(new Float32Array(8 * 32).fill(1), [8, 32]);
  const back = async (value: number): Promise<number> => {
    using tape = new Tape(backend, [x]);
    backend.halfProducts = true;
    using y = tape.run(() => linear(x, w));
    backend.halfProducts = false;
    using seed = backend.upload(new Float32Array(y.size).fill(value), y.shape);
    const [grad] = tape.backward([[y, seed]]);
    const [numbers] = await backend.read([grad!]);
    grad!.dispose();
    return numbers![77]!;
  };
  assert.equal(await back(0), 0);
  assert.equal(await back(2 ** 100), 8 * 2 ** 100);
  assert.equal(await back(-(2 ** 100)), -8 * 2 ** 100);
  assert.equal(await back(2 ** -120), 8 * 2 ** -120);
});

if (BACKEND === "webgpu" && KERNELS === "matrix") {
  test("a product by matrix units is the same however it is shared among workgroups", async () => {
    const backend = await testBackend();
    const [batch, M, N, K] = [2, 144, 136, 96];
    using a = backend.upload(rand(1, M * K), [M, K]);
    using b = backend.upload(rand(2, batch * K * N), [batch, K, N]);
    using halves = halve({ tensor: b, stride: N, batchStride: K * N }, [
      batch,
      K,
      N,
    ]);
    const product = async (cut: MatrixCut): Promise<Float64Array> => {
      using c = backend.alloc([batch, M, N]);
      const place = { tensor: c, stride: N, batchStride: M * N };
      const matrix = { tensor: a, stride: K };
      matrixProduct(
        backend.matrix!,
        [M, N, K],
        matrix,
        { tensor: halves },
        place,
        { batch, cut },
      );
      const [numbers] = await backend.read([c]);
      return Float64Array.from(numbers!);
    };
    const whole = { parts: 1, each: K };
    const tile = { TM: 64, TN: 64, WM: 2, WN: 2 };
    const wanted = await product({ tile, ...whole });
    for (
      const other of [
        { tile: { TM: 64, TN: 128, WM: 2, WN: 4 }, ...whole },
        { tile: { TM: 128, TN: 128, WM: 4, WN: 4 }, ...whole },
        { tile, parts: 3, each: 32 },
      ]
    ) {
      const { relL2 } = compare(await product(other), wanted);
      assert.ok(relL2 < 1e-6, `${JSON.stringify(other)}: ${relL2}`);
    }
  });
}
