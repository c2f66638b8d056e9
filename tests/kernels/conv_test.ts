import { strict as assert } from "node:assert";
import { test } from "node:test";
import {
  conv,
  conv3x3,
  type Conv3x3Options,
  winogradWeight,
} from "../../kernels/conv.ts";
import type { Tensor } from "../../kernels/backend.ts";
import { Plan } from "../../kernels/plan.ts";
import { KERNELS, testBackend } from "../backend.ts";
import { rand, sumBound, U } from "../compare.ts";
import {
  apart,
  checkBatch,
  checkOp,
  halfInput,
  type Input,
  input,
} from "./check_op.ts";
import { groupNormed } from "./formulas.ts";

/** Direct convolution in float64: the sum as it is written. */
function direct(
  x: Input,
  weight: Input,
  bias: Input | undefined,
  { stride, padding: [left, right, top, bottom] }: {
    stride: number;
    padding: readonly [number, number, number, number];
  },
): { out: Float64Array; height: number; width: number } {
  const [batch, channels, h, w] = x.shape as [number, number, number, number];
  const [outs, , kernel] = weight.shape as [number, number, number];
  const height = Math.floor((h + top + bottom - kernel) / stride) + 1;
  const width = Math.floor((w + left + right - kernel) / stride) + 1;
  const out = new Float64Array(batch * outs * height * width);
  let at = 0;
  for (let b = 0; b < batch; b++) {
    for (let o = 0; o < outs; o++) {
      for (let oy = 0; oy < height; oy++) {
        for (let ox = 0; ox < width; ox++) {
          let sum = bias ? bias.data[o]! : 0;
          for (let c = 0; c < channels; c++) {
            for (let ky = 0; ky < kernel; ky++) {
              const y = oy * stride + ky - top;
              if (y < 0 || y >= h) continue;
              for (let kx = 0; kx < kernel; kx++) {
                const i = ox * stride + kx - left;
                if (i < 0 || i >= w) continue;
                sum += x.data[((b * channels + c) * h + y) * w + i]! *
                  weight
                    .data[((o * channels + c) * kernel + ky) * kernel + kx]!;
              }
            }
          }
          out[at++] = sum;
        }
      }
    }
  }
  return { out, height, width };
}

/**
 * Bound for Winograd F(2x2, 3x3) over `channels`. The 9 products that an output adds have 25/9 of
 * the variance of the direct sum's (rows of G have squares 1, 3/4, 3/4, those of B^T 2), so the
 * rounding of the sum over the channels counts 5/3 times; the three transforms add a few roundings.
 */
function winogradBound(channels: number): number {
  return 5 / 3 * sumBound(channels) + 4 * U;
}

interface Conv3x3Case {
  readonly x: readonly [number, number, number, number];
  readonly out: number;
  readonly shift?: "batch" | "shared";
  /** Which number of a row of shifts is the first channel's; two more than are needed follow. */
  readonly shiftFirst?: number;
  readonly bias?: boolean;
  readonly residual?: boolean;
  readonly numeric?: boolean;
  /** The weight as it is, f32 or f16, instead of its Winograd form. */
  readonly raw?: "f32" | "f16";
  readonly workBytes?: number;
  readonly variant?: Conv3x3Options["variant"];
  readonly doubled?: boolean;
  /** A group norm before it. */
  readonly norm?: { readonly groups: number; readonly silu: boolean };
  /** Channels of x; the others lie beside it. All if left out. */
  readonly own?: number;
}

/** An image whose cells are repeated along both axes. */
function repeated(x: Input): Input {
  const [batch = 0, channels = 0, height = 0, width = 0] = x.shape;
  const shape = [batch, channels, 2 * height, 2 * width];
  const data = Float64Array.from({ length: 4 * x.data.length }, (_, i) => {
    const row = Math.floor(i / (2 * width));
    return x.data[(row >> 1) * width + (i % (2 * width) >> 1)]!;
  });
  return { shape, data };
}

