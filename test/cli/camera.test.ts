/** `premotor camera list` and `camera show`: with a camera of a script, and with the machine as it is. What a kernel's camera gives is in test/vm. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import t from 'tap';
import { describeOffer, runList, videoDevices } from '../../src/cli/camera.js';
import { runCli } from '../../src/cli/main.js';
import { loadNative, type NativeCamera, type NativeCameraFrame, type NativeCameraOptions } from '../../src/native.js';
import { fakeContext } from './fakes.js';

const real = loadNative();

/** A camera that has taken twenty pictures when it is opened, each brighter than the one before. */
class Twenty implements NativeCamera {
  static opened: NativeCameraOptions | undefined;
  static closed = 0;
  #taken = 1;
  async open(options: NativeCameraOptions): Promise<void> {
    Twenty.opened = options;
  }
  agreed() {
    return { format: 'yuyv' as const, width: 4, height: 2, rateHz: 29.97, card: 'Twenty' };
  }
  frames(after: number): NativeCameraFrame[] {
    const numbers = Array.from({ length: this.#taken }, (_, index) => index + 1).slice(-4);
    return numbers
      .filter((number) => number > after)
      .map((number) => ({ number, sequence: number, capturedNs: BigInt(number), data: new Uint8Array(24).fill(10 * number) }));
  }
  async wait(): Promise<void> {
    this.#taken = Math.min(20, this.#taken + 1);
  }
  counts() {
    return { frames: this.#taken, damaged: 0, dropped: 0, backwards: 0, timeouts: 0 };
  }
  check(): void {}
  async close(): Promise<void> {
    Twenty.closed++;
  }
}

async function run(argv: readonly string[], native = real) {
  const { out, err, context } = fakeContext({ loadNative: () => native });
  const code = await runCli(['camera', ...argv], context);
  return { code, out: out.text, err: err.text };
}

t.test('show takes a picture after the camera has settled', async (t) => {
  const native = Object.assign(Object.create(real) as typeof real, { Camera: Twenty });
  const path = join(t.testdir({}), 'eye.png');
  const { code, out, err } = await run(['show', '/dev/video0', '-o', path, '--size', '4x2', '--rate', '30', '--format', 'yuyv'], native);
  t.same([code, err], [0, '']);
  t.equal(out, `${path}: 4 x 2, yuyv at 29.97 Hz, Twenty\n`);
  t.same(Twenty.opened, { path: '/dev/video0', width: 4, height: 2, rateHz: 30, format: 'yuyv' });
  const { data } = await sharp(readFileSync(path)).raw().toBuffer({ resolveWithObject: true });
  t.equal(data[0], 120, 'ten after the second, at which it was found to work');
  t.equal(Twenty.closed, 1);
  const json = await run(['show', '/dev/video0', '-o', path, '--json'], native);
  t.match(JSON.parse(json.out), { file: path, width: 4, height: 2, format: 'yuyv', card: 'Twenty', counts: { undecodable: 0 } });
  t.same(Twenty.opened, { path: '/dev/video0', width: 0, height: 0, rateHz: 0 }, 'what is not said is the camera’s own');
});

t.test('what goes wrong with show', async (t) => {
  const missing = await run(['show', '/dev/video-none', '--json']);
  t.equal(missing.code, 1);
  t.match(JSON.parse(missing.out), { error: { code: 'CAMERA_DEVICE_MISSING', file: '/dev/video-none' } });
  for (const wrong of [
    ['show', '/dev/video0', '--size', '640'],
    ['show', '/dev/video0', '--size', '0x5'],
    ['show', '/dev/video0', '--rate', 'fast'],
    ['show', '/dev/video0', '--format', 'nv12'],
    ['show'],
    [],
  ])
    t.equal((await run(wrong)).code, 2, wrong.join(' '));
});

t.test('list shows devices in the order of their numbers, and what is no camera with its error', async (t) => {
  const folder = t.testdir({ video10: '', video2: '', video0: '', 'video-x': '', vbi0: '' });
  t.same(
    videoDevices(folder),
    ['video0', 'video2', 'video10'].map((name) => join(folder, name)),
  );
  const { out, context } = fakeContext({ loadNative: () => real });
  await runList({ json: false }, context, folder);
  t.match(out.text.split('\n'), [/video0 {2}CAMERA_DEVICE: /, /video2 /, /video10 /, '']);
  const none = fakeContext({ loadNative: () => real });
  await runList({ json: false }, none.context, join(folder, 'nothing'));
  t.match(none.out.text, /^No camera: .*docs\/CAMERAS\.md/);
  writeFileSync(join(folder, 'other'), '');
  const { code, out: json, err } = await run(['list', '--json']);
  t.same([code, err], [0, '']);
  t.ok(Array.isArray(JSON.parse(json).cameras), 'this machine, whatever it has');
});

t.test('a device in words', (t) => {
  const text = describeOffer({
    path: '/dev/video0',
    card: 'Webcam',
    driver: 'uvcvideo',
    bus: 'usb-1',
    isCapture: true,
    formats: [
      { code: 'MJPG', description: 'Motion-JPEG', sizes: [{ width: 640, height: 480, isRange: false, ratesHz: [30, 14.985] }] },
      { code: 'H264', description: 'H.264', sizes: [{ width: 1920, height: 1080, isRange: true, ratesHz: [] }] },
    ],
  });
  t.equal(
    text,
    '/dev/video0  Webcam (uvcvideo)\n  MJPG  Motion-JPEG\n        640x480 at 30, 14.98 Hz\n  H264  H.264 (not used)\n        up to 1920x1080',
  );
  t.equal(
    describeOffer({ path: '/dev/video1', card: 'Webcam', driver: 'uvcvideo', bus: '', isCapture: false, formats: [] }),
    '/dev/video1  Webcam (uvcvideo): no pictures',
  );
  t.end();
});
