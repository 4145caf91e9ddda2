/**
 * A second reading of MQTT 3.1.1 and 5 and of Sparkplug's payload, from the bytes: it shares nothing with the sources, so that both cannot be
 * wrong in the same way. Reads what an edge node and its broker say to each other; not a test itself.
 */

export type Packet =
  | {
      readonly type: 'connect';
      version: number;
      clean: boolean;
      keepaliveS: number;
      clientId: string;
      username?: string;
      sessionExpiryS?: number;
      will?: { topic: string; payload: Uint8Array; qos: number; retain: boolean };
    }
  | { readonly type: 'connack'; code: number }
  | { readonly type: 'publish'; topic: string; payload: Uint8Array; qos: number; retain: boolean; dup: boolean }
  | { readonly type: 'subscribe'; filters: { filter: string; qos: number }[] }
  | { readonly type: 'disconnect'; reason?: number }
  | { readonly type: 'other'; kind: number };

/** Of a varint; a lenient reading allows more. */
let longestBits = 63n;

class Reader {
  at = 0;
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  get left(): number {
    return this.bytes.length - this.at;
  }

  take(count: number): Uint8Array {
    if (count > this.left) throw new Error(`wanted ${count} bytes, found ${this.left}`);
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  byte(): number {
    return this.take(1)[0] as number;
  }

  u16(): number {
    return this.byte() * 256 + this.byte();
  }

  varint(): bigint {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = this.byte();
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asUintN(64, value);
      // protobufjs passes over longer ones than protobuf allows.
      if (shift >= longestBits) throw new Error('a varint without an end');
    }
  }

  binary(): Uint8Array {
    return this.take(this.u16());
  }

  text(): string {
    return utf8(this.binary());
  }
}

const utf8 = (bytes: Uint8Array): string => new TextDecoder('utf-8', { fatal: true }).decode(bytes);

/** Session expiry interval among the properties of a CONNECT. */
function expiryIn(bytes: Uint8Array): number | undefined {
  if (bytes.length === 0) return undefined;
  if (bytes[0] !== 0x11) throw new Error(`a property 0x${bytes[0]?.toString(16)} that the test does not know`);
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(1);
}

function connect(reader: Reader): Packet {
  reader.text();
  const version = reader.byte();
  const flags = reader.byte();
  const keepaliveS = reader.u16();
  const sessionExpiryS = version === 5 ? expiryIn(reader.take(Number(reader.varint()))) : undefined;
  const clientId = reader.text();
  const packet: Packet = { type: 'connect', version, clean: (flags & 2) !== 0, keepaliveS, clientId };
  if (sessionExpiryS !== undefined) packet.sessionExpiryS = sessionExpiryS;
  if ((flags & 4) !== 0) {
    if (version === 5) reader.take(Number(reader.varint()));
    packet.will = { topic: reader.text(), payload: reader.binary(), qos: (flags >> 3) & 3, retain: (flags & 32) !== 0 };
  }
  if ((flags & 128) !== 0) packet.username = reader.text();
  return packet;
}

function body(kind: number, flags: number, reader: Reader, version: number): Packet {
  if (kind === 1) return connect(reader);
  if (kind === 2) {
    reader.byte();
    return { type: 'connack', code: reader.byte() };
  }
  if (kind === 3) {
    const topic = reader.text();
    const qos = (flags >> 1) & 3;
    if (qos > 0) reader.u16();
    if (version === 5) reader.take(Number(reader.varint()));
    return { type: 'publish', topic, payload: reader.take(reader.left), qos, retain: (flags & 1) !== 0, dup: (flags & 8) !== 0 };
  }
  if (kind === 8) {
    reader.u16();
    if (version === 5) reader.take(Number(reader.varint()));
    const filters: { filter: string; qos: number }[] = [];
    while (reader.left > 0) filters.push({ filter: reader.text(), qos: reader.byte() & 3 });
    return { type: 'subscribe', filters };
  }
  if (kind === 14) return reader.left > 0 ? { type: 'disconnect', reason: reader.byte() } : { type: 'disconnect' };
  return { type: 'other', kind };
}

/** Packets out of a stream of bytes, one direction of one connection. */
export class PacketReader {
  #rest: Uint8Array = new Uint8Array();
  version: number;

  constructor(version = 4) {
    this.version = version;
  }

