/**
 * bench/observers.ts runs tiny, so that it cannot rot: it fails unless every observer watched, the viewer saw pictures, imagined ones too, and
 * nothing was decoded for nobody.
 */
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

t.test('the bench of the observers', (t) => {
  const args = ['--import=tsx', join(root, 'bench', 'observers.ts'), '--seconds', '2', '--rounds', '1', '--json'];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
  t.equal(status, 0, stderr);
  const { total, kinds } = JSON.parse(stdout) as { total: readonly Record<string, number>[]; kinds: readonly string[] };
  t.match(
    total.map(({ samples = 0, frames = 0 }) => samples > 0 && frames > 0),
    [true, true, true, true, true, true],
  );
  t.same(
    total.slice(0, -1).map(({ decodes }) => decodes),
    [0, 0, 0, 0, 0],
  );
  t.ok((total[3]?.['bytes'] ?? 0) > 0, 'a recording of everything grows');
  t.ok(kinds.includes('live 0') && kinds.includes('live 1'), `${kinds}`);
  t.end();
});
