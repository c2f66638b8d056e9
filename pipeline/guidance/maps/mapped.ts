/** A function of maps together with its way back: the host's counterpart of an op on a tape. */

/** `[height, width]` of a map, row-major: cell `(x, y)` is `y width + x`. */
export type Grid = readonly [height: number, width: number];

/** What a function made of maps, and how a gradient goes back through it. */
export interface Mapped {
  /** Its result. */
  readonly values: Float64Array;
  /** Gradient on the result in, gradient on what it was made of out. */
  back(gradient: Float64Array): Float64Array;
}
