/**
 * Sparkplug B payloads as types and as bytes, by protocol/sparkplug_b.proto. Owned by whoever sends or keeps metrics and whoever reads commands; it
 * keeps no state but the parsed schema, knows no topic and decides nothing about sequence numbers, aliases or names.
 */
import { readFileSync } from 'node:fs';
import protobuf from 'protobufjs';
import { z } from 'zod';

/** The data types that are sent or understood, by the specification's names and numbers. */
export const DATA_TYPES = {
  Int8: 1,
  Int16: 2,
  Int32: 3,
  Int64: 4,
  UInt8: 5,
  UInt16: 6,
  UInt32: 7,
  UInt64: 8,
  Float: 9,
  Double: 10,
  Boolean: 11,
  String: 12,
  DateTime: 13,
} as const;

export type DataType = keyof typeof DATA_TYPES;
/** null: there is no value. Whole numbers of 64 bits may be given as either kind of number. */
export type MetricValue = number | bigint | boolean | string | null;

/** One metric of a message that is sent. What is absent is not sent. */
export interface Metric {
  readonly name?: string;
  readonly alias?: number;
  readonly timestampMs?: number;
  /** How the value is encoded. */
  readonly type: DataType;
  /** Births say the type, data does not. */
  readonly saysType?: boolean;
  readonly value: MetricValue;
  readonly isHistorical?: boolean;
  /** Sent as the property engUnit. */
  readonly unit?: string;
}

export interface Payload {
  readonly timestampMs: number;
  readonly seq?: number;
  readonly metrics: readonly Metric[];
}

const root = protobuf.parse(readFileSync(new URL('../../protocol/sparkplug_b.proto', import.meta.url), 'utf8'), { keepCase: true }).root;
const payloadType = root.lookupType('org.eclipse.tahu.protobuf.Payload');

/** Two's complement in 32 bits, whatever the narrower type is. */
const int32 = (value: MetricValue): number => Number(value) >>> 0;
const uint64 = (value: MetricValue): bigint => BigInt.asUintN(64, typeof value === 'bigint' ? value : BigInt(Math.trunc(Number(value))));

const FIELDS: Readonly<Record<DataType, (value: MetricValue) => Readonly<Record<string, unknown>>>> = {
  Int8: (value) => ({ int_value: int32(value) }),
  Int16: (value) => ({ int_value: int32(value) }),
  Int32: (value) => ({ int_value: int32(value) }),
  Int64: (value) => ({ long_value: uint64(value) }),
  UInt8: (value) => ({ int_value: int32(value) }),
  UInt16: (value) => ({ int_value: int32(value) }),
  UInt32: (value) => ({ int_value: int32(value) }),
  UInt64: (value) => ({ long_value: uint64(value) }),
  Float: (value) => ({ float_value: Number(value) }),
  Double: (value) => ({ double_value: Number(value) }),
  Boolean: (value) => ({ boolean_value: value === true }),
  String: (value) => ({ string_value: String(value) }),
  DateTime: (value) => ({ long_value: uint64(value) }),
};

function fieldsOf({ name, alias, timestampMs, type, saysType, value, isHistorical, unit }: Metric): Readonly<Record<string, unknown>> {
  return {
    ...(name === undefined ? {} : { name }),
    ...(alias === undefined ? {} : { alias }),
    ...(timestampMs === undefined ? {} : { timestamp: timestampMs }),
    ...(saysType === true ? { datatype: DATA_TYPES[type] } : {}),
    ...(isHistorical === true ? { is_historical: true } : {}),
    ...(unit === undefined ? {} : { properties: { keys: ['engUnit'], values: [{ type: DATA_TYPES.String, string_value: unit }] } }),
    ...(value === null ? { is_null: true } : FIELDS[type](value)),
  };
}

export function encodePayload({ timestampMs, seq, metrics }: Payload): Uint8Array {
  const fields = { timestamp: timestampMs, metrics: metrics.map(fieldsOf), ...(seq === undefined ? {} : { seq }) };
  return payloadType.encode(payloadType.fromObject(fields)).finish();
}

/** Larger payloads of others are not looked at. */
export const PAYLOAD_BYTES_MAX = 262_144;
const METRICS_MAX = 1024;

const uint = z.bigint().min(0n).max(0xffff_ffff_ffff_ffffn);
const receivedMetric = z.object({
  name: z.string().max(1024).optional(),
  alias: uint.optional(),
  timestamp: uint.optional(),
  datatype: z.number().optional(),
  is_historical: z.boolean().optional(),
  is_null: z.boolean().optional(),
  int_value: z.number().optional(),
  long_value: uint.optional(),
  float_value: z.number().or(z.nan()).optional(),
  double_value: z.number().or(z.nan()).optional(),
  boolean_value: z.boolean().optional(),
  string_value: z.string().optional(),
});
const receivedPayload = z.object({
  timestamp: uint.optional(),
  seq: uint.optional(),
  metrics: z.array(receivedMetric).max(METRICS_MAX).default([]),
});

export type ReceivedMetric = Readonly<z.output<typeof receivedMetric>>;
export type ReceivedPayload = Readonly<z.output<typeof receivedPayload>>;

/** A payload of somebody else; undefined when it is none. Never throws. */
export function decodePayload(bytes: Uint8Array): ReceivedPayload | undefined {
  if (bytes.length > PAYLOAD_BYTES_MAX) return undefined;
  try {
    const parsed = receivedPayload.safeParse(payloadType.toObject(payloadType.decode(bytes), { longs: BigInt }));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

/** The value that a received metric carries as a type; undefined: none, or of another type. */
export function valueAs(metric: ReceivedMetric, type: DataType): MetricValue | undefined {
  if (metric.is_null === true) return null;
  switch (type) {
    case 'Int8':
    case 'Int16':
    case 'Int32':
      return metric.int_value === undefined ? undefined : metric.int_value | 0;
    case 'UInt8':
    case 'UInt16':
    case 'UInt32':
      return metric.int_value;
    case 'Int64':
      return metric.long_value === undefined ? undefined : BigInt.asIntN(64, metric.long_value);
    case 'UInt64':
    case 'DateTime':
      return metric.long_value;
    case 'Float':
      return metric.float_value;
    case 'Double':
      return metric.double_value;
    case 'Boolean':
      return metric.boolean_value;
    case 'String':
      return metric.string_value;
  }
}
