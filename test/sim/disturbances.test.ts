/** Disturbances: their text form, the lag's formula, and the knock by the seed. */
import t from 'tap';
import { formatDisturbances, Lag, Nudge, parseDisturbances, Shift } from '../../src/sim/disturbances.js';
import { type PushScene, push } from '../../src/sim/tasks/push.js';
import { touch } from '../../src/sim/tasks/touch.js';
import { World } from '../../src/sim/world.js';

t.test('the text form, there and back', async (t) => {
  const all = { cameraDelayMs: 80, actuatorLagMs: 60, blockNudgeMPerS: 0.25, boardShiftM: 0.05 };
  t.same(parseDisturbances('camera-delay=80ms,actuator-lag=60ms,nudge=0.25m/s,shift=0.05m'), all);
  t.equal(formatDisturbances(all), 'camera-delay=80ms,actuator-lag=60ms,nudge=0.25m/s,shift=0.05m');
  t.same(parseDisturbances(' nudge=1m/s , camera-delay=2.5ms'), { blockNudgeMPerS: 1, cameraDelayMs: 2.5 });
  t.same(parseDisturbances(''), {});
  t.equal(formatDisturbances({ cameraDelayMs: 0 }), '');
});

t.test('what cannot be read', async (t) => {
  const bad = [
    'camera-delay',
    'camera-delay=80',
    'camera-delay=80s',
    'camera-delay=-1ms',
    'nudge=3m/s',
    'shift=0.05mm',
    'shift=0.3m',
    'wind=1m/s',
    'nudge=1..2m/s',
    'toString=1ms',
  ];
  for (const text of [...bad, 'nudge=1m/s,nudge=1m/s']) {
    t.throws(() => parseDisturbances(text), { code: 'SIM_DISTURBANCE', field: 'disturb', found: text.split(',').at(-1) as string }, text);
  }
});

t.test('first-order lag', async (t) => {
  const lag = new Lag(60, 2, 2);
  lag.restart(Float64Array.of(1, -1));
  t.same([...lag.step(Float64Array.of(1, -1))], [1, -1], 'at rest it rests');
  let output = Float64Array.of(1, -1);
  for (let step = 0; step < 30; step++) output = lag.step(Float64Array.of(2, -1)).slice();
  t.ok(Math.abs((output[0] ?? 0) - (2 - Math.exp(-1))) < 1e-12, 'after one time constant 1 - 1/e of the way is done');
  t.equal(output[1], -1);
  const none = new Lag(0, 2, 1);
  const input = Float64Array.of(0.123456789);
  t.equal(none.step(input), input, 'no lag is the setpoint itself');
});

t.test('the knock', async (t) => {
  const world = await World.open('block');
  t.teardown(() => world.close());
  const scene = push.scene(7);
  const rest = (): Float64Array => world.state().positionsRad;
  const run = (seed: number, speed: number, isPushed: boolean): { at: bigint | undefined; velocity: number[] } => {
    world.reset(scene.layout);
    const nudge = new Nudge(world, speed);
    nudge.restart(seed, scene as PushScene);
    const home = rest();
    if (isPushed) world.mujoco.positions[world.mujoco.positions.length - 7] = (world.block()?.[0] ?? 0) + 0.006;
    let velocity = [0, 0];
    for (let step = 0; step < 450; step++) {
      world.step(home);
      const before = world.blockSpeedMPerS();
      nudge.tick();
      if (world.blockSpeedMPerS() - before > 0.1) velocity = [world.blockSpeedMPerS(), Number(world.timeNs)];
    }
    return { at: nudge.atNs, velocity };
  };
  const first = run(1, 0.25, true);
  t.ok((first.at ?? 0n) >= 100_000_000n && (first.at ?? 0n) <= 810_000_000n, `knocked at ${first.at} ns`);
  t.ok(Math.abs((first.velocity[0] ?? 0) - 0.25) < 0.01, `with ${first.velocity[0]} m/s`);
  t.ok(Math.abs((first.velocity[1] ?? 0) - Number(first.at)) <= 2e6, 'at that time');
  t.same(run(1, 0.25, true), first, 'the same seed, the same knock');
  t.not(run(2, 0.25, true).at, first.at, 'another seed, another time');
  t.equal(run(1, 0.25, false).at, undefined, 'a block that nobody pushes is left alone');
  t.equal(run(1, 0, true).at, undefined);
});

t.test('the board that slides', async (t) => {
  const world = await World.open('buttons');
  t.teardown(() => world.close());
  const scene = touch.scene(7);
  /** Where a button's mount is after every tenth of a second. */
  const run = (seed: number | undefined, distanceM: number): { x: number; y: number }[] => {
    world.reset(scene.layout);
    const shift = new Shift(world, distanceM);
    shift.restart(seed);
    const home = world.state().positionsRad;
    const mount = world.mujoco.mocapIndex(world.mujoco.id('body', 'mount_green')) * 3;
    return Array.from({ length: 25 }, () => {
      for (let step = 0; step < 50; step++) {
        world.step(home);
        shift.tick();
      }
      const [x = 0, y = 0] = world.mujoco.mocapPositions.subarray(mount, mount + 2);
      return { x, y };
    });
  };
  const still = run(1, 0)[0] as { x: number; y: number };
  const way = (places: readonly { x: number; y: number }[]): number[] => places.map(({ x, y }) => Math.hypot(x - still.x, y - still.y));
  const first = run(1, 0.05);
  t.ok(
    way(first).every((distance, index) => distance >= (way(first)[index - 1] ?? 0) - 1e-12),
    'it slides one way, once',
  );
  t.ok(Math.abs((way(first).at(-1) ?? 0) - 0.05) < 1e-12, 'so far in the end');
  t.ok(way(first).filter((distance) => distance > 1e-9 && distance < 0.05 - 1e-9).length <= 3, 'within 0.2 s');
  const begun = way(first).findIndex((distance) => distance > 0) / 10;
  t.ok(begun >= 0.5 && begun <= 2, `at ${begun} s`);
  t.equal(world.pressLog.length, 0, 'and nothing is pressed by it');
  t.same(run(1, 0.05), first, 'the same seed, the same slide');
  t.notSame(run(2, 0.05), first);
  t.ok(
    way(run(undefined, 0.05)).every((distance) => distance === 0),
    'a restored world slides no more',
  );
});
