/**
 * The status page as an observer: what viewers are told, that nothing is computed for nobody, that a stop is passed on, and that a robot moves bit
 * for bit the same whether somebody looks or not.
 */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import t, { type Test } from 'tap';
import { writeUntrainedCheckpoint } from '../../src/checkpoint/untrained.js';
import { type RobotConfig, robotConfigSchema } from '../../src/config/schema.js';
import type { CycleEvent } from '../../src/control/events.js';
import type { State } from '../../src/control/lifecycle.js';
import { openDashboard, STOP_REASON } from '../../src/dashboard/dashboard.js';
import { PremotorError } from '../../src/errors.js';
import type { DecodedVideo, Frame } from '../../src/policy/contract.js';
import { loadPolicy } from '../../src/policy/load.js';
import { runEpisode } from '../../src/runtime/episode.js';
import { Observers } from '../../src/runtime/observers.js';
import { JOINTS } from '../../src/sim/arm.js';
import { taskNamed } from '../../src/sim/tasks/index.js';
import type { MotionSample, Observer, RunAbout, RunControl } from '../../src/tap/observer.js';
import { atHome, FakePolicy, tensor } from '../control/fakes.js';
import { errorOf } from '../support/fixtures.js';
import { compilePage } from '../support/page.js';
import { silentObserver } from './silent.js';
import { TestViewer } from './viewer.js';

const TOKEN = 'correct-horse-battery';
const pageDir = compilePage(join(t.testdir(), 'page'));

function configOf(change: Readonly<Record<string, unknown>> = {}): RobotConfig {
  return robotConfigSchema.parse({ robot: { type: 'sim' }, policy: { checkpoint_dir: '/nowhere' }, ...change });
}

function aboutOf(mode = 'sync', pace = 'virtual'): RunAbout {
  const policy = new FakePolicy(atHome);
  const cameras = policy.job.obs_cam_keys.map((camera) => ({ camera, width: 8, height: 6 }));
  return {
    id: 'run-1',
    version: '0',
    robot: 'sim',
    joints: JOINTS,
    cameras,
    task: 'touch',
    instruction: 'touch it',
    seed: 0,
    chunksMax: 9,
    actionRateHz: 25,
    mode,
    checkpoint: 'x',
    untrained: false,
    job: policy.job,
    policy: policy.info,
    configuration: { robot: { pace } },
    epochNs: 0n,
    timeNs: 0n,
  };
}

const frame = (camera: string, width: number, ms: number): Frame => {
  return { camera, width, height: 6, data: new Uint8Array(width * 6 * 3).fill(ms % 256), capturedAtNs: BigInt(ms) * 1_000_000n };
};

/** A robot that only answers. */
class FakeControl implements RunControl {
  readonly stops: string[] = [];
  statusCalls = 0;
  decodes = 0;
  state: State = 'armed';
  timeNs = 0n;
  faultCode = '';

  requestStop(reason: string): void {
    this.stops.push(reason);
  }

  status() {
    this.statusCalls++;
    const { state, timeNs, faultCode } = this;
    const shared = { stream: 'following', link: 'armed', bridge: 'following', faultMessage: '', isAtRest: false, temperaturesC: {} };
    return { ...shared, state, timeNs, faultCode, counts: { cycles: 5, expired: 0 } };
  }

  cache() {
    return { capacity: 100, valid: 30, committed: 20, predicted: 10, checksum: '' };
  }

  async decode(): Promise<DecodedVideo> {
    this.decodes++;
    return Array.from({ length: 5 }, (_, index) => frame('imagined', 16, index)) as unknown as DecodedVideo;
  }
}

