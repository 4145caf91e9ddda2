/**
 * 300 000 damaged commands through the path that a broker's messages take: none of them ends in an error, in a growing heap, in a stop that was
 * not well formed or in anything but the three things that a command may do. PREMOTOR_TELEMETRY_CASES changes the number, PREMOTOR_SEED the seed.
 */
import t from 'tap';
import { Commands } from '../../src/telemetry/commands.js';
import { metricTable, RATE, REBIRTH, STOP } from '../../src/telemetry/metrics.js';
import { encodePayload, type Metric } from '../../src/telemetry/payload.js';
import { readPayload, type SpPayload } from './wire.js';
import { FakeControl } from './world.js';

const cases = Number(process.env['PREMOTOR_TELEMETRY_CASES'] ?? 400_000);
const seed = Number(process.env['PREMOTOR_SEED'] ?? 20261130);

let state = seed >>> 0;
function random(below: number): number {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  state >>>= 0;
  return state % below;
}
const oneOf = <T>(all: readonly T[]): T => all[random(all.length)] as T;

const specs = metricTable({ joints: ['a'], counts: ['cycles'], sensors: [], hostSensors: [] });
const aliasOf = (name: string): number => specs.find((spec) => spec.name === name)?.alias ?? 0;

const VALID: readonly (readonly Metric[])[] = [
  [{ name: STOP, type: 'Boolean', saysType: true, value: true }],
  [{ alias: aliasOf(STOP), timestampMs: 1_796_000_000_000, type: 'Boolean', value: true }],
  [{ name: STOP, type: 'Boolean', value: false }],
  [{ name: REBIRTH, type: 'Boolean', saysType: true, value: true }],
  [{ name: RATE, type: 'Double', saysType: true, value: 2.5 }],
  [{ alias: aliasOf(RATE), type: 'Float', value: 1 }],
  [
    { name: 'Robot/Start', type: 'Boolean', value: true },
    { name: 'Joint/a/Position', type: 'Double', value: 0.5 },
  ],
  [
    { name: STOP, type: 'Boolean', value: true, isHistorical: true },
    { name: STOP, type: 'String', value: 'true' },
    { name: STOP, type: 'Int32', value: 1 },
  ],
  [{ name: STOP, type: 'Boolean', value: null }],
];
const VALID_BYTES = VALID.map((metrics) => encodePayload({ timestampMs: 1_796_000_000_000, metrics }));

/** One to four hurts: bits, bytes, cuts, doublings, lengths, other messages in the middle, or nothing but noise. */
function damaged(): Uint8Array {
  if (random(20) === 0) return Uint8Array.from({ length: random(64) }, () => random(256));
  let bytes: Uint8Array = Uint8Array.from(oneOf(VALID_BYTES));
  for (let hurts = 1 + random(4); hurts > 0; hurts--) {
    const at = random(bytes.length + 1);
    const kind = random(7);
    if (kind === 0 && bytes.length > 0) bytes[at % bytes.length] = (bytes[at % bytes.length] ?? 0) ^ (1 << random(8));
    if (kind === 1 && bytes.length > 0) bytes[at % bytes.length] = oneOf([0, 1, 127, 128, 255, random(256)]);
    if (kind === 2) bytes = bytes.slice(0, at);
    if (kind === 3)
      bytes = Buffer.concat([bytes.subarray(0, at), Uint8Array.from({ length: 1 + random(12) }, () => random(256)), bytes.subarray(at)]);
    if (kind === 4) bytes = Buffer.concat([bytes, bytes.subarray(at)]);
    if (kind === 5) bytes = Buffer.concat([bytes.subarray(0, at), oneOf(VALID_BYTES)]);
    if (kind === 6) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(Math.min(bytes.length, at + 1 + random(4)))]);
  }
  return bytes;
}

/** By the second reading of the format: does this message ask for a stop? `undefined`: it is none. */
function asksForStop(bytes: Uint8Array, isLenient: boolean): boolean | undefined {
  let payload: SpPayload;
  try {
    payload = readPayload(bytes, isLenient);
  } catch {
    return undefined;
  }
  return payload.metrics.some(({ name, alias, value, values, datatype, isNull, isHistorical }) => {
    const isStop = name === undefined ? alias === BigInt(aliasOf(STOP)) : name === STOP && (alias === undefined || alias === BigInt(aliasOf(STOP)));
    const isOne = isLenient || (values === 1 && payload.metrics.length < 200);
    return isStop && isOne && value === true && (datatype === undefined || (datatype & 0xffff_ffffn) === 11n) && !isNull && !isHistorical;
  });
}

