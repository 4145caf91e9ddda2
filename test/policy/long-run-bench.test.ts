/** bench/long-run.ts runs tiny, so that it cannot rot: the cache fills, every window has its cycles, memory is read. */
import t from 'tap';
import { benchLongRun, longRunMarkdown } from '../../bench/long-run.js';

t.test('cycles on a full cache are measured in windows', async (t) => {
  const run = await benchLongRun('models/tabletop', { cycles: 10, videoSteps: 1, actionSteps: 1, imagineSteps: 1, threads: 1, size: 32 });
  t.equal(run.windows.length, 10);
  t.ok(run.filledAfter > 1, `${run.filledAfter} cycles to fill it`);
  for (const { p50Ms, p99Ms, rssMiB } of run.windows) t.ok(p50Ms > 0 && p99Ms >= p50Ms && rssMiB > 10);
  t.match(longRunMarkdown(run), /Last tenth to first: p99 \d/);
});
