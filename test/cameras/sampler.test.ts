/** Observations at a moment: which frame of each camera is taken, what age and skew are reported, and what is refused. */
import t from 'tap';
import { CameraSampler, type Sample, type SamplerOptions } from '../../src/cameras/sampler.js';
import type { FrameSource } from '../../src/cameras/source.js';
import type { Frame } from '../../src/policy/contract.js';

const MS = 1_000_000n;
const frame = (camera: string, capturedAtMs: number, change: Partial<Frame> = {}): Frame => ({
  camera,
  width: 2,
  height: 1,
  data: new Uint8Array(6),
  capturedAtNs: BigInt(Math.round(capturedAtMs * 1e6)),
  ...change,
});

/** A source that gives whatever the test puts into `frames`. */
class ScriptedSource implements FrameSource {
  readonly cameras = ['b', 'spare', 'a'].map((camera) => ({ camera, width: 2, height: 1 }));
  frames: readonly Frame[] = [];
  history?: () => readonly Frame[];
  async capture(): Promise<readonly Frame[]> {
    return this.frames;
  }
  async close(): Promise<void> {}
}

function rig(options: Partial<SamplerOptions> = {}) {
  const source = new ScriptedSource();
  const sampler = new CameraSampler({ source, keys: ['a', 'b'], ageMaxNs: 100n * MS, skewMaxNs: 50n * MS, ...options });
  /** Puts frames before the cameras and asks for a moment; the present is `nowMs`. */
  const ask = (momentMs: number, frames: readonly Frame[], nowMs = momentMs): Promise<Sample> => {
    source.frames = frames;
    return sampler.sampleAt(BigInt(momentMs) * MS, async () => BigInt(nowMs) * MS);
  };
  return { source, sampler, ask };
}

t.test('frames come in the order of the keys; others are dropped, however bad they are', async (t) => {
  const [b, spare, a] = [frame('b', 10), frame('spare', 9000), frame('a', 10)];
  const { frames } = await rig().ask(15, [b, spare, a]);
  t.equal(frames.length, 2);
  t.equal(frames[0], a);
  t.equal(frames[1], b);
});

t.test('of every camera the newest frame at or before the moment', async (t) => {
  const { ask } = rig({ skewMaxNs: 80n * MS });
  await ask(80, [frame('a', 80), frame('b', 78)]);
  const sample = await ask(160, [frame('a', 165), frame('b', 160)], 170);
  t.same(
    sample.frames.map(({ capturedAtNs }) => capturedAtNs / MS),
    [80n, 160n],
    'the newer frame of camera a was captured after the moment',
  );
});

t.test('age and skew are reported', async (t) => {
  const { ask } = rig();
  const { ageNsMax, skewNs } = await ask(100, [frame('a', 97), frame('b', 90.5)]);
  t.same([ageNsMax, skewNs], [9_500_000n, 6_500_000n]);
  const exact = await ask(100, [frame('a', 100), frame('b', 100)]);
  t.same([exact.ageNsMax, exact.skewNs], [0n, 0n]);
});

t.test('age is judged to the nanosecond', async (t) => {
  await t.resolves(rig().ask(200, [frame('a', 100), frame('b', 120)]), 'exactly as old as allowed');
  await t.rejects(rig().ask(200, [frame('a', 120), frame('b', 99.999999)]), {
    code: 'CAMERA_FRAME_STALE',
    message: /Camera b .*Check its cable/,
    expected: 'a frame at most 100 ms old',
    found: '100.000001 ms',
  });
});

t.test('skew is judged to the nanosecond, and both cameras are named', async (t) => {
  await t.resolves(rig().ask(100, [frame('a', 50), frame('b', 100)]));
  await t.rejects(rig().ask(100, [frame('a', 49.999999), frame('b', 100)]), {
    code: 'CAMERA_SKEW',
    message: /a and b/,
    expected: 'captures at most 50 ms apart',
    found: '50.000001 ms',
  });
});

t.test("a clock that is not the robot's is noticed", async (t) => {
  const future = { code: 'CAMERA_CLOCK', message: /a stamped a frame in the future/, expected: '100000000 ns', found: /100000001/ };
  await t.rejects(rig().ask(100, [frame('a', 100.000001), frame('b', 100)]), { ...future, expected: 'at most 100000000 ns' });
  await t.rejects(rig().ask(100, [frame('a', 105), frame('b', 100)], 110), { code: 'CAMERA_CLOCK', message: /no frame as early/ });
});

t.test('a camera that gives no frame is named, also when it gave one before', async (t) => {
  const { ask } = rig();
  await ask(10, [frame('a', 10), frame('b', 10)]);
  await t.rejects(ask(20, [frame('a', 20), frame('spare', 20)]), { code: 'CAMERA_MISSING', message: /camera b/, found: 'a, spare' });
  await t.rejects(ask(20, []), { code: 'CAMERA_MISSING', found: 'no frames' });
  t.throws(() => rig({ keys: ['a', 'c'] }), { code: 'CAMERA_MISSING', message: /called c/ });
});

t.test('a frame must have the bytes of its size, and the size of its camera', async (t) => {
  const short = frame('a', 10, { data: new Uint8Array(5) });
  await t.rejects(rig().ask(10, [short, frame('b', 10)]), { code: 'CAMERA_FRAME_SIZE', expected: '6 bytes', found: '5 bytes' });
  const large = frame('a', 10, { width: 4, data: new Uint8Array(12) });
  await t.rejects(rig().ask(10, [large, frame('b', 10)]), { code: 'CAMERA_FRAME_SIZE', expected: '2 x 1', found: '4 x 1' });
});

t.test('a source with a history is looked through; only a few frames are kept', async (t) => {
  const { source, ask } = rig();
  source.history = () => Array.from({ length: 20 }, (_, index) => [frame('a', 5 * index), frame('b', 5 * index)]).flat();
  const { frames } = await ask(62, [frame('a', 95), frame('b', 95)], 95);
  t.same(
    frames.map(({ capturedAtNs }) => capturedAtNs / MS),
    [60n, 60n],
  );
  await t.rejects(ask(50, [frame('a', 95), frame('b', 95)], 95), { code: 'CAMERA_CLOCK' }, 'older ones are gone');
});

t.test('after clear the clock may begin anew', async (t) => {
  const { sampler, ask } = rig();
  await ask(500, [frame('a', 500), frame('b', 500)]);
  sampler.clear();
  const { frames } = await ask(0, [frame('a', 0), frame('b', 0)]);
  t.same(
    frames.map(({ capturedAtNs }) => capturedAtNs),
    [0n, 0n],
  );
});
