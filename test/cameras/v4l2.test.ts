/**
 * The Linux camera above its driver: decoding, stamps on the robot's clock, a camera that freezes or is pulled out. The addon's camera is replaced by
 * a script here; the addon itself is tested in test/cpp/camera_test.cpp, and against a kernel in test/vm.
 */
import sharp from 'sharp';
import t, { type Test } from 'tap';
import { V4l2Camera } from '../../src/cameras/v4l2.js';
import { loadNative, type NativeCamera, type NativeCameraFrame, type NativeCameraModule, type NativeCameraOptions } from '../../src/native.js';
import { failureOf, MS, picture, samplerOf, TestClock } from './rig.js';

class ScriptedCamera implements NativeCamera {
  static last: ScriptedCamera | undefined;
  static first: NativeCameraFrame | undefined;
  static format: 'mjpeg' | 'yuyv' = 'yuyv';
  static failing: string | undefined;
  kept: NativeCameraFrame[] = [];
  problem: string | undefined;
  closed = 0;
  options: NativeCameraOptions | undefined;

  constructor() {
    ScriptedCamera.last = this;
  }
  async open(options: NativeCameraOptions): Promise<void> {
    this.options = options;
    if (ScriptedCamera.failing !== undefined) throw Object.assign(new Error('no'), { code: ScriptedCamera.failing });
    if (ScriptedCamera.first) this.kept.push(ScriptedCamera.first);
  }
  agreed() {
    return { format: ScriptedCamera.format, width: 4, height: 2, rateHz: 30, card: 'Script' };
  }
  frames(after: number): NativeCameraFrame[] {
    return this.kept.slice(-4).filter(({ number }) => number > after);
  }
  async wait(): Promise<void> {}
  counts() {
    return { frames: this.kept.length, damaged: 0, dropped: 0, backwards: 0, timeouts: 0 };
  }
  check(): void {
    if (this.problem !== undefined) throw Object.assign(new Error('gone'), { code: this.problem, file: '/dev/video9' });
  }
  async close(): Promise<void> {
    this.closed++;
  }
}

const native: NativeCameraModule = {
  Camera: ScriptedCamera,
  lookAtCamera: async () => {
    throw new Error('not asked for');
  },
};

const frame = (number: number, ms: number, data: Uint8Array): NativeCameraFrame => ({ number, sequence: number, capturedNs: BigInt(ms) * MS, data });
const rgb = (number: number, ms: number, value: number): NativeCameraFrame => frame(number, ms, picture(4, 2, value).data);

/** The machine's clock is 1000 ms ahead of the robot's. */
async function opened(t: Test, first = rgb(1, 1000, 1), format: 'mjpeg' | 'yuyv' = 'yuyv') {
  Object.assign(ScriptedCamera, { first, format, failing: undefined });
  const clock = new TestClock({ offsetNs: 1000n * MS });
  const camera = await V4l2Camera.open({ camera: 'eye', device: '/dev/video9', width: 4, height: 2, rateHz: 30, clock, native });
  t.teardown(() => camera.close());
  return { camera, clock, script: ScriptedCamera.last as ScriptedCamera };
}

t.test('frames of the thread, on the robot’s clock', async (t) => {
  const { camera, clock, script } = await opened(t);
  t.same(script.options, { path: '/dev/video9', width: 4, height: 2, rateHz: 30 });
  t.same(camera.cameras, [{ camera: 'eye', width: 4, height: 2 }]);
  t.match(await camera.capture(), [{ camera: 'eye', width: 4, height: 2, capturedAtNs: 0n }]);
  for (let number = 2; number <= 20; number++) script.kept.push(rgb(number, 970 + 30 * number, number));
  clock.timeNs = 2000n * MS;
  t.match(await camera.capture(), [{ data: new Uint8Array(24).fill(20), capturedAtNs: 570n * MS }], 'the newest');
  t.same(
    camera.history().map(({ capturedAtNs }) => capturedAtNs / MS),
    [0n, 480n, 510n, 540n, 570n],
    'and those that the thread still had',
  );
  clock.timeNs = 550n * MS;
  t.match(await camera.capture(), [{ capturedAtNs: 540n * MS }], 'none before the robot’s clock has reached it');
});

