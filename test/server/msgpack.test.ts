/** The wire codec against messages that the reference's own packer wrote, in both directions, and against everything that is no such message. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { decode, type Encodable, encode, WireFloat, type WireValue } from '../../src/server/msgpack.js';
import { arrayFrom, arrayOf, floatsOf, NdArray } from '../../src/server/ndarray.js';
import { goldens, thrownBy } from '../support/fixtures.js';

const wire = JSON.parse(readFileSync(join(goldens, 'units', 'wire.json'), 'utf8')) as { name: string; msgpack_base64: string }[];
const golden = (name: string): Buffer => Buffer.from(wire.find((one) => one.name === name)?.msgpack_base64 ?? '', 'base64');

/** What was read, as what can be written. Floats of the goldens stand where a number is no integer, or in a timing. */
function again(value: WireValue, isFloat = false): Encodable {
  if (typeof value === 'number' && isFloat) return new WireFloat(value);
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, one]) => [key, again(one, /_ms$|_scale$/.test(key))]));
  return Array.isArray(value) ? value.map((one: WireValue) => again(one)) : (value as Encodable);
}

t.test('messages of the reference are read, and written again byte for byte', (t) => {
  for (const { name } of wire.filter((one) => one.name !== 'scalars')) {
    t.same(encode(again(decode(golden(name)))), golden(name), name);
    const shared = new Uint8Array(golden(name).length + 7);
    shared.set(golden(name), 7);
    t.same(encode(again(decode(shared.subarray(7)))), golden(name), `${name}, at an odd offset`);
  }
  t.equal(wire.length, 7);
  t.end();
});

t.test('what the reference wrote means what it meant', (t) => {
  const reset = { reset: true, prompt: 'pick up the cup', save_visualization: false };
  t.same(decode(golden('reset')), new Map(Object.entries(reset)));
  const infer = decode(golden('infer')) as Map<string, WireValue>;
  const picture = (infer.get('obs') as Map<string, WireValue>).get('observation.images.cam_high') as NdArray;
  t.match(picture, { dtype: '|u1', shape: [4, 6, 3] });
  t.same([...picture.data.subarray(0, 3)], [0x96, 0x64, 0x90]);
  const state = (decode(golden('kv')) as Map<string, WireValue>).get('state') as NdArray;
  t.same(state.shape, [16, 2, 4]);
  const values = floatsOf(state) as Float32Array;
  t.equal(values.length, 128);
  t.equal(values[8], Math.fround(8 / 7));
  const scalars = decode(golden('scalars')) as Map<string, WireValue>;
  t.same(
    ['a', 'b', 'c'].map((name) => scalars.get(name)),
    [1.5, -3, true],
  );
  t.same(scalars.get('d'), new NdArray('<f4', [0, 3], new Uint8Array(0)));
  // Fortran order is C order on the wire.
  t.same([...(scalars.get('e') as NdArray).data], [0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0]);
  t.end();
});

t.test("numbers of every size, from the format's own table", (t) => {
  const table: [Encodable, string][] = [
    [0, '00'],
    [127, '7f'],
    [128, 'cc80'],
    [255, 'ccff'],
    [256, 'cd0100'],
    [65535, 'cdffff'],
    [65536, 'ce00010000'],
    [4294967295, 'ceffffffff'],
    [4294967296, 'cf0000000100000000'],
    [-1, 'ff'],
    [-32, 'e0'],
    [-33, 'd0df'],
    [-128, 'd080'],
    [-129, 'd1ff7f'],
    [-32769, 'd2ffff7fff'],
    [-2147483649, 'd3ffffffff7fffffff'],
    [1.5, 'cb3ff8000000000000'],
    [new WireFloat(2), 'cb4000000000000000'],
    [null, 'c0'],
    [true, 'c3'],
    ['', 'a0'],
    ['x'.repeat(32), `d920${'78'.repeat(32)}`],
    [Uint8Array.of(1), 'c40101'],
    [[], '90'],
    [{ a: 1 }, '81a16101'],
  ];
  for (const [value, hex] of table) {
    t.equal(encode(value).toString('hex'), hex);
    t.same(
      decode(Buffer.from(hex, 'hex')),
      value instanceof WireFloat ? 2 : value !== null && typeof value === 'object' && 'a' in value ? new Map([['a', 1]]) : value,
    );
  }
  t.equal(decode(Buffer.from('cfffffffffffffffff', 'hex')), 2n ** 64n - 1n);
  t.equal(decode(Buffer.from('ca3fc00000', 'hex')), 1.5);
  t.end();
});

