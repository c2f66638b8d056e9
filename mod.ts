/**
 * Puts things where you say: layout guidance for stock text-to-image diffusion models, on WebGPU.
 *
 * `open` a model, `generate` from a prompt with boxes. Below that: layouts, tokenizer, energies,
 * guidance, sampler, networks, kernels.
 *
 * @module
 */
export { open, openBackend, Model, type OpenOptions } from "./pipeline/model.ts";
