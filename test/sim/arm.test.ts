/** The arm's formulas: inverse against forward kinematics, both against MuJoCo, and what is refused. */
import t from 'tap';
import { forwardKinematics, HOME_TIP, inverseKinematics, JOINTS, type Vector3 } from '../../src/sim/arm.js';
import { Random } from '../../src/sim/random.js';
import { BUTTON_AREA } from '../../src/sim/tasks/buttons.js';
import { touch } from '../../src/sim/tasks/touch.js';
import { World } from '../../src/sim/world.js';

const distance = (a: Vector3, b: Vector3): number => Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);

t.test('inverse kinematics reaches every point over the button area within the joint limits', async (t) => {
  const random = new Random(1);
  let worst = 0;
  for (let i = 0; i < 500; i++) {
    const { xMin, xMax, yMin, yMax } = BUTTON_AREA;
    const tip: Vector3 = [random.uniform(xMin, xMax), random.uniform(yMin, yMax), random.uniform(0.02, 0.15)];
    const pose = inverseKinematics(tip);
    worst = Math.max(worst, distance(forwardKinematics(pose), tip));
    JOINTS.forEach((joint, index) => {
      const angle = pose[index] ?? Number.NaN;
      if (!(angle >= joint.lowerRad && angle <= joint.upperRad)) t.fail(`${joint.name} at ${angle} for ${tip.join(', ')}`);
    });
    const [, shoulder = 0, elbow = 0, wrist = 0] = pose;
    if (Math.abs(shoulder + elbow + wrist - Math.PI) > 1e-12) t.fail(`the hand is tilted for ${tip.join(', ')}`);
  }
  t.ok(worst < 1e-12, `worst distance ${worst} m`);
});

t.test('a point out of reach is refused', async (t) => {
  t.throws(() => inverseKinematics([0.6, 0, 0.1]), { code: 'SIM_UNREACHABLE' });
  t.throws(() => inverseKinematics([-0.3, 0.05, 0.1]), { code: 'SIM_UNREACHABLE' }, 'behind the base: beyond the yaw limit');
});

t.test('MuJoCo places the tip where the formula does', async (t) => {
  const world = await World.open();
  t.teardown(() => world.close());
  world.reset(touch.scene(0).layout);
  t.ok(distance(world.tip(), HOME_TIP) < 1e-9, 'home');
  const target = inverseKinematics([0.3, 0.1, 0.12]);
  for (let step = 0; step < 400; step++) world.step(target);
  const state = world.state();
  t.ok(distance(world.tip(), forwardKinematics(state.positionsRad)) < 1e-9, 'the formula holds away from home');
  // Gravity is compensated, so a position servo without integral action settles on its target.
  t.ok(distance(world.tip(), [0.3, 0.1, 0.12]) < 1e-3, `settled ${distance(world.tip(), [0.3, 0.1, 0.12])} m from the target`);
});
