/** The journal on a real disk: what was committed comes back to the bit; torn, flipped, foreign, full and finished ones are told apart. */
import { existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { PremotorError } from '../../src/errors.js';
import { commitRecord, headerRecord, JOURNAL_VERSION, jobHash, policyIdentity, readLog } from '../../src/journal/format.js';
import { frame } from '../../src/journal/framing.js';
import { checkOwner, Journal, journalsIn, newestJournal, type Past } from '../../src/journal/journal.js';
import { pack } from '../../src/journal/pack.js';
import { SIM_JOB } from '../../src/sim/job.js';
import { Random } from '../../src/sim/random.js';
import { errorOf, thrownBy } from '../support/fixtures.js';
import { about, commitNumber, entryNumber, isSameCommit } from './entries.js';

async function written(t: Test, commits: number, options: Parameters<typeof Journal.create>[2] = {}): Promise<Journal> {
  const journal = await Journal.create(t.testdir(), about, options);
  for (let n = 1; n <= commits; n++) {
    journal.append(entryNumber(n));
    await journal.settled();
  }
  return journal;
}

/** Whether every commit is the one that was written under its number, and the states are those of the last. */
function isPrefix({ commits, encoder, supervisor }: Past, most: number): boolean {
  if (commits.length > most || !commits.every((commit, index) => isSameCommit(commit, commitNumber(index + 1)))) return false;
  if (commits.length === 0) return encoder === undefined && supervisor === undefined;
  const wanted = entryNumber(commits.length);
  return Buffer.from(wanted.encoder).equals(encoder ?? Buffer.alloc(0)) && Buffer.from(wanted.supervisor ?? []).equals(supervisor ?? Buffer.alloc(0));
}

t.test('what was committed comes back, also to another process, and goes on', async (t) => {
  const journal = await written(t, 5);
  t.ok(isPrefix(await journal.read(), 5));
  t.equal((await journal.read()).commits.length, 5);
  t.same(readdirSync(journal.dir).sort(), ['encoder-0', 'encoder-1', 'log', 'supervisor-0', 'supervisor-1']);
  const { journal: resumed, past } = await Journal.resume(journal.dir);
  t.same(past.header, journal.header);
  t.equal(past.dropped, 0);
  resumed.append(entryNumber(6));
  const after = await resumed.read();
  t.equal(after.commits.length, 6);
  t.ok(isPrefix(after, 6));
  await resumed.close();
});

t.test('a torn last commit is dropped, and the one before has its states', async (t) => {
  const journal = await written(t, 4);
  const log = join(journal.dir, 'log');
  truncateSync(log, readFileSync(log).length - 1);
  const { journal: resumed, past } = await Journal.resume(journal.dir);
  t.equal(past.commits.length, 3);
  t.ok(isPrefix(past, 3));
  resumed.append(entryNumber(4));
  t.equal((await resumed.read()).commits.length, 4, 'the torn bytes are gone');
  await resumed.close();
});

t.test('a torn state file costs its commit', async (t) => {
  const journal = await written(t, 4);
  truncateSync(join(journal.dir, 'encoder-0'), 40);
  const { past } = await Journal.resume(journal.dir);
  t.equal(past.commits.length, 3);
  t.equal(past.dropped, 1);
  t.ok(isPrefix(past, 3));
  rmSync(join(journal.dir, 'supervisor-1'));
  t.match(await errorOf(Journal.resume(journal.dir)), { code: 'JOURNAL_DAMAGED', found: 'neither whole' });
});

t.test('random truncations and bit flips never give a wrong commit, at most fewer', async (t) => {
  const seed = Date.now() % 2 ** 32;
  t.comment(`seed ${seed}`);
  const random = new Random(seed);
  const journal = await written(t, 6);
  await journal.close();
  const names = readdirSync(journal.dir);
  const whole = new Map(names.map((name) => [name, readFileSync(join(journal.dir, name))]));
  let wrong = 0;
  const outcomes = { fewer: 0, same: 0, refused: 0 };
  for (let round = 0; round < 400; round++) {
    for (const [name, bytes] of whole) writeFileSync(join(journal.dir, name), bytes);
    const name = names[random.integer(names.length)] ?? 'log';
    const bytes = Buffer.from(whole.get(name) ?? []);
    if (random.integer(2) === 0) truncateSync(join(journal.dir, name), random.integer(bytes.length));
    else {
      for (let flips = 1 + random.integer(3); flips > 0; flips--) {
        const at = random.integer(bytes.length);
        bytes[at] = (bytes[at] ?? 0) ^ (1 << random.integer(8));
      }
      writeFileSync(join(journal.dir, name), bytes);
    }
    try {
      const { journal: resumed, past } = await Journal.resume(journal.dir);
      await resumed.close();
      if (!isPrefix(past, 6)) wrong++;
      outcomes[past.commits.length < 6 ? 'fewer' : 'same']++;
    } catch (error) {
      const { code } = error as PremotorError;
      if (!['JOURNAL_DAMAGED', 'RESUME_NOTHING'].includes(code)) throw error;
      outcomes.refused++;
    }
  }
  t.comment(JSON.stringify(outcomes));
  t.equal(wrong, 0);
  t.ok(outcomes.fewer > 0 && outcomes.refused > 0, 'the damage was noticed');
});

t.test('a log that was put together wrongly is refused', async (t) => {
  const header = { ...about, version: JOURNAL_VERSION, created: 'now' };
  const log = (...parts: Uint8Array[]) => readLog(Buffer.concat(parts), 'f');
  t.equal(log(headerRecord(header), commitRecord(commitNumber(1), 1)).commits.length, 1);
  t.equal(log(headerRecord(header), commitRecord(commitNumber(2), 2)).commits.length, 0, 'a missing record');
  t.match(
    thrownBy(() => log(commitRecord(commitNumber(1), 0))),
    { code: 'JOURNAL_DAMAGED', expected: 'a record of kind 1' },
  );
  t.match(
    thrownBy(() => log(headerRecord(header), frame(2, 1, pack({ latents: 3 })))),
    { code: 'JOURNAL_DAMAGED' },
  );
  t.match(
    thrownBy(() => log()),
    { code: 'JOURNAL_DAMAGED', found: 'an empty file' },
  );
  t.match(
    thrownBy(() => log(headerRecord({ ...header, version: 99 }))),
    { code: 'JOURNAL_FOREIGN', found: 'version 99' },
  );
});

t.test('bounds: a full journal ends with a warning and cannot be resumed', async (t) => {
  for (const limits of [{ maxRecords: 2 }, { maxBytes: 3500 }]) {
    const warnings: PremotorError[] = [];
    const journal = await written(t, 2, { ...limits, onWarning: (error) => warnings.push(error) });
    t.equal(journal.state, 'recording');
    const bytes = readFileSync(join(journal.dir, 'log')).length;
    for (const n of [3, 4, 5]) {
      journal.append(entryNumber(n));
      await journal.settled();
    }
    t.equal(journal.state, 'full');
    t.match(warnings, [{ code: 'JOURNAL_FULL' }], 'said once');
    t.ok(readFileSync(join(journal.dir, 'log')).length < bytes + 1024);
    t.match(await errorOf(journal.read()), { code: 'JOURNAL_FULL' });
    t.match(await errorOf(Journal.resume(journal.dir)), { code: 'JOURNAL_FULL' });
    await journal.close();
  }
});

t.test('a disk that refuses ends the journal, not the episode, and leaves nothing to resume', async (t) => {
  const warnings: PremotorError[] = [];
  const journal = await written(t, 1, { onWarning: (error) => warnings.push(error) });
  rmSync(journal.dir, { recursive: true });
  writeFileSync(journal.dir, 'no folder any more');
  journal.append(entryNumber(2));
  await journal.settled();
  t.equal(journal.state, 'failed');
  t.match(warnings, [{ code: 'JOURNAL_WRITE' }]);
  t.match(await errorOf(Journal.resume(journal.dir)), { code: 'RESUME_NOTHING' });
  t.match(await errorOf(Journal.create(journal.dir, about)), { code: 'JOURNAL_WRITE' });
});

t.test('nothing to resume, a finished episode, another owner', async (t) => {
  const parent = t.testdir();
  t.match(await errorOf(newestJournal(parent, 'c')), { code: 'RESUME_NOTHING', found: 'none' });
  const empty = await Journal.create(parent, about);
  t.match(await errorOf(Journal.resume(empty.dir)), { code: 'RESUME_NOTHING', found: 'one without a commit' });
  empty.append(entryNumber(1));
  await empty.end('reached');
  t.equal(empty.state, 'ended');
  t.match(await errorOf(Journal.resume(empty.dir)), { code: 'RESUME_FINISHED', found: 'reached' });
  t.match(await errorOf(Journal.resume(join(parent, 'none'))), { code: 'RESUME_NOTHING' });
  t.match(await errorOf(newestJournal(parent, 'other')), { code: 'RESUME_NOTHING', found: '1 of other configurations' });
  t.equal(await newestJournal(parent, 'c'), empty.dir);
  checkOwner(empty.dir, empty.header, { ...about });
  for (const field of ['checkpoint', 'job', 'precision', 'configuration'] as const) {
    t.match(
      thrownBy(() => checkOwner(empty.dir, empty.header, { ...about, [field]: 'x' })),
      { code: 'JOURNAL_FOREIGN', field, expected: 'x' },
    );
  }
});

t.test('a journal belongs to a precision with its KV cache', async (t) => {
  const precisionOf = (precision: 'f32' | 'int8', kvCache: 'f32' | 'bf16' | 'int8') =>
    policyIdentity(SIM_JOB, { checkpointHash: 'c', precision, kvCache }).precision;
  t.same([precisionOf('f32', 'f32'), precisionOf('int8', 'bf16')], ['f32', 'int8'], 'as in journals of earlier versions');
  t.same([precisionOf('int8', 'int8'), precisionOf('f32', 'int8')], ['int8-kv-int8', 'f32-kv-int8']);
});

t.test('only the newest journals stay', async (t) => {
  const parent = t.testdir();
  const made: string[] = [];
  for (let count = 0; count < 7; count++) {
    const journal = await Journal.create(parent, about);
    await journal.close();
    made.push(journal.dir);
  }
  t.same(await journalsIn(parent), made.slice(-4).reverse());
  t.notOk(existsSync(made[0] ?? ''));
});

t.test('equal jobs have equal hashes', async (t) => {
  const turned = Object.fromEntries(Object.entries(SIM_JOB).reverse()) as typeof SIM_JOB;
  t.equal(jobHash(turned), jobHash(SIM_JOB));
  t.not(jobHash({ ...SIM_JOB, attn_window: 4 }), jobHash(SIM_JOB));
});
