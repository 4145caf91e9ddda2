/**
 * Looks into a model's file as far as needed to say how many parameters it has, and whether its weights are inside. The format is protobuf
 * (onnx.proto: ModelProto.graph 7, GraphProto.initializer 5, TensorProto.dims 1 and data_location 14). Pure; ONNX Runtime judges everything else.
 */

export interface Weights {
  /** Values of all initialisers. */
  readonly parameters: number;
  /** Some lie in another file. */
  readonly isExternal: boolean;
}

const GRAPH = 7;
const INITIALISER = 5;
const DIMS = 1;
const DATA_LOCATION = 14;
const EXTERNAL = 1;

/** One field of a message: a number, or bytes. */
interface Field {
  readonly number: number;
  readonly value: number | Uint8Array;
}

/** Undefined: the bytes are no such file. */
export function weightsOf(model: Uint8Array): Weights | undefined {
  try {
    let [parameters, isExternal] = [0, false];
    for (const graph of messages(model, GRAPH)) {
      for (const tensor of messages(graph, INITIALISER)) {
        let count = 1;
        for (const { number, value } of fieldsOf(tensor)) {
          if (number === DIMS) for (const size of typeof value === 'number' ? [value] : varintsOf(value)) count *= size;
          if (number === DATA_LOCATION && value === EXTERNAL) isExternal = true;
        }
        parameters += count;
      }
    }
    return { parameters, isExternal };
  } catch {
    return undefined;
  }
}

function* messages(bytes: Uint8Array, number: number): Generator<Uint8Array> {
  for (const field of fieldsOf(bytes)) if (field.number === number && typeof field.value !== 'number') yield field.value;
}

function* fieldsOf(bytes: Uint8Array): Generator<Field> {
  for (let at = 0; at < bytes.length; ) {
    const key = varint(bytes, at);
    at = key.end;
    const [number, type] = [Math.floor(key.value / 8), key.value % 8];
    if (type === 0) {
      const { value, end } = varint(bytes, at);
      yield { number, value };
      at = end;
    } else {
      const length = type === 2 ? varint(bytes, at) : { value: type === 1 ? 8 : type === 5 ? 4 : Number.NaN, end: at };
      const end = length.end + length.value;
      if (!(end <= bytes.length)) throw new RangeError('a field beyond its message');
      yield { number, value: bytes.subarray(length.end, end) };
      at = end;
    }
  }
}

function* varintsOf(bytes: Uint8Array): Generator<number> {
  for (let at = 0; at < bytes.length; ) {
    const { value, end } = varint(bytes, at);
    yield value;
    at = end;
  }
}

/** Numbers of a model's structure stay below 2^53. */
function varint(bytes: Uint8Array, start: number): { value: number; end: number } {
  let [value, scale] = [0, 1];
  for (let at = start; ; at++, scale *= 128) {
    const byte = bytes[at];
    if (byte === undefined || at - start > 9) throw new RangeError('a number without an end');
    value += (byte % 128) * scale;
    if (byte < 128) return { value, end: at + 1 };
  }
}
