/** Float64 definition of `matrix_product`, with operands rounded to 16 bits. */
import type { Params } from "./backend.ts";
import { halfScale, rounded } from "./halve_ref.ts";

/** Bindings a, b, bias, shift, residual, peaks, c. */
export function matrixProductRef(
  [a, b, bias, shift, residual, peaks, c]: readonly Float64Array[],
  p: Params,
  constants: Params,
): void {
  const { M = 0, N = 0, K = 0, Z = 0, wide = 1, width = 0, cells = 0 } = p;
  const { A_ROW, TAPS, BIAS, SHIFT, RESIDUAL, ACCUMULATE, SPLIT } = constants;
  const { plane = 0, planes = 0, parts = 1, each = K, alpha = 1 } = p;
  const [am, ak] = A_ROW ? [p.lda!, 1] : [1, p.lda!];
  const factor = constants.SCALED ? 1 / halfScale(peaks!) : 1;
  for (let z = 0; z < Z; z++) {
    for (let m = 0; m < M; m++) {
      const line = Float64Array.from(
        { length: K },
        (_, k) => rounded(a![p.oa! + z * p.sa! + m * am + k * ak]!),
      );
      for (let n = 0; n < N; n++) {
        if (n % wide >= width) continue;
        const cell = Math.floor(n / wide) * width + n % wide;
        for (let part = 0; part < parts; part++) {
          let sum = 0;
          for (let k = part * each; k < Math.min(K, (part + 1) * each); k++) {
            const channel = k % 3 * planes + z * K / 9 + Math.floor(k / 9);
            const at = TAPS
              ? channel * plane + Math.floor(k % 9 / 3) * wide + n
              : z * p.sb! + k * p.ldb! + n;
            sum += line[k]! * b![at]!;
          }
          sum *= factor;
          if (SPLIT) {
            c![((z * parts + part) * M + m) * cells + cell] = sum;
            continue;
          }
          const at = p.oc! + z * p.sc! + m * p.ldc! + cell;
          let value = alpha * sum + (ACCUMULATE ? c![at]! : 0);
          if (BIAS) value += bias![m]!;
          if (SHIFT) value += shift![p.shiftFirst! + z * p.shiftStride! + m]!;
          if (RESIDUAL) value += residual![at]!;
          c![at] = value;
        }
      }
    }
  }
}
