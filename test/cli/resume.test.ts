/** Episodes that outlive their engine and their supervisor, through the command line: recovery, resume, refusals, replay. */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { runCli } from '../../src/cli/main.js';
import { PremotorError } from '../../src/errors.js';
import type { Policy } from '../../src/policy/contract.js';
import type { EpisodeSummary } from '../../src/runtime/summary.js';
import { atHome, FakePolicy } from '../control/fakes.js';
import { expertPolicy } from '../support/expert-policy.js';
import { fakeContext } from './fakes.js';

function prepare(t: Test, mode = 'sync'): { dir: string; file: string; journals: string } {
  const lines = ['robot: {type: sim}', 'task: {name: touch, seed: 3}', 'policy: {checkpoint_dir: ckpt}', `control: {mode: ${mode}}`];
  const text = `${lines.join('\n')}\nrecording: {animation: false, out_dir: out}\n`;
  const dir = t.testdir({ 'arm.yaml': text });
  return { dir, file: join(dir, 'arm.yaml'), journals: join(dir, 'out', 'journal') };
}

async function run(argv: string[], policies: readonly Policy[], command = 'run'): Promise<{ code: number; out: string; err: string; loads: number }> {
  let loads = 0;
  const load = async (): Promise<Policy> => policies[Math.min(loads++, policies.length - 1)] as Policy;
  const { out, err, context } = fakeContext({ loadPolicy: load });
  const code = await runCli([command, ...argv], context);
  return { code, out: out.text, err: err.text, loads };
}

/** Fails in its n-th prediction. */
function failing(policy: FakePolicy, chunk: number, code: string, method = 'predict'): FakePolicy {
  let count = 0;
  policy.before = (call) => {
    if (call === method && count++ === chunk) throw new PremotorError(code, 'It is over.');
  };
  return policy;
}

t.test('an engine that dies in mid-episode costs time, not the task', async (t) => {
  const { file } = prepare(t);
  const [first, second] = [failing(await expertPolicy('touch', 3), 2, 'ENGINE_DIED'), await expertPolicy('touch', 3)];
  const { code, out, err, loads } = await run([file], [first, second]);
  t.equal(code, 0, err);
  t.equal(loads, 2);
  t.match(out, /success +yes/);
  t.match(err, /The engine process died[\s\S]*rebuilding 2 commits[\s\S]*goes on where it was/);
  t.ok(first.isClosed && second.isClosed);
  t.equal(second.predictions.length + first.chunks.length, first.predictions.length - 1 + second.predictions.length, 'no chunk was predicted twice');
});

t.test('an episode that failed is resumed: the world, the memory and the chunk count go on', async (t) => {
  const { file, journals, dir } = prepare(t);
  const failed = await run([file, '--json'], [failing(await expertPolicy('touch', 3), 2, 'OUT_OF_MEMORY')]);
  t.equal(failed.code, 1);
  const before = JSON.parse(failed.out.slice(0, failed.out.indexOf('\n}\n') + 2)) as EpisodeSummary;
  t.equal(before.chunks.length, 2);
  const again = await expertPolicy('touch', 3);
  const { code, out, err } = await run([file, '--json', '--resume'], [again]);
  t.equal(code, 0, err);
  t.match(err, /Resumed after 2 chunks from .*journal/);
  const summary = JSON.parse(out) as EpisodeSummary;
  t.equal(summary.chunks[0]?.chunk, 2);
  t.equal(summary.chunks[0]?.frameIndex, 4);
  t.ok(summary.completionS !== null && summary.completionS > 0.64 * 2 - 0.4, 'time counts from the beginning of the episode');
  t.same(
    again.resets.map(({ prompt }) => prompt),
    [summary.instruction],
  );
  t.notOk(again.predictions[0]?.obs, 'it remembers: no first observation');
  t.equal(readdirSync(journals).length, 1, 'the same journal goes on');
  t.match(await run([file, '--resume'], [again]), { code: 1, err: /error RESUME_FINISHED/ });
  const replayed = await run([join(dir, 'out', 'episode.replay')], [await resumedExpert()], 'replay');
  t.equal(replayed.code, 0, replayed.err);
});

