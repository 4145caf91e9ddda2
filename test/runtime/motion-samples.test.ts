/** What observers see of the motion: every cycle of the setpoint stream, from the native ring to the rig's watchers. */
import t from 'tap';
import { robotConfigSchema } from '../../src/config/schema.js';
import type { NativeSamples } from '../../src/native.js';
import { eachCycle } from '../../src/runtime/motion-samples.js';
import { openRig } from '../../src/runtime/rig.js';
import { Simulation } from '../../src/sim/simulation.js';
import { touch } from '../../src/sim/tasks/touch.js';
import type { MotionSample } from '../../src/tap/observer.js';

const MS = 1_000_000n;
/** Cycles that the ring holds (cpp/motion/sample_ring.h). */
const RING = 2048;

const copied = ({ timeNs, setpointRad, positionsRad, velocitiesRadPerS }: MotionSample): MotionSample => ({
  timeNs,
  setpointRad: setpointRad.slice(),
  positionsRad: positionsRad.slice(),
  velocitiesRadPerS: velocitiesRadPerS.slice(),
});

t.test('the rig tells every cycle of the stream once, 1000 a second, armed or not', async (t) => {
  const rig = await openRig(robotConfigSchema.parse({ robot: { type: 'sim' }, policy: { checkpoint_dir: '/nowhere' } }));
  t.teardown(() => rig.close());
  const { robot } = rig;
  const start = await robot.getState();
  await robot.waitUntil(40n * MS);
  const seen: MotionSample[] = [];
  const unwatch = rig.watch((sample) => seen.push(copied(sample)));
  await robot.waitUntil(60n * MS);
  t.same(
    seen.map(({ timeNs }) => timeNs),
    Array.from({ length: 20 }, (_, ms) => BigInt(40 + ms) * MS),
    'from when somebody looks, one each millisecond',
  );
  t.ok(
    seen.every(({ setpointRad }) => setpointRad.every(Number.isNaN)),
    'without power the joints are told nothing',
  );
  t.ok(
    seen.every(({ positionsRad }) => positionsRad.every((rad, joint) => Math.abs(rad - (start.positionsRad[joint] ?? 0)) < 0.01)),
    'and are where the robot says',
  );
  await robot.arm();
  robot.beat(10_000);
  const { timeNs } = await robot.getState();
  await robot.waitUntil(timeNs + 500n * MS);
  t.ok(
    seen.every((sample, index) => index === 0 || sample.timeNs - (seen[index - 1]?.timeNs ?? 0n) === MS),
    'no cycle is missing or told twice',
  );
  const last = seen.at(-1);
  t.ok(
    last?.setpointRad.every((rad, joint) => Math.abs(rad - (last.positionsRad[joint] ?? 0)) < 0.05),
    'armed: told, and measured close to it',
  );
  unwatch();
  const { length } = seen;
  await robot.waitUntil(timeNs + 600n * MS);
  t.equal(seen.length, length, 'nobody is told any more');
});

/** Moves a simulated arm and gives the setpoints of every physics step. */
async function setpointsOf(watch: boolean): Promise<{ setpoints: string; lost: number }> {
  const simulation = await Simulation.open({ kind: 'buttons', size: 16, cameras: [] });
  simulation.reset(touch.scene(0).layout);
  const { robot } = simulation;
  const bytes: Buffer[] = [];
  simulation.watch((setpointRad) => bytes.push(Buffer.from(setpointRad.slice().buffer)));
  if (watch) simulation.watchCycles(() => undefined);
  await robot.arm();
  const { timeNs, positionsRad } = await robot.getState();
  const knots = Array.from({ length: 30 }, (_, knot) => positionsRad.map((rad, joint) => rad + (joint === 0 ? (0.2 * knot) / 30 : 0)));
  await robot.push({ startNs: timeNs + 40n * MS, knotNs: 40n * MS, knots });
  for (let ms = 0n; ms < 3000n; ms += 200n) {
    robot.beat(900);
    await robot.waitUntil(timeNs + (ms + 200n) * MS);
  }
  const { lost } = simulation.motors.native.samples();
  simulation.close();
  return { setpoints: Buffer.concat(bytes).toString('base64'), lost };
}

t.test('setpoints are the same bits, watched or not; what nobody took in time is counted', async (t) => {
  const [watched, ignored] = [await setpointsOf(true), await setpointsOf(false)];
  t.ok(watched.setpoints.length > 10_000 && watched.setpoints === ignored.setpoints, 'the same bits');
  t.equal(watched.lost, 0);
  t.ok(ignored.lost > 900, `${ignored.lost} cycles were lost to a reader that looked once after more than 3 s`);
});

t.test('the native ring: oldest first, bounded, one object', async (t) => {
  const simulation = await Simulation.open({ kind: 'buttons', size: 16, cameras: [] });
  t.teardown(() => simulation.close());
  simulation.reset(touch.scene(0).layout);
  const { native } = simulation.motors;
  t.equal(native.samples().count, 0, 'nothing has happened');
  await simulation.robot.waitUntil(10n * MS);
  const samples = native.samples();
  t.same([samples.count, samples.lost, samples.timesNs.length, samples.positionRad.length], [10, 0, RING, RING * simulation.robot.joints.length]);
  t.same(
    [...samples.timesNs.slice(0, 10)],
    Array.from({ length: 10 }, (_, ms) => BigInt(ms) * MS),
  );
  t.same([...samples.hasSetpoint.slice(0, 10)], Array(10).fill(0));
  t.ok(samples.measuredNs[9] === -1n && Number.isNaN(samples.positionRad[9]), 'an unasked bridge reports nothing');
  await simulation.robot.waitUntil(BigInt(10 + RING + 100) * MS);
  const again = native.samples();
  t.equal(again, samples, 'the same arrays, filled anew');
  t.same([again.count, again.lost, again.timesNs[0]], [RING, 100, 110n * MS], 'the oldest are lost, and counted');
  t.equal(native.samples().count, 0);
});

t.test('joints that the bridge does not report are where the robot says', (t) => {
  const samples: NativeSamples = {
    count: 2,
    lost: 0,
    timesNs: BigInt64Array.of(1n, 2n, 99n),
    measuredNs: BigInt64Array.of(-1n, 1n, 99n),
    hasSetpoint: Uint8Array.of(0, 1, 1),
    setpointRad: Float64Array.of(Number.NaN, Number.NaN, 0.1, 0.2, 99, 99),
    positionRad: Float64Array.of(Number.NaN, Number.NaN, 0.3, Number.NaN, 99, 99),
    velocityRadPerS: Float64Array.of(Number.NaN, Number.NaN, 0.5, Number.NaN, 99, 99),
  };
  const seen: MotionSample[] = [];
  let asked = 0;
  const now = () => {
    asked++;
    return { timeNs: 5n, positionsRad: Float64Array.of(7, 8), velocitiesRadPerS: Float64Array.of(-7, -8) };
  };
  eachCycle(2, now, (sample) => seen.push(copied(sample)))(samples);
  t.same(seen, [
    {
      timeNs: 1n,
      setpointRad: Float64Array.of(Number.NaN, Number.NaN),
      positionsRad: Float64Array.of(7, 8),
      velocitiesRadPerS: Float64Array.of(-7, -8),
    },
    { timeNs: 2n, setpointRad: Float64Array.of(0.1, 0.2), positionsRad: Float64Array.of(0.3, 8), velocitiesRadPerS: Float64Array.of(0.5, -8) },
  ]);
  t.equal(asked, 1, 'the robot is asked once');
  t.end();
});
