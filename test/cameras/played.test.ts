/** Pictures on the robot's clock: which picture belongs to which time, what happens at the end, and when the clock goes back. */
import t from 'tap';
import { type PictureList, PlayedCamera } from '../../src/cameras/played.js';
import { failureOf, MS, picture, samplerOf, TestClock } from './rig.js';

/** Picture n has the value n; `asked` counts decodings. */
function numbered(count: number): PictureList & { asked: number[] } {
  const asked: number[] = [];
  return {
    count,
    width: 2,
    height: 1,
    asked,
    picture: async (index) => {
      asked.push(index);
      return picture(2, 1, index);
    },
  };
}

function played(count: number, { rateHz = 12.5, loops = true } = {}) {
  const clock = new TestClock({ isReal: false });
  const pictures = numbered(count);
  const camera = new PlayedCamera(pictures, { camera: 'eye', rateHz, loops, clock });
  const at = async (timeMs: number): Promise<[number | undefined, number]> => {
    clock.timeNs = BigInt(Math.round(timeMs * 1e6));
    const [frame] = await camera.capture();
    return [frame?.data[0], Number(frame?.capturedAtNs) / 1e6];
  };
  return { clock, camera, pictures, at };
}

t.test('picture n is taken at n / rate of the robot, whoever asks and when', async (t) => {
  const { at, camera } = played(5);
  t.same(camera.cameras, [{ camera: 'eye', width: 2, height: 1 }]);
  const expected: [number, [number, number]][] = [
    [0, [0, 0]],
    [79.999, [0, 0]],
    [80, [1, 80]],
    [170, [2, 160]],
    [399, [4, 320]],
    [400, [0, 400]],
    [1000, [2, 960]],
  ];
  for (const [timeMs, want] of expected) t.same(await at(timeMs), want, `${timeMs} ms`);
});

t.test('equal times give equal frames, also for rates that do not divide a second', async (t) => {
  const [one, other] = [played(7, { rateHz: 29.97 }), played(7, { rateHz: 29.97 })];
  for (let timeMs = 0; timeMs < 2000; timeMs += 33.4) {
    const [value, stampMs] = await one.at(timeMs);
    t.same([value, stampMs], await other.at(timeMs));
    if (stampMs > timeMs || timeMs - stampMs > 1000 / 29.97 + 1e-6) t.fail(`a frame of ${stampMs} ms at ${timeMs} ms`);
  }
});

t.test('pictures are decoded once, and the one before is there for who looks back', async (t) => {
  const { at, camera, pictures, clock } = played(50);
  await at(800);
  await at(810);
  t.same(pictures.asked, [9, 10]);
  t.same(
    camera.history().map(({ capturedAtNs }) => capturedAtNs / MS),
    [720n, 800n],
  );
  for (let timeMs = 880; timeMs < 2000; timeMs += 80) await at(timeMs);
  t.equal(camera.history().length, 4, 'no more than four are kept');
  const sample = samplerOf(camera, ['eye']);
  t.equal((await sample(clock.timeNs)).frames.length, 1);
});

t.test('a clock that begins anew begins the pictures anew', async (t) => {
  const { at, camera, clock } = played(50);
  await at(800);
  t.same(await at(0), [0, 0]);
  t.ok(
    camera.history().every(({ capturedAtNs }) => capturedAtNs <= clock.timeNs),
    'nothing of the future is left',
  );
});

t.test('without a loop the last picture gets old, and is refused', async (t) => {
  const { at, camera, clock } = played(3, { loops: false });
  const sample = samplerOf(camera, ['eye']);
  t.same(await at(160), [2, 160]);
  t.same(await at(250), [2, 160]);
  t.equal((await sample(clock.timeNs)).ageNsMax, 90n * MS);
  await at(261);
  t.match(await failureOf(() => sample(clock.timeNs)), { code: 'CAMERA_FRAME_STALE', message: /eye/ });
});

t.test('what cannot be decoded is an error of the capture', async (t) => {
  const { camera, pictures, at } = played(3);
  pictures.picture = async () => {
    throw new Error('broken');
  };
  await t.rejects(at(0), { message: 'broken' });
  await camera.close();
  await camera.close();
});
