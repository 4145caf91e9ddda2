/** A cache of tactics: what is merged, in which order, and what a broken or unwritable file is called. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { PlanTuning } from '../../src/plan/directory.js';
import { extendTactics, mergedTunings, otherTactics, readTactics, tacticWords } from '../../src/plan/tactics.js';
import { errorOf } from '../support/fixtures.js';

type Product = PlanTuning['products'][number];

const product = (name: string, outputs: number, rows: readonly number[], split: 'rule' | 'alone' | 'shared' = 'rule'): Product => ({
  product: name,
  outputs,
  inputs: 8,
  group: 0,
  tactics: rows.map((count) => ({ rows: count, split, tiles: 20 })),
});
const tuning = (processor: string, threads: number, ...products: Product[]): PlanTuning => ({ processor, threads, products });

t.test('merging', async (t) => {
  const known = [tuning('a', 2, product('f32', 16, [1, 9])), tuning('b', 2, product('f32', 16, [1]))];
  const found = tuning('a', 2, product('bf16', 900, [3]), product('f32', 16, [4, 9], 'alone'));
  const [other, merged, ...more] = mergedTunings(known, found);
  t.same(other, known[1], 'another processor is as it was');
  t.same(more, []);
  t.same(
    merged?.products.map((one) => [one.product, one.outputs, one.tactics.map(({ rows, split }) => `${rows} ${split}`)]),
    [
      ['bf16', 900, ['3 rule']],
      ['f32', 16, ['1 rule', '4 alone', '9 alone']],
    ],
    'in the order of the format, rows by number',
  );
  t.equal(mergedTunings(known, tuning('a', 3, product('f32', 16, [1]))).length, 3, 'other threads are another tuning');
  t.same(mergedTunings([], found), [found]);
});

t.test('what differs from the rule, in words', async (t) => {
  const some = tuning('a', 2, product('f32', 16, [1]), product('f32', 32, [4], 'shared'));
  t.same(
    otherTactics(some).map(({ tactic }) => tacticWords(tactic)),
    ['on all threads'],
  );
  t.equal(tacticWords({ rows: 1, split: 'alone', tiles: 20 }), 'on one thread');
  t.equal(tacticWords({ rows: 1, split: 'rule', tiles: 5 }), 'tasks of 5 tiles of rows');
});

t.test('the file', async (t) => {
  const dir = t.testdir();
  const file = join(dir, 'tactics.json');
  t.equal(await readTactics(file), '', 'none yet');
  t.match(await errorOf(readTactics(dir)), { code: 'TACTICS_INVALID', file: dir, expected: 'a readable file' });
  await extendTactics(file, '', tuning('', 0));
  t.same(readdirSync(dir), [], 'nothing was found, nothing is written');
  const found = tuning('a', 2, product('f32', 16, [1]));
  await extendTactics(file, '', found);
  const text = await readTactics(file);
  t.same(JSON.parse(text), { tunings: [found] });
  await extendTactics(file, text, tuning('b', 1, product('f32', 16, [2])));
  t.equal((JSON.parse(readFileSync(file, 'utf8')) as { tunings: unknown[] }).tunings.length, 2);
  t.same(readdirSync(dir), ['tactics.json'], 'no other file is left');
  t.match(await errorOf(extendTactics(join(dir, 'no', 'tactics.json'), '', found)), { code: 'FILE_WRITE' });
});
