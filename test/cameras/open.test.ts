/** Which camera comes from where: sources beside the robot's own, what is checked before anything moves, and that a failure leaves nothing open. */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { CombinedCameras } from '../../src/cameras/combined.js';
import { type CameraSources, openCameras, ownCameras } from '../../src/cameras/open.js';
import type { FrameSource } from '../../src/cameras/source.js';
import { type RobotConfig, robotConfigSchema } from '../../src/config/schema.js';
import { loadNative } from '../../src/native.js';
import type { Frame } from '../../src/policy/contract.js';
import { writePng } from '../../src/recording/animation.js';
import { openRig } from '../../src/runtime/rig.js';
import { failureOf, MS, picture, samplerOf, TestClock } from './rig.js';

const FRONT = 'observation.images.cam_front';
const WRIST = 'observation.images.cam_wrist';

function configOf(sources: unknown, robot: Readonly<Record<string, unknown>> = {}): RobotConfig {
  return robotConfigSchema.parse({ robot: { type: 'sim', ...robot }, policy: { checkpoint_dir: '/nowhere' }, cameras: { sources } });
}
const sourcesOf = (sources: unknown): CameraSources => configOf(sources).cameras.sources;

class Fixed implements FrameSource {
  closed = 0;
  readonly cameras;
  constructor(
    readonly names: readonly string[],
    readonly value: number,
  ) {
    this.cameras = names.map((camera) => ({ camera, width: 2, height: 1 }));
  }
  async capture(): Promise<readonly Frame[]> {
    return this.names.map((camera) => ({ camera, ...picture(2, 1, this.value), capturedAtNs: 0n }));
  }
  history(): readonly Frame[] {
    return this.names.map((camera) => ({ camera, ...picture(2, 1, this.value), capturedAtNs: -1n }));
  }
  async close(): Promise<void> {
    this.closed++;
  }
}

t.test('named cameras take the place of the robot’s own, others come behind', async (t) => {
  const own = new Fixed(['a', 'b', 'c'], 1);
  const [shared, single] = [new Fixed(['b', 'x'], 2), new Fixed(['y', 'unasked'], 3)];
  const all = new CombinedCameras(
    own,
    new Map([
      ['b', shared],
      ['x', shared],
      ['y', single],
    ]),
  );
  const names = ['a', 'b', 'c', 'x', 'y'];
  t.same(
    all.cameras.map(({ camera }) => camera),
    names,
  );
  const frames = await all.capture();
  t.same(
    frames.map(({ camera, data }) => [camera, data[0]]),
    [
      ['a', 1],
      ['b', 2],
      ['c', 1],
      ['x', 2],
      ['y', 3],
    ],
  );
  t.same(
    all
      .history()
      .map(({ camera, data }) => `${camera}${data[0]}`)
      .sort(),
    ['a1', 'b2', 'c1', 'x2', 'y3'],
  );
  await all.close();
  t.same([own.closed, shared.closed, single.closed], [1, 1, 1], 'each is closed once');
});

t.test('which cameras the robot itself renders', (t) => {
  const own = [FRONT, WRIST];
  t.same(ownCameras(sourcesOf({}), own), own);
  t.same(ownCameras(sourcesOf({ [FRONT]: { type: 'sim' } }), own), own);
  t.same(ownCameras(sourcesOf({ [FRONT]: { type: 'file', path: 'x' }, other: { type: 'file', path: 'y' } }), own), [WRIST]);
  t.throws(() => ownCameras(sourcesOf({ cam_front: { type: 'sim' } }), own), { code: 'CAMERA_SOURCE', field: 'cameras.sources.cam_front.type' });
  t.end();
});

function partsFor({ isReal = true } = {}) {
  const notices: string[] = [];
  const own = new Fixed([FRONT], 1);
  return { own, clock: new TestClock({ isReal }), rateHz: 12.5, loadNative, onNotice: (text: string) => void notices.push(text), notices };
}

async function folderWith(t: Test, value: number): Promise<string> {
  const folder = t.testdir({});
  await writePng(join(folder, '1.png'), picture(96, 96, value));
  return folder;
}