t.test('damaged commands', (t) => {
  t.comment(`${cases} cases, seed ${seed}`);
  const control = new FakeControl();
  const done = { rebirths: 0, rates: [] as number[] };
  const commands = new Commands(specs, {
    rebirth: () => void done.rebirths++,
    stop: () => control.requestStop('asked'),
    rate: (rateHz) => void (done.rates.length < 1000 && done.rates.push(rateHz)),
  });
  let [unasked, unheard, stopping] = [0, 0, 0];
  let heapBytes = 0;
  const run = (count: number): void => {
    for (let index = 0; index < count; index++) {
      const bytes = damaged();
      const before = control.stops.length;
      commands.accept(bytes, false);
      const hasStopped = control.stops.length > before;
      control.stops.length = 0;
      if (hasStopped) stopping++;
      if (!hasStopped && random(4) > 0) continue;
      if (hasStopped && asksForStop(bytes, true) !== true) unasked++;
      if (!hasStopped && asksForStop(bytes, false) === true) unheard++;
    }
  };
  run(Math.ceil(cases / 10));
  globalThis.gc?.();
  const firstBytes = process.memoryUsage().heapUsed;
  for (let part = 0; part < 9; part++) {
    run(Math.ceil(cases / 10));
    globalThis.gc?.();
    heapBytes = Math.max(heapBytes, process.memoryUsage().heapUsed);
  }
  t.comment(`${stopping} still ask for a stop, ${done.rebirths} for a rebirth, ${commands.followed} followed, ${commands.refused} refused`);
  t.equal(unasked, 0, 'no stop that was not well formed');
  t.equal(unheard, 0, 'no well-formed stop that was not heard');
  t.ok(stopping > 0 && commands.refused > 0 && done.rebirths > 0, 'some are good and some are not');
  t.ok(
    done.rates.every((rateHz) => rateHz >= 0.1 && rateHz <= 10),
    'rates are within their range',
  );
  t.same(control.others, [], 'nothing else was called');
  // Without a forced collection garbage counts, too; a leak of every message would be hundreds of MiB.
  t.ok(heapBytes - firstBytes < 96 * 2 ** 20, `the heap grew by ${((heapBytes - firstBytes) / 2 ** 20).toFixed(1)} MiB at most`);
  t.end();
});

t.test('what is retained, large or none is refused; what is well formed is followed', (t) => {
  const control = new FakeControl();
  let rebirths = 0;
  const rates: number[] = [];
  const commands = new Commands(specs, {
    rebirth: () => void rebirths++,
    stop: () => control.requestStop('asked'),
    rate: (rateHz) => void rates.push(rateHz),
  });
  const say = (metrics: readonly Metric[], isRetained = false): void => commands.accept(encodePayload({ timestampMs: 1, metrics }), isRetained);
  const stop: Metric = { name: STOP, type: 'Boolean', value: true };
  say([stop], true);
  commands.accept(new Uint8Array(), false);
  commands.accept(Uint8Array.of(0xff), false);
  commands.accept(new Uint8Array(300_000), false);
  say([{ ...stop, alias: aliasOf(RATE) }]);
  say([
    { ...stop, value: false },
    { ...stop, type: 'String', value: 'true' },
    { ...stop, value: null },
    { ...stop, isHistorical: true },
  ]);
  say([
    { name: 'robot/stop', type: 'Boolean', value: true },
    { name: 'Robot/State', type: 'String', value: 'running' },
  ]);
  for (const value of [0, 0.09, 10.1, -1, Number.NaN, Number.POSITIVE_INFINITY]) say([{ name: RATE, type: 'Double', value }]);
  t.same([control.stops.length, rebirths, rates.length, commands.followed], [0, 0, 0, 0]);
  t.equal(commands.refused, 1 + 0 + 1 + 1 + 1 + 4 + 2 + 6);
  say([
    { name: RATE, type: 'Double', saysType: true, value: 0.5 },
    { alias: aliasOf(RATE), type: 'Float', value: 8 },
    { name: REBIRTH, type: 'Boolean', value: true },
    stop,
  ]);
  say([{ alias: aliasOf(STOP), type: 'Boolean', saysType: true, value: true }]);
  t.same([control.stops.length, rebirths, rates], [2, 1, [0.5, 8]]);
  t.equal(commands.followed, 5);
  t.end();
});
