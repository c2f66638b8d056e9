/** The time embedding's way into all resnets of a network: one product instead of one for each. */
import type { Tensor } from "../kernels/backend.ts";
import { linear } from "../kernels/linear.ts";
import type { Layer, Parameters, Rows } from "./parameters.ts";

/** Collects the `time_emb_proj` of resnets, whose rows then lie one below the other. */
export class TimeLayers {
  /** Channels of the time embedding. */
  readonly channels: number;
  readonly #layers: Rows[] = [];
  #rows = 0;

  /** Starts with none. */
  constructor(channels: number) {
    this.channels = channels;
  }

  /** Notes a layer of `out` rows. Returns which row of all is its first. */
  add(name: string, out: number): number {
    const first = this.#rows;
    this.#layers.push({ name, out });
    this.#rows += out;
    return first;
  }

  /** Asks for the weights of all that were noted. */
  parameters(p: Parameters): Layer {
    return p.stacked(this.#layers, this.channels);
  }
}

/**
 * What all resnets add to their channels.
 *
 * @param layer Of `TimeLayers`.
 * @param time SiLU of the time embedding, `[batch or 1, time, 1]`.
 * @returns `[batch or 1, rows, 1]`.
 */
export function timeShifts(layer: Layer, time: Tensor): Tensor {
  return linear(time, layer.weight, { bias: layer.bias });
}
