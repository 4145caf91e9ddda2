/**
 * protocol/motor/vectors.json against decoders written here from the formulae, independently of the C sources: if the vectors and the C code were
 * wrong in the same way, this would differ. Damiao in full, the fixed layouts of ODrive and CANopen where a DataView reads them.
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';

interface Vector {
  readonly name: string;
  readonly source: string;
  readonly kind: string;
  readonly id: number;
  readonly data: string;
  readonly range: readonly [number, number, number];
  readonly values: readonly number[];
  readonly clamped: boolean;
  readonly error: number;
  readonly motor_id: number;
  readonly register: number;
  readonly value: number;
  readonly node: number;
  readonly command: number;
  readonly version: string;
  readonly fields: Readonly<Record<string, number>>;
}

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const document: Readonly<Record<'damiao' | 'odrive' | 'canopen', readonly Vector[]>> = JSON.parse(
  readFileSync(join(root, 'protocol', 'motor', 'vectors.json'), 'utf8'),
);

const bytesOf = (vector: Vector): Buffer => Buffer.from(vector.data, 'hex');

/** `count` bits of the frame, read as one big-endian number, from bit `first` on (0 = the most significant). */
function bits(data: Buffer, first: number, count: number): number {
  return Number((data.readBigUInt64BE() >> BigInt(64 - first - count)) & ((1n << BigInt(count)) - 1n));
}

/** A step must contain its value: value of the step <= x < value of the next one, apart from float rounding. */
function checkStep(t: Test, step: number, x: number, low: number, high: number, count: number, name: string): void {
  const steps = 2 ** count - 1;
  const clamped = Math.min(Math.max(x, low), high);
  const found = low + (step * (high - low)) / steps;
  const size = (high - low) / steps;
  t.ok(clamped - found >= -0.02 * size && clamped - found <= 1.02 * size, `${name}: step ${step} is ${found}, for ${x}`);
}

t.test('every vector says where it comes from', (t) => {
  for (const vectors of Object.values(document).filter(Array.isArray)) for (const { name, source } of vectors) t.ok(source.length > 10, name);
  t.end();
});

t.test('Damiao commands', (t) => {
  for (const vector of document.damiao.filter(({ kind }) => kind === 'command')) {
    const data = bytesOf(vector);
    const [p, v, torque] = vector.range;
    const fields: [number, number, number][] = [
      [16, -p, p],
      [12, -v, v],
      [12, 0, 500],
      [12, 0, 5],
      [12, -torque, torque],
    ];
    let first = 0;
    const isMoved = vector.data.endsWith('FFA'); // the one command that must not look like a special frame
    fields.forEach(([count, low, high], i) => {
      const step = bits(data, first, count);
      if (!(isMoved && i === 4)) checkStep(t, step, vector.values[i] ?? Number.NaN, low, high, count, `${vector.name}, field ${i}`);
      first += count;
    });
    t.notMatch(vector.data, /^F{14}F[BCDE]$/, `${vector.name}: no special frame`);
  }
  t.end();
});

t.test('Damiao feedback', (t) => {
  for (const vector of document.damiao.filter(({ kind }) => kind === 'feedback')) {
    const data = bytesOf(vector);
    const [p, v, torque] = vector.range;
    t.equal(bits(data, 0, 4), vector.error, `${vector.name}: error`);
    t.equal(bits(data, 4, 4), vector.motor_id & 15, `${vector.name}: motor`);
    checkStep(t, bits(data, 8, 16), vector.values[0] ?? Number.NaN, -p, p, 16, `${vector.name}, position`);
    checkStep(t, bits(data, 24, 12), vector.values[1] ?? Number.NaN, -v, v, 12, `${vector.name}, velocity`);
    checkStep(t, bits(data, 36, 12), vector.values[2] ?? Number.NaN, -torque, torque, 12, `${vector.name}, torque`);
  }
  t.end();
});

t.test('Damiao parameters', (t) => {
  const operations: Readonly<Record<string, number>> = { read: 0x33, write_u32: 0x55, write_f32: 0x55, refresh: 0xcc, reply: 0x33 };
  for (const vector of document.damiao.filter(({ kind }) => kind in operations)) {
    const data = bytesOf(vector);
    t.equal(data.readUInt16LE(0), vector.motor_id, `${vector.name}: motor`);
    t.equal(data[2], operations[vector.kind], `${vector.name}: operation`);
    t.equal(data[3], vector.register ?? 0, `${vector.name}: register`);
    if (vector.kind === 'write_u32') t.equal(data.readUInt32LE(4), vector.value, vector.name);
    if (vector.kind === 'write_f32' || vector.kind === 'reply') t.equal(data.readFloatLE(4), vector.value, vector.name);
    t.equal(vector.id, vector.kind === 'reply' ? 0x11 : 0x7ff, `${vector.name}: identifier`);
  }
  t.end();
});

t.test('ODrive', (t) => {
  const readers: Readonly<Record<number, (data: Buffer) => Record<string, number>>> = {
    7: (d) => ({ axis_state: d.readUInt32LE() }),
    9: (d) => ({ position_turns: d.readFloatLE(), velocity_turns_s: d.readFloatLE(4) }),
    11: (d) => ({ control: d.readUInt32LE(), input: d.readUInt32LE(4) }),
    12: (d) => ({ position_turns: d.readFloatLE(), velocity_turns_s: d.readInt16LE(4) / 1000, torque_Nm: d.readInt16LE(6) / 1000 }),
    13: (d) => ({ velocity_turns_s: d.readFloatLE(), torque_Nm: d.readFloatLE(4) }),
    14: (d) => ({ torque_Nm: d.readFloatLE() }),
    23: (d) => ({ voltage_V: d.readFloatLE(), current_A: d.readFloatLE(4) }),
  };
  for (const vector of document.odrive) {
    t.equal(vector.id, vector.node * 32 + vector.command, `${vector.name}: identifier`);
    const reader = readers[vector.command];
    if (reader) t.same(reader(bytesOf(vector)), vector.fields, vector.name);
    if (vector.command !== 1) continue;
    const data = bytesOf(vector);
    const isDone = vector.version === '0.5' ? (data[7] ?? 0) >> 7 : (data[6] ?? 0) & 1;
    t.equal(isDone, vector.fields['is_trajectory_done'], `${vector.name}: done`);
  }
  t.end();
});

t.test('CANopen identifiers hold the function and the node', (t) => {
  const functions: Readonly<Record<string, number>> = {
    heartbeat: 0x700,
    emergency: 0x80,
    sdo_request: 0x600,
    sdo_reply: 0x580,
    rpdo1: 0x200,
    tpdo1: 0x180,
  };
  for (const vector of document.canopen) {
    const base = functions[vector.kind];
    if (base !== undefined) t.equal(vector.id, base + vector.node, vector.name);
  }
  t.end();
});