async function checkConv3x3(given: Conv3x3Case): Promise<void> {
  // The gpu family has kernels for weights as they are; Winograd's are the other family's.
  const c: Conv3x3Case = KERNELS === "gpu" ? { raw: "f32", ...given } : given;
  const { out, numeric = true, doubled = false } = c;
  const x = input(1, c.x);
  const [, channels = 0] = x.shape;
  const norm = c.norm && { ...c.norm, eps: 1e-5 };
  const scale = norm && input(6, [channels], 1, 1.5);
  const offset = norm && input(7, [channels]);
  const normed = (): Input => {
    if (!norm) return x;
    const [batch = 0, , height = 0, width = 0] = x.shape;
    const size = [batch, channels, height * width] as const;
    return {
      ...x,
      data: groupNormed(x.data, size, scale!.data, offset!.data, norm),
    };
  };
  const large = doubled ? repeated(normed()) : normed();
  const [batch = 0, , height = 0, width = 0] = large.shape;
  const shape = [out, channels, 3, 3];
  const weight = c.raw === "f16" ? halfInput(2, shape) : input(2, shape);
  const bias = c.bias ? input(3, [out]) : undefined;
  const { shiftFirst } = c;
  const row = shiftFirst === undefined ? out : shiftFirst + out + 2;
  const shift = c.shift && input(4, [c.shift === "shared" ? 1 : batch, row]);
  const residual = c.residual && input(5, [batch, out, height, width]);
  const [source, beside] = c.own ? apart(x, c.own) : [x];
  const inputs = [source, weight];
  const wrt = [0];
  const add = (given: Input | undefined | false, differentiable: boolean) => {
    if (!given) return -1;
    if (differentiable) wrt.push(inputs.length);
    return inputs.push(given) - 1;
  };
  const atBias = add(bias, false);
  const atShift = add(shift, true);
  const atResidual = add(residual, true);
  const atScale = add(scale, false);
  const atOffset = add(offset, false);
  const atBeside = add(beside, true);
  const cells = height * width;
  const ofNorm = norm
    ? (12 + Math.sqrt(channels / norm.groups * cells / 64) +
      (norm.silu ? 8 : 0)) * U
    : 0;
  const ofSource = winogradBound(out) + 2 * ofNorm +
    (norm?.silu ? 16 * U : 0);
  const held: Tensor[] = [];
  await checkOp(`conv3x3 ${JSON.stringify(c)}`, {
    inputs,
    wrt,
    held,
    forward: (...all) => {
      const u = c.raw ? all[1]!.retain() : winogradWeight(all[1]!);
      held.push(u);
      const { workBytes } = c;
      return [
        conv3x3(all[0]!, u, {
          bias: all[atBias],
          shift: all[atShift],
          shiftFirst,
          residual: all[atResidual],
          ...workBytes ? { workBytes } : {},
          ...c.variant ? { variant: c.variant } : {},
          doubled,
          norm: norm && {
            ...norm,
            weight: all[atScale]!,
            bias: all[atOffset]!,
            beside: all[atBeside],
          },
        }),
        ...c.raw ? [] : [u.retain()],
      ];
    },
    seeded: [0],
  }, {
    // U: two times three terms are added, and halved exactly. For a norm see group_norm_test.ts.
    values: [winogradBound(channels) + ofNorm, 4 * U],
    grads: [
      ofSource,
      ...shift ? [sumBound(cells * (c.shift === "shared" ? batch : 1))] : [],
      ...residual ? [0] : [],
      ...beside ? [ofSource] : [],
    ],
    numeric,
    formula: () => {
      const { out: y } = direct(large, weight, bias, {
        stride: 1,
        padding: [1, 1, 1, 1],
      });
      for (let i = 0; i < y.length; i++) {
        const o = Math.floor(i / cells) % out;
        const b = Math.floor(i / cells / out);
        if (shift) {
          y[i] = y[i]! +
            shift.data[
              (c.shift === "shared" ? 0 : b * row) + (shiftFirst ?? 0) + o
            ]!;
        }
        if (residual) y[i] = y[i]! + residual.data[i]!;
      }
      return [y, undefined];
    },
  });
}

