/** The list of faults: remedies of docs/ERRORS.md, repeats, bounds. */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { FaultList, remediesIn, remedyFromTable } from '../../src/dashboard/faults.js';

t.test('every row of docs/ERRORS.md has a remedy that is found', async (t) => {
  const document = readFileSync(new URL('../../docs/ERRORS.md', import.meta.url), 'utf8');
  const remedies = remediesIn(document);
  t.equal(remedies.size, [...document.matchAll(/^\| `[A-Z]/gm)].length);
  for (const [code, remedy] of remedies) t.ok(remedy.length > 3 && !remedy.includes('`'), code);
  t.equal(remedyFromTable('CAMERA_FROZEN'), remedies.get('CAMERA_FROZEN'));
  t.equal(remedyFromTable('NO_SUCH_CODE'), '');
});

t.test('newest first; a repeat is counted and comes to the front', async (t) => {
  const list = new FaultList((code) => `mend ${code}`);
  list.note('warning', { code: 'A', message: 'a' }, 1);
  list.note('fault', { code: 'B', message: 'b' }, 2);
  list.note('warning', { code: 'A', message: 'a' }, 3);
  list.note('warning', { code: 'A', message: 'another' }, 4);
  t.match(list.list, [
    { kind: 'warning', code: 'A', message: 'another', count: 1, timeS: 4, remedy: 'mend A' },
    { kind: 'warning', code: 'A', message: 'a', count: 2, timeS: 3 },
    { kind: 'fault', code: 'B', count: 1 },
  ]);
  t.equal(list.version, 4);
});

t.test('the list is bounded, and ids never repeat', async (t) => {
  const list = new FaultList(() => '');
  for (let number = 0; number < 500; number++) list.note('warning', { code: 'A', message: String(number) }, number);
  t.equal(list.list.length, 50);
  t.equal(list.list[0]?.message, '499');
  t.equal(new Set(list.list.map(({ id }) => id)).size, 50);
});
