/** The hub between a run and who watches it: what they are told, and that none of them can hold up or break anything. */
import t from 'tap';
import type { FrameSource } from '../../src/cameras/source.js';
import { robotConfigSchema } from '../../src/config/schema.js';
import type { PremotorError } from '../../src/errors.js';
import type { Frame } from '../../src/policy/contract.js';
import { Observers, TappedCameras } from '../../src/runtime/observers.js';
import type { MotionSample, Observer, RunAbout, RunControl, RunEvent } from '../../src/tap/observer.js';

const config = robotConfigSchema.parse({ robot: { type: 'sim' }, policy: { checkpoint_dir: '/none' } });
const sample: MotionSample = {
  timeNs: 1n,
  setpointRad: Float64Array.of(1),
  positionsRad: Float64Array.of(2),
  velocitiesRadPerS: Float64Array.of(3),
};
const event: RunEvent = { type: 'frames', frames: [] };

function recording(name: Observer['name'], more: Partial<Observer> = {}): Observer & { readonly calls: string[] } {
  const calls: string[] = [];
  const observer: Observer = {
    name,
    begin: async () => void calls.push('begin'),
    event: ({ type }, timeNs) => void calls.push(`${type} ${timeNs}`),
    motion: ({ timeNs }) => void calls.push(`motion ${timeNs}`),
    end: async () => void calls.push('end'),
    close: async () => void calls.push('close'),
    ...more,
  };
  return Object.assign(observer, { calls });
}

function hub(...observers: readonly (Observer | undefined)[]): Promise<{ observers: Observers; warnings: PremotorError[] }> {
  const warnings: PremotorError[] = [];
  const parts = { onNotice: () => undefined, onWarning: (error: PremotorError) => void warnings.push(error) };
  return Observers.open(
    config,
    parts,
    observers.map((one) => async () => one),
  ).then((opened) => ({ observers: opened, warnings }));
}

const about = {} as RunAbout;
const control = {} as RunControl;

t.test('each is told everything, in order; one that is not wanted is left out', async (t) => {
  const [a, b] = [recording('telemetry'), recording('recorder')];
  const { observers, warnings } = await hub(a, undefined, b);
  t.same(observers.names, ['telemetry', 'recorder']);
  await observers.begin(about, control);
  observers.event(event, 7n);
  observers.motion(sample);
  await observers.end(undefined);
  await observers.close();
  await observers.close();
  for (const { calls } of [a, b]) t.same(calls, ['begin', 'frames 7', 'motion 1', 'end', 'close']);
  t.same(warnings, []);
});

for (const broken of ['begin', 'event', 'motion', 'end', 'close'] as const) {
  t.test(`one whose ${broken}() throws is reported once and told no more; the other goes on`, async (t) => {
    const fail = (): never => {
      throw new Error('out of paper');
    };
    const failing = ['begin', 'end', 'close'].includes(broken) ? async () => fail() : fail;
    const [bad, good] = [recording('recorder', { [broken]: failing }), recording('telemetry')];
    const { observers, warnings } = await hub(bad, good);
    await observers.begin(about, control);
    for (let round = 0; round < 3; round++) {
      observers.event(event, 7n);
      observers.motion(sample);
    }
    await observers.end(undefined);
    await observers.close();
    t.equal(good.calls.length, 9);
    t.match(warnings, [{ code: 'OBSERVER_FAILED', found: 'out of paper', expected: 'a working recorder' }]);
    t.equal(warnings.length, 1);
    const told = bad.calls.filter((call) => !['begin', 'end', 'close'].includes(call)).length;
    t.equal(told, { begin: 0, event: 0, motion: 1, end: 6, close: 6 }[broken]);
  });
}

t.test('an observer that cannot be opened closes the others and is an error', async (t) => {
  const first = recording('telemetry');
  const factories = [
    async () => first,
    async (): Promise<Observer> => {
      throw new Error('no such certificate');
    },
  ];
  const parts = { onNotice: () => undefined, onWarning: () => undefined };
  await t.rejects(Observers.open(config, parts, factories), { message: 'no such certificate' });
  t.same(first.calls, ['close']);
});

const frame = (camera: string, capturedAtNs: bigint): Frame => ({ camera, width: 1, height: 1, data: new Uint8Array(3), capturedAtNs });

t.test('frames are told once each, in the order of their capture, however often cameras are read', async (t) => {
  let [newest, history]: [readonly Frame[], readonly Frame[]] = [[], []];
  const source: FrameSource = {
    cameras: [{ camera: 'a', width: 1, height: 1 }],
    capture: async () => newest,
    history: () => history,
    close: async () => undefined,
  };
  const told: string[][] = [];
  const tapped = new TappedCameras(source, (frames) => void told.push(frames.map(({ camera, capturedAtNs }) => `${camera}${capturedAtNs}`)));
  newest = [frame('a', 5n), frame('b', 4n)];
  t.equal(await tapped.capture(), newest);
  await tapped.capture();
  history = [frame('a', 6n), frame('a', 5n), frame('b', 8n), frame('a', 9n)];
  newest = [frame('a', 9n), frame('b', 8n)];
  t.equal(await tapped.capture(), newest);
  t.equal(tapped.history(), history);
  t.equal(tapped.cameras, source.cameras);
  t.same(told, [
    ['b4', 'a5'],
    ['a6', 'b8', 'a9'],
  ]);
});
