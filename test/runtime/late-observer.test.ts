/** An observer whose files come later than the service: nothing waits for it, it is tried again, and then it knows what the others know. */
import t from 'tap';
import { robotConfigSchema } from '../../src/config/schema.js';
import { PremotorError } from '../../src/errors.js';
import { openLate } from '../../src/runtime/late-observer.js';
import type { Observer, RunAbout, RunControl, ServiceReport, StandbyAbout } from '../../src/tap/observer.js';

const config = robotConfigSchema.parse({ robot: { type: 'sim' }, policy: { checkpoint_dir: '/none' } });
const [about, control, report] = [{} as RunAbout, {} as RunControl, {} as ServiceReport];
const missing = (file: string) => new PremotorError('TELEMETRY_FILE', `no ${file}`, { expected: 'a file', found: 'none' });
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function harness() {
  const calls: string[] = [];
  const warnings: string[] = [];
  const state = { nowMs: 0, tries: 0, error: missing('certificate') as Error | undefined };
  const inner: Observer = {
    name: 'telemetry',
    isConnected: true,
    begin: async () => void calls.push('begin'),
    attend: async () => void calls.push('attend'),
    service: () => void calls.push('service'),
    event: () => void calls.push('event'),
    motion: () => void calls.push('motion'),
    end: async () => void calls.push('end'),
    close: async () => void calls.push('close'),
  };
  const factory = openLate(
    async () => {
      state.tries++;
      if (state.error) throw state.error;
      return inner;
    },
    { name: 'telemetry', codes: ['TELEMETRY_FILE'], monotonicMs: () => state.nowMs },
  );
  const open = () => factory(config, { onNotice: () => undefined, onWarning: ({ code, message }) => void warnings.push(`${code} ${message}`) });
  const look = async (observer: Observer | undefined, afterMs: number): Promise<void> => {
    state.nowMs += afterMs;
    observer?.service?.(report);
    await settle();
  };
  return { calls, warnings, state, inner, open, look };
}

t.test('what is there at once is the observer itself; an error that no file mends is told at once', async (t) => {
  const one = harness();
  one.state.error = undefined;
  t.equal(await one.open(), one.inner);
  one.state.error = new PremotorError('TELEMETRY_INSECURE', 'no', { expected: 'mqtts://', found: 'mqtt://' });
  await t.rejects(one.open(), { code: 'TELEMETRY_INSECURE' });
  t.same(one.warnings, []);
});

t.test('tried again every ten seconds, told once, and then it knows what the others know', async (t) => {
  const { calls, warnings, state, open, look } = harness();
  const late = await open();
  t.same(warnings, ['TELEMETRY_FILE no certificate']);
  t.equal(late?.isConnected, false);
  t.equal(late?.notOpen?.code, 'TELEMETRY_FILE');
  await late?.attend?.({} as StandbyAbout, control);
  await look(late, 9000);
  t.equal(state.tries, 1);
  await look(late, 1000);
  t.equal(state.tries, 2);
  t.equal(warnings.length, 1, 'the same is not told again');
  state.error = missing('key');
  await look(late, 10_000);
  t.same(warnings, ['TELEMETRY_FILE no certificate', 'TELEMETRY_FILE no key']);
  state.error = new TypeError('broken');
  await look(late, 10_000);
  t.equal(late?.notOpen?.code, 'OBSERVER_FAILED');
  state.error = undefined;
  await late?.begin(about, control);
  await look(late, 10_000);
  t.equal(state.tries, 4, 'not while an episode runs');
  await late?.end(undefined);
  t.same(calls, []);
  await look(late, 0);
  t.same(calls, ['attend'], 'it is open, and knows the robot');
  t.equal(late?.isConnected, true);
  t.equal(late?.notOpen, undefined);
  await late?.begin(about, control);
  late?.event({ type: 'frames', frames: [] }, 1n);
  late?.motion({ timeNs: 1n, setpointRad: new Float64Array(), positionsRad: new Float64Array(), velocitiesRadPerS: new Float64Array() });
  await late?.end(undefined);
  await look(late, 10_000);
  await late?.close();
  t.same(calls, ['attend', 'begin', 'event', 'motion', 'end', 'service', 'close']);
  t.equal(state.tries, 5);
});

t.test('closed, it is not opened any more', async (t) => {
  const { calls, state, open, look } = harness();
  const late = await open();
  await late?.close();
  state.error = undefined;
  await look(late, 60_000);
  t.equal(state.tries, 1);
  t.same(calls, []);
});
