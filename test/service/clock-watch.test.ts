/** Steps of the wall clock: told once, with their size; slow steering and pauses of this process are none. */
import t from 'tap';
import { ClockWatch, STEP_MS_MIN } from '../../src/service/clock-watch.js';

t.test('steps, forwards and back', async (t) => {
  const time = { wallMs: 1_000_000, monotonicMs: 0 };
  const watch = new ClockWatch({ wallMs: () => time.wallMs, monotonicMs: () => time.monotonicMs });
  const pass = (monotonicMs: number, wallMs = monotonicMs): void => {
    time.monotonicMs += monotonicMs;
    time.wallMs += wallMs;
  };
  t.equal(watch.look(), undefined);
  pass(1000);
  t.equal(watch.look(), undefined);
  pass(1000, 1000 + 3_600_000);
  t.equal(watch.look(), 3_600_000);
  t.equal(watch.look(), undefined, 'once');
  pass(1000, -5000);
  t.equal(watch.look(), -6000);
  t.same([watch.steps, watch.lastStepMs], [2, -6000]);
  pass(1000, 1000 + STEP_MS_MIN);
  t.equal(watch.look(), undefined, 'not more than the bound');
  pass(1000, 1000 + STEP_MS_MIN + 1);
  t.equal(watch.look(), STEP_MS_MIN + 1);
  for (let second = 0; second < 1000; second++) {
    pass(1000, 1000.5);
    t.equal(watch.look(), undefined);
  }
  t.equal(watch.steps, 3, 'half a second in a thousand is steering');
});

t.test('a pause between two readings is no step', async (t) => {
  let monotonicMs = 0;
  let pauses = 0;
  const wallMs = (): number => {
    // The process is held up between reading the one clock and the other, but not every time.
    if (pauses > 0) {
      pauses--;
      monotonicMs += 400;
    }
    return monotonicMs + 500;
  };
  const watch = new ClockWatch({ wallMs, monotonicMs: () => monotonicMs });
  pauses = 2;
  t.equal(watch.look(), undefined);
  t.equal(watch.steps, 0);
});