t.test('whatever is written is read again', (t) => {
  const seed = 20261130;
  t.comment(`seed ${seed}`);
  const value = fc.letrec<{ value: Encodable }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 4 },
      fc.constant(null),
      fc.boolean(),
      fc.maxSafeInteger(),
      fc.double({ noNaN: true }).filter((one) => !Object.is(one, -0)),
      fc.string(),
      fc.uint8Array(),
      fc.float32Array({ maxLength: 20 }).map((one) => arrayOf(one, [one.length])),
      fc.array(tie('value'), { maxLength: 20 }),
      fc.dictionary(fc.string(), tie('value'), { noNullPrototype: true }).map((one) => ({ ...one })),
    ),
  })).value;
  fc.assert(
    fc.property(value, (one) => encode(again(decode(encode(one)))).equals(encode(one))),
    { seed, numRuns: 500 },
  );
  t.pass();
  t.end();
});

t.test('what is no message of this protocol is refused, whatever it claims', (t) => {
  const array = (dtype: string, shape: Encodable, data: Encodable) =>
    Buffer.concat([
      Buffer.from('84', 'hex'),
      ...[
        ['__ndarray__', true],
        ['data', data],
        ['dtype', dtype],
        ['shape', shape],
      ].map(([key, one]) => Buffer.concat([encode(Buffer.from(key as string)), encode(one as Encodable)])),
    ]);
  const bad: [string, Buffer, RegExp][] = [
    ['nothing', Buffer.alloc(0), /1 more bytes/],
    ['two values', Buffer.from('0000', 'hex'), /one value/],
    ['an extension', Buffer.from('d40100', 'hex'), /extension/],
    ['a tag that means nothing', Buffer.from('c1', 'hex'), /0xc1/],
    ['a list that is longer than the message', Buffer.from('ddffffffff00', 'hex'), /4294967295 values/],
    ['a map that is longer than the message', Buffer.from('dfffffffff00', 'hex'), /keys/],
    ['a text that is longer than the message', Buffer.from('dbffffffff00', 'hex'), /more bytes/],
    ['bytes that are no text', Buffer.from('a1ff', 'hex'), /UTF-8/],
    ['a number as a key', Buffer.from('810101', 'hex'), /text or bin keys/],
    ['a key twice', Buffer.from('82a16101a16102', 'hex'), /every key once/],
    ['too deep', Buffer.from(`${'91'.repeat(40)}00`, 'hex'), /levels/],
    ['too many values', encode(Array.from({ length: 100_001 }, () => 0)), /100000 values/],
    ['objects', array('|O', [1], new Uint8Array(8)), /dtype/],
    ['complex numbers', array('<c8', [1], new Uint8Array(8)), /dtype/],
    ['fewer bytes than the shape says', array('<f4', [2], new Uint8Array(4)), /8 bytes/],
    ['more bytes than the shape says', array('<f4', [1], new Uint8Array(8)), /4 bytes/],
    ['a shape whose product is no number', array('<f4', [2 ** 40, 2 ** 40, 2 ** 40], new Uint8Array(4)), /bytes/],
    ['a negative side', array('<f4', [-1], new Uint8Array(4)), /whole numbers/],
    ['33 sides', array('|u1', Array(33).fill(1), new Uint8Array(1)), /32/],
    ['values as text', array('|u1', [1], 'x'), /bin/],
  ];
  for (const [what, message, why] of bad) {
    const error = thrownBy(() => decode(message));
    t.equal(error.code, 'MESSAGE_INVALID', what);
    t.match(error.message, why, what);
  }
  t.end();
});

t.test('names that objects have are names like any other', (t) => {
  const map = decode(encode({ ['__proto__']: 1, constructor: 2 } as Record<string, number>)) as Map<string, WireValue>;
  t.equal(map.get('constructor'), 2);
  const hostile = decode(Buffer.concat([Buffer.from('81a9', 'hex'), Buffer.from('__proto__'), Buffer.from('81a16101', 'hex')])) as Map<
    string,
    WireValue
  >;
  t.ok(hostile.has('__proto__'));
  t.equal(({} as Record<string, unknown>)['a'], undefined);
  t.end();
});

t.test('floats of both widths, and no other type as floats', (t) => {
  const doubles = new Uint8Array(new Float64Array([0.1, 2]).buffer);
  t.same(floatsOf(arrayFrom('<f8', [2], doubles)), Float32Array.of(0.1, 2));
  t.same(
    floatsOf(new NdArray('<f4', [1], Buffer.from('xxxx0000803f', 'latin1').subarray(0, 4))),
    new Float32Array(Uint8Array.from(Buffer.from('xxxx')).buffer),
  );
  t.equal(floatsOf(arrayFrom('<i4', [1], new Uint8Array(4))), undefined);
  t.equal(floatsOf(arrayFrom('>f4', [1], new Uint8Array(4))), undefined);
  t.end();
});
