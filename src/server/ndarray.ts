/**
 * Arrays as numpy describes them: a dtype text, a shape, and the values' bytes in C order. What arrives is looked at here once and given on as typed
 * arrays. Owned by the wire codec; it copies only where alignment asks for it, and computes nothing.
 */
import { PremotorError } from '../errors.js';

const RANK_MAX = 32;
/** Kind and size: bool, integers, floats, and texts, which nobody here reads but which may stand in fields that are ignored. */
const DTYPE = /^[<>|=]([biufSU])(\d{1,6})$/;
/** A character of numpy's text type has 4 bytes. */
const UNICODE_BYTES = 4;

export class NdArray {
  readonly dtype: string;
  readonly shape: readonly number[];
  /** As many bytes as dtype and shape say. */
  readonly data: Uint8Array;

  constructor(dtype: string, shape: readonly number[], data: Uint8Array) {
    this.dtype = dtype;
    this.shape = shape;
    this.data = data;
  }

  /** As errors show it: |u1 [64, 64, 3]. */
  toString(): string {
    return `an array ${this.dtype} [${this.shape.join(', ')}]`;
  }
}

/** Bytes of one value; undefined for a dtype that this protocol does not carry (objects, complex numbers, records). */
function itemBytes(dtype: string): number | undefined {
  const [, kind, size] = DTYPE.exec(dtype) ?? [];
  if (kind === undefined) return undefined;
  return Number(size) * (kind === 'U' ? UNICODE_BYTES : 1);
}

function bad(expected: string, found: string): PremotorError {
  const message = `An array of the message: expected ${expected}, found ${found}. Send arrays as numpy's tobytes(), dtype.str and shape.`;
  return new PremotorError('MESSAGE_INVALID', message, { expected, found });
}

/** An array out of what a message says of one. Errors: MESSAGE_INVALID. */
export function arrayFrom(dtype: unknown, shape: unknown, data: unknown): NdArray {
  const item = typeof dtype === 'string' ? itemBytes(dtype) : undefined;
  if (typeof dtype !== 'string' || item === undefined) throw bad('a dtype such as "|u1" or "<f4"', typeof dtype === 'string' ? dtype : typeof dtype);
  if (!Array.isArray(shape) || shape.length > RANK_MAX || !shape.every((size) => Number.isInteger(size) && size >= 0)) {
    throw bad(`a shape of at most ${RANK_MAX} whole numbers >= 0`, Array.isArray(shape) ? `[${shape.slice(0, RANK_MAX).join(', ')}]` : typeof shape);
  }
  if (!(data instanceof Uint8Array)) throw bad('its values as bin', typeof data);
  const bytes = (shape as number[]).reduce((product, size) => product * size, item);
  if (bytes !== data.length) throw bad(`${bytes} bytes, as ${dtype} [${shape.join(', ')}] has`, `${data.length} bytes`);
  return new NdArray(dtype, shape as number[], data);
}

/** Floats as float32 in this machine's order; undefined for another dtype. The values are copied. */
export function floatsOf({ dtype, data }: NdArray): Float32Array | undefined {
  // A Buffer's slice would be no copy.
  const aligned = new Uint8Array(data).buffer;
  if (dtype === '<f4') return new Float32Array(aligned);
  return dtype === '<f8' ? Float32Array.from(new Float64Array(aligned)) : undefined;
}

/** Float32 values as an array for the wire; not a copy. */
export function arrayOf(values: Float32Array, shape: readonly number[]): NdArray {
  return new NdArray('<f4', [...shape], new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
}
