/** Limits: what is clamped, what is not, and that what is reported as executed is what is executed. */
import fc from 'fast-check';
import t from 'tap';
import { type ChunkToLimit, limitChunk } from '../../src/control/limits.js';
import type { Joint } from '../../src/robot/robot.js';

const KNOT_S = 0.02;
const JOINTS: readonly Joint[] = [
  { name: 'a', lowerRad: -1.1, upperRad: 0.7, velocityMaxRadPerS: 3, accelerationMaxRadPerS2: 60, jerkMaxRadPerS3: 6000 },
  { name: 'b', lowerRad: 0.1, upperRad: 2, velocityMaxRadPerS: 1.7, accelerationMaxRadPerS2: 60, jerkMaxRadPerS3: 6000 },
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
  const { executed, clamped } = limitChunk(chunkOf([0.3, 0.7, 0.34, 0.34, 0.34, 0.34, 0.34, 0.34, ...still]));
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

t.test('whatever sensible thing a policy asks for, knots keep range and speed limit, and are what is reported', async () => {
  // Up to 1 rad outside, in steps of up to 7 times the speed limit.
  const steps = fc.array(fc.double({ min: -7, max: 7, noNaN: true }), { minLength: 2 * K * H, maxLength: 2 * K * H });
  fc.assert(
    fc.property(steps, (draws) => {
      const actions = JOINTS.flatMap((joint, index) => {
        const room = 1 - 1e-6; // an action is a float32, and rounding must not carry it over the tolerance
        let angle = START[index] ?? 0;
        return draws.slice(index * K * H, (index + 1) * K * H).map((draw) => {
          angle = Math.min(Math.max(angle + draw * joint.velocityMaxRadPerS * KNOT_S, joint.lowerRad - room), joint.upperRad + room);
          return angle;
        });
      });
      const { executed, knots, clamped } = limitChunk(chunkOf(actions));
      let previous: Float64Array = START;
      const isKept = knots.every((knot) => {
        const isInside = JOINTS.every(({ lowerRad, upperRad, velocityMaxRadPerS }, joint) => {
          const [angle, before] = [knot[joint] ?? NaN, previous[joint] ?? NaN];
          return angle >= lowerRad && angle <= upperRad && Math.abs(angle - before) <= (velocityMaxRadPerS * KNOT_S) / 1.5 + 1e-7;
        });
        previous = knot;
        return isInside;
      });
      const isTold = knots.every((knot, at) => knot.every((value, joint) => executed[joint * K * H + at] === value));
      const isCounted = knots.every(
        (knot, at) => clamped[at] === knot.some((value, joint) => value !== Math.fround(actions[joint * K * H + at] ?? NaN)),
      );
      return isKept && isTold && isCounted;
    }),
  );
});

t.test('nonsense is refused whole, and the joint is named', async (t) => {
  const still = Array(K * H).fill(1);
  const outside = chunkOf([0.3, 0.5, 0.9, 1.3, 1.75, 1.75, 1.75, 1.75, ...still]);
  t.throws(() => limitChunk(outside), { code: 'CONTROL_ACTION_RANGE', field: 'a', found: /action 4/ });
  const jump = chunkOf([0.3, 0.6, -0.7, -0.7, -0.7, -0.7, -0.7, -0.7, ...still]);
  t.throws(() => limitChunk(jump), { code: 'CONTROL_ACTION_JUMP', field: 'a', expected: 'at most 1.2 rad between two actions' });
  const first = chunkOf([...Array(K * H).fill(0.3), ...Array(K * H).fill(2.3)]);
  t.throws(() => limitChunk(first), { code: 'CONTROL_ACTION_JUMP', field: 'b' }, 'the first action is compared with where the robot is');
});

t.test('a joint outside its range is led back no faster than its speed limit', async (t) => {
  const { knots } = limitChunk(chunkOf([...Array(K * H).fill(1.2), ...Array(K * H).fill(1)], { from: Float64Array.of(0.9, 1) }));
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
