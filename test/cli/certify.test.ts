/** `premotor eval certify` from the command line to the job file, with the scripted expert as policy; and what its comparison says. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { writeUntrainedCheckpoint } from '../../src/checkpoint/untrained.js';
import { type CertifyOptions, certifyTable, runCertify } from '../../src/cli/eval-certify.js';
import { runCli } from '../../src/cli/main.js';
import { ladderOf } from '../../src/control/budget/ladder.js';
import { certifyRungs, rungConfiguration } from '../../src/evaluation/certify.js';
import { configuredJob, describeConfiguration, type EpisodeResult } from '../../src/evaluation/configuration.js';
import { type Evaluation, jobHash, machine, summarise } from '../../src/evaluation/evaluation.js';
import { WorkerPool } from '../../src/evaluation/workers.js';
import type { Job, LadderRung } from '../../src/policy/contract.js';
import { parseJob } from '../../src/policy/job.js';
import { SIM_JOB } from '../../src/sim/job.js';
import { checkpointHash } from '../../src/text/checkpoint-hash.js';
import { thrownBy } from '../support/fixtures.js';
import { TextSink } from './fakes.js';

const FAKE = fileURLToPath(new URL('../evaluation/fake-worker-process.ts', import.meta.url));
const never = new AbortController().signal;
const sinks = () => ({ out: new TextSink(), err: new TextSink() });
const HASH = 'ab'.repeat(32);

const base: LadderRung = {
  video_steps: SIM_JOB.num_inference_steps,
  video_exec_step: SIM_JOB.video_exec_step,
  action_steps: SIM_JOB.action_num_inference_steps,
  guidance: true,
  imagine_steps: SIM_JOB.imagine_steps ?? SIM_JOB.num_inference_steps,
};
const ladder: readonly LadderRung[] = [base, { ...base, video_steps: 2, video_exec_step: 2, guidance: false, imagine_steps: 1 }];
const job: Job = parseJob({ ...SIM_JOB, ladder }).job;

/** 100 seeds of one task, those of `done` done. */
function evaluationOf(rung: LadderRung, done: (seed: number) => boolean): Evaluation {
  const episodes = Array.from({ length: 100 }, (_, seed) => ({ task: 'touch', seed: 7 + seed, verdict: done(seed) ? 'succeeded' : 'timeout' }));
  const results = episodes.map((one) => ({ ...one, predictMs: [], commitMs: [] })) as unknown as EpisodeResult[];
  return {
    configuration: rungConfiguration(rung, { precision: 'f32' }),
    mode: 'sync',
    checkpoint: { name: 'sample', hash: HASH, parameters: 1, backend: 'cpu' },
    job: { videoSteps: 5, actionSteps: 10, videoExecStep: -1, hash: jobHash(job) },
    tasks: [summarise('touch', results)],
    episodes: results,
    workers: 1,
    wallS: 1,
    date: '2026-01-02T03:04:05.000Z',
    versions: { premotor: '0.1.0', commit: null },
    machine: machine(),
  };
}

const certified = (second: (seed: number) => boolean, marginPoints: number) =>
  certifyRungs({
    job,
    checkpointHash: HASH,
    marginPoints,
    evaluations: [evaluationOf(base, (seed) => seed < 90), evaluationOf(ladder[1] ?? base, second)],
  });

t.test('non-inferior or not: the lower bound decides, and what is written is what the budget reads', async (t) => {
  const [first, same] = certified((seed) => seed < 90, 5);
  t.match(first, { index: 0, success: 0.9, paired: { pairs: 100, onlyFirst: 0, onlySecond: 0 } });
  t.match(same, { isNonInferior: true, certificate: { difference_points: 0, interval_points: [-3.7, 3.7], episodes: 100, seed: 7, mode: 'sync' } });
  const worse = certified((seed) => seed < 88, 5)[1];
  t.match(worse, { isNonInferior: false, certificate: { difference_points: -2, success: 0.88, base_success: 0.9 } });
  t.equal(certified((seed) => seed < 88, 10)[1]?.isNonInferior, true, 'with a wider margin it is');
  t.ok(certified((seed) => seed > 2 && seed < 95, 0)[1]?.isNonInferior === false, 'better, but not surely');
  const withCertificate = (result = same): Job => {
    const rungs = [base, { ...ladder[1], certificate: result?.certificate }];
    return parseJob(JSON.parse(JSON.stringify({ ...SIM_JOB, ladder: rungs }))).job;
  };
  t.equal(ladderOf(withCertificate(), HASH).length, 2);
  t.equal(thrownBy(() => ladderOf(withCertificate(worse), HASH)).code, 'LADDER_UNCERTIFIED');
  t.equal(ladderOf(withCertificate(), HASH).length, 2);
  t.match(
    certifyTable(
      certified((seed) => seed < 88, 5),
      5,
    ),
    /^1 .* 88\.0 % +-2\.0 +-7\.\d\d \.\. \+1\.\d\d +0\/2 +-2\.0 {2}refused$/m,
  );
  t.throws(() => certifyRungs({ job, checkpointHash: HASH, marginPoints: 5, evaluations: [] }), RangeError);
});

