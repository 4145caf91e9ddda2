/** Worker processes: the order and the results do not depend on how many there are; errors, deaths and interrupts end the evaluation. */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { Configuration, EpisodeResult } from '../../src/evaluation/configuration.js';
import { episodesOf, evaluate } from '../../src/evaluation/evaluation.js';
import { WorkerPool } from '../../src/evaluation/workers.js';
import { SIM_JOB } from '../../src/sim/job.js';

const FAKE = fileURLToPath(new URL('./fake-worker-process.ts', import.meta.url));
const configuration: Configuration = { precision: 'f32', memory: 'episode', disturbances: {}, pace: 'virtual' };
const subject = { checkpoint: 'folder/expert', job: SIM_JOB };
const tasks = ['touch', 'push'] as const;

/** Everything but the clock's readings. */
const timeless = ({ predictMs, commitMs, ...rest }: EpisodeResult): object => ({ ...rest, chunks: [predictMs.length, commitMs.length] });

t.test('the same seeds give the same results for any number of workers', async (t) => {
  const run = async (workers: number) => {
    const pool = new WorkerPool(workers, FAKE);
    t.teardown(() => pool.close());
    return evaluate({ pool, workers, subject, configuration, tasks, firstSeed: 10, episodes: 3 });
  };
  const [one, three] = [await run(1), await run(3)];
  t.same(three.evaluation.episodes.map(timeless), one.evaluation.episodes.map(timeless));
  t.same(three.failures, one.failures);
  t.same(
    one.evaluation.episodes.map(({ task, seed, verdict }) => [task, seed, verdict]),
    tasks.flatMap((task) => [
      [task, 10, 'succeeded'],
      [task, 11, 'timeout'],
      [task, 12, 'succeeded'],
    ]),
  );
  t.match(one.evaluation.tasks[1], { task: 'push', episodes: 3, succeeded: 2, success: 2 / 3, errors: 0, clampedShare: 0 });
  t.match(one.evaluation.checkpoint, { name: 'expert', hash: 'fake' });
  t.match(one.evaluation.job, { videoSteps: 5, actionSteps: 10, videoExecStep: -1, hash: /^[0-9a-f]{64}$/ });
});

t.test('a pool runs one configuration after another and reports progress', async (t) => {
  const pool = new WorkerPool(2, FAKE);
  t.teardown(() => pool.close());
  const done: number[] = [];
  for (const memory of ['episode', 'chunk'] as const) {
    const episodes = episodesOf(['touch'], 2, 1);
    const { outcomes } = await pool.run(subject, { ...configuration, memory }, episodes, { onEpisode: (_, count) => done.push(count) });
    t.equal(outcomes[0]?.result.predictMs.length, memory === 'chunk' ? 11 : 6);
  }
  t.same(done, [1, 1]);
});

t.test('a run may use fewer workers than the pool has: then a short episode waits for a long one', async (t) => {
  const pool = new WorkerPool(2, FAKE);
  t.teardown(() => pool.close());
  const ended: string[] = [];
  const episodes = [
    { task: 'press-n', seed: 0 },
    { task: 'touch', seed: 0 },
  ] as const;
  await pool.run(subject, configuration, episodes, { workers: 1, onEpisode: ({ result }) => ended.push(result.task) });
  t.same(ended, ['press-n', 'touch']);
});

t.test('what opening reports is the error', async (t) => {
  const pool = new WorkerPool(2, FAKE);
  t.teardown(() => pool.close());
  await t.rejects(pool.run({ ...subject, checkpoint: 'folder/missing' }, configuration, episodesOf(['touch'], 0, 2)), /no such checkpoint/);
});

t.test('a worker that dies ends the evaluation', async (t) => {
  const pool = new WorkerPool(1, FAKE);
  t.teardown(() => pool.close());
  await t.rejects(pool.run(subject, configuration, episodesOf(['touch'], 666, 1)), { code: 'EVAL_WORKER', found: 'exit code 3' });
  await t.rejects(pool.run(subject, configuration, episodesOf(['touch'], 0, 1)), { code: 'EVAL_WORKER' }, 'and so does the next');
});

t.test('an interrupt does not wait', async (t) => {
  const pool = new WorkerPool(1, FAKE);
  const stop = new AbortController();
  const reason = new Error('interrupted');
  const run = pool.run(subject, configuration, episodesOf(['touch'], 0, 50), { signal: stop.signal, onEpisode: () => stop.abort(reason) });
  await t.rejects(run, reason);
  await t.rejects(pool.run(subject, configuration, episodesOf(['touch'], 0, 1), { signal: stop.signal }), reason);
});
