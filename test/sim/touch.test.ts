/** The task: reproducible scenes, the success rule, and bit-equal physics. */
import t from 'tap';
import { touchKnots } from '../../src/sim/expert.js';
import { BUTTON, BUTTON_COLOURS, type ButtonColour } from '../../src/sim/scene.js';
import { TOUCH_AREA, touchScene, touchSucceeded } from '../../src/sim/touch.js';
import { World } from '../../src/sim/world.js';

const world = await World.open();
t.teardown(() => world.close());

function press(colour: ButtonColour, seed: number): Float64Array[] {
  return touchKnots(touchScene(seed).layout[colour]);
}
function drive(knots: readonly Float64Array[]): void {
  for (const knot of knots) for (let step = 0; step < 10; step++) world.step(knot);
}

t.test('a seed fixes the scene; seeds differ', async (t) => {
  t.same(touchScene(11), touchScene(11));
  const targets = new Set<string>();
  const places = new Set<number>();
  for (let seed = 0; seed < 200; seed++) {
    const { layout, target, instruction } = touchScene(seed);
    targets.add(target);
    places.add(layout.red.x);
    t.equal(instruction, `touch the ${target} button`);
    const points = BUTTON_COLOURS.map((colour) => layout[colour]);
    for (const [index, a] of points.entries()) {
      if (a.x < TOUCH_AREA.xMin || a.x > TOUCH_AREA.xMax || a.y < TOUCH_AREA.yMin || a.y > TOUCH_AREA.yMax) t.fail(`seed ${seed} leaves the area`);
      for (const b of points.slice(index + 1)) if (Math.hypot(a.x - b.x, a.y - b.y) < TOUCH_AREA.spacing) t.fail(`seed ${seed} is too crowded`);
    }
  }
  t.equal(targets.size, 3, 'every colour is asked for');
  t.equal(places.size, 200);
});

t.test('success: the named button, and no other', async (t) => {
  const { layout } = touchScene(4);
  world.reset(layout);
  t.notOk(touchSucceeded(world, 'green'), 'nothing pressed yet');
  drive(press('green', 4));
  t.equal(world.presses('green'), 1);
  t.ok(touchSucceeded(world, 'green'));
  t.notOk(touchSucceeded(world, 'red'), 'the wrong button');
  drive(press('red', 4));
  t.notOk(touchSucceeded(world, 'green'), 'both pressed is no success');
  t.notOk(touchSucceeded(world, 'red'));
});

t.test('a button springs back and a touch without pressure does not count', async (t) => {
  const { layout } = touchScene(4);
  world.reset(layout);
  drive(press('blue', 4));
  t.equal(world.presses('blue'), 1, 'held down, it counts once');
  t.ok(Math.abs(world.travel('blue')) < 1e-3, `back within ${world.travel('blue')} m`);
  world.reset(layout);
  t.equal(world.presses('blue'), 0, 'a reset forgets');
  const rest = world.state().positionsRad;
  for (let step = 0; step < 500; step++) world.step(rest);
  for (const colour of BUTTON_COLOURS) t.ok(world.travel(colour) < BUTTON.releasedAt / 3, `${colour} does not sink by itself`);
});

t.test('equal inputs give equal bits, in the same world and in another one', async (t) => {
  const { layout } = touchScene(9);
  const run = (w: World): Float64Array => {
    w.reset(layout);
    for (const knot of touchKnots(layout.red)) for (let step = 0; step < 10; step++) w.step(knot);
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
  world.reset(touchScene(0).layout);
  t.throws(() => world.step(Float64Array.of(0, 0, 0)), { code: 'SIM_SETPOINT' });
  t.throws(() => world.step(Float64Array.of(0, 0, 0, Number.NaN)), { code: 'SIM_SETPOINT' });
  t.equal(world.timeNs, 0n);
});

t.test('a world that diverges says so instead of starting over', async (t) => {
  world.reset(touchScene(0).layout);
  const rest = world.state().positionsRad;
  world.mujoco.velocities[0] = Number.NaN;
  t.throws(() => world.step(rest), { code: 'SIM_DIVERGED' });
  world.reset(touchScene(0).layout);
  t.doesNotThrow(() => world.step(rest), 'a reset repairs it');
});