test("conv3x3() takes weights as they are, f32 and f16", async () => {
  const base = { x: [2, 3, 5, 4], out: 4 } as const;
  for (const raw of ["f32", "f16"] as const) {
    await checkConv3x3({ ...base, raw });
    await checkConv3x3({ ...base, raw, bias: true, shift: "batch" });
    await checkConv3x3({ ...base, raw, x: [1, 3, 5, 5], out: 5 }); // odd halves
  }
});

test("conv3x3() doubles the image on the way", async () => {
  const all = { bias: true, shift: "batch", residual: true } as const;
  for (
    const [height, width] of [[1, 1], [1, 3], [3, 1], [4, 5], [3, 4], [2, 8]]
  ) {
    const x = [2, 3, height!, width!] as const;
    await checkConv3x3({ x, out: 5, doubled: true });
    await checkConv3x3({ x, out: 5, doubled: true, raw: "f16", ...all });
  }
  // 40 tiles: pieces of 4 tiles and of 4 outputs, the last ones shorter.
  const pieces = { x: [2, 9, 4, 5], out: 10, doubled: true } as const;
  await checkConv3x3({ ...pieces, workBytes: 1024 });
  await checkConv3x3({ ...pieces, workBytes: 1024, raw: "f32", ...all });
  await checkConv3x3({ ...pieces, raw: "f32", variant: "columns", ...all });
  const wide = { x: [1, 320, 8, 8], out: 160, doubled: true } as const;
  await checkConv3x3({ ...wide, bias: true, numeric: false });
});

test("conv3x3() of a doubled image multiplies 9 times for four cells", () => {
  using plan = new Plan();
  using x = plan.alloc([1, 32, 8, 8]);
  using weight = plan.alloc([64, 32, 3, 3]);
  conv3x3(x, weight, { doubled: true }).dispose();
  assert.equal(plan.flops, 2 * 9 * 32 * 64 * 8 * 8);
  assert.equal(
    plan.kernels.filter(({ kernel }) => kernel.name === "upsample").length,
    0,
  );
});

test("conv3x3() gives the same in pieces", async () => {
  // 12 tiles of 9 channels, 10 outputs: pieces of 4 tiles and of 4 outputs, the last ones shorter.
  await checkConv3x3({ x: [2, 9, 4, 5], out: 10, workBytes: 1024 });
  // More cells than go by columns: 40 tiles.
  const base = { x: [2, 9, 8, 9], out: 10, workBytes: 1024 } as const;
  for (const raw of ["f32", "f16"] as const) {
    await checkConv3x3({ ...base, raw });
    const all = { bias: true, shift: "batch", residual: true } as const;
    await checkConv3x3({ ...base, raw, ...all });
    await checkConv3x3({ ...base, raw, ...all, workBytes: 5000 });
  }
});

test("conv3x3() goes by columns, alike in pieces and at once", async () => {
  const variant = "columns";
  const all = { bias: true, shift: "batch", residual: true, variant } as const;
  for (const raw of ["f32", "f16"] as const) {
    for (const [height, width] of [[1, 1], [2, 2], [4, 9]] as const) {
      await checkConv3x3({ x: [3, 4, height, width], out: 6, raw, ...all });
    }
    // 63 numbers to each of 20 cells: one image and four cells of each, and two of three images.
    const base = { x: [3, 7, 4, 5], out: 6, raw, ...all } as const;
    for (const workBytes of [1100, 6000, 11000]) {
      await checkConv3x3({ ...base, workBytes });
    }
    await checkConv3x3({ ...base, shift: "shared", shiftFirst: 3 });
  }
  const wide = { x: [2, 320, 2, 2], out: 160, raw: "f16" } as const;
  await checkConv3x3({ ...wide, ...all, numeric: false });
});

