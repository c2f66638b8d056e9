/**
 * Makes an intermediate tensor of an ONNX network one of its outputs, by bytes behind the file.
 *
 * An ONNX file is a protobuf message, and protobuf merges messages that follow each other: fields that
 * occur once are merged, lists are joined. So `ModelProto { graph { output { name, type } } }` behind a
 * model adds an output to it, and no byte of the model is touched.
 *
 * @see https://protobuf.dev/programming-guides/encoding/#last-one-wins and onnx.proto.
 */

/** Protobuf's wire type of strings and messages. */
const LENGTH_DELIMITED = 2;
// Field numbers of onnx.proto.
const [MODEL_GRAPH, GRAPH_OUTPUT, VALUE_NAME, VALUE_TYPE] = [7, 12, 1, 2];
const [TYPE_TENSOR, TENSOR_ELEMENT] = [1, 1];
const FLOAT = 1; // TensorProto.DataType

/**
 * The same network with one more output.
 *
 * @param model The bytes of an ONNX file.
 * @param tensor Name of a float32 tensor that the network computes.
 */
export function withOutput(
  model: Uint8Array,
  tensor: string,
): Uint8Array<ArrayBuffer> {
  const element = [TENSOR_ELEMENT << 3, FLOAT];
  const value = [
    ...field(VALUE_NAME, [...new TextEncoder().encode(tensor)]),
    ...field(VALUE_TYPE, field(TYPE_TENSOR, element)),
  ];
  const more = field(MODEL_GRAPH, field(GRAPH_OUTPUT, value));
  const out = new Uint8Array(model.length + more.length);
  out.set(model);
  out.set(more, model.length);
  return out;
}

function field(number: number, content: readonly number[]): number[] {
  const tag = number << 3 | LENGTH_DELIMITED;
  return [tag, ...varint(content.length), ...content];
}

/** Seven bits a byte, the lowest first; the highest bit says that more follow. */
function varint(value: number): number[] {
  return value < 128
    ? [value]
    : [value & 127 | 128, ...varint(Math.floor(value / 128))];
}
