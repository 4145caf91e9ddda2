/** Known values of the statistics: Wilson's interval and McNemar's test from published tables and by hand. */
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { comparePaired, mcnemar, pairedInterval, percentile, wilson } from '../../src/evaluation/statistics.js';

const near = (t: Test, found: number, wanted: number, digits = 4): void => void t.equal(found.toFixed(digits), wanted.toFixed(digits));

t.test('Wilson interval', async (t) => {
  for (const [successes, trials, low, high] of [
    [8, 10, 0.4902, 0.9433],
    [50, 100, 0.4038, 0.5962],
    [81, 263, 0.2553, 0.3662], // Newcombe 1998, table I
    [15, 148, 0.0624, 0.1605],
    [1, 29, 0.0061, 0.1718],
  ] as const) {
    near(t, wilson(successes, trials).low, low);
    near(t, wilson(successes, trials).high, high);
  }
  t.same(wilson(0, 0), { low: 0, high: 1 });
  t.equal(wilson(0, 20).low, 0);
  near(t, wilson(0, 20).high, 0.1611);
  t.equal(wilson(20, 20).high, 1);
  fc.assert(
    fc.property(fc.nat(500), fc.nat(500), (a, b) => {
      const [successes, trials] = [Math.min(a, b), Math.max(a, b, 1)];
      const { low, high } = wilson(successes, trials);
      return low >= 0 && low <= successes / trials && high >= successes / trials && high <= 1;
    }),
  );
});

t.test('percentiles', async (t) => {
  t.equal(percentile([], 0.5), null);
  t.equal(percentile([7], 0.99), 7);
  t.equal(percentile([3, 1, 2], 0.5), 2);
  t.equal(percentile([1, 2, 3, 4], 0.5), 2.5);
  t.equal(percentile([10, 0], 1), 10);
  const unsorted = [2, 1];
  percentile(unsorted, 0.5);
  t.same(unsorted, [2, 1], 'the values stay as they were');
});

t.test('McNemar, exact and two-sided', async (t) => {
  t.equal(mcnemar(0, 0), 1);
  t.equal(mcnemar(3, 3), 1);
  near(t, mcnemar(0, 6), 2 / 64, 12);
  near(t, mcnemar(6, 0), 2 / 64, 12);
  near(t, mcnemar(5, 15), 0.041389, 6);
  near(t, mcnemar(1, 9), 22 / 1024, 12);
  t.ok(mcnemar(400, 900) < 1e-40, 'large counts do not overflow');
  t.ok(mcnemar(400, 900) > 0);
});

t.test('pairs are those that both have', async (t) => {
  const outcomes = (text: string): Map<string, boolean> => new Map([...text].map((one, seed) => [String(seed), one === '+']));
  t.same(comparePaired(outcomes('++--+'), outcomes('+-+-')), { pairs: 4, onlyFirst: 1, onlySecond: 1, difference: 0, p: 1 });
  t.match(comparePaired(outcomes('----'), outcomes('+++-')), { onlyFirst: 0, onlySecond: 3, difference: 0.75 });
  near(t, comparePaired(outcomes('----'), outcomes('+++-')).p, 0.25, 12);
  t.match(comparePaired(new Map(), outcomes('+')), { pairs: 0, difference: 0, p: 1 });
});

t.test("Tango's interval for paired shares", async (t) => {
  for (const [onlyFirst, onlySecond, pairs, low, high] of [
    [16, 6, 161, -0.124, -0.0054], // Cavo et al. 2012 in Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables, chapter 8
    [7, 1, 21, -0.5172, -0.026], // Bentur et al. 2009, the same chapter
    [0, 0, 50, -0.0713, 0.0713], // z^2 / (n + z^2), by hand
  ] as const) {
    near(t, pairedInterval(onlyFirst, onlySecond, pairs).low, low);
    near(t, pairedInterval(onlyFirst, onlySecond, pairs).high, high);
  }
  t.same(pairedInterval(0, 0, 0), { low: -1, high: 1 });
  t.equal(pairedInterval(0, 20, 20).high, 1);
  t.equal(pairedInterval(20, 0, 20).low, -1);
  near(t, pairedInterval(0, 20, 20).low, -pairedInterval(20, 0, 20).high, 8);
  fc.assert(
    fc.property(fc.nat(300), fc.nat(300), fc.nat(300), (onlyFirst, onlySecond, alike) => {
      const pairs = Math.max(1, onlyFirst + onlySecond + alike);
      const { low, high } = pairedInterval(onlyFirst, onlySecond, pairs);
      const mirrored = pairedInterval(onlySecond, onlyFirst, pairs);
      const found = (onlySecond - onlyFirst) / pairs;
      const isMirrored = Math.abs(low + mirrored.high) < 1e-7 && Math.abs(high + mirrored.low) < 1e-7;
      return low >= -1 && low <= found && high >= found && high <= 1 && high > low && isMirrored;
    }),
  );
});