test("conv3x3() takes large kernels by columns where images have few cells", () => {
  const kernels = (out: number, side: number, doubled = false): string[] => {
    using plan = new Plan();
    using x = plan.alloc([1, 512, side, side]);
    using weight = plan.alloc([out, 512, 3, 3], "f16");
    conv3x3(x, weight, { doubled }).dispose();
    return plan.kernels.map(({ kernel }) => kernel.name);
  };
  assert.deepEqual(kernels(512, 6), ["im2col", "gemm_texel_half"]);
  assert.equal(kernels(512, 7)[0], "winograd_weight");
  assert.equal(kernels(510, 6)[0], "winograd_weight");
  const columns = ["upsample", "im2col", "gemm_texel_half"];
  assert.deepEqual(kernels(512, 3, true), columns);
  assert.equal(kernels(512, 4, true)[1], "winograd_doubled");
});

test("conv3x3() matches a direct convolution for odd and even sizes", async () => {
  for (
    const [height, width] of [[1, 1], [1, 2], [2, 1], [3, 5], [7, 9], [8, 8], [
      5,
      8,
    ], [4, 16]]
  ) {
    await checkConv3x3({ x: [2, 3, height!, width!], out: 5 });
  }
  await checkConv3x3({ x: [1, 1, 5, 4], out: 1 });
  await checkConv3x3({ x: [3, 4, 6, 4], out: 3 }); // 18 tiles, 3 x 6
});

test("conv3x3() matches a direct convolution at sizes of the networks", async () => {
  const base = { bias: true, shift: "shared", numeric: false } as const;
  await checkConv3x3({ ...base, x: [1, 4, 32, 32], out: 64 });
  await checkConv3x3({ ...base, x: [2, 64, 16, 16], out: 32 });
  await checkConv3x3({ ...base, x: [1, 320, 8, 8], out: 160 });
  await checkConv3x3({ ...base, x: [1, 3, 256, 257], out: 5 }); // 65,792 cells
});

test("conv3x3() adds bias, shift and residual", async () => {
  // One number at a time, and four.
  for (const [height, width] of [[5, 4], [6, 8]] as const) {
    const base = { x: [2, 3, height, width], out: 4 } as const;
    await checkConv3x3({ ...base, bias: true });
    for (const shift of ["batch", "shared"] as const) {
      await checkConv3x3({ ...base, shift });
      await checkConv3x3({ ...base, bias: true, shift, residual: true });
    }
    await checkConv3x3({ ...base, residual: true });
  }
});

test("conv3x3() normalises on the way, and where it cannot before", async () => {
  const silu = { groups: 3, silu: true };
  const all = { bias: true, shift: "batch", residual: true } as const;
  // Four tiles side by side and in one piece: on the way.
  await checkConv3x3({ x: [1, 3, 2, 8], out: 2, norm: silu });
  await checkConv3x3({ x: [2, 6, 4, 16], out: 3, norm: silu, ...all });
  await checkConv3x3({ x: [2, 6, 6, 24], out: 3, norm: silu, raw: "f16" });
  const plain = { groups: 1, silu: false };
  await checkConv3x3({ x: [2, 3, 4, 8], out: 5, norm: plain });
  await checkConv3x3({
    x: [2, 64, 16, 16],
    out: 32,
    norm: { groups: 8, silu: true },
    numeric: false,
    ...all,
  });
  // Other sizes, pieces of tiles, of outputs, columns, a doubled image.
  await checkConv3x3({ x: [2, 6, 3, 8], out: 3, norm: silu });
  await checkConv3x3({ x: [2, 6, 4, 6], out: 3, norm: silu, ...all });
  const pieces = { x: [1, 9, 8, 8], out: 10, norm: silu } as const;
  await checkConv3x3({ ...pieces, workBytes: 8192 });
  await checkConv3x3({ ...pieces, workBytes: 8192, raw: "f32" });
  await checkConv3x3({ ...pieces, raw: "f32", variant: "columns" });
  await checkConv3x3({ x: [1, 3, 4, 8], out: 2, norm: silu, doubled: true });
});

