/** `premotor eval` and its report from the command line to the files: with the scripted expert as policy, and once with an engine. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { writeUntrainedCheckpoint } from '../../src/checkpoint/untrained.js';
import { configurationOf, type EvalOptions, evaluationTable, runEval } from '../../src/cli/eval.js';
import { subjectOf, workersFor } from '../../src/cli/eval-options.js';
import { runReport } from '../../src/cli/eval-report.js';
import { runCli } from '../../src/cli/main.js';
import { PremotorError } from '../../src/errors.js';
import type { Evaluation } from '../../src/evaluation/evaluation.js';
import { WorkerPool } from '../../src/evaluation/workers.js';
import { SIM_JOB } from '../../src/sim/job.js';
import { TextSink } from './fakes.js';

const FAKE = fileURLToPath(new URL('../evaluation/fake-worker-process.ts', import.meta.url));
const never = new AbortController().signal;
const sinks = () => ({ out: new TextSink(), err: new TextSink() });
const options = (given: Partial<EvalOptions> = {}): EvalOptions => ({
  task: 'touch',
  episodes: 3,
  checkpoint: 'folder/expert',
  precision: 'f32',
  memory: 'on',
  seed: 0,
  workers: 2,
  realTime: false,
  disturb: {},
  mode: 'sync',
  commits: 'executed',
  json: false,
  ...given,
});

t.test('a run: table, document, contact sheet', async (t) => {
  const pool = new WorkerPool(2, FAKE);
  t.teardown(() => pool.close());
  const out = join(t.testdir(), 'new', 'out');
  const context = sinks();
  const evaluation = await runEval(options({ out }), pool, context, never);
  t.match(context.out.text, /^touch +2\/3 +67 % +21 \.\. 94 % +\d\.\d\d s /m);
  t.match(context.out.text, /^job steps, f32; 2 workers/);
  t.match(context.err.text, 'running episodes 3/3');
  t.same(JSON.parse(readFileSync(join(out, 'evaluation.json'), 'utf8')), JSON.parse(JSON.stringify(evaluation)));
  t.ok(existsSync(join(out, 'failures.png')));
  t.notOk(JSON.stringify(evaluation).includes(process.cwd()), "a document names no place of this machine's disk");
  const again = sinks();
  await runEval(options({ json: true, episodes: 1, task: 'all' }), pool, again, never);
  t.same(
    (JSON.parse(again.out.text) as Evaluation).tasks.map(({ task, succeeded }) => [task, succeeded]),
    [
      ['touch', 1],
      ['press-n', 1],
      ['push', 1],
      ['sequence', 1],
    ],
  );
  const broken = { ...evaluation, episodes: evaluation.episodes.map((episode) => ({ ...episode, verdict: 'error' as const, why: 'BUSY: x' })) };
  t.match(evaluationTable(broken), 'ended by an error, the first: BUSY: x');
  writeFileSync(join(t.testdirName, 'file'), '');
  await t.rejects(runEval(options({ out: join(t.testdirName, 'file'), episodes: 1 }), pool, sinks(), never), { code: 'FILE_WRITE' });
});

t.test('the command line becomes a configuration', async (t) => {
  t.same(configurationOf(options()), { precision: 'f32', memory: 'episode', disturbances: {}, pace: 'virtual' });
  const given = { steps: { video: 3, action: 4 }, videoExecStep: 2, memory: 'off', realTime: true, disturb: { actuatorLagMs: 5 } } as const;
  t.match(configurationOf(options(given)), { videoSteps: 3, actionSteps: 4, videoExecStep: 2, memory: 'chunk', pace: 'real' });
  t.match(configurationOf(options({ precision: 'int8', kvCache: 'int8' })), { precision: 'int8', kvCache: 'int8' });
  t.match(configurationOf(options({ steps: { video: 3 } })), { videoSteps: 3, actionSteps: undefined });
  t.equal(workersFor(undefined, true), 1);
  t.equal(workersFor(5, true), 5);
  t.ok(workersFor(undefined, false) >= 1);
  const dir = t.testdir({ with: { 'job.json': JSON.stringify({ ...SIM_JOB, attn_window: 12 }) }, without: {} });
  t.equal((await subjectOf({ checkpoint: join(dir, 'with') })).job.attn_window, 12);
  t.equal((await subjectOf({ checkpoint: join(dir, 'without') })).job.attn_window, SIM_JOB.attn_window);
  t.equal((await subjectOf({ checkpoint: 'x', job: join(dir, 'with', 'job.json') })).job.attn_window, 12);
});

t.test('wrong command lines', async (t) => {
  const wrong: [string, RegExp][] = [
    ['eval', /--task is needed: expected touch, press-n, push, sequence, all/],
    ['eval --task dance', /choices|dance/],
    ['eval --task touch --steps 0/4', /VIDEO\/ACTION/],
    ['eval --task touch --steps 4/x', /VIDEO\/ACTION/],
    ['eval --task touch --disturb wind=3m/s', /camera-delay=0\.\.2000ms/],
    ['eval --task touch --episodes 0', /whole number/],
    ['eval --task touch --mode sideways', /sync/],
    ['eval report', /--out/],
  ];
  for (const [line, message] of wrong) {
    const context = sinks();
    t.equal(await runCli(line.split(' '), context), 2, line);
    t.match(context.err.text, message, line);
  }
  const help = sinks();
  t.equal(await runCli(['eval', '--help'], help), 0);
  t.match(help.out.text, 'premotor eval --task touch');
});

t.test('a report is made once', async (t) => {
  const dir = t.testdir();
  const checkpoint = join(dir, 'expert');
  await writeUntrainedCheckpoint(checkpoint, { size: 'tiny' });
  const pool = new WorkerPool(2, FAKE);
  t.teardown(() => pool.close());
  // The fake's checkpoint hash is not the folder's, so the kept documents get the right one.
  const given = { out: join(dir, 'report'), checkpoint, episodes: 2, seed: 1, only: ['nudge'], force: false, json: true };
  const first = sinks();
  await runReport(given, pool, first, never);
  const kept = join(given.out, 'evaluation', 'nudge.json');
  const report = JSON.parse(first.out.text) as { rows: { name: string; tasks: { task: string; succeeded: number }[] }[] };
  t.same(
    report.rows.map(({ name, tasks }) => [name, tasks.length]),
    [
      ['full-5-f32', 4],
      ['nudge', 1],
    ],
  );
  t.match(readFileSync(join(given.out, 'REPORT.md'), 'utf8'), '# Evaluation of expert');
  for (const file of ['REPORT.json', 'evaluation/success.png', 'evaluation/failures.png']) t.ok(existsSync(join(given.out, file)), file);
  t.notMatch(first.err.text, 'kept');
  const { checkpointHash } = await import('../../src/text/checkpoint-hash.js');
  for (const name of ['nudge', 'full-5-f32']) {
    const path = join(given.out, 'evaluation', `${name}.json`);
    const document = JSON.parse(readFileSync(path, 'utf8')) as Evaluation;
    writeFileSync(path, JSON.stringify({ ...document, checkpoint: { ...document.checkpoint, hash: await checkpointHash(checkpoint) } }));
  }
  const second = sinks();
  await runReport(given, pool, second, never);
  t.match(second.err.text, /1\/2 .*: kept\n2\/2 block nudged, 0.25 m\/s: kept/);
  writeFileSync(kept, readFileSync(kept, 'utf8').slice(0, 100));
  const third = sinks();
  await runReport(given, pool, third, never);
  t.match(third.err.text, /1\/2 .*: kept/);
  t.notMatch(third.err.text, /2\/2 .*: kept/, 'a document that is cut off is made again');
  const fourth = sinks();
  await runReport({ ...given, episodes: 1, json: false }, pool, fourth, never);
  t.notMatch(fourth.err.text, 'kept', 'other seeds are another evaluation');
  t.match(fourth.out.text, /^Written: .*REPORT\.md\n$/);
});

t.test('with an engine: deterministic, also across workers', async (t) => {
  const checkpoint = join(t.testdir(), 'tiny');
  await writeUntrainedCheckpoint(checkpoint, { size: 'tiny' });
  const run = async (workers: number): Promise<Evaluation['episodes']> => {
    const context = sinks();
    const line = ['eval', '--task', 'touch', '--episodes', '2', '--steps', '1/1', '--video-exec-step', '1', '--checkpoint', checkpoint, '--json'];
    t.equal(await runCli([...line, '--workers', String(workers)], context), 0, context.err.text);
    return (JSON.parse(context.out.text) as Evaluation).episodes.map((episode) => ({ ...episode, predictMs: [], commitMs: [] }));
  };
  const [one, two] = [await run(1), await run(2)];
  t.equal(one.length, 2);
  t.same(two, one);
  const context = sinks();
  t.equal(await runCli(['eval', '--task', 'touch', '--episodes', '1', '--workers', '1', '--checkpoint', join(t.testdirName, 'none')], context), 1);
  t.match(context.err.text, 'CHECKPOINT_MISSING_FILE');
});

t.test('an interrupt ends the command with the code of one', async (t) => {
  const stop = new AbortController();
  const context = { ...sinks(), signal: stop.signal };
  stop.abort(new PremotorError('ABORTED', 'Interrupted.'));
  t.equal(await runCli(['eval', '--task', 'touch', '--workers', '1'], context), 130);
  t.match(context.err.text, 'ABORTED');
});
