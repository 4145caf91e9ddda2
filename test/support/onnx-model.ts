/**
 * Writes small ONNX models for tests, field by field of onnx.proto, so that any input, output and defect can be had without an exporter. Not a test
 * itself.
 */

const FLOAT = 1;
export const TYPES = { float32: 1, uint8: 2, int32: 6, int64: 7, bool: 9, float16: 10, float64: 11 } as const;
export type TypeName = keyof typeof TYPES;

/** An axis: its size, or a name for one that is not fixed. */
type Axis = number | string;

export interface ValueSpec {
  readonly name: string;
  readonly type: TypeName;
  readonly shape: readonly Axis[];
}

export interface NodeSpec {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Whole numbers only: what Cast and Concat want. */
  readonly attributes?: Readonly<Record<string, number>>;
}

export interface TensorSpec {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array | BigInt64Array;
  /** Says that the data lie in another file. */
  readonly isExternal?: boolean;
}

export interface ModelSpec {
  readonly inputs: readonly ValueSpec[];
  readonly outputs: readonly ValueSpec[];
  readonly nodes: readonly NodeSpec[];
  readonly tensors?: readonly TensorSpec[];
}

const IR_VERSION = 8;
const OPSET = 17;
const INT_ATTRIBUTE = 2;

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128);
  return [...bytes, rest];
}

type Bytes = readonly number[];
const number = (field: number, value: number): Bytes => [...varint(field * 8), ...varint(value)];
const bytes = (field: number, value: Bytes): Bytes => [...varint(field * 8 + 2), ...varint(value.length), ...value];
const text = (field: number, value: string): Bytes => bytes(field, [...Buffer.from(value, 'utf8')]);

function valueInfo({ name, type, shape }: ValueSpec): Bytes {
  const axes = shape.flatMap((axis) => bytes(1, typeof axis === 'number' ? number(1, axis) : text(2, axis)));
  return [...text(1, name), ...bytes(2, bytes(1, [...number(1, TYPES[type]), ...bytes(2, axes)]))];
}

function node({ op, inputs, outputs, attributes = {} }: NodeSpec): Bytes {
  const attribute = ([name, value]: [string, number]): Bytes => bytes(5, [...text(1, name), ...number(3, value), ...number(20, INT_ATTRIBUTE)]);
  return [
    ...inputs.flatMap((name) => text(1, name)),
    ...outputs.flatMap((name) => text(2, name)),
    ...text(4, op),
    ...Object.entries(attributes).flatMap(attribute),
  ];
}

function tensor({ name, shape, data, isExternal = false }: TensorSpec): Bytes {
  const raw = [...new Uint8Array(data.buffer, data.byteOffset, data.byteLength)];
  const place = isExternal ? [...bytes(13, [...text(1, 'location'), ...text(2, 'weights.bin')]), ...number(14, 1)] : bytes(9, raw);
  const type = data instanceof Float32Array ? FLOAT : TYPES.int64;
  return [...shape.flatMap((size) => number(1, size)), ...number(2, type), ...text(8, name), ...place];
}

/** The file's bytes. */
export function onnxModel({ inputs, outputs, nodes, tensors = [] }: ModelSpec): Uint8Array {
  const graph = [
    ...nodes.flatMap((one) => bytes(1, node(one))),
    ...text(2, 'test'),
    ...tensors.flatMap((one) => bytes(5, tensor(one))),
    ...inputs.flatMap((one) => bytes(11, valueInfo(one))),
    ...outputs.flatMap((one) => bytes(12, valueInfo(one))),
  ];
  return Uint8Array.from([...number(1, IR_VERSION), ...bytes(7, graph), ...bytes(8, number(2, OPSET))]);
}

/** A model whose output is one of its inputs, cast to float32 and brought to another shape. */
export function echoModel(inputs: readonly ValueSpec[], echoed: string, shape: readonly number[]): Uint8Array {
  return onnxModel({
    inputs,
    outputs: [{ name: 'actions', type: 'float32', shape }],
    nodes: [
      { op: 'Cast', inputs: [echoed], outputs: ['cast'], attributes: { to: FLOAT } },
      { op: 'Reshape', inputs: ['cast', 'shape'], outputs: ['actions'] },
    ],
    tensors: [{ name: 'shape', shape: [shape.length], data: BigInt64Array.from(shape, BigInt) }],
  });
}
