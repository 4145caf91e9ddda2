/** The table of hardware in the loop on made-up cycles of a stream: it follows what was measured, keeps its clock, draws no more than it must. */
import t, { type Test } from 'tap';
import type { NativeSamples } from '../../src/native.js';
import { HOME_TIP, inverseKinematics, JOINTS } from '../../src/sim/arm.js';
import { FollowedWorld } from '../../src/sim/followed-world.js';
import { type TouchScene, touch } from '../../src/sim/tasks/touch.js';

const MS = 1_000_000n;
/** Where the stream's clock was when the table was set up: any. */
const ORIGIN_NS = 5_000_000_000n;
const HOME = inverseKinematics(HOME_TIP);
const scene = touch.scene(3) as TouchScene;

/** Cycles, one a millisecond from `fromMs` on after the origin, each with a pose. */
function cycles(fromMs: number, poses: readonly ArrayLike<number>[]): NativeSamples {
  const positionRad = Float64Array.from(poses.flatMap((pose) => Array.from(pose)));
  return {
    count: poses.length,
    lost: 0,
    timesNs: BigInt64Array.from(poses, (_, index) => ORIGIN_NS + BigInt(fromMs + index) * MS),
    measuredNs: new BigInt64Array(poses.length),
    hasSetpoint: new Uint8Array(poses.length),
    setpointRad: new Float64Array(positionRad.length),
    positionRad,
    velocityRadPerS: new Float64Array(positionRad.length),
  };
}

/** By default no work takes any time. */
async function tableOf(t: Test, catchUp: () => void = () => undefined, workClockMs: () => number = () => 0): Promise<FollowedWorld> {
  const table = await FollowedWorld.open({ kind: 'buttons', cameras: ['cam_front'], size: 16, fps: 12.5, catchUp, workClockMs });
  t.teardown(() => table.close());
  table.reset(scene.layout, ORIGIN_NS, HOME);
  return table;
}

const turned = (rad: number): Float64Array => HOME.map((angle, joint) => angle + (joint === 0 ? rad : 0));

t.test('the arm comes to where it is measured, and its clock is that of the cycles', async (t) => {
  const table = await tableOf(t);
  let steps = 0;
  const unwatch = table.watch(() => steps++);
  table.follow(cycles(1, Array(500).fill(turned(0.3))));
  t.equal(steps, 250, 'one step for two cycles');
  t.equal(table.world.timeNs, 500n * MS);
  t.ok(Math.abs((table.world.state().positionsRad[0] ?? 0) - 0.3) < 0.01);
  unwatch();
  table.follow(cycles(501, [turned(0.3), turned(0.3)]));
  t.equal(steps, 250);
  const silent = Float64Array.from(JOINTS, () => Number.NaN);
  table.follow(cycles(503, Array(100).fill(silent)));
  t.ok(Math.abs((table.world.state().positionsRad[0] ?? 0) - 0.3) < 0.01, 'joints that are not reported stay');
});

t.test('equal cycles give equal tables, however they come', async (t) => {
  const [whole, parts] = [await tableOf(t), await tableOf(t)];
  const poses = Array.from({ length: 300 }, (_, index) => turned(0.001 * index));
  whole.follow(cycles(1, poses));
  for (let at = 0; at < poses.length; at += 7) parts.follow(cycles(1 + at, poses.slice(at, at + 7)));
  t.same(parts.world.snapshot(), whole.world.snapshot());
});

t.test('pictures are taken at their times on the clock of the stream; of several that are due only the last', async (t) => {
  let more: NativeSamples | undefined;
  const table: FollowedWorld = await tableOf(t, () => void (more && table.follow(more)));
  const stamps = async (): Promise<number[]> => (await table.cameras.capture()).map(({ capturedAtNs }) => Number(capturedAtNs - ORIGIN_NS) / 1e6);
  t.same(await stamps(), [0], 'one at the start');
  table.follow(cycles(1, Array(79).fill(HOME)));
  t.same(await stamps(), [0]);
  more = cycles(80, [HOME, HOME]);
  t.same(await stamps(), [80], 'whoever looks brings in what has come meanwhile');
  more = undefined;
  t.equal(table.counts().framesSkipped, 0);
  table.follow(cycles(82, Array(340).fill(HOME)));
  t.same(await stamps(), [400]);
  t.equal(table.counts().framesSkipped, 3, '160, 240 and 320 ms');
  const earlier = table.cameras.history?.().map(({ capturedAtNs }) => Number(capturedAtNs - ORIGIN_NS) / 1e6);
  t.same(earlier, [0, 80], 'for moments before the newest');
});

