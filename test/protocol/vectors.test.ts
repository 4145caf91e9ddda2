/**
 * protocol/vectors.json against the TypeScript frames (test/cpp/protocol_frames_test.cpp checks frames.c against the same file), the DBC against the
 * frames that it claims to decode, and the worked examples of the prose against both.
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import * as frames from '../../src/robot/bridge-frames.js';

const protocol = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'protocol');
const read = (name: string): string => readFileSync(join(protocol, name), 'utf8');

interface Vector {
  readonly name: string;
  readonly kind: string;
  readonly fields: Readonly<Record<string, unknown>>;
  readonly frames: readonly { readonly id: number; readonly data: string }[];
}
interface Vectors {
  readonly valid: readonly Vector[];
  readonly invalid: readonly { readonly name: string; readonly kind: string; readonly id: number; readonly data: string }[];
  readonly checksums: readonly { readonly bytes: string; readonly crc: number }[];
  readonly quantise: readonly (readonly [number | string, number, number, number])[];
  readonly arm_answer: { readonly host_nonce: number; readonly bridge_nonce: number; readonly answer: number };
  readonly limits: { readonly values: readonly (readonly number[])[]; readonly checksum: number };
}
const vectors: Vectors = JSON.parse(read('vectors.json'));

const hex = (data: Uint8Array): string => Buffer.from(data).toString('hex');
const frameOf = ({ id, data }: { readonly id: number; readonly data: string }): frames.CanFrame => ({
  id,
  data: new Uint8Array(Buffer.from(data, 'hex')),
});
const plain = ({ id, data }: frames.CanFrame): { id: number; data: string } => ({ id, data: hex(data) });

function encode({ kind, fields }: Vector): frames.CanFrame[] {
  const given: unknown = fields;
  if (kind === 'setpoint') return [frames.encodeSetpoint(given as frames.Setpoint)];
  if (kind === 'feedback') return [frames.encodeFeedback(given as frames.Feedback)];
  if (kind === 'classic_set') return frames.encodeClassicSet(given as frames.ClassicSet);
  if (kind === 'axis_feedback') return [frames.encodeAxisFeedback(given as frames.AxisFeedback)];
  if (kind === 'update_block')
    return [frames.encodeUpdateBlock({ offset: Number(fields['offset']), data: Buffer.from(String(fields['data']), 'hex') })];
  return [frames.encodeShort(kind, given as frames.ShortFields)];
}

function decode(kind: string, list: readonly frames.CanFrame[], fields: Readonly<Record<string, unknown>> = {}): unknown {
  const first = list[0] as frames.CanFrame;
  if (kind === 'setpoint') return frames.decodeSetpoint(first);
  if (kind === 'feedback') return frames.decodeFeedback(first);
  if (kind === 'classic_set') return frames.decodeClassicSet(list, Number(fields['session']), Number(fields['axis_count']));
  if (kind === 'axis_feedback') return frames.decodeAxisFeedback(first);
  if (kind === 'update_block') {
    const block = frames.decodeUpdateBlock(first);
    return block && { offset: block.offset, bytes: block.data.length, data: hex(block.data) };
  }
  const short = frames.decodeShort(first);
  return short?.kind === kind ? short.fields : undefined;
}

for (const vector of vectors.valid) {
  t.same(encode(vector).map(plain), vector.frames, `encodes ${vector.kind}: ${vector.name}`);
  t.same(decode(vector.kind, vector.frames.map(frameOf), vector.fields), vector.fields, `decodes ${vector.kind}: ${vector.name}`);
}
for (const broken of vectors.invalid) {
  t.equal(decode(broken.kind, [frameOf(broken)]), undefined, `refuses ${broken.kind}: ${broken.name}`);
}
for (const { bytes, crc } of vectors.checksums) t.equal(frames.crc16(Buffer.from(bytes, 'hex')), crc, `checksum of ${bytes.length / 2} bytes`);
for (const [value, scale, max, expected] of vectors.quantise) {
  const number = value === 'inf' ? Infinity : value === '-inf' ? -Infinity : Number(value);
  t.equal(frames.quantise(number, scale, max), expected, `${value} x ${scale} within ${max} is ${expected}`);
}
t.equal(frames.armAnswer(vectors.arm_answer.host_nonce, vectors.arm_answer.bridge_nonce), vectors.arm_answer.answer, 'answer to a challenge');
t.equal(frames.limitsChecksum(vectors.limits.values), vectors.limits.checksum, 'checksum of limits');

t.test('a classic set is refused when any of its bytes, its session or its order is wrong', async (t) => {
  const vector = vectors.valid.find(({ name }) => name === 'fourteen axes') as Vector;
  const list = vector.frames.map(frameOf);
  const taken = list.flatMap((frame, index) =>
    [...frame.data.keys()].filter((at) => {
      const data = frame.data.slice();
      data[at] = (data[at] ?? 0) ^ 1;
      const changed = list.map((other, i) => (i === index ? { id: other.id, data } : other));
      return frames.decodeClassicSet(changed, 1, 14) !== undefined;
    }),
  );
  t.same(taken, [], 'each byte is covered');
  t.equal(frames.decodeClassicSet(list, 2, 14), undefined, 'another session');
  t.equal(frames.decodeClassicSet(list.toSpliced(3, 2, list[4] as frames.CanFrame, list[3] as frames.CanFrame), 1, 14), undefined, 'swapped parts');
  t.equal(frames.decodeClassicSet(list.slice(0, -1), 1, 14), undefined, 'a part is missing');
});

t.test('the worked examples of the prose are the vectors', async (t) => {
  const prose = read('README.md');
  const data = (name: string): string => vectors.valid.find((vector) => vector.name === name)?.frames[0]?.data ?? '';
  const spaced = data("the prose's DISARM")
    .toUpperCase()
    .replaceAll(/(..)(?=.)/g, '$1 ');
  t.ok(prose.includes(`\`${spaced}\``), `DISARM is ${spaced}`);
  t.ok(prose.includes(`0x${vectors.arm_answer.answer.toString(16).toUpperCase().padStart(8, '0')}`), 'the answer to the challenge');
});

interface Signal {
  readonly name: string;
  readonly start: number;
  readonly length: number;
  readonly isSigned: boolean;
  readonly mux: string;
}

/** The part of the DBC language that the file uses: messages, and little-endian signals with a factor of any kind. */
function readDbc(text: string): Map<number, { readonly bytes: number; readonly signals: Signal[] }> {
  const messages = new Map<number, { bytes: number; signals: Signal[] }>();
  let current: { bytes: number; signals: Signal[] } | undefined;
  for (const line of text.split('\n')) {
    const message = /^BO_ (\d+) (\w+): (\d+) (\w+)$/.exec(line);
    const signal = /^ SG_ (\w+)( M| m\d+)? : (\d+)\|(\d+)@1([+-]) \(\S+,\S+\) \[\S+\|\S+\] "[^"]*" \w+$/.exec(line);
    if (message) messages.set(Number(message[1]), (current = { bytes: Number(message[3]), signals: [] }));
    else if (signal) {
      const [, name = '', mux = '', start, length, sign] = signal;
      current?.signals.push({ name, start: Number(start), length: Number(length), isSigned: sign === '-', mux: mux.trim() });
    } else if (/^ ?(BO|SG)_ /.test(line)) throw new Error(`not understood: ${line}`);
  }
  return messages;
}