t.test('a rung as a configuration, and as the job that the policy gets', async (t) => {
  const configuration = rungConfiguration(ladder[1] ?? base, { precision: 'f32' });
  t.match(configuration, { videoSteps: 2, videoExecStep: 2, guidance: false, imagineSteps: 1, memory: 'episode', pace: 'virtual' });
  t.match(describeConfiguration(configuration), 'first 2 passes, unguided, 1 imagine steps, f32');
  const guided = { ...job, guidance_scale: 5, action_guidance_scale: 1 };
  t.match(configuredJob(guided, configuration), { guidance_scale: 1, action_guidance_scale: 1, imagine_steps: 1, video_exec_step: 2 });
  t.match(configuredJob({ ...guided, guidance_scale: 0.5 }, configuration), { guidance_scale: 0.5 });
  t.match(configuredJob(guided, rungConfiguration(base, { precision: 'f32' })), { guidance_scale: 5 });
  t.notOk('ladder' in configuredJob(job, configuration));
  t.equal(jobHash(job), jobHash(SIM_JOB), 'a ladder does not make it another job');
});

t.test('from the job file and back', async (t) => {
  const dir = t.testdir();
  const checkpoint = join(dir, 'expert');
  await writeUntrainedCheckpoint(checkpoint, { size: 'tiny' });
  const file = join(dir, 'job.json');
  const text = `${JSON.stringify({ ...SIM_JOB, ladder }, null, 2).replace('"guidance_scale": 1', '"guidance_scale": 1.0')}\n`;
  writeFileSync(file, text);
  const pool = new WorkerPool(2, FAKE);
  t.teardown(() => pool.close());
  const options: CertifyOptions = {
    task: 'touch',
    episodes: 3,
    seed: 0,
    margin: 100,
    checkpoint,
    job: file,
    mode: 'sync',
    precision: 'f32',
    workers: 2,
    out: join(dir, 'kept'),
    write: false,
    json: true,
  };
  const first = sinks();
  const results = await runCertify(options, pool, first, never);
  t.equal(readFileSync(file, 'utf8'), text, 'without --write the file stays as it is');
  t.match(JSON.parse(first.out.text), { mode: 'sync', isWritten: false, rungs: [{ success: 2 / 3 }, { isNonInferior: true }] });
  t.match(first.err.text, /rung 0 of 0 \.\. 1: running episodes 3\/3/);
  const hash = await checkpointHash(checkpoint);
  // The fake's checkpoint hash is not the folder's, so the kept documents get the right one.
  for (const index of [0, 1]) {
    const path = join(dir, 'kept', `rung-${index}.json`);
    const document = JSON.parse(readFileSync(path, 'utf8')) as Evaluation;
    writeFileSync(path, JSON.stringify({ ...document, checkpoint: { ...document.checkpoint, hash } }));
  }
  const second = sinks();
  await runCertify({ ...options, write: true, json: false }, pool, second, never);
  t.match(second.err.text, /rung 0 of 0 \.\. 1: kept\nrung 1 of 0 \.\. 1: kept\nWritten: .*job\.json/);
  const written = readFileSync(file, 'utf8');
  t.equal(written.slice(0, written.indexOf('"ladder"')), text.slice(0, text.indexOf('"ladder"')), 'other fields keep their text');
  const parsed = parseJob(JSON.parse(written)).job;
  t.equal(ladderOf(parsed, hash).length, 2);
  t.same(parsed.ladder?.[1]?.certificate, results[1]?.certificate);
  t.notOk(parsed.ladder?.[0]?.certificate);
  const other = sinks();
  await runCertify({ ...options, seed: 1 }, pool, other, never);
  t.notMatch(other.err.text, 'kept', 'other seeds are other evaluations');
});

t.test('wrong command lines and jobs', async (t) => {
  const dir = t.testdir({ 'none.json': JSON.stringify(SIM_JOB), 'one.json': JSON.stringify({ ...SIM_JOB, ladder: [base] }) });
  const wrong: [string, number, RegExp][] = [
    ['--margin 101', 2, /0 \.\. 100/],
    ['--margin x', 2, /0 \.\. 100/],
    ['--delay 50', 2, /percentage/],
    ['--mode sideways', 2, /sync/],
    ['--episodes 0', 2, /whole number/],
    [`--workers 1 --job ${join(dir, 'absent.json')}`, 2, /a job file with a ladder, found none/],
    [`--workers 1 --job ${join(dir, 'none.json')}`, 1, /JOB_INVALID.*at least two rungs, found none/],
    [`--workers 1 --job ${join(dir, 'one.json')}`, 1, /JOB_INVALID.*found one rung/],
  ];
  for (const [line, code, message] of wrong) {
    const context = sinks();
    t.equal(await runCli(['eval', 'certify', ...line.split(' ')], context), code, line);
    t.match(context.err.text, message, line);
  }
});
