/**
 * bench/dashboard.ts runs tiny, so that it cannot rot: it fails unless the viewer saw pictures, imagined ones too, and nothing was decoded for
 * nobody.
 */
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

t.test('the bench of the status page', (t) => {
  const args = ['--import=tsx', join(root, 'bench', 'dashboard.ts'), '--seconds', '2', '--rounds', '1', '--json'];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
  t.equal(status, 0, stderr);
  const { total, kinds } = JSON.parse(stdout) as { total: readonly Record<string, number>[]; kinds: readonly string[] };
  t.match(
    total.map(({ samples = 0, frames = 0 }) => samples > 0 && frames > 0),
    [true, true, true],
  );
  t.same([total[0]?.['decodes'], total[1]?.['decodes']], [0, 0]);
  t.ok(kinds.includes('live 0') && kinds.includes('live 1'), `${kinds}`);
  t.end();
});
