/**
 * msgpack as policy servers and their numpy clients speak it: plain values, and arrays as maps with *bin* keys. What is read is bounded in depth and
 * in number before anything is allocated for it, and never becomes an object with a prototype. Owned by the server and the remote policy. It carries
 * no extension types, and leaves the meaning of fields to others.
 */
import { PremotorError } from '../errors.js';
import { arrayFrom, NdArray } from './ndarray.js';

/** A value of a message. Keys of a map are its text keys; an array stands for the map that describes it. */
export type WireValue = null | boolean | number | bigint | string | Uint8Array | NdArray | readonly WireValue[] | WireMap;
export type WireMap = ReadonlyMap<string, WireValue>;

/** What can be written. A number that is whole is written as an integer; wrap it to have a float. */
export type Encodable =
  | null
  | boolean
  | number
  | string
  | Uint8Array
  | NdArray
  | WireFloat
  | readonly Encodable[]
  | { readonly [key: string]: Encodable };

/** A number that is written as a float, whatever its value. */
export class WireFloat {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

const DEPTH_MAX = 16;
/** Values of one message; an array counts as a few, whatever its size. */
const VALUES_MAX = 100_000;
const SAFE = BigInt(Number.MAX_SAFE_INTEGER);

function bad(expected: string, found: string, cause?: unknown): PremotorError {
  const remedy = 'Send one msgpack value per binary frame.';
  const message = `The message is not msgpack as policy clients send it: expected ${expected}, found ${found}. ${remedy}`;
  return new PremotorError('MESSAGE_INVALID', message, { expected, found, ...(cause === undefined ? {} : { cause }) });
}

/** Reads one message, all of it. Binary parts are views into it. Errors: MESSAGE_INVALID. */
export function decode(message: Uint8Array): WireValue {
  const reader = new Reader(message);
  const value = reader.value(0);
  if (reader.left > 0) throw bad('one value', `${reader.left} bytes after it`);
  return value;
}

class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  #at = 0;
  #values = 0;

  constructor(bytes: Uint8Array) {
    // What is given on are plain Uint8Arrays, also when the message is a Buffer.
    this.#bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  value(depth: number): WireValue {
    if (depth > DEPTH_MAX) throw bad(`at most ${DEPTH_MAX} levels`, 'more');
    if (++this.#values > VALUES_MAX) throw bad(`at most ${VALUES_MAX} values`, 'more');
    const tag = this.#uint(1);
    if (tag <= 0x7f) return tag;
    if (tag >= 0xe0) return tag - 0x100;
    if (tag <= 0x8f) return this.#map(tag & 0x0f, depth);
    if (tag <= 0x9f) return this.#list(tag & 0x0f, depth);
    if (tag <= 0xbf) return this.#text(tag & 0x1f);
    return this.#tagged(tag, depth);
  }

  #tagged(tag: number, depth: number): WireValue {
    if (tag >= 0xd9 && tag <= 0xdb) return this.#text(this.#uint(1 << (tag - 0xd9)));
    if (tag >= 0xc4 && tag <= 0xc6) return this.#take(this.#uint(1 << (tag - 0xc4)));
    if (tag >= 0xcc && tag <= 0xce) return this.#uint(1 << (tag - 0xcc));
    switch (tag) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xca:
        return this.#view.getFloat32(this.#skip(4));
      case 0xcb:
        return this.#view.getFloat64(this.#skip(8));
      case 0xcf:
        return small(this.#view.getBigUint64(this.#skip(8)));
      case 0xd0:
        return this.#view.getInt8(this.#skip(1));
      case 0xd1:
        return this.#view.getInt16(this.#skip(2));
      case 0xd2:
        return this.#view.getInt32(this.#skip(4));
      case 0xd3:
        return small(this.#view.getBigInt64(this.#skip(8)));
      case 0xdc:
      case 0xdd:
        return this.#list(this.#uint(tag === 0xdc ? 2 : 4), depth);
      case 0xde:
      case 0xdf:
        return this.#map(this.#uint(tag === 0xde ? 2 : 4), depth);
      default:
        throw bad('no extension types', `byte 0x${tag.toString(16)}`);
    }
  }

  /** Moves on by so many bytes and gives where they begin. */
  #skip(bytes: number): number {
    if (bytes > this.left) throw bad(`${bytes} more bytes`, `${this.left}`);
    const start = this.#at;
    this.#at += bytes;
    return start;
  }

  #uint(bytes: number): number {
    const start = this.#skip(bytes);
    if (bytes === 1) return this.#view.getUint8(start);
    return bytes === 2 ? this.#view.getUint16(start) : this.#view.getUint32(start);
  }

  #take(bytes: number): Uint8Array {
    const start = this.#skip(bytes);
    return this.#bytes.subarray(start, start + bytes);
  }

  #text(bytes: number): string {
    try {
      return this.#utf8.decode(this.#take(bytes));
    } catch (cause) {
      if (cause instanceof PremotorError) throw cause;
      throw bad('text in UTF-8', 'other bytes', cause);
    }
  }

  #list(count: number, depth: number): WireValue[] {
    if (count > this.left) throw bad(`${count} values`, `${this.left} bytes`);
    const list: WireValue[] = [];
    for (let index = 0; index < count; index++) list.push(this.value(depth + 1));
    return list;
  }

  /** A map, or the array or scalar of numpy that it describes. Keys are texts; bin keys are those of arrays, others of them mean nothing. */
  #map(count: number, depth: number): WireValue {
    if (2 * count > this.left) throw bad(`${count} keys and values`, `${this.left} bytes`);
    const fields = new Map<string, WireValue>();
    let special: Map<string, WireValue> | undefined;
    for (let index = 0; index < count; index++) {
      const key = this.value(DEPTH_MAX);
      const value = this.value(depth + 1);
      if (typeof key === 'string') {
        if (fields.has(key)) throw bad('every key once', `"${key.slice(0, 64)}" again`);
        fields.set(key, value);
      } else if (key instanceof Uint8Array) {
        special ??= new Map();
        special.set(String.fromCharCode(...key.subarray(0, 32)), value);
      } else throw bad('text or bin keys', key === null ? 'nil' : typeof key);
    }
    if (special?.has('__ndarray__')) return arrayFrom(special.get('dtype'), special.get('shape'), special.get('data'));
    if (special?.has('__npgeneric__')) return scalar(special.get('data'));
    return fields;
  }
}

