/** Percentiles, and a cycle's report in the summary's words. */
import t from 'tap';
import { PremotorError } from '../../src/errors.js';
import { latencyOf, summaryOfReport } from '../../src/runtime/summary.js';

t.test('latencies by the nearest rank', async (t) => {
  t.equal(latencyOf([]), null);
  t.same(latencyOf([5]), { p50: 5, p99: 5, max: 5 });
  const values = Array.from({ length: 200 }, (_, index) => 200 - index);
  t.same(latencyOf(values), { p50: 100, p99: 198, max: 200 });
  t.equal(values[0], 200, 'the values are left in their order');
});

t.test('a report without chunks, with an error', async (t) => {
  const error = new PremotorError('BUS_OFF', 'gone');
  const report = { outcome: 'failed', error, chunks: [], knots: 3, clampedKnots: 1, activeMs: 60, robotMs: 260, listenerErrors: [] } as const;
  t.same(summaryOfReport(report), {
    outcome: 'failed',
    stopReason: null,
    error: { code: 'BUS_OFF', message: 'gone' },
    robotS: 0.26,
    chunks: [],
    latencyMs: { predict: null, execute: null, commit: null },
    frameAgeMsMax: null,
    frameSkewMsMax: null,
    setpoints: 3,
    clampedSetpoints: 1,
  });
});
