/**
 * The table-driven protocol buffers against protobufjs: the same bytes and values both ways, for every type of a recording and for random ones;
 * Foxglove's types against Foxglove's own; and bytes that are cut or made to hurt.
 */
import { createRequire } from 'node:module';
import protobuf from 'protobufjs';
import t from 'tap';
import { PremotorError } from '../../src/errors.js';
import { decodeDescriptors } from '../../src/recording/descriptor.js';
import { decodeProto, encodeProto, type ProtoTypes } from '../../src/recording/protobuf.js';
import { descriptorOf, TOPICS, TYPES } from '../../src/recording/schemas.js';
import { seeded } from './support.js';

const require = createRequire(import.meta.url);
require('protobufjs/ext/descriptor');
const fromDescriptor = (bytes: Uint8Array): protobuf.Root => {
  const sets = require('protobufjs/ext/descriptor') as { FileDescriptorSet: protobuf.Type };
  const set = sets.FileDescriptorSet.decode(bytes);
  const root = (protobuf.Root as unknown as { fromDescriptor(set: unknown): protobuf.Root }).fromDescriptor(set);
  root.resolveAll();
  return root;
};

const schemas = [...new Set(Object.values(TOPICS).map(({ schema }) => schema))];

t.test('descriptors say what the tables say, to protobufjs and to ourselves', async (t) => {
  for (const schema of schemas) {
    const bytes = descriptorOf(schema);
    const type = fromDescriptor(bytes).lookupType(schema);
    const table = TYPES.messages.get(schema);
    t.same(
      type.fieldsArray.map(({ name, id, repeated }) => [name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), id, repeated]).sort(),
      table?.fields.map(({ name, number, isRepeated = false }) => [name, number, isRepeated]).sort(),
      schema,
    );
    t.same(decodeDescriptors(bytes).messages.get(schema), table, schema);
  }
});

t.test("Foxglove's types are Foxglove's", async (t) => {
  type Schemas = { foxgloveMessageSchemas: Record<string, unknown>; foxgloveEnumSchemas: Record<string, { parentSchemaName: string }> };
  const foxglove = require('@foxglove/schemas/internal.js') as Schemas & { generateProto(schema: unknown, enums: unknown[]): string };
  const mine = [...TYPES.messages.keys()].filter((name) => name.startsWith('foxglove.'));
  t.same(mine.length, 4);
  for (const name of mine) {
    const short = name.slice('foxglove.'.length);
    const enums = Object.values(foxglove.foxgloveEnumSchemas).filter(({ parentSchemaName }) => parentSchemaName === short);
    const text = foxglove.generateProto(foxglove.foxgloveMessageSchemas[short], enums);
    const { root } = protobuf.parse(text, { keepCase: true });
    const theirs = root.lookupType(name);
    const fields = TYPES.messages.get(name)?.fields ?? [];
    const last = (typeName: string): string => typeName.slice(typeName.lastIndexOf('.') + 1);
    t.same(
      fields
        .map((field) => [field.name, field.number, last(field.typeName ?? field.type), field.isRepeated ?? false, field.isOptional ?? false])
        .sort(),
      theirs.fieldsArray.map((field) => [field.name, field.id, last(field.type), field.repeated, field.options?.['proto3_optional'] === true]).sort(),
      name,
    );
    if (short === 'Log') t.same(TYPES.enums.get('foxglove.Log.Level'), theirs.lookupEnum('Level').values);
  }
});

const seed = 20261130;
t.comment(`seed ${seed}`);

/** A value of a type: small and large, present and absent. */
function drawn(random: () => number, typeName: string): Record<string, unknown> {
  const whole = (bits: number): number => Math.floor(random() * 2 ** Math.floor(random() * bits + 1));
  const value: Record<string, unknown> = {};
  for (const { name, type, typeName: part, isRepeated } of TYPES.messages.get(typeName)?.fields ?? []) {
    const make = (): unknown => {
      if (type === 'message') return drawn(random, part ?? '');
      if (type === 'string') return [...'aé"\u0000😀'].slice(0, whole(3)).join('');
      if (type === 'bytes') return Uint8Array.from({ length: whole(4) }, () => whole(8));
      if (type === 'bool') return random() < 0.5;
      if (type === 'double') return random() < 0.2 ? Number.NaN : (random() - 0.5) * 1e6;
      if (type === 'float') return Math.fround(random() - 0.5);
      if (type === 'enum') return Math.floor(random() * 6);
      if (type === 'int32') return whole(30) - 2 ** 29;
      if (type === 'int64') return BigInt(whole(52)) - 2n ** 50n;
      return /64$/.test(type) ? (BigInt(whole(32)) << 31n) | BigInt(whole(31)) : whole(31);
    };
    const isAbsent = random() < 0.2;
    if (isRepeated) value[name] = Array.from({ length: isAbsent ? 0 : whole(4) }, make);
    else if (!isAbsent) value[name] = make();
  }
  return value;
}

/** Numbers as protobufjs writes them down in text. */
const comparable = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value, (_, item: unknown) => {
      if (typeof item === 'bigint') return item.toString();
      if (typeof item === 'number' && !Number.isFinite(item)) return String(item);
      if (item instanceof Float32Array || item instanceof Float64Array) return [...item].map((one) => (Number.isNaN(one) ? 'NaN' : one));
      return item instanceof Uint8Array ? Buffer.from(item).toString('base64') : item;
    }),
  );

