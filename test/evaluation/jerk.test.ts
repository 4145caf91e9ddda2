/** The jerk meter against motions whose third derivative is known. */
import t from 'tap';
import { JerkMeter } from '../../src/evaluation/jerk.js';

const measure = (motion: (seconds: number) => number[], seconds = 0.5, periodS = 0.002): number => {
  const meter = new JerkMeter(motion(0).length, periodS);
  for (let step = 0; step * periodS <= seconds; step++) meter.add(Float64Array.from(motion(step * periodS)));
  return meter.peak;
};

t.test('known motions', async (t) => {
  t.equal(
    measure(() => [1, -2]),
    0,
  );
  t.ok(measure((s) => [0.3 + 2 * s + 4 * s * s]) < 1e-3, 'constant acceleration has none but rounding');
  t.ok(Math.abs(measure((s) => [0, 5 * s ** 3]) - 30) < 1e-3, 'a cubic has six times its factor, on any joint');
  const sine = measure((s) => [Math.sin(10 * s)]);
  t.ok(Math.abs(sine - 1000) < 2, `sin 10 t has 1000 at most, found ${sine}`);
});

t.test('too few setpoints have no jerk', async (t) => {
  const meter = new JerkMeter(1, 0.002);
  for (const value of [0, 1, 0]) meter.add(Float64Array.of(value));
  t.equal(meter.peak, 0);
});
