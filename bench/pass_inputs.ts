/** What UNet passes are measured on: one latent, one prompt's states, two phrases with boxes. */
import type { Tensor, Work } from "../kernels/backend.ts";
import { LANGEVIN_STATE } from "../kernels/langevin.ts";
import {
  type Conditioning,
  repeatedConditioning,
} from "../pipeline/conditioning.ts";
import {
  ENERGY_DEFAULTS,
  LayoutEnergy,
  type Subject,
} from "../pipeline/energy.ts";
import { deviceEnergy } from "../pipeline/guidance/device_energy.ts";
import { guidedSites } from "../pipeline/guidance/sites.ts";
import {
  winwinlay,
  WINWINLAY_DEFAULTS,
} from "../pipeline/guidance/winwinlay.ts";
import { timestepWave, type Unet, unetForward } from "../pipeline/unet.ts";
import { type EnergyGradient, gradientPass } from "../pipeline/unet_grad.ts";
import { rand } from "../tests/compare.ts";

/** Train timestep of the passes. */
export const TIMESTEP = 501;
/** Tokens of the prompt. */
export const TOKENS = 77;
/** Weight of the prior. */
export const RHO = 5;
/** The phrases. */
export const SUBJECTS: readonly Subject[] = [
  { name: "left", tokens: [2, 3], boxes: [[0.06, 0.3, 0.5, 0.9]] },
  { name: "right", tokens: [6, 7], boxes: [[0.55, 0.1, 0.95, 0.7]] },
];

/** Inputs on a backend, and the passes over them, recorded once as the sampler's are. */
export interface PassInputs extends Disposable {
  /** `[1, 4, side, side]`. */
  readonly z: Tensor;
  /** `[1, text channels, tokens]`. */
  readonly states: Tensor;
  /** Forward alone. */
  plain(): void;
  /** The same of two prompts in one batch, as a step without guidance does. */
  both(): void;
  /** Forward, energy and backward to the last guided site. */
  gradient(): Promise<EnergyGradient>;
  /** `gradient` and the Langevin update. */
  guided(): Promise<void>;
}

/** Uploads the inputs of a UNet's passes, the same numbers each time. */
export function passInputs(unet: Unet, side: number): PassInputs {
  const { backend, config } = unet;
  const held: Tensor[] = [];
  const tensor = (seed: number, shape: readonly number[]): Tensor => {
    const size = shape.reduce((a, b) => a * b, 1);
    const x = backend.upload(rand(seed, size, Math.sqrt(3)), shape);
    held.push(x);
    return x;
  };
  const z = tensor(1, [1, config.inChannels, side, side]);
  const noise = tensor(2, z.shape);
  const states = tensor(3, [1, config.text, TOKENS]);
  const text = repeatedConditioning({ states }); // as the sampler does
  const state = tensor(4, [1, LANGEVIN_STATE]);
  const two = tensor(5, [2, config.inChannels, side, side]);
  const prompts = repeatedConditioning({
    states: tensor(6, [2, config.text, TOKENS]),
  });
  const method = winwinlay(WINWINLAY_DEFAULTS);
  const at = { step: 0, steps: 1, iteration: 0 };
  const energy = deviceEnergy(
    new LayoutEnergy(
      backend,
      SUBJECTS,
      guidedSites(config, WINWINLAY_DEFAULTS.sites),
      [8 * side, 8 * side],
      ENERGY_DEFAULTS,
    ),
    { rho: () => RHO },
  );
  const pass = gradientPass(unet, text, { energy });
  const gradient = (): Promise<EnergyGradient> => pass(z, TIMESTEP, at);
  const plain = backend.repeated(([z, wave]) => [
    unetForward(unet, z!, wave!, text),
  ]);
  const both = backend.repeated(([two, wave]) => [
    unetForward(unet, two!, wave!, prompts),
  ]);
  const run = (
    work: Work,
    latent: Tensor,
    conditioning: Conditioning,
  ): void => {
    using wave = timestepWave(unet, TIMESTEP, conditioning);
    for (const x of work([latent, wave])) x.dispose();
  };
  return {
    z,
    states,
    gradient,
    plain() {
      run(plain, z, text);
    },
    both() {
      run(both, two, prompts);
    },
    async guided() {
      const { output, grad, terms } = await gradient();
      method.update(z, output, grad, noise, {
        ...at,
        iterations: method.iterations(at.step, at.steps),
        alphaBar: 0.5,
        state,
      }).dispose();
      for (const x of [output, grad, ...terms]) x.dispose();
    },
    [Symbol.dispose]() {
      text[Symbol.dispose]();
      prompts[Symbol.dispose]();
      energy[Symbol.dispose]();
      for (const x of held) x.dispose();
    },
  };
}
