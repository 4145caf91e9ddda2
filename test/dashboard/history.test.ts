/** The ring of the motion: what a page is told of it, spikes, gaps, missing setpoints, and forgetting. */
import t from 'tap';
import { BUCKET_MS, BUCKETS, MotionHistory } from '../../src/dashboard/history.js';

const STEP_MS = 2;

/** Samples every 2 ms from `fromMs` on; `at` gives setpoint and position of joint 0, joint 1 has them with the other sign. */
function fill(history: MotionHistory, fromMs: number, toMs: number, at: (ms: number) => [number, number]): void {
  const [setpointRad, positionsRad] = [new Float64Array(2), new Float64Array(2)];
  for (let ms = fromMs; ms < toMs; ms += STEP_MS) {
    const [setpoint, position] = at(ms);
    setpointRad.set([setpoint, -setpoint]);
    positionsRad.set([position, -position]);
    history.add({ timeNs: BigInt(ms) * 1_000_000n, setpointRad, positionsRad, velocitiesRadPerS: new Float64Array(2) });
  }
}

t.test('the last, the least and the most of every stretch', async (t) => {
  const history = new MotionHistory(2);
  t.equal(history.since(0), undefined);
  fill(history, 0, BUCKET_MS, (ms) => [ms / 1000, ms === 20 ? 9 : 0.5]);
  t.equal(history.since(0), undefined, 'a stretch that is being written is not shown');
  fill(history, BUCKET_MS, 2 * BUCKET_MS + 2, () => [1, 1]);
  const motion = history.since(0);
  t.same(motion?.timesS, [0, 0.05]);
  t.same(
    motion?.joints[0]?.map((column) => column[0]),
    [0.048, 0, 0.048, 0.5, 0.5, 9],
    'one spike of one sample is seen',
  );
  t.same(
    motion?.joints[1]?.map((column) => column[0]),
    [-0.048, -0.048, 0, -0.5, -9, -0.5].map((value) => value + 0),
  );
  t.same(history.since(1)?.timesS, [0.05]);
  t.equal(history.since(2), undefined);
});

t.test('no setpoint is no number, and one that comes later counts', async (t) => {
  const history = new MotionHistory(2);
  fill(history, 0, BUCKET_MS, () => [Number.NaN, 0]);
  fill(history, BUCKET_MS, 2 * BUCKET_MS, (ms) => [ms < 70 ? Number.NaN : ms / 1000, 0]);
  fill(history, 2 * BUCKET_MS, 3 * BUCKET_MS, (ms) => [ms < 120 ? 0.7 : Number.NaN, 0]);
  fill(history, 3 * BUCKET_MS, 3 * BUCKET_MS + 2, () => [0, 0]);
  const setpoint = history.since(0)?.joints[0]?.slice(0, 3);
  t.same(setpoint, [
    [null, 0.098, null],
    [null, 0.07, 0.7],
    [null, 0.098, 0.7],
  ]);
});

t.test('it forgets the oldest, and tells a slow viewer what there is', async (t) => {
  const history = new MotionHistory(2);
  const total = 2 * BUCKETS + 7;
  fill(history, 0, total * BUCKET_MS, (ms) => [ms / 1e6, 0]);
  t.equal(history.finished, total - 1);
  const all = history.since(0);
  t.equal(all?.timesS.length, BUCKETS - 1, 'without the one being written');
  t.equal(all?.timesS.at(-1), ((total - 2) * BUCKET_MS) / 1000);
  t.ok(all?.timesS.every((time, index, times) => index === 0 || time > (times[index - 1] ?? 0)));
  t.equal(history.since(history.finished - 3)?.timesS.length, 3);
});

t.test('a clock that jumps makes a gap, not a thousand stretches', async (t) => {
  const history = new MotionHistory(2);
  fill(history, 0, BUCKET_MS, () => [0, 0]);
  fill(history, 100_000, 100_000 + BUCKET_MS + 2, () => [1, 1]);
  t.same(history.since(0)?.timesS, [0, 100]);
});