t.test('MJPEG is decoded; what is cut off on the way is counted and left out', async (t) => {
  const jpeg = async (value: number) =>
    new Uint8Array(
      await sharp(Buffer.from(picture(4, 2, value).data), { raw: { width: 4, height: 2, channels: 3 } })
        .jpeg({ quality: 100 })
        .toBuffer(),
    );
  const { camera, clock, script } = await opened(t, frame(1, 1000, await jpeg(50)), 'mjpeg');
  const [first] = await camera.capture();
  t.ok(first?.data.length === 24 && Math.abs((first.data[0] ?? 0) - 50) <= 2);
  script.kept.push(frame(2, 1030, (await jpeg(60)).subarray(0, 40)));
  script.kept.push(frame(3, 1060, await jpeg(70)));
  clock.timeNs = 100n * MS;
  const [next] = await camera.capture();
  t.ok(Math.abs((next?.data[0] ?? 0) - 70) <= 2 && next?.capturedAtNs === 60n * MS);
  t.equal(camera.counts().undecodable, 1);
  const [one, other] = await Promise.all([camera.capture(), camera.capture()]);
  t.same(one, other, 'two who ask at once decode once');
});

t.test('a camera that freezes: its frame gets old and is refused', async (t) => {
  const { camera, clock, script } = await opened(t);
  const sample = samplerOf(camera, ['eye']);
  clock.timeNs = 100n * MS;
  t.equal((await sample(clock.timeNs)).ageNsMax, 100n * MS);
  clock.timeNs = 101n * MS;
  t.match(await failureOf(() => sample(clock.timeNs)), { code: 'CAMERA_FRAME_STALE', message: /eye/ });
  script.kept.push(rgb(2, 1101, 9));
  t.equal((await sample(clock.timeNs)).frames[0]?.data[0], 9, 'and goes on when it goes on');
});

t.test('a camera that is pulled out says so, at once', async (t) => {
  const { camera, clock, script } = await opened(t);
  const sample = samplerOf(camera, ['eye']);
  await sample(clock.timeNs);
  script.problem = 'CAMERA_UNPLUGGED';
  t.match(await failureOf(() => sample(clock.timeNs)), { code: 'CAMERA_UNPLUGGED', file: '/dev/video9' });
});

t.test('opening fails whole', async (t) => {
  Object.assign(ScriptedCamera, { first: undefined, format: 'yuyv', failing: undefined });
  const open = () => V4l2Camera.open({ camera: 'eye', device: '/dev/video9', clock: new TestClock(), native });
  t.match(await failureOf(open), { code: 'CAMERA_SILENT', file: '/dev/video9', field: 'eye' });
  t.equal(ScriptedCamera.last?.closed, 1, 'and is closed again');
  ScriptedCamera.failing = 'CAMERA_DEVICE_BUSY';
  t.match(await failureOf(open), { code: 'CAMERA_DEVICE_BUSY' });
});

t.test('the real addon: no device, no camera', async (t) => {
  const real = loadNative();
  const open = (device: string) => failureOf(() => V4l2Camera.open({ camera: 'eye', device, clock: new TestClock(), native: real }));
  t.match(await open('/dev/video-none'), { code: 'CAMERA_DEVICE_MISSING', file: '/dev/video-none', found: /No such file/ });
  t.match(await open('/dev/null'), { code: 'CAMERA_DEVICE', file: '/dev/null' });
  const camera = new real.Camera();
  t.same(camera.frames(0), []);
  await camera.wait(0, 1);
  await camera.close();
  await camera.close();
});