  *push(chunk: Uint8Array): IterableIterator<Packet> {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    for (;;) {
      const reader = new Reader(this.#rest);
      if (reader.left < 2) return;
      const head = reader.byte();
      const lengthBytes = [...this.#rest.subarray(1, 5)].findIndex((byte) => byte < 128) + 1;
      if (lengthBytes === 0) return;
      const length = Number(reader.varint());
      if (reader.left < length) return;
      const packet = body(head >> 4, head & 15, new Reader(reader.take(length).slice()), this.version);
      if (packet.type === 'connect') this.version = packet.version;
      this.#rest = this.#rest.subarray(reader.at);
      yield packet;
    }
  }
}

export interface SpProperty {
  type?: bigint;
  isNull?: boolean;
  field?: number;
  value?: unknown;
}

export interface SpMetric {
  name?: string;
  alias?: bigint;
  timestamp?: bigint;
  datatype?: bigint;
  isHistorical?: boolean;
  isNull?: boolean;
  properties?: { keys: string[]; values: SpProperty[] };
  /** Field number of the value, 10 and above. */
  field?: number;
  value?: bigint | number | boolean | string | Uint8Array;
  /** Values that were given; the last one counts, and a sender gives one. */
  values?: number;
}

export interface SpPayload {
  timestamp?: bigint;
  seq?: bigint;
  metrics: SpMetric[];
}

interface Field {
  readonly number: number;
  readonly wire: number;
  readonly varint: bigint;
  readonly bytes: Uint8Array;
}

function* fieldsOf(bytes: Uint8Array): IterableIterator<Field> {
  const reader = new Reader(bytes);
  while (reader.left > 0) {
    const tag = Number(reader.varint());
    const [number, wire] = [tag >> 3, tag & 7];
    if (wire === 0) yield { number, wire, varint: reader.varint(), bytes: new Uint8Array() };
    else if (wire === 1) yield { number, wire, varint: 0n, bytes: reader.take(8) };
    else if (wire === 2) yield { number, wire, varint: 0n, bytes: reader.take(Number(reader.varint())) };
    else if (wire === 5) yield { number, wire, varint: 0n, bytes: reader.take(4) };
    else throw new Error(`wire type ${wire}`);
  }
}

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

/** int, long, float, double, bool, string, in the order of both oneofs. */
function scalarOf(kind: number, { wire, varint, bytes }: Field): bigint | number | boolean | string | Uint8Array {
  const expected = [0, 0, 5, 1, 0, 2, 2][kind];
  if (expected !== wire) throw new Error(`a value of kind ${kind} in wire type ${wire}`);
  if (kind === 0 || kind === 1) return varint;
  if (kind === 2) return view(bytes).getFloat32(0, true);
  if (kind === 3) return view(bytes).getFloat64(0, true);
  if (kind === 4) return varint !== 0n;
  return kind === 5 ? utf8(bytes) : bytes;
}

function propertyOf(bytes: Uint8Array): SpProperty {
  const property: SpProperty = {};
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) property.type = field.varint;
    else if (field.number === 2) property.isNull = field.varint === 1n;
    else Object.assign(property, { field: field.number, value: scalarOf(field.number - 3, field) });
  }
  return property;
}

/** How the fields are written that a lenient reader looks at; written otherwise they are others, which it passes over. */
const WIRE_OF: Readonly<Record<number, number>> = { 1: 2, 2: 0, 3: 0, 4: 0, 5: 0, 7: 0, 14: 0 };

function metricOf(bytes: Uint8Array, isLenient: boolean): SpMetric {
  const metric: SpMetric = {};
  for (const field of fieldsOf(bytes)) {
    if (isLenient && field.wire !== WIRE_OF[field.number]) continue;
    if (field.number === 1) metric.name = isLenient ? Buffer.from(field.bytes).toString('utf8') : utf8(field.bytes);
    else if (field.number === 2) metric.alias = field.varint;
    else if (field.number === 3) metric.timestamp = field.varint;
    else if (field.number === 4) metric.datatype = field.varint;
    else if (field.number === 5) metric.isHistorical = field.varint !== 0n;
    else if (field.number === 7) metric.isNull = field.varint !== 0n;
    else if (field.number === 9 && !isLenient) {
      metric.properties = { keys: [], values: [] };
      for (const inner of fieldsOf(field.bytes)) {
        if (inner.number === 1) metric.properties.keys.push(utf8(inner.bytes));
        else metric.properties.values.push(propertyOf(inner.bytes));
      }
    } else if (field.number >= 10 && field.number <= 16 && !(isLenient && field.number !== 14)) {
      metric.values = (metric.values ?? 0) + 1;
      Object.assign(metric, { field: field.number, value: scalarOf(field.number - 10, field) });
    } else if (!isLenient) throw new Error(`a metric's field ${field.number}`);
  }
  return metric;
}

/** A payload; it throws where the bytes are none. Lenient: what says nothing about a boolean may be anything. */
export function readPayload(bytes: Uint8Array, isLenient = false): SpPayload {
  longestBits = isLenient ? 126n : 63n;
  const payload: SpPayload = { metrics: [] };
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) payload.timestamp = field.varint;
    else if (field.number === 2 && field.wire === 2) payload.metrics.push(metricOf(field.bytes, isLenient));
    else if (field.number === 3) payload.seq = field.varint;
    else if (!isLenient) throw new Error(`a payload's field ${field.number}`);
  }
  return payload;
}
