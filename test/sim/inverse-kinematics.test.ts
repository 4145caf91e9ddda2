/** Damped least squares against the closed form: same poses, limits kept, and what is refused. */
import t from 'tap';
import { inverseKinematics, JOINTS, type Vector3 } from '../../src/sim/arm.js';
import { trackPose } from '../../src/sim/inverse-kinematics.js';
import { Random } from '../../src/sim/random.js';

const POINTS = 400;
/** The tip is placed to a micrometre, and inside the drawn workspace a joint turns by less than 20 rad per metre of the tip's way. */
const TOLERANCE_RAD = 2e-5;

/** A point that the arm reaches with the hand down: over the table in front of it. */
function reachable(random: Random): Vector3 {
  const [reach, azimuth] = [random.uniform(0.18, 0.4), random.uniform(-1, 1)];
  return [reach * Math.cos(azimuth), reach * Math.sin(azimuth), random.uniform(0.02, 0.2)];
}

t.test(`${POINTS} points: the pose of the closed form, from poses nearby`, async (t) => {
  const random = new Random(7);
  let worst = 0;
  for (let i = 0; i < POINTS; i++) {
    const tip = reachable(random);
    const expected = inverseKinematics(tip);
    const start = expected.map((angle) => angle + random.uniform(-0.2, 0.2));
    const kept = start.slice();
    const pose = trackPose(tip, start);
    t.same(start, kept, 'the start is not changed');
    pose.forEach((angle, joint) => {
      worst = Math.max(worst, Math.abs(angle - (expected[joint] ?? Number.NaN)));
    });
  }
  t.ok(worst < TOLERANCE_RAD, `worst ${worst} rad`);
});

t.test('along a path of small steps it stays with the closed form', async (t) => {
  let pose = inverseKinematics([0.22, -0.15, 0.08]);
  let worst = 0;
  for (let step = 1; step <= 100; step++) {
    const tip: Vector3 = [0.22 + 0.0015 * step, -0.15 + 0.003 * step, 0.08];
    pose = trackPose(tip, pose);
    const expected = inverseKinematics(tip);
    worst = Math.max(worst, ...pose.map((angle, joint) => Math.abs(angle - (expected[joint] ?? Number.NaN))));
  }
  t.ok(worst < TOLERANCE_RAD, `worst ${worst} rad`);
});

t.test('joint limits are kept where start and point are next to one', async (t) => {
  const random = new Random(3);
  const yawMax = JOINTS[0]?.upperRad ?? 0;
  for (let i = 0; i < 100; i++) {
    const [reach, azimuth] = [random.uniform(0.18, 0.4), random.uniform(yawMax - 0.3, yawMax)];
    const tip: Vector3 = [reach * Math.cos(azimuth), reach * Math.sin(azimuth), random.uniform(0.02, 0.2)];
    const start = inverseKinematics(tip).map((angle, joint) => (joint === 0 ? yawMax : angle + random.uniform(-0.2, 0.2)));
    const pose = trackPose(tip, start);
    JOINTS.forEach((joint, index) => {
      const angle = pose[index] ?? Number.NaN;
      if (!(angle >= joint.lowerRad && angle <= joint.upperRad)) t.fail(`${joint.name} at ${angle}`);
    });
  }
});

t.test('a point out of reach is refused, with how far it is', async (t) => {
  const home = inverseKinematics([0.2, 0, 0.15]);
  t.throws(() => trackPose([0.7, 0, 0.1], home), { code: 'SIM_UNREACHABLE', found: /mm away/ });
  // Straight behind the base: the yaw would have to pass its limit.
  t.throws(() => trackPose([-0.3, 0.05, 0.1], home), { code: 'SIM_UNREACHABLE', expected: /workspace/ });
});