t.test('what is checked before anything moves', async (t) => {
  const folder = await folderWith(t, 5);
  const refused = (sources: unknown, parts = partsFor()) => failureOf(() => openCameras(sourcesOf(sources), parts));
  for (const type of ['v4l2', 'websocket']) {
    const live = { eye: { type, device: '/dev/video0', width: 4, height: 2 } };
    t.match(await refused(live, partsFor({ isReal: false })), { code: 'CAMERA_PACE', field: 'cameras.sources.eye.type', message: /pace real/ }, type);
  }
  t.match(await refused({ eye: { type: 'v4l2' } }), { code: 'CAMERA_SOURCE', field: 'cameras.sources.eye.device' });
  t.match(await refused({ eye: { type: 'v4l2', device: '/dev/video-none' } }), { code: 'CAMERA_DEVICE_MISSING' });
  t.match(await refused({ eye: { type: 'file' } }), { code: 'CAMERA_SOURCE', field: 'cameras.sources.eye.path' });
  t.match(await refused({ eye: { type: 'mcap' } }), { code: 'CAMERA_SOURCE', field: 'cameras.sources.eye.path' });
  t.match(await refused({ eye: { type: 'mcap', path: '/nowhere' } }), { code: 'CAMERA_RECORDING' });
  t.match(await refused({ eye: { type: 'websocket', width: 4 } }), { code: 'CAMERA_SOURCE', field: 'cameras.sources.eye.height' });
  t.match(await refused({ eye: { type: 'file', path: folder, width: 64 } }), { code: 'CAMERA_FRAME_SIZE', expected: '64 x 96', found: '96 x 96' });
});

t.test('servers: one per port, one for each camera without', async (t) => {
  const parts = partsFor();
  const size = { type: 'websocket', width: 4, height: 2 };
  const source = await openCameras(sourcesOf({ left: size, right: size }), parts);
  t.equal(parts.notices.length, 2);
  const port = Number(/:(\d+)$/.exec(parts.notices[0] ?? '')?.[1]);
  await source.close();
  const shared = partsFor();
  const both = await openCameras(sourcesOf({ left: { ...size, port }, right: { ...size, port } }), shared);
  t.same(shared.notices, [`pictures of left, right are taken at ws://127.0.0.1:${port}`]);
  const late = partsFor();
  const folder = await folderWith(t, 5);
  const failed = await failureOf(() => openCameras(sourcesOf({ film: { type: 'file', path: folder }, left: { ...size, port } }), late));
  t.match(failed, { code: 'CAMERA_PORT' });
  await both.close();
  t.equal(parts.own.closed, 1, 'the robot’s own are closed with the others');
});

t.test('the rig: a folder of pictures beside a simulated camera, on one clock', async (t) => {
  const folder = await folderWith(t, 200);
  const rig = await openRig(configOf({ [FRONT]: { type: 'file', path: folder } }));
  t.teardown(() => rig.close());
  t.same(
    rig.cameras.cameras.map(({ camera }) => camera),
    [WRIST, FRONT],
  );
  await rig.robot.waitUntil(170n * MS);
  const frames = await rig.cameras.capture();
  t.same(
    frames.map(({ camera, capturedAtNs }) => [camera, capturedAtNs / MS]),
    [
      [WRIST, 160n],
      [FRONT, 160n],
    ],
  );
  t.equal(frames[1]?.data[0], 200);
  const { timeNs } = await rig.robot.getState();
  const { frames: seen, skewNs } = await samplerOf(rig.cameras, [FRONT, WRIST])(timeNs);
  t.same([seen.length, skewNs], [2, 0n]);
});

t.test('the rig: all cameras from outside, a simulation in real time, and pictures that are pushed', async (t) => {
  const size = { type: 'websocket', width: 96, height: 96 };
  const rig = await openRig(configOf({ [FRONT]: size, [WRIST]: size }, { pace: 'real' }));
  t.teardown(() => rig.close());
  t.equal(rig.notices.length, 2);
  t.match(rig.notices[0], /ws:\/\/127\.0\.0\.1:\d+$/);
  t.match(await failureOf(() => openRig(configOf({ [FRONT]: size }))), { code: 'CAMERA_PACE' });
  t.match(await failureOf(() => openRig(configOf({ wrong: { type: 'sim' } }))), { code: 'CAMERA_SOURCE' });
  const { WebSocket } = await import('ws');
  const { encodePicture } = await import('../../src/cameras/websocket-message.js');
  const socket = new WebSocket(/ws:.*$/.exec(rig.notices[0] ?? '')?.[0] ?? '');
  await new Promise((resolve) => socket.once('open', resolve));
  const before = (await rig.robot.getState()).timeNs;
  socket.send(encodePicture({ camera: FRONT, format: 'rgb', ...picture(96, 96, 7) }));
  for (let looks = 0; (await rig.cameras.capture()).length === 0 && looks < 500; looks++)
    await rig.robot.waitUntil((await rig.robot.getState()).timeNs + 10n * MS);
  const [frame] = await rig.cameras.capture();
  const { timeNs } = await rig.robot.getState();
  t.ok(
    frame && frame.capturedAtNs >= before - 10n * MS && frame.capturedAtNs <= timeNs,
    `stamped ${frame?.capturedAtNs}, between ${before} and ${timeNs}`,
  );
  socket.terminate();
});
