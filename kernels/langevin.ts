/** The adaptive Langevin update of the latent, with every norm kept on the device. */
import wgsl from "./langevin.wgsl" with { type: "text" };
import {
  elementGroups,
  expectSize,
  type Kernel,
  type Tensor,
} from "./backend.ts";
import { dotInto } from "./dot.ts";
import { langevinRef } from "./langevin_ref.ts";

const KERNEL: Kernel = {
  name: "langevin",
  wgsl,
  bindings: "rrrww",
  params: [
    "count",
    "total",
    "adapt",
    "noiseLevel:f",
    "factor:f",
    "nu:f",
    "snr:f",
    "guard:f",
    "noise:f",
    "expected:f",
  ],
  ref: langevinRef,
};

/** Numbers per item in `LangevinState`. */
export const LANGEVIN_STATE = 6;

/** Options of `langevinStep`. */
export interface LangevinOptions {
  /** `sqrt(1 - abar)` of the timestep, to turn eps into the score. */
  readonly noiseLevel: number;
  /** Ratio of drift to noise, the paper's r. */
  readonly snr: number;
  /** Smallest |g| as a share of |score|, against a vanishing drift. */
  readonly guard: number;
  /** On nu. Default 1. */
  readonly factor?: number;
  /** False keeps the nu that `state` holds. Default true. */
  readonly adapt?: boolean;
  /** A constant nu instead. */
  readonly nu?: number | undefined;
  /** False leaves the noise term out, not its norm. Default true. */
  readonly addNoise?: boolean;
  /** Use the expected norm of the noise instead of the drawn one. Default false. */
  readonly expectedNorm?: boolean;
}

/**
 * `g = s - nu grad`, `z' = z + xi g + sqrt(2 xi) n` with `s = -eps / noiseLevel`,
 * `nu = |s| / |grad|`, `xi = 2 (snr |n| / max(|g|, guard |s|))^2`, norms per item of the batch.
 *
 * @param z Latent, `[batch, channels, height, width]`.
 * @param eps Predicted noise, like `z`.
 * @param grad Gradient of the energy, like `z`.
 * @param noise N(0, 1), like `z`.
 * @param state `[batch, 6]`: |eps|^2, |grad|^2, |g|^2, |n|^2, nu, xi; written.
 * @returns The new latent.
 * @see WinWinLay, arXiv:2506.15563, eq. 14 to 16 and 20.
 */
export function langevinStep(
  z: Tensor,
  eps: Tensor,
  grad: Tensor,
  noise: Tensor,
  state: Tensor,
  options: LangevinOptions,
): Tensor {
  const [batch = 0] = z.shape;
  for (const x of [eps, grad, noise]) expectSize(x, z.size, "langevin");
  expectSize(state, batch * LANGEVIN_STATE, "langevin");
  const backend = z.backend;
  const count = z.size / batch;
  const params = {
    count,
    total: z.size,
    adapt: options.nu !== undefined ? 2 : Number(options.adapt ?? true),
    nu: options.nu ?? 0,
    noiseLevel: options.noiseLevel,
    factor: options.factor ?? 1,
    snr: options.snr,
    guard: options.guard,
    noise: Number(options.addNoise ?? true),
    expected: options.expectedNorm ? count : 0,
  };
  const groups = elementGroups(z.size);
  const slots = { stride: LANGEVIN_STATE };
  dotInto(eps, eps, state, { slot: 0, ...slots });
  dotInto(grad, grad, state, { slot: 1, ...slots });
  dotInto(noise, noise, state, { slot: 3, ...slots });
  using g = backend.alloc(z.shape);
  backend.dispatch(KERNEL, {
    bind: [eps, grad, noise, state, g],
    params,
    constants: { UPDATE: 0 },
    groups,
  });
  dotInto(g, g, state, { slot: 2, ...slots });
  const out = backend.alloc(z.shape);
  backend.dispatch(KERNEL, {
    bind: [z, g, noise, state, out],
    params,
    constants: { UPDATE: 1 },
    groups,
  });
  return out;
}
