/** Taking an observation: order, unused cameras, and what is refused. */
import t from 'tap';
import { type FrameSource, observe } from '../../src/cameras/source.js';
import type { Frame } from '../../src/policy/contract.js';

const frame = (camera: string, change: Partial<Frame> = {}): Frame => ({
  camera,
  width: 2,
  height: 1,
  data: new Uint8Array(6),
  capturedAtNs: 1_000n,
  ...change,
});
const source = (...frames: Frame[]): FrameSource => ({
  cameras: frames.map(({ camera, width, height }) => ({ camera, width, height })),
  capture: async () => frames,
  close: async () => undefined,
});
const rules = { keys: ['a', 'b'], nowNs: 1_500n, ageMaxNs: 500n };

t.test('frames come in the order of the keys; others are dropped', async (t) => {
  const [b, spare, a] = [frame('b'), frame('spare', { capturedAtNs: 0n }), frame('a')];
  const seen = await observe(source(b, spare, a), rules);
  t.equal(seen.length, 2);
  t.equal(seen[0], a);
  t.equal(seen[1], b);
});

t.test('a camera that gives no frame is named', async (t) => {
  await t.rejects(observe(source(frame('a'), frame('c')), rules), { code: 'CAMERA_MISSING', message: /camera b/, found: 'a, c' });
  await t.rejects(observe(source(), rules), { code: 'CAMERA_MISSING', found: 'no frames' });
});

t.test('age is judged to the nanosecond', async (t) => {
  await t.resolves(observe(source(frame('a'), frame('b')), rules), 'exactly as old as allowed');
  await t.rejects(observe(source(frame('a'), frame('b', { capturedAtNs: 999n })), rules), { code: 'CAMERA_FRAME_STALE', message: /b/ });
  await t.rejects(observe(source(frame('a', { capturedAtNs: 1_501n }), frame('b')), rules), { code: 'CAMERA_CLOCK', message: /a/ });
});

t.test('a frame must have the bytes that its size says', async (t) => {
  const short = frame('a', { data: new Uint8Array(5) });
  await t.rejects(observe(source(short, frame('b')), rules), { code: 'CAMERA_FRAME_SIZE', expected: '6 bytes', found: '5 bytes' });
});