/** Integers that a number holds are numbers. */
function small(value: bigint): number | bigint {
  return value <= SAFE && value >= -SAFE ? Number(value) : value;
}

function scalar(value: WireValue | undefined): WireValue {
  if (['number', 'bigint', 'boolean', 'string'].includes(typeof value)) return value as WireValue;
  throw bad('a number as the value of a numpy scalar', typeof value);
}

/** Writes one message. */
export function encode(value: Encodable): Buffer {
  const parts: Uint8Array[] = [];
  write(value, parts);
  return Buffer.concat(parts);
}

function write(value: Encodable, parts: Uint8Array[]): void {
  if (value === null) parts.push(Uint8Array.of(0xc0));
  else if (typeof value === 'boolean') parts.push(Uint8Array.of(value ? 0xc3 : 0xc2));
  else if (typeof value === 'number') parts.push(Number.isSafeInteger(value) ? integer(value) : float(value));
  else if (value instanceof WireFloat) parts.push(float(value.value));
  else if (typeof value === 'string') writeText(value, parts);
  else if (value instanceof Uint8Array) parts.push(sized(value.length, 0xc4), value);
  else if (value instanceof NdArray) writeArray(value, parts);
  else if (Array.isArray(value)) {
    parts.push(counted(value.length, 0x90, 0xdc));
    for (const one of value as readonly Encodable[]) write(one, parts);
  } else {
    const entries = Object.entries(value as { readonly [key: string]: Encodable });
    parts.push(counted(entries.length, 0x80, 0xde));
    for (const [key, one] of entries) {
      writeText(key, parts);
      write(one, parts);
    }
  }
}

/** The keys are bin and stand in this order: so do numpy clients write and expect them. */
function writeArray({ data, dtype, shape }: NdArray, parts: Uint8Array[]): void {
  const fields: readonly [string, Encodable][] = [
    ['__ndarray__', true],
    ['data', data],
    ['dtype', dtype],
    ['shape', shape],
  ];
  parts.push(counted(fields.length, 0x80, 0xde));
  for (const [key, value] of fields) {
    write(Buffer.from(key, 'latin1'), parts);
    write(value, parts);
  }
}

function writeText(text: string, parts: Uint8Array[]): void {
  const bytes = Buffer.from(text, 'utf8');
  parts.push(bytes.length < 32 ? Uint8Array.of(0xa0 | bytes.length) : sized(bytes.length, 0xd9), bytes);
}

/** A tag and a length of 1, 2 or 4 bytes; the tags of the three follow each other. */
function sized(length: number, tag: number): Uint8Array {
  if (length < 0x100) return Uint8Array.of(tag, length);
  return length < 0x10000 ? tagged(tag + 1, 2, (view) => view.setUint16(1, length)) : tagged(tag + 2, 4, (view) => view.setUint32(1, length));
}

/** A count in the tag itself, or of 2 or 4 bytes after it. */
function counted(count: number, small: number, tag: number): Uint8Array {
  if (count < 16) return Uint8Array.of(small | count);
  return count < 0x10000 ? tagged(tag, 2, (view) => view.setUint16(1, count)) : tagged(tag + 1, 4, (view) => view.setUint32(1, count));
}

function integer(value: number): Uint8Array {
  if (value >= 0) {
    if (value < 0x80) return Uint8Array.of(value);
    if (value < 0x100) return Uint8Array.of(0xcc, value);
    if (value < 0x10000) return tagged(0xcd, 2, (view) => view.setUint16(1, value));
    if (value < 0x100000000) return tagged(0xce, 4, (view) => view.setUint32(1, value));
    return tagged(0xcf, 8, (view) => view.setBigUint64(1, BigInt(value)));
  }
  if (value >= -0x20) return Uint8Array.of(value & 0xff);
  if (value >= -0x80) return Uint8Array.of(0xd0, value & 0xff);
  if (value >= -0x8000) return tagged(0xd1, 2, (view) => view.setInt16(1, value));
  if (value >= -0x80000000) return tagged(0xd2, 4, (view) => view.setInt32(1, value));
  return tagged(0xd3, 8, (view) => view.setBigInt64(1, BigInt(value)));
}

const float = (value: number): Uint8Array => tagged(0xcb, 8, (view) => view.setFloat64(1, value));

function tagged(tag: number, bytes: number, fill: (view: DataView) => void): Uint8Array {
  const part = new Uint8Array(1 + bytes);
  part[0] = tag;
  fill(new DataView(part.buffer));
  return part;
}