test("conv3x3() normalises two tensors as one", async () => {
  const silu = { groups: 3, silu: true };
  const all = { bias: true, shift: "batch", residual: true } as const;
  // On the way: groups of either tensor, of both.
  await checkConv3x3({ x: [2, 6, 4, 16], out: 3, own: 2, norm: silu, ...all });
  await checkConv3x3({ x: [2, 6, 4, 16], out: 3, own: 3, norm: silu, ...all });
  await checkConv3x3({ x: [2, 6, 4, 8], out: 3, own: 5, norm: silu });
  const plain = { groups: 1, silu: false };
  await checkConv3x3({ x: [2, 5, 4, 8], out: 2, own: 1, norm: plain });
  // Before.
  await checkConv3x3({ x: [2, 6, 3, 8], out: 3, own: 3, norm: silu, ...all });
  await checkConv3x3({ x: [2, 6, 4, 6], out: 3, own: 5, norm: silu });
});

test("conv3x3() with a norm is one run less where it can be", () => {
  using plan = new Plan();
  using x = plan.alloc([1, 32, 8, 8]);
  using u = plan.alloc([16, 32, 32]);
  using affine = plan.alloc([32]);
  const norm = { weight: affine, bias: affine, groups: 8, eps: 1e-5 };
  conv3x3(x, u, { norm }).dispose();
  assert.equal(plan.kernels[0]!.kernel.name, "winograd_norm");
  assert.equal(plan.kernels.length, 3);
});

test("conv3x3() takes its part of shifts that belong to more channels", async () => {
  const base = { x: [2, 3, 5, 4], out: 4, bias: true } as const;
  for (const raw of ["f32", "f16"] as const) {
    for (const shiftFirst of [0, 1, 7]) {
      await checkConv3x3({ ...base, raw, shift: "batch", shiftFirst });
      await checkConv3x3({ ...base, raw, shift: "shared", shiftFirst });
    }
  }
  await checkConv3x3({ ...base, shift: "batch", shiftFirst: 3 });
  const pieces = {
    ...base,
    x: [2, 9, 8, 9],
    out: 10,
    workBytes: 1024,
  } as const;
  await checkConv3x3({ ...pieces, raw: "f32", shift: "batch", shiftFirst: 3 });
});

test("conv3x3() matches a direct convolution where the sum is cut", async () => {
  const base = { bias: true, shift: "batch", residual: true } as const;
  const numeric = false; // sums of 540 and 630 terms
  await checkConv3x3({
    ...base,
    numeric,
    x: [2, 60, 5, 7],
    out: 70,
    shiftFirst: 5,
  });
  await checkConv3x3({ ...base, numeric, x: [2, 60, 5, 7], out: 70 });
  await checkConv3x3({
    ...base,
    numeric,
    x: [2, 60, 6, 7],
    out: 70,
    raw: "f16",
  });
  await checkConv3x3({
    ...base,
    numeric,
    x: [2, 60, 6, 6],
    out: 70,
    raw: "f16",
  });
});

test("conv3x3() sends a gradient only where one is wanted", async () => {
  for (const wrt of [[2], [3], [2, 3]]) { // not x, so the weight may go
    await checkOp(`conv3x3 gradients of ${wrt}`, {
      inputs: [
        input(1, [2, 3, 4, 3]),
        input(2, [2, 3, 3, 3]),
        input(3, [1, 2]),
        input(4, [2, 2, 4, 3]),
      ],
      wrt,
      forward: (x, weight, shift, residual) => {
        using u = winogradWeight(weight);
        return [conv3x3(x, u, { shift, residual })];
      },
    }, {
      values: winogradBound(3),
      grads: wrt.map((i) => i === 2 ? sumBound(24) : 0),
    });
  }
});

