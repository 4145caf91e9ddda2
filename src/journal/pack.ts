/**
 * Plain values with typed arrays as bytes and back: JSON for the structure, raw little-endian numbers behind it, so that floats keep every bit. Used
 * by the journal and by replay records; it knows neither files nor what the values mean, and never runs anything that it reads.
 */
import { PremotorError } from '../errors.js';

const ALIGNMENT = 8;
/** Key of an object that stands for something JSON has no form for. */
const MARK = '$premotor';

type Packed = Float32Array | Float64Array | Int32Array | Uint8Array;

const KINDS = {
  f32: { bytes: 4, make: (buffer: ArrayBuffer): Packed => new Float32Array(buffer) },
  f64: { bytes: 8, make: (buffer: ArrayBuffer): Packed => new Float64Array(buffer) },
  i32: { bytes: 4, make: (buffer: ArrayBuffer): Packed => new Int32Array(buffer) },
  u8: { bytes: 1, make: (buffer: ArrayBuffer): Packed => new Uint8Array(buffer) },
} as const;

function kindOf(value: unknown): keyof typeof KINDS | undefined {
  if (value instanceof Float32Array) return 'f32';
  if (value instanceof Float64Array) return 'f64';
  if (value instanceof Int32Array) return 'i32';
  return value instanceof Uint8Array ? 'u8' : undefined;
}

const padded = (length: number): number => Math.ceil(length / ALIGNMENT) * ALIGNMENT;

/** Functions, signals and undefined members are left out, as JSON does; labels on arrays (a Tensor's shape) too. */
export function pack(value: unknown): Uint8Array {
  const arrays: Packed[] = [];
  let bytes = 0;
  const reduce = (item: unknown): unknown => {
    if (typeof item === 'bigint') return { [MARK]: 'bigint', value: item.toString() };
    const kind = kindOf(item);
    if (kind !== undefined) {
      const array = item as Packed;
      const at = bytes;
      arrays.push(array);
      bytes += padded(array.byteLength);
      return { [MARK]: kind, at, length: array.length };
    }
    if (Array.isArray(item)) return item.map(reduce);
    if (typeof item !== 'object' || item === null || item instanceof AbortSignal) return item instanceof AbortSignal ? undefined : item;
    return Object.fromEntries(Object.entries(item).map(([name, member]) => [name, reduce(member)]));
  };
  const text = Buffer.from(JSON.stringify(reduce(value) ?? null), 'utf8');
  const start = padded(4 + text.length);
  const packed = new Uint8Array(start + bytes);
  new DataView(packed.buffer).setUint32(0, text.length, true);
  packed.set(text, 4);
  let at = start;
  for (const array of arrays) {
    packed.set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength), at);
    at += padded(array.byteLength);
  }
  return packed;
}

/** What `pack` was given. Errors: JOURNAL_DAMAGED. */
export function unpack(packed: Uint8Array): unknown {
  try {
    const length = new DataView(packed.buffer, packed.byteOffset, packed.byteLength).getUint32(0, true);
    if (4 + length > packed.length) throw new RangeError(`a structure of ${length} bytes in ${packed.length}`);
    const start = padded(4 + length);
    const text = Buffer.from(packed.buffer, packed.byteOffset + 4, length).toString('utf8');
    return JSON.parse(text, (_, item: unknown) => restored(item, packed, start));
  } catch (cause) {
    const found = (cause as Error).message;
    const message = `A packed value cannot be read: expected what premotor wrote, found ${found}. Use an intact copy of the file.`;
    throw new PremotorError('JOURNAL_DAMAGED', message, { expected: 'a packed value', found, cause });
  }
}

function restored(item: unknown, packed: Uint8Array, start: number): unknown {
  if (typeof item !== 'object' || item === null || !(MARK in item)) return item;
  const { [MARK]: kind, ...rest } = item as Record<string, unknown>;
  if (kind === 'bigint') return BigInt(String(rest['value']));
  const known = KINDS[kind as keyof typeof KINDS] as (typeof KINDS)[keyof typeof KINDS] | undefined;
  if (known === undefined) throw new TypeError(`an array of the kind ${String(kind)}`);
  const [from, bytes] = [start + Number(rest['at']), Number(rest['length']) * known.bytes];
  if (!(from >= start && bytes >= 0 && from + bytes <= packed.length)) throw new RangeError(`an array of ${bytes} bytes at ${from}`);
  // A copy: the array must not keep a whole file alive, and its place may be unaligned. A Buffer's own slice would be no copy.
  return known.make(Uint8Array.from(packed.subarray(from, from + bytes)).buffer);
}
