/** Sinusoidal timestep embedding, on the host in float64. */

/**
 * `[cos(t f_i), sin(t f_i)]`, `f_i = 10000^(-i / (half - shift))`, i below half of the channels.
 *
 * @param timestep Train timestep.
 * @param channels Even.
 * @param options.flipSinToCos Cosines first (true in all Stable Diffusion models).
 * @returns `[channels]` in float32.
 * @see Ho et al. 2020, arXiv:2006.11239; diffusers `get_timestep_embedding`.
 */
export function sinusoid(
  timestep: number,
  channels: number,
  options: { readonly flipSinToCos: boolean; readonly freqShift: number },
): Float32Array {
  const half = Math.floor(channels / 2);
  const out = new Float32Array(channels);
  for (let i = 0; i < half; i++) {
    const angle = timestep *
      Math.exp(-Math.log(10000) * i / (half - options.freqShift));
    const [first, second] = options.flipSinToCos
      ? [Math.cos(angle), Math.sin(angle)]
      : [Math.sin(angle), Math.cos(angle)];
    out[i] = first;
    out[half + i] = second;
  }
  return out;
}
