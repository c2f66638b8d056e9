/** Kernels whose WGSL is written out: registers have no indices, so that what is in them has a name each. */
import type { Kernel } from "./backend.ts";

const made = new Map<string, Kernel>();

/** A kernel, made once. */
export function once(name: string, make: () => Omit<Kernel, "name">): Kernel {
  let known = made.get(name);
  if (!known) made.set(name, known = { ...make(), name });
  return known;
}

/** Lines for 0 to `count` - 1. */
export function each(count: number, line: (i: number) => string): string {
  return Array.from({ length: count }, (_, i) => line(i)).join("\n");
}

/** Declares sizes. */
export function constants(sizes: Readonly<Record<string, number>>): string {
  return Object.entries(sizes)
    .map(([name, value]) => `const ${name} = ${value}u;\n`).join("");
}

/** WGSL with its parts, which it names in braces with an @. */
export function fill(
  wgsl: string,
  parts: Readonly<Record<string, string>>,
): string {
  return wgsl.replace(/\{@ (\w+)\}/g, (_, part: string) => parts[part]!);
}
