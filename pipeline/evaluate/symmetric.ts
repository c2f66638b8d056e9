/** Symmetric matrices in float64, row-major: eigenvalues and Cholesky factor. */

const MOST_ROUNDS = 50; // of QL per eigenvalue; two or three are usual

/**
 * Eigenvalues in no particular order: Householder's tridiagonal form, then QL with implicit shifts.
 *
 * @param matrix `[n, n]`, symmetric; only its lower triangle is read. Not changed.
 * @see Golub and Van Loan, Matrix Computations, 8.3.
 */
export function symmetricEigenvalues(
  matrix: Float64Array,
  n: number,
): Float64Array {
  // A coupling of rounding's size is none.
  let least = 0;
  for (const x of matrix) least = Math.max(least, Number.EPSILON * Math.abs(x));
  const { diagonal, below } = tridiagonal(Float64Array.from(matrix), n, least);
  for (let l = 0; l < n; l++) {
    for (let round = 0;; round++) {
      let m = l;
      while (m < n - 1 && Math.abs(below[m]!) > least) m++;
      if (m === l) break;
      if (round === MOST_ROUNDS) {
        throw new Error(
          `Cannot find eigenvalues: QL must converge in ${MOST_ROUNDS} rounds: current matrix is ${n}x${n}`,
        );
      }
      sweep(diagonal, below, l, m);
    }
  }
  return diagonal;
}

/** One QL sweep over the block from `l` to `m`. */
function sweep(d: Float64Array, e: Float64Array, l: number, m: number): void {
  const slope = (d[l + 1]! - d[l]!) / (2 * e[l]!);
  const root = Math.sqrt(slope * slope + 1);
  let g = d[m]! - d[l]! + e[l]! / (slope + (slope >= 0 ? root : -root));
  let s = 1, c = 1, p = 0;
  for (let i = m - 1; i >= l; i--) {
    const f = s * e[i]!;
    const b = c * e[i]!;
    const r = Math.sqrt(f * f + g * g);
    e[i + 1] = r;
    if (r === 0) { // the block falls apart here
      d[i + 1]! -= p;
      e[m] = 0;
      return;
    }
    s = f / r;
    c = g / r;
    g = d[i + 1]! - p;
    const t = (d[i]! - g) * s + 2 * c * b;
    p = s * t;
    d[i + 1] = g + p;
    g = c * t - b;
  }
  d[l]! -= p;
  e[l] = g;
  e[m] = 0;
}

/** Diagonal and subdiagonal of an orthogonally similar tridiagonal matrix, up to `least`. Overwrites `a`. */
function tridiagonal(
  a: Float64Array,
  n: number,
  least: number,
): { diagonal: Float64Array; below: Float64Array } {
  const diagonal = new Float64Array(n);
  const below = new Float64Array(n); // below[i] couples i and i + 1
  for (let i = n - 1; i > 0; i--) {
    // Reflect row i so that of its left part only the last entry stays.
    const row = a.subarray(i * n, i * n + i);
    let norm = 0; // Math.hypot would be many times slower
    for (const x of row) norm += x * x;
    norm = Math.sqrt(norm);
    diagonal[i] = a[i * n + i]!;
    if (norm <= least) continue;
    const alpha = row[i - 1]! > 0 ? -norm : norm;
    below[i - 1] = alpha;
    const v = Float64Array.from(row);
    v[i - 1]! -= alpha;
    let square = 0;
    for (const x of v) square += x * x;
    // A <- H A H with H = I - 2 v v' / v'v, on the leading i x i part.
    const w = new Float64Array(i); // 2 A v / v'v, from the lower triangle
    const scale = 2 / square;
    for (let r = 0; r < i; r++) {
      let sum = 0;
      for (let c = 0; c < r; c++) {
        const entry = a[r * n + c]!;
        sum += entry * v[c]!;
        w[c]! += scale * entry * v[r]!;
      }
      w[r]! += scale * (sum + a[r * n + r]! * v[r]!);
    }
    let dot = 0;
    for (let r = 0; r < i; r++) dot += v[r]! * w[r]! / square;
    for (let r = 0; r < i; r++) w[r]! -= dot * v[r]!;
    for (let r = 0; r < i; r++) {
      for (let c = 0; c <= r; c++) {
        a[r * n + c]! -= v[r]! * w[c]! + w[r]! * v[c]!;
      }
    }
  }
  diagonal[0] = a[0]!;
  return { diagonal, below };
}

/**
 * Lower triangular L with `L L' = matrix`, for a positive semidefinite matrix.
 *
 * A column without variance of its own, up to rounding, is zero.
 *
 * @param matrix `[n, n]`.
 */
export function choleskyFactor(matrix: Float64Array, n: number): Float64Array {
  const out = new Float64Array(n * n);
  for (let j = 0; j < n; j++) {
    let pivot = matrix[j * n + j]!;
    for (let k = 0; k < j; k++) pivot -= out[j * n + k]! ** 2;
    if (pivot <= n * Number.EPSILON * matrix[j * n + j]!) continue;
    const root = Math.sqrt(pivot);
    out[j * n + j] = root;
    for (let i = j + 1; i < n; i++) {
      let sum = matrix[i * n + j]!;
      for (let k = 0; k < j; k++) sum -= out[i * n + k]! * out[j * n + k]!;
      out[i * n + j] = sum / root;
    }
  }
  return out;
}
