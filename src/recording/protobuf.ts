/**
 * Protocol buffers by table: encodes and decodes messages whose types are known only when the program runs, because a recording carries its own. Pure
 * functions on bytes; every length is checked against what is there, nesting is bounded, and nothing of a type is ever compiled or run.
 */
import { PremotorError } from '../errors.js';

export const SCALARS = [
  'double',
  'float',
  'int64',
  'uint64',
  'int32',
  'fixed64',
  'fixed32',
  'bool',
  'string',
  'bytes',
  'uint32',
  'sfixed32',
  'sfixed64',
  'sint32',
  'sint64',
] as const;
export type Scalar = (typeof SCALARS)[number];

export interface ProtoField {
  readonly name: string;
  readonly number: number;
  readonly type: Scalar | 'enum' | 'message';
  /** Of enums and messages, with its package: foxglove.Log.Level. */
  readonly typeName?: string;
  readonly isRepeated?: boolean;
  /** Says whether it was set; other scalars cannot tell 0 from nothing. */
  readonly isOptional?: boolean;
}

export interface ProtoMessage {
  readonly fields: readonly ProtoField[];
}

/** By full name. */
export interface ProtoTypes {
  readonly messages: ReadonlyMap<string, ProtoMessage>;
  readonly enums: ReadonlyMap<string, Readonly<Record<string, number>>>;
}

/** Integers of 64 bits are bigints, repeated doubles and floats typed arrays, enums numbers; an absent message is absent. */
export type ProtoValue = Record<string, unknown>;

/** Messages in messages. Deeper ones are made to hurt. */
const DEPTH_MAX = 32;
/** Messages in one message: an empty one takes two bytes there and hundreds in memory. */
const PARTS_MAX = 200_000;

const WIRE = { varint: 0, bits64: 1, bytes: 2, bits32: 5 } as const;

const wireOf: Readonly<Record<ProtoField['type'], number>> = {
  double: WIRE.bits64,
  fixed64: WIRE.bits64,
  sfixed64: WIRE.bits64,
  float: WIRE.bits32,
  fixed32: WIRE.bits32,
  sfixed32: WIRE.bits32,
  int64: WIRE.varint,
  uint64: WIRE.varint,
  sint64: WIRE.varint,
  int32: WIRE.varint,
  uint32: WIRE.varint,
  sint32: WIRE.varint,
  bool: WIRE.varint,
  enum: WIRE.varint,
  string: WIRE.bytes,
  bytes: WIRE.bytes,
  message: WIRE.bytes,
};

/**
 * A number of 64 bits and its two words, low first: bits are moved in numbers, because the optimiser of Node 20 aborts the process on loops over
 * bigints that are cut to 64 bits.
 */
const BIG = new BigInt64Array(1);
const UNSIGNED = new BigUint64Array(BIG.buffer);
const WORDS = new Uint32Array(BIG.buffer);

/** Bytes that grow. */
class Sink {
  #bytes = new Uint8Array(256);
  #view = new DataView(this.#bytes.buffer);
  length = 0;

  taken(): Uint8Array {
    return this.#bytes.slice(0, this.length);
  }

