/** The attention energies of layout guidance and their closed-form gradient. */
import wgsl from "./layout_energy.wgsl" with { type: "text" };
import { expectSize, type Kernel, sizeOf, type Tensor } from "./backend.ts";
import { layoutEnergyRef } from "./layout_energy_ref.ts";

const KERNEL: Kernel = {
  name: "layout_energy",
  wgsl,
  bindings: "rrrrrww",
  params: ["tokens", "cells"],
  ref: layoutEnergyRef,
};

/** What `layoutEnergy` reads besides the maps; made once per layout and site. */
export interface EnergyTables {
  /** Share of each cell that lies in a region's boxes, `[regions, cells]`. */
  readonly mask: Tensor;
  /** Log of each prior on its cells, below -1e30 elsewhere, `[priors, cells]`. */
  readonly logTau: Tensor;
  /** Per probed token: region, first prior, number of priors, weight; `[tokens, 4]`. */
  readonly rows: Tensor;
  /** The largest number of priors of one region. */
  readonly mostPriors: number;
}

/** Options of `layoutEnergy`. */
export interface LayoutEnergyOptions {
  /** Weight of the prior, `[1]`: a tensor, since it falls from step to step and nothing else of a pass does. */
  readonly rho: Tensor;
  /** KL(tau, a) instead of KL(a, tau). Default false. */
  readonly reverse?: boolean;
}

/**
 * `(1 - f)^2 + rho KL(a in the box, tau)` of each head and token, f the share of attention in the box.
 *
 * @param logA Log-probabilities, `[1, heads, tokens, ...space]`.
 * @returns `h`, the gradient of the weighted sum on `logA`, with its shape; and `terms`
 *   `[heads tokens, 3]`: the energy of the share, the KL, and the share f.
 * @see WinWinLay, arXiv:2506.15563, eq. 2 and 12.
 */
export function layoutEnergy(
  logA: Tensor,
  tables: EnergyTables,
  options: LayoutEnergyOptions,
): { readonly h: Tensor; readonly terms: Tensor } {
  const [batch, heads = 0, tokens = 0, ...space] = logA.shape;
  const cells = sizeOf(space);
  if (batch !== 1 || space.length === 0) {
    throw new RangeError(
      `Cannot run layout_energy: maps must be [1, heads, tokens, ...space]: current shape is [${logA.shape}]`,
    );
  }
  expectSize(tables.rows, 4 * tokens, "layout_energy");
  const { rho } = options;
  expectSize(rho, 1, "layout_energy");
  const backend = logA.backend;
  const h = backend.alloc(logA.shape);
  const terms = backend.alloc([heads * tokens, 3]);
  backend.dispatch(KERNEL, {
    bind: [logA, tables.mask, tables.logTau, tables.rows, rho, h, terms],
    params: { count: heads * tokens, tokens, cells },
    constants: {
      REVERSE: Number(options.reverse ?? false),
      MOST_PRIORS: Math.max(1, tables.mostPriors),
    },
    groups: [heads * tokens, 1, 1],
  });
  return { h, terms };
}