test("conv3x3() sends a gradient to one of two tensors alone", async () => {
  const [channels, eps] = [5, 1e-5];
  for (const [height, width] of [[4, 8], [4, 3]] as const) { // on the way, and before
    const x = input(1, [2, channels, height, width]);
    const affine = [input(2, [channels], 1, 1.5), input(3, [channels])];
    const ofNorm = (12 + Math.sqrt(channels * height * width / 64)) * U;
    for (const wrt of [[0], [1]]) {
      const held: Tensor[] = [];
      await checkOp(`conv3x3 of ${height} x ${width}, gradient of ${wrt}`, {
        inputs: [...apart(x, 2), ...affine, input(4, [3, channels, 3, 3])],
        wrt,
        held,
        forward: (x, beside, weight, bias, kernel) => {
          const u = winogradWeight(kernel);
          held.push(u);
          const norm = { weight, bias, beside, groups: 1, eps };
          return [conv3x3(x, u, { norm })];
        },
      }, {
        values: winogradBound(channels) + ofNorm,
        grads: winogradBound(3) + 2 * ofNorm,
      });
    }
  }
});

interface ConvCase {
  readonly x: readonly [number, number, number, number];
  readonly out: number;
  readonly kernel: number;
  readonly stride?: number;
  readonly padding?: readonly [number, number, number, number];
  readonly bias?: boolean;
  readonly numeric?: boolean;
  readonly half?: boolean;
  readonly workBytes?: number;
}

async function checkConv(c: ConvCase): Promise<void> {
  const { x: [, channels], out, kernel, stride, padding, numeric = true } = c;
  const x = input(1, c.x);
  const { half, workBytes } = c;
  const weight = (half ? halfInput : input)(2, [out, channels, kernel, kernel]);
  const bias = input(3, [out]);
  let shape: readonly number[] = [];
  await checkOp(`conv ${JSON.stringify(c)}`, {
    inputs: [x, weight, bias],
    wrt: [0],
    forward: (x, weight, bias) => {
      const y = conv(x, weight, {
        kernel,
        bias: c.bias ? bias : undefined,
        ...stride ? { stride } : {},
        ...padding ? { padding } : {},
        ...workBytes ? { workBytes } : {},
      });
      shape = y.shape;
      return [y];
    },
  }, {
    values: sumBound(channels * kernel * kernel),
    // At most ceil(kernel / stride)^2 columns of `out` products each.
    grads: sumBound(out * kernel * kernel),
    numeric,
    formula: () => {
      const { out: y, height, width } = direct(
        x,
        weight,
        c.bias ? bias : undefined,
        { stride: stride ?? 1, padding: padding ?? [0, 0, 0, 0] },
      );
      assert.deepEqual(shape, [c.x[0], out, height, width]);
      return [y];
    },
  });
}

test("conv() matches a direct convolution with stride and padding", async () => {
  const symmetric = [1, 1, 1, 1] as const;
  for (
    const [height, width] of [[2, 2], [1, 3], [3, 5], [7, 9], [8, 8]] as const
  ) {
    const x = [2, 3, height, width] as const;
    const base = { x, out: 4, kernel: 3, stride: 2 };
    await checkConv({ ...base, padding: symmetric });
    // The encoder of an autoencoder pads right and bottom only.
    if (height > 1) await checkConv({ ...base, padding: [0, 1, 0, 1] });
  }
  const x = [2, 3, 6, 7] as const;
  await checkConv({ x, out: 2, kernel: 1, bias: true });
  await checkConv({ x, out: 2, kernel: 2, stride: 2 });
  await checkConv({ x, out: 2, kernel: 3, stride: 3, padding: [2, 0, 1, 3] });
  await checkConv({ x, out: 2, kernel: 5, stride: 2, padding: [2, 2, 2, 2] });
  await checkConv({ x: [1, 1, 1, 1], out: 1, kernel: 3, padding: symmetric });
});

test("conv() gives the same in pieces, and with f16 weights", async () => {
  const base = {
    x: [2, 7, 7, 9],
    out: 4,
    kernel: 3,
    stride: 2,
    padding: [1, 1, 1, 1],
  } as const;
  // 20 output cells of 63 numbers, 7 channels: pieces of 4 or 8 of each.
  for (const workBytes of [1100, 2100]) {
    for (const half of [false, true]) {
      await checkConv({ ...base, workBytes, half });
    }
  }
});