t.test('the same while the next chunk is computed during the motion', async (t) => {
  const mode = 'async-grounded';
  const recovered = prepare(t, mode);
  const dying = failing(await expertPolicy('touch', 3), 1, 'ENGINE_DIED', 'predictNext');
  const lived = await run([recovered.file], [dying, await expertPolicy('touch', 3)]);
  t.equal(lived.code, 0, lived.err);
  t.match(lived.out, /success +yes/);
  t.match(lived.err, /The engine process died[\s\S]*goes on where it was/);

  rmSync(join(recovered.dir, 'out'), { recursive: true });
  const { file } = recovered;
  const failed = await run([file, '--json'], [failing(await expertPolicy('touch', 3), 1, 'OUT_OF_MEMORY', 'predictNext')]);
  t.equal(failed.code, 1);
  const { code, out, err } = await run([file, '--json', '--resume'], [await expertPolicy('touch', 3)]);
  t.equal(code, 0, err);
  t.match(err, /Resumed after \d+ chunks/);
  t.equal((JSON.parse(out) as EpisodeSummary).success, true);
});

/** The expert's answers depend on its frame index alone, which a restore sets. */
const resumedExpert = (): Promise<FakePolicy> => expertPolicy('touch', 3);

t.test('what cannot be resumed is refused before anything is opened', async (t) => {
  const { file, dir, journals } = prepare(t);
  const unused = new FakePolicy(atHome);
  t.match(await run([file, '--resume'], [unused]), { code: 1, err: /error RESUME_NOTHING: .*found none/, loads: 0 });
  t.equal((await run([file], [failing(new FakePolicy(atHome), 2, 'OUT_OF_MEMORY')])).code, 1);
  t.match(await run([file, '--seed', '4', '--resume'], [unused]), { code: 1, err: /error RESUME_NOTHING: .*1 of other configurations/, loads: 0 });
  const journal = join(journals, readdirSync(journals)[0] ?? '');
  t.match(await run([file, '--seed', '4', '--resume', journal], [unused]), {
    code: 1,
    err: /error JOURNAL_FOREIGN: .*another configuration/,
    loads: 0,
  });
  const other = new FakePolicy(atHome, { attn_window: 10 });
  t.match(await run([file, '--resume', journal], [other]), { code: 1, err: /error JOURNAL_FOREIGN: .*another job/ });
  t.ok(other.isClosed);
  for (const name of ['encoder-0', 'encoder-1']) rmSync(join(journal, name));
  t.match(await run([file, '--resume', journal], [unused]), { code: 1, err: /error JOURNAL_DAMAGED/, loads: 0 });
  t.notOk(existsSync(join(dir, 'none')));
});

t.test('kill -9 of the supervisor: the episode is resumed from its journal', async (t) => {
  const { file } = prepare(t);
  const source = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href);
  const script = `
    import { runCli } from ${source('../../src/cli/main.ts')};
    import { atHome, FakePolicy } from ${source('../control/fakes.ts')};
    process.exitCode = await runCli(['run', ${JSON.stringify(file)}, '--chunks', '1000'], { loadPolicy: async () => new FakePolicy(atHome) });`;
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const child = spawn(process.execPath, ['--import=tsx', '--input-type=module', '-e', script], { cwd: root, stdio: ['ignore', 'ignore', 'pipe'] });
  t.teardown(() => child.kill('SIGKILL'));
  let heard = '';
  const ended = new Promise<NodeJS.Signals | null>((resolve) => child.on('close', (_, signal) => resolve(signal)));
  child.stderr.on('data', (data) => {
    heard += String(data);
    if (/chunk 3\/1000 {2}predict/.test(heard)) child.kill('SIGKILL');
  });
  t.equal(await ended, 'SIGKILL', heard.slice(-300));
  const { code, err } = await run([file, '--chunks', '1000', '--resume', '--json'], [failing(new FakePolicy(atHome), 2, 'OUT_OF_MEMORY')]);
  t.equal(code, 1, 'two more chunks, then the fake ends it');
  const [, chunks] = /Resumed after (\d+) chunks/.exec(err) ?? [];
  // The kill came after the third chunk's line, whose record may not have reached the disk.
  t.ok(Number(chunks) >= 2, err.slice(0, 400));
  t.match(err, new RegExp(`chunk ${Number(chunks) + 2}/1000 {2}predict`));
});
