/**
 * The element types a safetensors file may hold, and conversions between their bytes and float32. Owned by the checkpoint reader and writer;
 * it knows nothing of files or models.
 */
import { PremotorError } from '../errors.js';

export type StoredDtype = 'F64' | 'F32' | 'F16' | 'BF16' | 'I64' | 'I32' | 'I16' | 'I8' | 'U8' | 'BOOL';

const sizes: Readonly<Record<StoredDtype, number>> = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, I16: 2, I8: 1, U8: 1, BOOL: 1 };

export const isStoredDtype = (value: unknown): value is StoredDtype => typeof value === 'string' && Object.hasOwn(sizes, value);

/** Bytes of one element. */
export function bytesOf(dtype: StoredDtype): number {
  return sizes[dtype];
}

/** Number of elements of a shape; 1 for a scalar. */
export function elementsOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

/** The bfloat16 nearest to a number (ties to even), as its 16 bits. A NaN stays a NaN. */
export function bfloat16Bits(value: number): number {
  scratch[0] = value;
  const bits = scratchBits[0] ?? 0;
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The number that 16 bits of IEEE half precision stand for. */
export function float16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Copies bytes into a buffer of their own, so that a typed array may start at any file offset. */
function aligned(bytes: Uint8Array): ArrayBuffer {
  const copy = new Uint8Array(bytes.byteLength);
  copy.set(bytes);
  return copy.buffer;
}

/** Stored bytes as float32 values. 64-bit types are rounded to float32. */
export function toFloat32(dtype: StoredDtype, bytes: Uint8Array): Float32Array {
  const buffer = aligned(bytes);
  if (dtype === 'F32') return new Float32Array(buffer);
  if (dtype === 'BF16') {
    const stored = new Uint16Array(buffer);
    const bits = new Uint32Array(stored.length);
    for (let i = 0; i < stored.length; i++) bits[i] = (stored[i] ?? 0) << 16;
    return new Float32Array(bits.buffer);
  }
  if (dtype === 'F16') return Float32Array.from(new Uint16Array(buffer), float16Value);
  if (dtype === 'F64') return Float32Array.from(new Float64Array(buffer));
  if (dtype === 'I64') return Float32Array.from(new BigInt64Array(buffer), Number);
  return Float32Array.from(integers(dtype, buffer));
}

/** Stored integers as int32 values. Errors: CHECKPOINT_DTYPE for floats, CHECKPOINT_VALUE when a 64-bit value does not fit. */
export function toInt32(dtype: StoredDtype, bytes: Uint8Array): Int32Array {
  const buffer = aligned(bytes);
  if (dtype === 'I32') return new Int32Array(buffer);
  if (dtype !== 'I64') return Int32Array.from(integers(dtype, buffer));
  return Int32Array.from(new BigInt64Array(buffer), (value) => {
    if (value === BigInt.asIntN(32, value)) return Number(value);
    throw new PremotorError('CHECKPOINT_VALUE', `A stored integer does not fit 32 bits: expected -2^31 .. 2^31 - 1, found ${value}.`, {
      expected: '-2^31 .. 2^31 - 1',
      found: String(value),
    });
  });
}

function integers(dtype: StoredDtype, buffer: ArrayBuffer): Iterable<number> & ArrayLike<number> {
  if (dtype === 'I32') return new Int32Array(buffer);
  if (dtype === 'I16') return new Int16Array(buffer);
  if (dtype === 'I8') return new Int8Array(buffer);
  if (dtype === 'U8' || dtype === 'BOOL') return new Uint8Array(buffer);
  throw new PremotorError('CHECKPOINT_DTYPE', `Expected a tensor of integers, found ${dtype}. Read it as floats.`, {
    expected: 'integers',
    found: dtype,
  });
}