test("conv() matches a direct convolution at sizes of the networks", async () => {
  const base = { bias: true, numeric: false, kernel: 3, stride: 2 };
  await checkConv({
    ...base,
    x: [2, 32, 32, 36], // 288 cells: more than a thread of im2col has
    out: 32,
    padding: [1, 1, 1, 1],
  });
  await checkConv({
    ...base,
    x: [1, 4, 33, 31],
    out: 64,
    padding: [0, 1, 0, 1],
  });
});

test("conv() and conv3x3() refuse tensors that do not fit", async () => {
  const backend = await testBackend();
  const before = backend.memory.liveBytes;
  {
    using x = backend.alloc([1, 2, 4, 4]);
    using flat = backend.alloc([1, 2, 16]);
    using weight = backend.alloc([3, 2, 3, 3]);
    using u = winogradWeight(weight);
    using three = backend.alloc([1, 3]);
    using two = backend.alloc([1, 2]);
    const refused = (run: () => unknown, message: RegExp) =>
      assert.throws(run, { name: "RangeError", message });
    refused(() => winogradWeight(two), /must hold 18 numbers/);
    refused(() => conv3x3(flat, u), /x must be \[batch, channels, height/);
    using narrow = backend.alloc([3, 1, 3, 3]);
    refused(() => conv3x3(x, narrow), /must hold 54 numbers/);
    conv3x3(x, weight).dispose();
    refused(() => conv3x3(x, u, { bias: two }), /must hold 3 numbers/);
    refused(() => conv3x3(x, u, { shift: two }), /must hold 3 numbers/);
    for (const shiftFirst of [1, -1, 0.5]) {
      refused(
        () => conv3x3(x, u, { shift: three, shiftFirst }),
        /3 numbers from .* must lie inside each of 1 rows/,
      );
    }
    refused(() => conv3x3(x, u, { residual: x }), /must hold 48 numbers/);
    conv3x3(x, u, { bias: three, shift: three }).dispose();
    conv3x3(x, u, { shift: three, shiftFirst: 0 }).dispose();
    refused(() => conv(flat, weight, { kernel: 3 }), /x must be/);
    refused(() => conv(x, weight, { kernel: 2 }), /must hold 24 numbers/);
    refused(() => conv(x, weight, { kernel: 3, bias: two }), /hold 3 numbers/);
    using large = backend.alloc([3, 2, 5, 5]);
    refused(() => conv(x, large, { kernel: 5 }), /must fit the padded input/);
    conv(x, large, { kernel: 5, padding: [1, 0, 0, 1] }).dispose();
  }
  assert.equal(backend.memory.liveBytes, before);
});

test("conv3x3() gives the same bits with the norm on the way, alone, and before it, in a batch", async () => {
  const channels = [8];
  const backend = await testBackend();
  using weight = backend.upload(rand(4, 8 * 8 * 9, 0.1), [8, 8, 3, 3]);
  using u = winogradWeight(weight);
  await checkBatch(
    [input(1, [2, 8, 8, 8]), input(2, channels), input(3, channels)],
    (x, weight, bias) =>
      conv3x3(x, u, {
        norm: { weight, bias, groups: 2, eps: 1e-5, silu: true },
        workBytes: 64 * 16 * 20, // 20 tiles: 16 are one piece, 32 are two
      }),
  );
});

test("conv3x3() gives an element the same bits alone and in a batch", async () => {
  const backend = await testBackend();
  // Six tiles are no fours, twelve are: what runs must not change with that.
  const one = rand(1, 96 * 4 * 6), two = rand(2, 96 * 4 * 6);
  using weight = backend.upload(rand(3, 96 * 96 * 9, 0.1), [96, 96, 3, 3]);
  using both = backend.upload([...one, ...two], [2, 96, 4, 6]);
  using alone = backend.upload(one, [1, 96, 4, 6]);
  using u = winogradWeight(weight);
  for (const [w, variant] of [[u, "auto"], [weight, "columns"]] as const) {
    using y = conv3x3(both, w, { variant });
    using z = conv3x3(alone, w, { variant });
    const [together, apart] = await backend.read([y, z]);
    assert.deepEqual(together!.slice(0, apart!.length), apart);
  }
});