async function open(t: Test, change: Readonly<Record<string, unknown>> = {}) {
  const notices: string[] = [];
  const parts = { onNotice: (text: string) => void notices.push(text), onWarning: () => undefined };
  const page = await openDashboard(configOf({ dashboard: { viewer_rate_hz: 30, ...change } }), parts, { pageDir });
  if (page) t.teardown(() => page.close());
  return { page: page as Observer, notices, url: /http:\S+\//.exec(notices[0] ?? '')?.[0] ?? '' };
}

const transition = (from: State, to: State, reason: string): CycleEvent => ({
  type: 'state',
  transition: { from, to, trigger: 'start', reason, atMs: 0 },
});

t.test('it is served where and to whom the configuration says', async (t) => {
  const off = await open(t, { enabled: false });
  t.same([off.page, off.notices], [undefined, []]);
  const file = join(t.testdir(), 'token');
  writeFileSync(file, TOKEN);
  const guarded = await open(t, { token_file: file });
  t.match(guarded.notices, [/^Status page: http:\/\/127\.0\.0\.1:\d+\/\?token=\.\.\. \(the token is in /]);
  t.notMatch(guarded.notices[0], TOKEN);
  t.equal((await fetch(guarded.url)).status, 401);
  const parts = { onNotice: () => undefined, onWarning: () => undefined };
  t.match(await errorOf(openDashboard(configOf({ dashboard: { host: '0.0.0.0' } }), parts)), { code: 'DASHBOARD_ADDRESS' });
  t.match(await errorOf(openDashboard(configOf({ dashboard: { token_file: '/nowhere' } }), parts)), { code: 'DASHBOARD_TOKEN' });
});

t.test('what a viewer is told, from loading to the end', async (t) => {
  const { page, url } = await open(t);
  const viewer = await TestViewer.open(url);
  await viewer.until(() => viewer.ticks.length > 0);
  t.match(viewer.messages[0], { type: 'hello', run: null });
  t.match(viewer.last?.state, { phase: 'opening', state: 'disarmed', stream: 'unknown', cache: { capacity: 0 } });
  const control = new FakeControl();
  await page.begin(aboutOf(), control);
  await viewer.until(() => viewer.last?.state.phase === 'running');
  const hello = viewer.messages.filter(({ type }) => type === 'hello').at(-1);
  t.match(hello, {
    run: { id: 'run-1', chunkS: 0.64, imagines: true, imaginedParts: 'cameras', cameras: [{ label: 'cam_front', isUsed: true }, {}] },
  });
  control.state = 'fault';
  control.timeNs = 2_000_000_000n;
  page.event({ type: 'warning', error: new PremotorError('JOURNAL_FULL', 'It is full.') }, 1_000_000_000n);
  page.event({ type: 'cycle', event: transition('running', 'fault', 'CAMERA_FROZEN: The camera hangs.') }, 2_000_000_000n);
  await viewer.until(() => viewer.ticks.some(({ faults }) => faults?.length === 2));
  t.match(viewer.ticks.findLast(({ faults }) => faults)?.faults, [
    { kind: 'fault', code: 'CAMERA_FROZEN', message: 'The camera hangs.', timeS: 2, count: 1, remedy: /\w/ },
    { kind: 'warning', code: 'JOURNAL_FULL', remedy: /\w/ },
  ]);
  t.match(viewer.last?.state, { state: 'fault', timeS: 2, cache: { capacity: 100, committed: 20, predicted: 10 }, counts: { cycles: 5 } });
  const late = await TestViewer.open(url);
  await late.until(() => late.ticks.length > 0);
  t.equal(late.ticks[0]?.faults?.length, 2, 'a viewer that comes later is told everything');
  await page.end(undefined);
  await viewer.until(() => viewer.last?.state.phase === 'ended');
  const closed = new Promise((resolve) => viewer.socket.once('close', resolve));
  await page.close();
  await closed;
  t.equal(viewer.messages.at(-1)?.type, 'bye');
  await page.close();
});

t.test('a fault that only the stream knows is found when somebody looks', async (t) => {
  const { page, url } = await open(t);
  const control = new FakeControl();
  await page.begin(aboutOf(), control);
  control.faultCode = 'STREAM_GAP';
  const viewer = await TestViewer.open(url);
  await viewer.until(() => viewer.ticks.some(({ faults }) => (faults?.length ?? 0) > 0));
  t.match(viewer.ticks.findLast(({ faults }) => faults)?.faults, [{ kind: 'fault', code: 'STREAM_GAP', remedy: /\w/ }]);
});

t.test('motion comes once, in order, to each viewer', async (t) => {
  const { page, url } = await open(t);
  await page.begin(aboutOf(), new FakeControl());
  const [setpointRad, positionsRad, velocitiesRadPerS] = [new Float64Array(4).fill(0.5), new Float64Array(4).fill(0.4), new Float64Array(4)];
  const move = (fromMs: number, toMs: number): void => {
    for (let ms = fromMs; ms < toMs; ms += 2) page.motion({ timeNs: BigInt(ms) * 1_000_000n, setpointRad, positionsRad, velocitiesRadPerS });
  };
  move(0, 1000);
  const viewer = await TestViewer.open(url);
  const times = (): number[] => viewer.ticks.flatMap(({ motion }) => motion?.timesS ?? []);
  await viewer.until(() => times().length >= 19);
  move(1000, 2000);
  await viewer.until(() => times().length >= 39);
  t.same(
    times(),
    Array.from({ length: 39 }, (_, index) => index * 0.05).map((time, index) => times()[index] && Math.round(time * 1000) / 1000),
  );
  t.same(
    viewer.ticks.find(({ motion }) => motion)?.motion?.joints[3]?.map((column) => column[0]),
    [0.5, 0.5, 0.5, 0.4, 0.4, 0.4],
  );
});

t.test('a stop is passed on, and answered; before the robot runs it is kept', async (t) => {
  const early = await open(t);
  const control = new FakeControl();
  t.equal((await fetch(`${early.url}stop`, { method: 'POST' })).status, 202);
  await early.page.begin(aboutOf(), control);
  t.same(control.stops, [], 'nothing moves yet');
  early.page.event({ type: 'cycle', event: transition('disarmed', 'armed', 'ready') }, 0n);
  early.page.event({ type: 'cycle', event: transition('armed', 'running', 'go') }, 0n);
  t.same(control.stops, [], 'not from inside the transition');
  await Promise.resolve();
  t.same(control.stops, [STOP_REASON]);

  const { page, url } = await open(t);
  const running = new FakeControl();
  await page.begin(aboutOf(), running);
  const [one, other] = [await TestViewer.open(url), await TestViewer.open(url)];
  one.send('{"type":"stop"}');
  await Promise.all([one, other].map((viewer) => viewer.until(() => viewer.messages.some(({ type }) => type === 'stopping'))));
  t.same(running.stops, [STOP_REASON]);
  await other.until(() => other.last?.state.stop.phase === 'asked');
});

t.test('for nobody nothing is asked, compressed or decoded', async (t) => {
  const { page, url } = await open(t);
  const control = new FakeControl();
  const about = aboutOf();
  await page.begin(about, control);
  const [front, wrist] = about.cameras.map(({ camera }) => camera) as [string, string];
  const observation = [frame(front, 8, 0), frame(wrist, 8, 0)];
  const begin: CycleEvent = { type: 'started', prompt: 'x', chunks: 2, observation, positionsRad: new Float64Array(4) };
  const timing = { encodeMs: 0, videoMs: 0, actionMs: 0, commitMs: 0, imagineMs: 0, totalMs: 0, videoPasses: 0, actionPasses: 0 };
  const predicted: CycleEvent = { type: 'predicted', chunk: 0, frameIndex: 0, latents: tensor([1, 48, 2, 6, 12]), timing };
  page.event({ type: 'cycle', event: begin }, 0n);
  page.event({ type: 'frames', frames: observation }, 0n);
  const asked = control.statusCalls;
  page.event({ type: 'cycle', event: transition('armed', 'running', 'go') }, 0n);
  page.event({ type: 'frames', frames: observation }, 0n);
  t.equal(control.statusCalls, asked, 'the robot is not asked');
  page.event({ type: 'cycle', event: predicted }, 0n);
  t.equal(control.decodes, 0);

  const viewer = await TestViewer.open(url);
  await viewer.until(() => viewer.pictures.length === 2);
  t.same(viewer.kinds(), ['live 0', 'live 1']);
  page.event({ type: 'cycle', event: predicted }, 0n);
  await viewer.until(() => viewer.kinds().length === 4);
  t.equal(control.decodes, 1);
  const imagined = viewer.pictures.find(({ head }) => head.kind === 'imagined' && head.camera === 1);
  const { width, height, format } = await sharp(imagined?.jpeg).metadata();
  t.same([width, height, format], [8, 6, 'jpeg'], "each camera's part of the imagined picture");

  viewer.send('{"type":"look","visible":false}');
  const second = await TestViewer.open(url);
  await second.until(() => second.kinds().length === 4);
  second.socket.close();
  await new Promise((resolve) => second.socket.once('close', resolve));
  const before = control.decodes;
  page.event({ type: 'cycle', event: predicted }, 0n);
  t.equal(control.decodes, before, 'a page behind another page is nobody');
});

t.test('in an asynchronous mode the engine is never asked for pictures', async (t) => {
  const { page, url } = await open(t);
  const control = new FakeControl();
  await page.begin(aboutOf('async-grounded'), control);
  const viewer = await TestViewer.open(url);
  await viewer.until(() => viewer.ticks.length > 0);
  t.match(viewer.messages[0], { run: { imagines: false } });
  const timing = { encodeMs: 0, videoMs: 0, actionMs: 0, commitMs: 0, imagineMs: 0, totalMs: 0, videoPasses: 0, actionPasses: 0 };
  page.event({ type: 'cycle', event: { type: 'predicted', chunk: 0, frameIndex: 0, latents: tensor([1, 48, 2, 6, 12]), timing } }, 0n);
  t.equal(control.decodes, 0);
  page.event({ type: 'imagined', frame: frame('imagined', 16, 1), timeNs: 3n }, 3n);
  await viewer.until(() => viewer.kinds().length === 2);
  t.same(viewer.kinds(), ['imagined 0', 'imagined 1'], 'but what is told after the episode is shown');
});

t.test('an engine that is slow to decode is left alone for some chunks', async (t) => {
  const { page, url } = await open(t);
  const control = new FakeControl();
  let finish: () => void = () => undefined;
  control.decode = () => {
    control.decodes++;
    return new Promise((_, reject) => (finish = () => reject(new PremotorError('ABORTED', 'The cycle needed the engine.'))));
  };
  const about = { ...aboutOf('sync', 'real'), actionRateHz: 1e6 };
  await page.begin(about, control);
  const viewer = await TestViewer.open(url);
  const timing = { encodeMs: 0, videoMs: 0, actionMs: 0, commitMs: 0, imagineMs: 0, totalMs: 0, videoPasses: 0, actionPasses: 0 };
  const predicted: CycleEvent = { type: 'predicted', chunk: 0, frameIndex: 2, latents: tensor([1, 48, 2, 6, 12]), timing };
  const predict = async (): Promise<number> => {
    page.event({ type: 'cycle', event: predicted }, 0n);
    await viewer.until(() => viewer.ticks.length > 0);
    return control.decodes;
  };
  t.equal(await predict(), 1);
  t.equal(await predict(), 1, 'never two at once');
  finish();
  await new Promise((resolve) => setImmediate(resolve));
  const asked: number[] = [];
  for (let chunk = 0; chunk < 9; chunk++) asked.push(await predict());
  t.same(asked, [1, 1, 1, 1, 1, 1, 1, 1, 2]);
});

/** Runs a real episode; hashes every motion sample. */
async function motionOf(config: RobotConfig, isLookedAt: boolean) {
  const hash = createHash('sha256');
  const recorder: Observer = {
    name: 'telemetry',
    begin: async () => undefined,
    event: () => undefined,
    motion: ({ timeNs, setpointRad, positionsRad, velocitiesRadPerS }: MotionSample) => {
      hash.update(`${timeNs}`);
      for (const values of [setpointRad, positionsRad, velocitiesRadPerS])
        hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    },
    end: async () => undefined,
    close: async () => undefined,
  };
  const viewers: TestViewer[] = [];
  const { summary } = await runEpisode(config, {
    loadPolicy,
    signal: new AbortController().signal,
    observer: silentObserver(),
    openObservers: (given, parts) =>
      Observers.open(given, parts, [
        async () => recorder,
        async () => {
          let url = '';
          const onNotice = (text: string): void => void (url = /http:\S+\//.exec(text)?.[0] ?? '');
          const page = await openDashboard(given, { ...parts, onNotice }, { pageDir });
          if (page && isLookedAt) viewers.push(await TestViewer.open(url));
          return page;
        },
      ]),
  });
  return { hash: hash.digest('hex'), summary, viewer: viewers[0] };
}

t.test('the motion is the same bit for bit: without the page, with it, and with somebody who looks', async (t) => {
  const dir = t.testdir();
  const checkpoint = join(dir, 'checkpoint');
  await writeUntrainedCheckpoint(checkpoint, { texts: [taskNamed('touch').scene(3).instruction] });
  const config = (enabled: boolean) =>
    configOf({
      task: { name: 'touch', seed: 3 },
      policy: { checkpoint_dir: checkpoint, threads: 1 },
      control: { chunks_max: 2, action_outside_max_rad: 1000, action_jump_max_rad: 1000 },
      recording: { out_dir: join(dir, 'out'), animation: false, replay: false },
      dashboard: { enabled, viewer_rate_hz: 30 },
    });
  const off = await motionOf(config(false), false);
  const idle = await motionOf(config(true), false);
  const looked = await motionOf(config(true), true);
  t.same(
    [off, idle, looked].map(({ summary }) => [summary.outcome, summary.chunks.length]),
    Array(3).fill(['finished', 2]),
  );
  t.equal(idle.hash, off.hash, 'with the page');
  t.equal(looked.hash, off.hash, 'with somebody who looks');
  const kinds = looked.viewer?.kinds() ?? [];
  t.ok(kinds.includes('imagined 0') && kinds.includes('live 0'), `the viewer saw ${kinds}`);
  t.ok((looked.viewer?.ticks.flatMap(({ motion }) => motion?.timesS ?? []).length ?? 0) > 10, 'and the motion');
});
