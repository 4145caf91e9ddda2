/**
 * Payloads: numbers of every type, signed ones above all, as protoc reads them and as they come back; and the schema against the specification's.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { type DataType, decodePayload, encodePayload, type MetricValue, valueAs } from '../../src/telemetry/payload.js';
import { readPayload } from './wire.js';

const skip = existsSync('/usr/bin/protoc') ? false : 'SKIPPED: no protoc here (Debian package protobuf-compiler)';

const VALUES: readonly (readonly [DataType, MetricValue, string])[] = [
  ['Int8', -5, 'int_value: 4294967291'],
  ['Int16', -32_768, 'int_value: 4294934528'],
  ['Int32', -1, 'int_value: 4294967295'],
  ['Int32', 2_147_483_647, 'int_value: 2147483647'],
  ['Int64', -5, 'long_value: 18446744073709551611'],
  ['Int64', -(2n ** 63n), 'long_value: 9223372036854775808'],
  ['Int64', Number.MAX_SAFE_INTEGER, 'long_value: 9007199254740991'],
  ['UInt8', 255, 'int_value: 255'],
  ['UInt16', 65_535, 'int_value: 65535'],
  ['UInt32', 4_294_967_295, 'int_value: 4294967295'],
  ['UInt64', 2n ** 64n - 1n, 'long_value: 18446744073709551615'],
  ['Float', 0.5, 'float_value: 0.5'],
  ['Double', -1e-300, 'double_value: -1e-300'],
  ['Boolean', true, 'boolean_value: true'],
  ['Boolean', false, 'boolean_value: false'],
  ['String', 'é "x"\n', 'string_value: "\\303\\251 \\"x\\"\\n"'],
  ['DateTime', 1_796_028_345_123, 'long_value: 1796028345123'],
  ['Double', null, 'is_null: true'],
];

t.test('values as protoc reads them', { skip }, (t) => {
  const input = encodePayload({ timestampMs: 7, seq: 255, metrics: VALUES.map(([type, value], alias) => ({ alias, type, value })) });
  const protocol = fileURLToPath(new URL('../../protocol', import.meta.url));
  const options = [`--proto_path=${protocol}`, '--decode=org.eclipse.tahu.protobuf.Payload', 'sparkplug_b.proto'];
  const { stdout, stderr } = spawnSync('protoc', options, { input, encoding: 'utf8' });
  t.equal(stderr, '');
  const metrics = stdout.split('metrics {').slice(1);
  VALUES.forEach(([type, value, text], index) => {
    t.ok(metrics[index]?.includes(`\n  ${text}\n`), `${type} ${value}: ${metrics[index]}`);
  });
  t.match(stdout, /^timestamp: 7\n[\s\S]*^seq: 255$/m);
  t.end();
});

t.test('values come back', (t) => {
  const received = decodePayload(encodePayload({ timestampMs: 7, metrics: VALUES.map(([type, value]) => ({ type, value })) }));
  VALUES.forEach(([type, value], index) => {
    const metric = received?.metrics[index];
    const back = metric && valueAs(metric, type);
    t.equal(typeof back === 'bigint' ? String(back) : back, typeof back === 'bigint' ? String(value) : value, `${type} ${value}`);
  });
  t.equal(received?.seq, undefined);
  t.end();
});

t.test('both readings agree about a birth', (t) => {
  const bytes = encodePayload({
    timestampMs: 1_796_028_345_123,
    seq: 0,
    metrics: [
      {
        name: 'Joint/a/Position',
        alias: 9,
        timestampMs: 1_796_028_345_122,
        type: 'Double',
        saysType: true,
        value: 0.25,
        unit: 'rad',
        isHistorical: true,
      },
    ],
  });
  t.match(readPayload(bytes), {
    timestamp: 1_796_028_345_123n,
    seq: 0n,
    metrics: [{ name: 'Joint/a/Position', alias: 9n, timestamp: 1_796_028_345_122n, datatype: 10n, isHistorical: true, field: 13, value: 0.25 }],
  });
  t.match(readPayload(bytes).metrics[0]?.properties, { keys: ['engUnit'], values: [{ type: 12n, field: 8, value: 'rad' }] });
  t.end();
});

t.test('what is no payload', (t) => {
  const good = encodePayload({ timestampMs: 7, metrics: [{ name: 'a', type: 'String', value: 'text' }] });
  t.ok(decodePayload(good));
  for (let length = 1; length < good.length; length++) {
    if (length !== 2) t.equal(decodePayload(good.subarray(0, length)), undefined, `${length} bytes of ${good.length}`);
  }
  t.equal(decodePayload(new Uint8Array(262_145)), undefined);
  const many = encodePayload({ timestampMs: 7, metrics: Array.from({ length: 1025 }, () => ({ type: 'Boolean' as const, value: true })) });
  t.equal(decodePayload(many), undefined);
  t.end();
});
