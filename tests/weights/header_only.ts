// header_only: a file of the right size that has a header and no data.
import { frame } from "./encode_safetensors.ts";
import { MemorySource } from "./memory_source.ts";

/** Every tensor as F16, back to back. */
export function headerOnly(
  shapes: Iterable<readonly [name: string, shape: readonly number[]]>,
): MemorySource {
  const header: Record<string, unknown> = {};
  let size = 0;
  for (const [name, shape] of shapes) {
    const bytes = 2 * shape.reduce((a, b) => a * b, 1);
    header[name] = { dtype: "F16", shape, data_offsets: [size, size += bytes] };
  }
  const bytes = frame(JSON.stringify(header));
  return new MemorySource(bytes, bytes.length + size);
}