t.test('a hole in the stream is jumped over', async (t) => {
  const table = await tableOf(t);
  table.follow(cycles(1, Array(10).fill(HOME)));
  table.follow(cycles(10_000, Array(80).fill(HOME)));
  t.equal(table.counts().holes, 1);
  t.ok(table.world.timeNs < 200n * MS);
  const [frame] = await table.cameras.capture();
  t.ok(frame && frame.capturedAtNs > ORIGIN_NS + 9_900n * MS && frame.capturedAtNs <= ORIGIN_NS + 10_080n * MS, 'pictures have the new time');
});

t.test('a machine that is too slow for the table gives it half of its time; the arm and the pictures stay with the stream', async (t) => {
  let nowMs = 0;
  const table = await tableOf(t, undefined, () => nowMs);
  let steps = 0;
  // Twice as long as the 2 ms that it stands for.
  table.watch(() => {
    steps++;
    nowMs += 4;
  });
  let atMs = 1;
  const until = (endMs: number, pose: (ms: number) => ArrayLike<number>): void => {
    for (; atMs + 20 <= endMs; atMs += 20) {
      // Whatever else this thread does; it is never further than the stream.
      nowMs = Math.max(nowMs, atMs);
      table.follow(
        cycles(
          atMs,
          Array.from({ length: 20 }, (_, index) => pose(atMs + index)),
        ),
      );
    }
  };
  until(10_000, (ms) => turned((0.5 * ms) / 10_000));
  const { leftOutMs } = table.counts();
  const share = (4 * steps) / nowMs;
  t.ok(share > 0.45 && share < 0.55, `${(share * 100).toFixed(0)} % of the time`);
  t.ok(Math.abs(leftOutMs + 2 * steps - atMs) < 25, `${leftOutMs} ms left out, ${2 * steps} ms simulated`);
  t.ok(Math.abs((table.world.state().positionsRad[0] ?? 0) - 0.5) < 0.03, 'the arm is where it is measured');
  const [frame] = await table.cameras.capture();
  t.ok(atMs - Number((frame?.capturedAtNs ?? 0n) - ORIGIN_NS) / 1e6 < 200, 'and the picture is new');
  table.follow(cycles(atMs, Array(900).fill(turned(0.5))));
  t.equal(table.counts().holes, 0, 'no hole either when much comes at once');
});

t.test('held, the arm passes through what lies there and touches nothing; let go, it presses', async (t) => {
  const table = await tableOf(t);
  const { x, y } = scene.layout.kind === 'buttons' ? scene.layout.buttons[scene.target] : { x: 0, y: 0 };
  const pressing = inverseKinematics([x, y, 0.025]);
  table.hold(true);
  table.follow(cycles(1, Array(400).fill(pressing)));
  const [frame] = await table.cameras.capture();
  t.equal(Number((frame?.capturedAtNs ?? 0n) - ORIGIN_NS), 400e6, 'it is shown');
  t.equal(table.world.presses(scene.target), 0);
  table.hold(false);
  table.reset(scene.layout, ORIGIN_NS + 401n * MS, HOME);
  t.equal(touch.verdict(table.world, scene), 'open');
  const way = Array.from({ length: 1200 }, (_, index) =>
    HOME.map((angle, joint) => angle + Math.min(1, index / 800) * ((pressing[joint] ?? 0) - angle)),
  );
  table.follow(cycles(402, way));
  t.equal(touch.verdict(table.world, scene), 'succeeded');
});

t.test('a world that diverges is told to whoever looks, and nobody falls over it', async (t) => {
  const table = await tableOf(t);
  table.world.mujoco.positions[0] = Number.NaN;
  table.follow(cycles(1, [HOME, HOME]));
  table.follow(cycles(3, [HOME, HOME]));
  await t.rejects(table.cameras.capture(), { code: 'SIM_DIVERGED' });
  table.reset(scene.layout, ORIGIN_NS, HOME);
  t.equal((await table.cameras.capture()).length, 1, 'set up anew it is well again');
  table.close();
  table.close();
});
