/** Float64 definition of `gemm`. The loops are ordered so that the cpu backend is bearable. */
import type { Params } from "./backend.ts";
import { gegluRef } from "./geglu_ref.ts";

/** `c = alpha A B (+ bias) (+ shift) (+ residual) (+ c)`; bindings and params as in `gemm.wgsl`; `first` is the
 * row of bias and shift. */
export function gemmRef(
  bind: readonly Float64Array[],
  p: Params,
): void {
  const [a, b, bias, residual, shift, c] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  // `| 0` tells the engine that these are integers, which makes the loops twice as fast.
  const [M, N, K] = [p.M! | 0, p.N! | 0, p.K! | 0];
  const [am, ak] = [p.am! | 0, p.ak! | 0];
  const [bn, bk] = [p.bn! | 0, p.bk! | 0];
  const ldc = p.ldc! | 0;
  const { alpha = 1, flags = 0, first = 0 } = p;
  const { shiftFirst = 0, shiftStride = 0 } = p;
  const panel = new Float64Array(4 * K);
  for (let z = 0; z < (p.Z ?? 1); z++) {
    const oa = p.oa! + z * p.sa! | 0;
    const ob = p.ob! + z * p.sb! | 0;
    const oc = p.oc! + z * p.sc! | 0;
    const put = (
      m: number,
      n: number,
      ...sums: [number, number, number, number]
    ): void => {
      for (let j = 0; j < 4 && n + j < N; j++) {
        const at = oc + m * ldc + n + j;
        let value = alpha * sums[j]!;
        if (flags & 1) value += bias[first + m]!;
        if (flags & 8) {
          value += shift[shiftFirst + z * shiftStride + first + m]!;
        }
        if (flags & 2) value += residual[at]!;
        if (flags & 4) value += c[at]!;
        c[at] = value;
      }
    };
    for (let n = 0; n < N; n += 4) {
      // Four columns side by side; past the end they repeat the last.
      for (let k = 0; k < K; k++) {
        for (let j = 0; j < 4; j++) {
          panel[4 * k + j] = b[ob + Math.min(n + j, N - 1) * bn + k * bk]!;
        }
      }
      for (let m = 0; m < M; m += 2) {
        const pair = m + 1 < M ? am : 0;
        let s0 = 0, s1 = 0, s2 = 0, s3 = 0, t0 = 0, t1 = 0, t2 = 0, t3 = 0;
        for (let k = 0, i = oa + m * am; k < K; k++, i += ak) {
          const x = a[i]!, y = a[i + pair]!;
          const b0 = panel[4 * k]!,
            b1 = panel[4 * k + 1]!,
            b2 = panel[4 * k + 2]!,
            b3 = panel[4 * k + 3]!;
          s0 += x * b0;
          s1 += x * b1;
          s2 += x * b2;
          s3 += x * b3;
          t0 += y * b0;
          t1 += y * b1;
          t2 += y * b2;
          t3 += y * b3;
        }
        put(m, n, s0, s1, s2, s3);
        if (pair) put(m + 1, n, t0, t1, t2, t3);
      }
    }
  }
}

/** The same without shift; bindings a, b, bias, residual, c. */
export function gemmTiledRef(
  [a, b, bias, residual, c]: readonly Float64Array[],
  p: Params,
): void {
  gemmRef([a!, b!, bias!, residual!, a!, c!], p);
}

/** The same, or with a `gate` what `geglu` makes of M rows and as many gates below them. */
export function gemmTexelRef(
  bind: readonly Float64Array[],
  p: Params,
): void {
  const { M = 0, N = 0, Z = 1, gate = 0 } = p;
  if (!gate) {
    gemmRef(bind, p);
    return;
  }
  const wide = new Float64Array(Z * 2 * M * N);
  gemmRef([...bind.slice(0, 5), wide], { ...p, M: 2 * M, sc: 2 * M * N });
  gegluRef([wide, wide, bind[5]!], { batch: Z, plane: M * N }, {});
}
