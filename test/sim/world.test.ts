/** The world itself: presses and their times, the block, layouts, bit-equal physics, and what is refused. */
import t from 'tap';
import { BLOCK, BUTTON, BUTTON_COLOURS, STEP_NS } from '../../src/sim/scene.js';
import { push } from '../../src/sim/tasks/push.js';
import { touch } from '../../src/sim/tasks/touch.js';
import { World } from '../../src/sim/world.js';
import { drive, Hand } from './support.js';

const world = await World.open();
const blocks = await World.open('block');
t.teardown(() => {
  world.close();
  blocks.close();
});

t.test('presses are logged in order, each with the time when it counted', async (t) => {
  const scene = touch.scene(4);
  const hand = new Hand(world, scene);
  t.same(world.pressLog, []);
  hand.pressColour(scene, 'blue', 'red', 'blue');
  t.same(
    world.pressLog.map(({ colour }) => colour),
    ['blue', 'red', 'blue'],
  );
  t.same(
    BUTTON_COLOURS.map((colour) => world.presses(colour)),
    [1, 0, 2],
  );
  const times = world.pressLog.map(({ timeNs }) => timeNs);
  t.ok(
    times.every((time, index) => time % STEP_NS === 0n && time <= world.timeNs && time > (times[index - 1] ?? 0n)),
    times.join(', '),
  );
  world.reset(scene.layout);
  t.same(world.pressLog, [], 'a reset forgets');
});

t.test('a button that is held down counts once, springs back, and does not sink by itself', async (t) => {
  const scene = touch.scene(4);
  const hand = new Hand(world, scene);
  hand.pressColour(scene, 'green');
  t.equal(world.presses('green'), 1);
  t.ok(Math.abs(world.travel('green')) < 1e-3, `back within ${world.travel('green')} m`);
  world.reset(scene.layout);
  const rest = world.state().positionsRad;
  for (let step = 0; step < 500; step++) world.step(rest);
  for (const colour of BUTTON_COLOURS) t.ok(world.travel(colour) < BUTTON.releasedAt / 3, `${colour} does not sink`);
});

t.test('a layout of the other kind is refused', async (t) => {
  t.throws(() => world.reset(push.scene(0).layout), { code: 'SIM_LAYOUT', expected: 'buttons', found: 'block' });
  t.throws(() => blocks.reset(touch.scene(0).layout), { code: 'SIM_LAYOUT', expected: 'block', found: 'buttons' });
  t.equal(world.block(), undefined);
  t.equal(world.blockSpeedMPerS(), 0);
  world.nudgeBlock(1, 1);
  t.same(
    BUTTON_COLOURS.map((colour) => blocks.presses(colour)),
    [0, 0, 0],
  );
});

t.test('the block lies where the layout says and stays there', async (t) => {
  const { layout, block } = push.scene(3);
  blocks.reset(layout);
  t.same(blocks.block(), [block.x, block.y, BLOCK.halfEdge]);
  const rest = blocks.state().positionsRad;
  for (let step = 0; step < 2000; step++) blocks.step(rest);
  const [x = 0, y = 0, z = 0] = blocks.block() ?? [];
  t.ok(Math.hypot(x - block.x, y - block.y) < 1e-4, `crept ${Math.hypot(x - block.x, y - block.y)} m in 4 s`);
  t.ok(Math.abs(z - BLOCK.halfEdge) < 1e-3, `sank to ${z} m`);
  t.ok(blocks.blockSpeedMPerS() < 1e-3);
});

t.test('a nudged block slides in the direction of the nudge and comes to rest', async (t) => {
  const { layout, block } = push.scene(3);
  blocks.reset(layout);
  const rest = blocks.state().positionsRad;
  blocks.nudgeBlock(0, 0.5);
  blocks.step(rest);
  t.ok(blocks.blockSpeedMPerS() > 0.3, 'it moves');
  for (let step = 0; step < 500; step++) blocks.step(rest);
  const [x = 0, y = 0] = blocks.block() ?? [];
  // Coulomb friction stops 0.5 m/s within v^2 / (2 mu g), about 26 mm at mu = 0.5.
  t.ok(y - block.y > 0.01 && y - block.y < 0.05, `${y - block.y} m sideways`);
  t.ok(Math.abs(x - block.x) < 0.005, `${x - block.x} m along the arm`);
  t.ok(blocks.blockSpeedMPerS() < 1e-3, 'at rest again');
});

t.test('equal inputs give equal bits, in the same world and in another one', async (t) => {
  const scene = touch.scene(9);
  const run = (w: World): Float64Array => {
    new Hand(w, scene).pressColour(scene, 'red');
    return Float64Array.from([...w.mujoco.positions, ...w.mujoco.velocities]);
  };
  const first = run(world);
  t.same(run(world), first, 'after a reset');
  const other = await World.open();
  t.same(run(other), first, 'in a new world');
  other.close();
  other.close();
});

t.test('a setpoint that is no pose is refused and moves nothing', async (t) => {
  world.reset(touch.scene(0).layout);
  t.throws(() => world.step(Float64Array.of(0, 0, 0)), { code: 'SIM_SETPOINT' });
  t.throws(() => world.step(Float64Array.of(0, 0, 0, Number.NaN)), { code: 'SIM_SETPOINT' });
  t.equal(world.timeNs, 0n);
});

t.test('a world that diverges says so instead of starting over', async (t) => {
  world.reset(touch.scene(0).layout);
  const rest = world.state().positionsRad;
  world.mujoco.velocities[0] = Number.NaN;
  t.throws(() => world.step(rest), { code: 'SIM_DIVERGED' });
  world.reset(touch.scene(0).layout);
  t.doesNotThrow(() => drive(world, [rest]), 'a reset repairs it');
});