  room(count: number): void {
    if (this.length + count <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(2 * this.#bytes.length, this.length + count));
    grown.set(this.#bytes.subarray(0, this.length));
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
  }

  varint(value: bigint): void {
    BIG[0] = value;
    this.words(WORDS[0] ?? 0, WORDS[1] ?? 0);
  }

  /** Zigzag: small numbers of both signs stay short. */
  zigzag(value: bigint): void {
    BIG[0] = value;
    const [low, high] = [WORDS[0] ?? 0, WORDS[1] ?? 0];
    const sign = (high | 0) >> 31;
    this.words(((low << 1) ^ sign) >>> 0, (((high << 1) | (low >>> 31)) ^ sign) >>> 0);
  }

  words(lowWord: number, highWord: number): void {
    this.room(10);
    let [low, high] = [lowWord, highWord];
    while (high > 0 || low > 0x7f) {
      this.#bytes[this.length++] = (low & 0x7f) | 0x80;
      low = ((low >>> 7) | (high << 25)) >>> 0;
      high >>>= 7;
    }
    this.#bytes[this.length++] = low;
  }

  small(value: number): void {
    this.room(5);
    let rest = value >>> 0;
    while (rest > 0x7f) {
      this.#bytes[this.length++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.#bytes[this.length++] = rest;
  }

  float(value: number): void {
    this.room(4);
    this.#view.setFloat32(this.length, value, true);
    this.length += 4;
  }

  double(value: number): void {
    this.room(8);
    this.#view.setFloat64(this.length, value, true);
    this.length += 8;
  }

  bits32(value: number): void {
    this.room(4);
    this.#view.setUint32(this.length, value >>> 0, true);
    this.length += 4;
  }

  bits64(value: bigint): void {
    this.room(8);
    this.#view.setBigUint64(this.length, value, true);
    this.length += 8;
  }

  raw(bytes: Uint8Array): void {
    this.room(bytes.length);
    this.#bytes.set(bytes, this.length);
    this.length += bytes.length;
  }
}

/** One message as bytes. Fields that are undefined are left out. */
export function encodeProto(types: ProtoTypes, typeName: string, value: Readonly<Record<string, unknown>>): Uint8Array {
  const sink = new Sink();
  for (const field of messageType(types, typeName).fields) {
    const item = value[field.name];
    if (item === undefined || item === null) continue;
    if (field.isRepeated) putList(sink, types, field, item as ArrayLike<unknown>);
    else if (field.isOptional || field.type === 'message' || !isDefault(item)) put(sink, types, field, item);
  }
  return sink.taken();
}

const isDefault = (item: unknown): boolean =>
  item === 0 ? !Object.is(item, -0) : item === 0n || item === false || item === '' || (item instanceof Uint8Array && item.length === 0);

function putList(sink: Sink, types: ProtoTypes, field: ProtoField, items: ArrayLike<unknown>): void {
  if (items.length === 0) return;
  if (wireOf[field.type] === WIRE.bytes) {
    for (let at = 0; at < items.length; at++) put(sink, types, field, items[at]);
    return;
  }
  const packed = new Sink();
  for (let at = 0; at < items.length; at++) putValue(packed, types, field, items[at]);
  tag(sink, field.number, WIRE.bytes);
  sink.small(packed.length);
  sink.raw(packed.taken());
}

function tag(sink: Sink, number: number, wire: number): void {
  sink.small((number << 3) | wire);
}

function put(sink: Sink, types: ProtoTypes, field: ProtoField, item: unknown): void {
  tag(sink, field.number, wireOf[field.type]);
  putValue(sink, types, field, item);
}

function putValue(sink: Sink, types: ProtoTypes, { type, typeName }: ProtoField, item: unknown): void {
  switch (type) {
    case 'double':
      sink.double(Number(item));
      break;
    case 'float':
      sink.float(Number(item));
      break;
    case 'fixed32':
    case 'sfixed32':
      sink.bits32(Number(item));
      break;
    case 'fixed64':
    case 'sfixed64':
      sink.bits64(BigInt(item as bigint));
      break;
    case 'string':
      sized(sink, Buffer.from(String(item), 'utf8'));
      break;
    case 'bytes':
      sized(sink, item as Uint8Array);
      break;
    case 'message':
      sized(sink, encodeProto(types, typeName ?? '', item as ProtoValue));
      break;
    case 'sint32':
    case 'sint64': {
      const value = whole(item);
      sink.varint((value << 1n) ^ (value >> 63n));
      break;
    }
    default:
      sink.varint(whole(item));
      break;
  }
}

/** What is no whole number has no place in a field of them; a recording goes on all the same. */
function whole(item: unknown): bigint {
  if (typeof item === 'bigint') return item;
  const value = Math.trunc(Number(item));
  return Number.isFinite(value) ? BigInt(value) : 0n;
}

function sized(sink: Sink, bytes: Uint8Array): void {
  sink.small(bytes.length);
  sink.raw(bytes);
}

/** Reads within the bytes and nowhere else. */
class Source {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  at = 0;
  low = 0;
  high = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get left(): number {
    return this.#bytes.length - this.at;
  }

  /** Reads a number of up to 64 bits into `low` and `high`. */
  varint(): void {
    let [low, high] = [0, 0];
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.#bytes[this.at++];
      if (byte === undefined) throw new RangeError('a number that the bytes end in');
      const bits = byte & 0x7f;
      if (shift < 32) low |= bits << shift;
      // Of the fifth byte, three bits belong to the high word.
      if (shift === 28) high |= bits >>> 4;
      else if (shift > 28) high |= bits << (shift - 32);
      if (byte < 0x80) {
        this.low = low >>> 0;
        this.high = high >>> 0;
        return;
      }
    }
    throw new RangeError('a number of more than ten bytes');
  }

  length(): number {
    this.varint();
    const value = this.high * 2 ** 32 + this.low;
    if (value > this.left) throw new RangeError(`${value} bytes where ${this.left} are left`);
    return value;
  }

  bits32(): number {
    return this.#fixed(4, (at) => this.#view.getUint32(at, true));
  }

  bits64(): bigint {
    return this.#fixed(8, (at) => this.#view.getBigUint64(at, true));
  }

  signed64(): bigint {
    return this.#fixed(8, (at) => this.#view.getBigInt64(at, true));
  }

  float(): number {
    return this.#fixed(4, (at) => this.#view.getFloat32(at, true));
  }

  double(): number {
    return this.#fixed(8, (at) => this.#view.getFloat64(at, true));
  }

  bytes(): Uint8Array {
    const length = this.length();
    this.at += length;
    return this.#bytes.subarray(this.at - length, this.at);
  }

  skip(wire: number): void {
    if (wire === WIRE.varint) this.varint();
    else if (wire === WIRE.bits64) this.bits64();
    else if (wire === WIRE.bits32) this.bits32();
    else if (wire === WIRE.bytes) this.bytes();
    else throw new RangeError(`wire type ${wire}`);
  }

  #fixed<T>(count: number, read: (at: number) => T): T {
    if (this.left < count) throw new RangeError(`${this.left} bytes where ${count} are wanted`);
    this.at += count;
    return read(this.at - count);
  }
}

/** What bytes say by a type. Bytes and strings are copies. Errors: MCAP_DAMAGED. */
export function decodeProto(types: ProtoTypes, typeName: string, bytes: Uint8Array): ProtoValue {
  try {
    return decoded(types, typeName, bytes, { depth: 0, parts: PARTS_MAX });
  } catch (cause) {
    const found = (cause as Error).message;
    const message = `A message cannot be read: expected a ${typeName}, found ${found}. Use an intact copy of the recording.`;
    throw new PremotorError('MCAP_DAMAGED', message, { expected: typeName, found, cause });
  }
}

/** How deep a message is, and how many parts there may still be. */
interface Bounds {
  depth: number;
  parts: number;
}

function decoded(types: ProtoTypes, typeName: string, bytes: Uint8Array, bounds: Bounds): ProtoValue {
  if (--bounds.parts < 0) throw new RangeError(`more than ${PARTS_MAX} messages in one`);
  if (bounds.depth > DEPTH_MAX) throw new RangeError(`messages nested more than ${DEPTH_MAX} times`);
  const type = messageType(types, typeName);
  const source = new Source(bytes);
  const lists = new Map<ProtoField, unknown[]>();
  const value = Object.create(null) as ProtoValue;
  for (const field of type.fields) if (!field.isRepeated && !field.isOptional && field.type !== 'message') value[field.name] = defaultOf(field.type);
  while (source.left > 0) {
    source.varint();
    const [number, wire] = [source.high * 2 ** 29 + (source.low >>> 3), source.low & 7];
    const field = type.fields.find((one) => one.number === number);
    if (field === undefined) source.skip(wire);
    else if (!field.isRepeated) value[field.name] = one(types, field, source, wire, bounds);
    else {
      const list = lists.get(field) ?? [];
      lists.set(field, list);
      const isPacked = wire === WIRE.bytes && wireOf[field.type] !== WIRE.bytes;
      if (!isPacked) list.push(one(types, field, source, wire, bounds));
      else for (const packed = new Source(source.bytes()); packed.left > 0; ) list.push(one(types, field, packed, wireOf[field.type], bounds));
    }
  }
  for (const field of type.fields) if (field.isRepeated) value[field.name] = listOf(field.type, lists.get(field) ?? []);
  return value;
}

function one(types: ProtoTypes, { type, typeName }: ProtoField, source: Source, wire: number, bounds: Bounds): unknown {
  if (wire !== wireOf[type]) throw new RangeError(`wire type ${wire} for a ${type}`);
  switch (type) {
    case 'double':
      return source.double();
    case 'float':
      return source.float();
    case 'fixed32':
      return source.bits32();
    case 'sfixed32':
      return source.bits32() | 0;
    case 'fixed64':
      return source.bits64();
    case 'sfixed64':
      return source.signed64();
    case 'string':
      return Buffer.from(source.bytes()).toString('utf8');
    case 'bytes':
      return Uint8Array.from(source.bytes());
    case 'message':
      bounds.depth++;
      try {
        return decoded(types, typeName ?? '', source.bytes(), bounds);
      } finally {
        bounds.depth--;
      }
    default:
      source.varint();
      return ofVarint(type, source.low, source.high);
  }
}

function ofVarint(type: ProtoField['type'], low: number, high: number): unknown {
  switch (type) {
    case 'uint64':
      return big(UNSIGNED, low, high);
    case 'int64':
      return big(BIG, low, high);
    case 'sint64': {
      const sign = -(low & 1);
      return big(BIG, ((low >>> 1) | (high << 31)) ^ sign, (high >>> 1) ^ sign);
    }
    case 'sint32':
      return (low >>> 1) ^ -(low & 1);
    case 'uint32':
      return low;
    case 'bool':
      return low !== 0 || high !== 0;
    default:
      return low | 0;
  }
}

function big(view: BigInt64Array | BigUint64Array, low: number, high: number): bigint {
  WORDS[0] = low;
  WORDS[1] = high;
  return view[0] ?? 0n;
}

function defaultOf(type: ProtoField['type']): unknown {
  if (type === 'string') return '';
  if (type === 'bytes') return new Uint8Array(0);
  if (type === 'bool') return false;
  return /64$/.test(type) ? 0n : 0;
}

function listOf(type: ProtoField['type'], items: readonly unknown[]): unknown {
  if (type === 'double') return Float64Array.from(items as number[]);
  if (type === 'float') return Float32Array.from(items as number[]);
  return items;
}

function messageType(types: ProtoTypes, typeName: string): ProtoMessage {
  const type = types.messages.get(typeName);
  if (type === undefined) throw new RangeError(`no type ${typeName}`);
  return type;
}