function rawOf(data: Uint8Array, { start, length, isSigned }: Signal): number {
  const whole = BigInt(`0x${hex(data.slice().reverse())}`);
  const raw = (whole >> BigInt(start)) & ((1n << BigInt(length)) - 1n);
  return Number(isSigned ? BigInt.asIntN(length, raw) : raw);
}

t.test('the DBC decodes the frames as the vectors say', async (t) => {
  const messages = readDbc(read('premotor-bridge.dbc'));
  for (const { name, kind, fields, frames: list } of vectors.valid) {
    if (kind === 'classic_set') continue;
    const frame = frameOf(list[0] as Vector['frames'][number]);
    const message = messages.get(frame.id);
    if (!t.ok(message !== undefined && message.bytes === frame.data.length, `${kind}: ${name} has a message`)) continue;
    const found = Object.fromEntries((message?.signals ?? []).map((signal) => [signal.name, rawOf(frame.data, signal)]));
    t.same(found, { ...found, ...expectedSignals(kind, fields) }, `${kind}: ${name}`);
    t.same(
      Object.keys(expectedSignals(kind, fields)).filter((key) => !(key in found)),
      [],
      `${kind}: every field has a signal`,
    );
  }
  const classic = vectors.valid.find(({ name }) => name === 'fourteen axes') as Vector;
  const values = classic.fields['values'] as readonly number[];
  for (const frame of classic.frames.map(frameOf)) {
    const signals = messages.get(frame.id)?.signals.filter(({ name }) => /^axis\d+_(position|velocity)$/.test(name)) ?? [];
    const expected = signals.map(({ name }) => values[2 * Number(/\d+/.exec(name)?.[0]) + (name.endsWith('velocity') ? 1 : 0)]);
    t.same(
      signals.map((signal) => rawOf(frame.data, signal)),
      expected,
      `classic frame ${frame.id} has its values`,
    );
  }
});

/** A vector's fields under the signal names of the DBC. */
function expectedSignals(kind: string, fields: Readonly<Record<string, unknown>>): Record<string, number> {
  const expected: Record<string, number> = {};
  const first = Number(fields['part'] ?? 0) * 6;
  for (const [key, value] of Object.entries(fields)) {
    if (key === 'version_and_state') Object.assign(expected, { state: Number(value) & 15, version: Number(value) >> 4 });
    else if (key === 'slots') {
      (value as readonly frames.Slot[]).forEach(([position, velocity, torque], slot) => {
        const axis = first + slot;
        if (axis < 14)
          Object.assign(expected, { [`axis${axis}_position`]: position, [`axis${axis}_velocity`]: velocity, [`axis${axis}_torque`]: torque });
      });
    } else if ((key === 'axis' && kind === 'axis_feedback') || (key === 'data' && kind === 'update_block')) continue;
    else expected[key === 'position_e6' ? 'position' : key] = Number(value);
  }
  return expected;
}
