/** bench/restore.ts runs tiny, so that it cannot rot: every size of commit is restored and timed, and leaves a cache of its own. */
import t from 'tap';
import { benchRestore } from '../../bench/restore.js';

t.test('restoring is measured for every size of commit', async (t) => {
  const figures = await benchRestore({ layers: 1, frames: 16, threads: 1, tiny: true });
  t.same(
    figures.map(({ framesPerCommit }) => framesPerCommit),
    [1, 2, 4, 8],
  );
  for (const { p50Ms, maxMs, tokensPerSecond } of figures) t.ok(p50Ms > 0 && maxMs >= p50Ms && Number.isFinite(tokensPerSecond));
  t.equal(new Set(figures.map(({ checksum }) => checksum)).size, 4);
});
