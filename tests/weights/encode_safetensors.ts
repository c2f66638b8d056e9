// encode_safetensors: tensors -> the bytes of a safetensors file, for tests.

/** One tensor to write; `data` holds its little-endian elements. */
export interface TensorData {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: ArrayBufferView;
}

/** Writes tensors back to back, in the order of the map. */
export function encodeSafetensors(
  tensors: ReadonlyMap<string, TensorData>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array<ArrayBuffer> {
  const header: Record<string, unknown> = {};
  if (metadata !== undefined) header["__metadata__"] = metadata;
  let size = 0;
  for (const [name, { dtype, shape, data }] of tensors) {
    header[name] = {
      dtype,
      shape,
      data_offsets: [size, size += data.byteLength],
    };
  }
  const body = new Uint8Array(size);
  let at = 0;
  for (const { data } of tensors.values()) {
    body.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return frame(JSON.stringify(header), body);
}

/** Puts a length in front of any header, legal or not, and data behind it. */
export function frame(
  header: string | Uint8Array,
  body: Uint8Array = new Uint8Array(0),
): Uint8Array<ArrayBuffer> {
  const text = typeof header === "string"
    ? new TextEncoder().encode(header)
    : header;
  const file = new Uint8Array(8 + text.length + body.length);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  file.set(body, 8 + text.length);
  return file;
}
