/** Files for hooks that run as somebody else: a folder that is open to all, and out of it again. */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import t from 'tap';
import { HookFiles } from '../../src/image/hook-files.js';

const folder = mkdtempSync(join(tmpdir(), 'premotor-hooks-'));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
const mode = (path: string): number => statSync(path).mode & 0o777;

t.test('root uses them where they are', async (t) => {
  const hooks = new HookFiles(true);
  t.equal(hooks.read('/a/b'), '/a/b');
  t.equal(hooks.write('/c/d'), '/c/d');
  hooks.collect();
  hooks.close();
});

t.test('otherwise inputs are copied, readable by all, and outputs come back', async (t) => {
  const tree = join(folder, 'tree');
  mkdirSync(join(tree, 'sub'), { recursive: true });
  writeFileSync(join(tree, 'sub', 'run'), '#!/bin/sh\n', { mode: 0o700 });
  writeFileSync(join(tree, 'secret'), 'x', { mode: 0o600 });
  chmodSync(tree, 0o700);
  const hooks = new HookFiles(false);
  const seen = hooks.read(tree);
  t.equal(mode(dirname(seen)), 0o777, 'hooks may write beside it');
  t.same([seen, join(seen, 'sub'), join(seen, 'sub', 'run'), join(seen, 'secret')].map(mode), [0o755, 0o755, 0o755, 0o644]);
  t.equal(mode(join(tree, 'secret')), 0o600, 'the original is as it was');
  t.equal(readFileSync(join(seen, 'secret'), 'utf8'), 'x');
  t.not(hooks.read(join(tree, 'secret')), hooks.read(join(tree, 'secret')), 'equal names do not meet');
  const out = join(folder, 'out');
  writeFileSync(hooks.write(out), 'made');
  t.notOk(existsSync(out));
  hooks.collect();
  t.equal(readFileSync(out, 'utf8'), 'made');
  hooks.close();
  hooks.close();
  t.notOk(existsSync(seen), 'nothing stays behind');
});

t.test('an output that no hook wrote is told', async (t) => {
  const hooks = new HookFiles(false);
  t.teardown(() => hooks.close());
  hooks.write(join(folder, 'never'));
  t.throws(() => hooks.collect(), { code: 'ENOENT' });
});
