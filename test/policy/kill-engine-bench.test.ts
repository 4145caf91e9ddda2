/** bench/kill-engine.ts runs tiny, so that it cannot rot: it fails unless an episode whose engine was killed went on with the same bits. */
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

t.test('the bench that kills the engine', (t) => {
  const bench = join(root, 'bench', 'kill-engine.ts');
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--import=tsx', bench, '--runs', '1', '--json'], { cwd: root, encoding: 'utf8' });
  t.equal(status, 0, stderr);
  const { summary, runs } = JSON.parse(stdout) as { summary: Record<string, unknown>; runs: readonly Record<string, unknown>[] };
  t.match(summary, { runs: 1, succeeded: 1, rightPresses: 1, sameBits: 1, recovered: 1 });
  t.match(runs, [{ verdict: 'succeeded', sameBits: true }]);
  t.end();
});
