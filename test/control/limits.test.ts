/** Limits: what is clamped, what is not, and that what is reported as executed is what is executed. */
import fc from 'fast-check';
import t from 'tap';
import { type ChunkToLimit, limitChunk } from '../../src/control/limits.js';
import { KnotPath } from '../../src/control/path.js';
import type { Joint } from '../../src/robot/robot.js';

const KNOT_S = 0.02;
const JOINTS: readonly Joint[] = [
  { name: 'a', lowerRad: -1.1, upperRad: 0.7, velocityMaxRadPerS: 3 },
  { name: 'b', lowerRad: 0.1, upperRad: 2, velocityMaxRadPerS: 1.7 },
];
const START = Float64Array.of(0.3, 1);
const [K, H] = [2, 4];

function chunkOf(values: readonly number[], change: Partial<ChunkToLimit> = {}): ChunkToLimit {
  return { actions: Float32Array.from(values), shape: [2, K, H], padding: 0, from: START, joints: JOINTS, knotS: KNOT_S, ...change };
}

t.test('actions inside the limits pass bit for bit', async (t) => {
  const gentle = [...Array.from({ length: K * H }, (_, i) => 0.3 + 0.01 * i), ...Array.from({ length: K * H }, (_, i) => 1 - 0.02 * i)];
  const chunk = chunkOf(gentle);
  const { executed, knots, clamped } = limitChunk(chunk);
  t.same(executed, chunk.actions);
  t.same(clamped, Array(K * H).fill(false));
  t.same([...(knots[3] ?? [])], [Math.fround(0.3 + 0.03), Math.fround(1 - 0.06)]);
});

t.test('speed and position are clamped, and only the offending knots count', async (t) => {
  const still = Array(K * H).fill(1);
  // The mean speed between knots is the limit over 1.5: 3 rad/s * 20 ms / 1.5 = 0.04 rad.
  const { executed, clamped } = limitChunk(chunkOf([0.3, 5, 0.34, 0.34, 0.34, 0.34, 0.34, 0.34, ...still]));
  t.same(clamped, [false, true, false, false, false, false, false, false]);
  t.ok(Math.abs((executed[1] ?? 0) - 0.34) < 1e-7, `speed limit gives ${executed[1]}`);
  const climbing = limitChunk(chunkOf([...Array(K * H).fill(0.72), ...still], { from: Float64Array.of(0.69, 1) }));
  t.ok((climbing.executed[7] ?? 1) <= 0.7 && (climbing.executed[7] ?? 0) > 0.6999999, 'the nearest float32 inside the position limit');
});

t.test('padding is neither clamped nor executed', async (t) => {
  const values = [...Array(H).fill(99), ...Array(H).fill(0.31), ...Array(H).fill(-99), ...Array(H).fill(1)];
  const { executed, knots, clamped } = limitChunk(chunkOf(values, { padding: H }));
  t.equal(knots.length, (K - 1) * H);
  t.same([...executed], [...Float32Array.from(values)]);
  t.notOk(clamped.includes(true));
});

t.test('whatever a policy asks for, every setpoint between the knots keeps position and speed limits', async () => {
  const values = fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: 2 * K * H, maxLength: 2 * K * H });
  fc.assert(
    fc.property(values, (actions) => {
      const chunk = chunkOf(actions);
      const { executed, knots } = limitChunk(chunk);
      const path = new KnotPath(START, knots);
      const [out, previous] = [new Float64Array(2), START.slice()];
      for (let tick = 1; tick <= knots.length * 10; tick++) {
        path.sample(Math.floor((tick - 1) / 10), ((tick - 1) % 10) / 10 + 0.1, out);
        for (const [index, joint] of JOINTS.entries()) {
          const value = out[index] ?? Number.NaN;
          const speed = Math.abs(value - (previous[index] ?? 0)) / (KNOT_S / 10);
          if (!(value >= joint.lowerRad && value <= joint.upperRad)) return false;
          if (!(speed <= joint.velocityMaxRadPerS * (1 + 1e-9))) return false;
        }
        previous.set(out);
      }
      return knots.every((knot, at) => knot.every((value, joint) => executed[joint * K * H + at] === value));
    }),
  );
});

t.test('a joint outside its range is led back no faster than its speed limit', async (t) => {
  const { knots } = limitChunk(chunkOf([...Array(K * H).fill(2), ...Array(K * H).fill(1)], { from: Float64Array.of(0.9, 1) }));
  const way = knots.map((knot) => knot[0] ?? 0);
  for (const [index, value] of way.entries()) {
    const before = way[index - 1] ?? 0.9;
    t.ok(before - value <= 0.04 + 1e-6, `step ${before - value}`);
  }
  t.ok((way[4] ?? 1) > 0.69 && (way[5] ?? 1) <= 0.7, 'back at the limit after 0.2 rad');
});

t.test('actions that are no numbers, and chunks of another shape, are refused', async (t) => {
  const bad = Array(2 * K * H).fill(0);
  bad[5] = Number.NaN;
  t.throws(() => limitChunk(chunkOf(bad)), { code: 'CONTROL_ACTION_VALUE', found: 'NaN in channel 0, action 5' });
  bad[5] = Number.POSITIVE_INFINITY;
  t.throws(() => limitChunk(chunkOf(bad)), { code: 'CONTROL_ACTION_VALUE' });
  t.throws(() => limitChunk(chunkOf([1, 2, 3])), { code: 'CONTROL_ACTION_SHAPE' });
  t.throws(() => limitChunk(chunkOf(Array(3 * K * H).fill(0), { shape: [3, K, H] })), { code: 'CONTROL_ACTION_SHAPE' });
});
