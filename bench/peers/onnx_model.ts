/**
 * ONNX networks of a few nodes as bytes, by hand: a protobuf writer for the handful of messages that
 * they need.
 *
 * @see onnx/onnx.proto of the ONNX project; field numbers are from there.
 */

/** A constant or an input. */
export interface OnnxTensor {
  /** In the graph. */
  readonly name: string;
  /** Its sizes. */
  readonly dims: readonly number[];
}

/** An operation. */
export interface OnnxNode {
  /** Such as `MatMul`. */
  readonly op: string;
  /** Empty for ONNX's own, `com.microsoft` for ONNX Runtime's. */
  readonly domain?: string;
  /** Names. */
  readonly inputs: readonly string[];
  /** Names. */
  readonly outputs: readonly string[];
  /** Whole numbers, lists of them, and numbers that are written as floats under `floats`. */
  readonly ints?: Readonly<Record<string, number | readonly number[]>>;
  /** Float attributes. */
  readonly floats?: Readonly<Record<string, number>>;
}

/** A network. */
export interface OnnxGraph {
  /** In order. */
  readonly nodes: readonly OnnxNode[];
  /** Weights. */
  readonly constants: readonly (OnnxTensor & { readonly data: Float32Array })[];
  /** What is fed. */
  readonly inputs: readonly OnnxTensor[];
  /** What comes out. */
  readonly outputs: readonly OnnxTensor[];
}

const FLOAT = 1; // TensorProto.DataType
const IR_VERSION = 8;
const OPSET = 17;

/** A `ModelProto` of opset 17. */
export function onnxModel(graph: OnnxGraph): Uint8Array<ArrayBuffer> {
  const opset = (domain: string, version: number): Message =>
    new Message().text(1, domain).int(2, version);
  return new Message()
    .int(1, IR_VERSION)
    .message(7, graphProto(graph))
    .message(8, opset("", OPSET))
    .message(8, opset("com.microsoft", 1))
    .bytes();
}

function graphProto({ nodes, constants, inputs, outputs }: OnnxGraph): Message {
  const graph = new Message();
  for (const node of nodes) graph.message(1, nodeProto(node));
  graph.text(2, "bench");
  for (const { name, dims, data } of constants) {
    const raw = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    graph.message(
      5,
      new Message().ints(1, dims).int(2, FLOAT).text(8, name).data(9, raw),
    );
  }
  for (const input of inputs) graph.message(11, valueInfo(input));
  for (const output of outputs) graph.message(12, valueInfo(output));
  return graph;
}

function nodeProto(
  { op, domain = "", inputs, outputs, ints = {}, floats = {} }: OnnxNode,
): Message {
  const node = new Message();
  for (const name of inputs) node.text(1, name);
  for (const name of outputs) node.text(2, name);
  node.text(4, op);
  for (const [name, value] of Object.entries(ints)) {
    const attribute = new Message().text(1, name);
    node.message(
      5,
      typeof value === "number"
        ? attribute.int(3, value).int(20, 2) // AttributeType.INT
        : attribute.ints(8, value).int(20, 7), // INTS
    );
  }
  for (const [name, value] of Object.entries(floats)) {
    node.message(5, new Message().text(1, name).float(2, value).int(20, 1));
  }
  return node.text(7, domain);
}

function valueInfo({ name, dims }: OnnxTensor): Message {
  const shape = new Message();
  for (const size of dims) shape.message(1, new Message().int(1, size));
  const tensor = new Message().int(1, FLOAT).message(2, shape);
  return new Message().text(1, name).message(
    2,
    new Message().message(1, tensor),
  );
}

/** A protobuf message that is being written. */
class Message {
  readonly #parts: Uint8Array[] = [];

  /** A varint field. */
  int(field: number, value: number): this {
    this.#parts.push(varint(8 * field), varint(value));
    return this;
  }

  /** A repeated varint field, unpacked. */
  ints(field: number, values: readonly number[]): this {
    for (const value of values) this.int(field, value);
    return this;
  }

  /** A 32-bit float field. */
  float(field: number, value: number): this {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setFloat32(0, value, true);
    this.#parts.push(varint(8 * field + 5), bytes);
    return this;
  }

  /** A length-delimited field. */
  data(field: number, bytes: Uint8Array): this {
    this.#parts.push(varint(8 * field + 2), varint(bytes.length), bytes);
    return this;
  }

  /** A string field. */
  text(field: number, value: string): this {
    return this.data(field, new TextEncoder().encode(value));
  }

  /** A message field. */
  message(field: number, value: Message): this {
    return this.data(field, value.bytes());
  }

  /** All of it. */
  bytes(): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(this.#parts.reduce((n, x) => n + x.length, 0));
    let at = 0;
    for (const part of this.#parts) {
      out.set(part, at);
      at += part.length;
    }
    return out;
  }
}

/** Base 128, least first. */
function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) {
    bytes.push(value % 128 + 128);
  }
  bytes.push(value);
  return Uint8Array.from(bytes);
}
