/** Float64 definitions of the activations, their slopes, and erf. */
import type { Params } from "./backend.ts";

/** Kinds of `activation`, in the order of the kernel's KIND. */
export const ACTIVATIONS: readonly string[] = ["silu", "gelu", "quick_gelu"];

/** `out = f(x)` or `g f'(x)`; bindings x, g, out. */
export function activationRef(
  bind: readonly Float64Array[],
  { count = 0 }: Params,
  { KIND = 0, GRAD = 0 }: Params,
): void {
  const [x, g, out] = bind as [Float64Array, Float64Array, Float64Array];
  for (let i = 0; i < count; i++) {
    const v = x[i]!;
    if (KIND === 1) {
      out[i] = GRAD ? g[i]! * geluSlope(v) : gelu(v);
    } else {
      const k = KIND === 2 ? 1.702 : 1;
      const s = 1 / (1 + Math.exp(-k * v));
      out[i] = GRAD ? g[i]! * s * (1 + k * v * (1 - s)) : v * s;
    }
  }
}

/** `x Phi(x)`. */
export function gelu(x: number): number {
  return 0.5 * x * erfc(-x * Math.SQRT1_2);
}

/** Derivative of `gelu`. */
export function geluSlope(x: number): number {
  return 0.5 * erfc(-x * Math.SQRT1_2) +
    x * Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
}

/** Complementary error function, about 1e-16: W. J. Cody, Math. Comp. 23 (1969), rational Chebyshev forms. */
export function erfc(x: number): number {
  const y = Math.abs(x);
  if (y <= 0.46875) {
    const s = y * y;
    const top = (((1.85777706184603153e-1 * s + 3.16112374387056560) * s +
              113.864154151050156) * s +
          377.485237685302021) * s + 3209.37758913846947;
    const bottom = (((s + 23.6012909523441209) * s + 244.024637934444173) * s +
          1282.61652607737228) * s +
      2844.23683343917062;
    return 1 - x * top / bottom;
  }
  let r: number;
  if (y <= 4) {
    const top = polynomial(y, [
      2.15311535474403846e-8,
      0.564188496988670089,
      8.88314979438837594,
      66.1191906371416295,
      298.635138197400131,
      881.95222124176909,
      1712.04761263407058,
      2051.07837782607147,
      1230.33935479799725,
    ]);
    const bottom = polynomial(y, [
      1,
      15.7449261107098347,
      117.693950891312499,
      537.181101862009858,
      1621.38957456669019,
      3290.79923573345963,
      4362.61909014324716,
      3439.36767414372164,
      1230.33935480374942,
    ]);
    r = top / bottom;
  } else if (y < 27) {
    const s = 1 / (y * y);
    const top = polynomial(s, [
      1.63153871373020978e-2,
      0.305326634961232344,
      0.360344899949804439,
      0.125781726111229246,
      0.0160837851487422766,
      6.58749161529837803e-4,
    ]);
    const bottom = polynomial(s, [
      1,
      2.56852019228982242,
      1.87295284992346725,
      0.527905102951428412,
      0.0605183413124413191,
      2.33520497626869185e-3,
    ]);
    r = (1 / Math.sqrt(Math.PI) - s * top / bottom) / y;
  } else return x < 0 ? 2 : 0;
  // exp(-y^2) without losing the low bits of y^2
  const high = Math.trunc(y * 16) / 16;
  r *= Math.exp(-high * high) * Math.exp(-(y - high) * (y + high));
  return x < 0 ? 2 - r : r;
}

function polynomial(x: number, coefficients: readonly number[]): number {
  let sum = 0;
  for (const c of coefficients) sum = sum * x + c;
  return sum;
}
