/** A world that is put back goes on with the same bits, in the same process or in another world; one of another scene is refused. */
import t from 'tap';
import { pack, unpack } from '../../src/journal/pack.js';
import { Simulation } from '../../src/sim/simulation.js';
import { TASKS } from '../../src/sim/tasks/index.js';
import { World, type WorldSnapshot } from '../../src/sim/world.js';
import { thrownBy } from '../support/fixtures.js';

/** Swings the arm so that it never rests: the state has velocities, contacts and a warm start. */
function swing(world: World, steps: number): Float64Array {
  const home = world.state().positionsRad.slice();
  for (let step = 0; step < steps; step++) {
    const phase = Number(world.timeNs) / 1e9;
    world.step(home.map((angle, joint) => angle + 0.02 * Math.sin(7 * phase + joint)));
  }
  return Float64Array.of(...world.mujoco.positions, ...world.mujoco.velocities);
}

t.test('physics, time and presses go on bit for bit', async (t) => {
  for (const name of ['press-n', 'push'] as const) {
    const scene = TASKS[name].scene(3);
    const [one, other] = [await World.open(TASKS[name].kind), await World.open(TASKS[name].kind)];
    t.teardown(() => [one, other].forEach((world) => void world.close()));
    one.reset(scene.layout);
    swing(one, 300);
    if (name === 'push') one.nudgeBlock(0.2, 0.1);
    const snapshot = unpack(pack(one.snapshot())) as WorldSnapshot;
    const home = one.state().positionsRad;
    const wanted = swing(one, 400);
    other.reset(TASKS[name].scene(8).layout);
    swing(other, 50);
    other.restore(snapshot);
    t.equal(other.timeNs, snapshot.timeNs);
    t.same(other.state().positionsRad, home);
    t.same(swing(other, 400), wanted, name);
    t.equal(other.timeNs, one.timeNs);
    one.restore(snapshot);
    t.same(swing(one, 400), wanted, 'also in the world itself');
  }
});

t.test('a button that is down does not count twice', async (t) => {
  const world = await World.open('buttons');
  t.teardown(() => world.close());
  world.reset(TASKS['press-n'].scene(3).layout);
  const snapshot: WorldSnapshot = { ...world.snapshot(), presses: [{ colour: 'red', timeNs: 5n }], down: ['red'] };
  world.restore(snapshot);
  t.equal(world.presses('red'), 1);
  t.same(world.snapshot(), snapshot);
  world.reset(TASKS['press-n'].scene(3).layout);
  t.equal(world.presses('red'), 0);
});

t.test('another scene is refused', async (t) => {
  const world = await World.open('buttons');
  t.teardown(() => world.close());
  world.reset(TASKS['press-n'].scene(3).layout);
  const snapshot = world.snapshot();
  t.match(
    thrownBy(() => world.restore({ ...snapshot, kind: 'block' })),
    { code: 'SIM_LAYOUT', expected: 'buttons', found: 'block' },
  );
  t.match(
    thrownBy(() => world.restore({ ...snapshot, physics: snapshot.physics.slice(1) })),
    { code: 'SIM_SNAPSHOT' },
  );
});

t.test('a simulation that is put back: cameras keep their times, and the world waits until the arm is held again', async (t) => {
  const simulation = await Simulation.open({ kind: 'buttons', cameras: ['cam_front'], size: 16 });
  t.teardown(() => simulation.close());
  const scene = TASKS['press-n'].scene(3);
  simulation.reset(scene.layout, 3);
  await simulation.robot.arm();
  await simulation.robot.waitUntil(1_010_000_000n);
  const snapshot = simulation.snapshot();
  const [before] = await simulation.cameras.capture();
  simulation.reset(TASKS['press-n'].scene(4).layout, 4);
  simulation.restore(snapshot);
  t.equal(simulation.world.timeNs, snapshot.world.timeNs);
  const [present] = await simulation.cameras.capture();
  t.equal(present?.capturedAtNs, snapshot.world.timeNs);
  t.same(present?.data, before?.data, 'the arm rests: the picture shows what the last one did');
  await simulation.robot.arm();
  t.ok(simulation.world.timeNs > snapshot.world.timeNs);
  t.same(simulation.world.snapshot().physics, snapshot.world.physics, 'nothing has moved while it was armed');
  await simulation.robot.waitUntil(snapshot.world.timeNs + 500_000_000n);
  t.notSame(simulation.world.snapshot().physics, snapshot.world.physics);
  const [later] = await simulation.cameras.capture();
  t.equal((later?.capturedAtNs ?? 0n) % 80_000_000n, 0n, 'at the times of an uninterrupted camera');
});
