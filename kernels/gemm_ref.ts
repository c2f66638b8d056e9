/** Float64 definition of `gemm`. The loops are ordered so that the cpu backend is bearable. */
import type { Params } from "./backend.ts";

/** `c = alpha A B (+ bias) (+ residual) (+ c)`; bindings and params as in `gemm.wgsl`. */
export function gemmRef(bind: readonly Float64Array[], p: Params, flags: Params): void {
  const [a, b, bias, residual, c] = bind as [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array];
  const { M = 0, N = 0, K = 0, lda = 0, ldb = 0, ldc = 0, alpha = 1 } = p;
  const am = flags.A_ROW ? lda : 1;
  const ak = flags.A_ROW ? 1 : lda;
  const bn = flags.B_ROW ? ldb : 1;
  const bk = flags.B_ROW ? 1 : ldb;
  for (let z = 0; z < (p.Z ?? 1); z++) {
    const oa = p.oa! + z * p.sa!;
    const ob = p.ob! + z * p.sb!;
    const oc = p.oc! + z * p.sc!;
    const put = (m: number, n: number, sum: number): void => {
      const at = oc + m * ldc + n;
      let value = alpha * sum;
      if (flags.BIAS) value += bias[m]!;
      if (flags.RESIDUAL) value += residual[at]!;
      if (flags.ACCUMULATE) value += c[at]!;
      c[at] = value;
    };
    let m = 0;
    for (; m + 2 <= M; m += 2) {
      let n = 0;
      for (; n + 4 <= N; n += 4) {
        let s0 = 0, s1 = 0, s2 = 0, s3 = 0, t0 = 0, t1 = 0, t2 = 0, t3 = 0;
        let i = oa + m * am;
        let j = ob + n * bn;
        for (let k = 0; k < K; k++, i += ak, j += bk) {
          const x = a[i]!, y = a[i + am]!;
          const b0 = b[j]!, b1 = b[j + bn]!, b2 = b[j + 2 * bn]!, b3 = b[j + 3 * bn]!;
          s0 += x * b0;
          s1 += x * b1;
          s2 += x * b2;
          s3 += x * b3;
          t0 += y * b0;
          t1 += y * b1;
          t2 += y * b2;
          t3 += y * b3;
        }
        put(m, n, s0);
        put(m, n + 1, s1);
        put(m, n + 2, s2);
        put(m, n + 3, s3);
        put(m + 1, n, t0);
        put(m + 1, n + 1, t1);
        put(m + 1, n + 2, t2);
        put(m + 1, n + 3, t3);
      }
      for (; n < N; n++) {
        put(m, n, dot(a, oa + m * am, ak, b, ob + n * bn, bk, K));
        put(m + 1, n, dot(a, oa + (m + 1) * am, ak, b, ob + n * bn, bk, K));
      }
    }
    for (; m < M; m++) {
      for (let n = 0; n < N; n++) put(m, n, dot(a, oa + m * am, ak, b, ob + n * bn, bk, K));
    }
  }
}

function dot(a: Float64Array, i: number, di: number, b: Float64Array, j: number, dj: number, count: number): number {
  let sum = 0;
  for (let k = 0; k < count; k++) sum += a[i + k * di]! * b[j + k * dj]!;
  return sum;
}