t.test('values go to protobufjs and come back the same', async (t) => {
  const random = seeded(seed);
  for (const schema of schemas) {
    const type = fromDescriptor(descriptorOf(schema)).lookupType(schema);
    for (let round = 0; round < 40; round++) {
      const value = drawn(random, schema);
      const bytes = encodeProto(TYPES, schema, value);
      const mine = decodeProto(TYPES, schema, bytes);
      const theirs = type.decode(bytes);
      // Bytes that protobufjs writes for the same are read the same, too.
      t.same(comparable(decodeProto(TYPES, schema, type.encode(theirs).finish())), comparable(mine), `${schema} ${round}`);
      for (const [name, item] of Object.entries(value)) {
        if (Array.isArray(item) && item.length === 0) continue;
        t.match(comparable({ [name]: mine[name] }), comparable({ [name]: item }), `${schema}.${name}`);
      }
    }
  }
});

const types = (fields: Record<string, string>): ProtoTypes => ({
  messages: new Map([['T', { fields: Object.entries(fields).map(([name, type], at) => ({ name, number: at + 1, type: type as 'double' })) }]]),
  enums: new Map(),
});

t.test('every scalar at its ends', async (t) => {
  const ends: [string, unknown[]][] = [
    ['int32', [-(2 ** 31), -1, 2 ** 31 - 1]],
    ['sint32', [-(2 ** 31), -1, 2 ** 31 - 1]],
    ['sfixed32', [-(2 ** 31), -1, 2 ** 31 - 1]],
    ['uint32', [1, 2 ** 32 - 1]],
    ['fixed32', [1, 2 ** 32 - 1]],
    ['int64', [-(2n ** 63n), -1n, 2n ** 63n - 1n]],
    ['sint64', [-(2n ** 63n), -1n, 2n ** 63n - 1n]],
    ['sfixed64', [-(2n ** 63n), -1n, 2n ** 63n - 1n]],
    ['uint64', [1n, 2n ** 64n - 1n]],
    ['fixed64', [1n, 2n ** 64n - 1n]],
    ['double', [-0, 5e-324, -Infinity]],
    ['float', [-0, 2 ** -149, Infinity]],
    ['bool', [true]],
  ];
  for (const [type, values] of ends) {
    for (const value of values) {
      const bytes = encodeProto(types({ x: type }), 'T', { x: value });
      const found = decodeProto(types({ x: type }), 'T', bytes)['x'];
      t.ok(Object.is(found, value), `${type} ${String(value)}: ${String(found)}`);
    }
  }
  t.match(decodeProto(types({ x: 'uint32' }), 'T', encodeProto(types({ x: 'uint32' }), 'T', { x: Number.NaN })), { x: 0 }, 'no whole number');
});

t.test('damaged bytes are errors, never more', async (t) => {
  const nested: ProtoTypes = {
    messages: new Map([['T', { fields: [{ name: 'x', number: 1, type: 'message', typeName: 'T', isRepeated: true }] }]]),
    enums: new Map(),
  };
  const deep = (depth: number): Uint8Array =>
    depth === 0 ? new Uint8Array(0) : encodeProto(nested, 'T', { x: [decodeProto(nested, 'T', deep(depth - 1))] });
  t.ok(decodeProto(nested, 'T', deep(20)));
  let bytes = deep(20);
  for (let more = 0; more < 20; more++) bytes = Uint8Array.from([0x0a, bytes.length, ...bytes]);
  const wide = new Uint8Array(2 * 300_000).map((_, at) => (at % 2 === 0 ? 0x0a : 0));
  const wrong: [ProtoTypes, Uint8Array, RegExp][] = [
    [nested, bytes, /nested more than 32/],
    [nested, wide, /more than 200000 messages/],
    [nested, Uint8Array.of(0x0a, 0x05), /5 bytes where 0 are left/],
    [nested, Uint8Array.of(0x0a), /ends? in/],
    [nested, Uint8Array.of(0x08, 0x01), /wire type 0 for a message/],
    [types({ x: 'double' }), Uint8Array.of(0x09, 1, 2), /2 bytes where 8/],
    [types({ x: 'string' }), Uint8Array.of(0x0b), /wire type 3/],
    [types({ x: 'uint64' }), new Uint8Array(12).fill(0xff), /more than ten bytes/],
  ];
  for (const [table, given, found] of wrong) {
    t.throws(() => decodeProto(table, 'T', given), { code: 'MCAP_DAMAGED', message: found });
  }
  t.throws(() => decodeProto(nested, 'Missing', new Uint8Array(0)), { code: 'MCAP_DAMAGED' });
  const random = seeded(seed);
  const descriptor = descriptorOf('premotor.Status');
  for (let round = 0; round < 5000; round++) {
    const changed = descriptor.slice(0, Math.floor(random() * descriptor.length) + 1);
    changed[Math.floor(random() * changed.length)] = Math.floor(random() * 256);
    try {
      decodeDescriptors(changed);
    } catch (error) {
      if (!(error instanceof PremotorError && error.code === 'MCAP_DAMAGED')) t.fail(`${round}: ${String(error)}`);
    }
  }
});
