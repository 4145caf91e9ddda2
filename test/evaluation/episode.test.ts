/** One episode through the real control cycle with the scripted expert as policy: verdicts, times, presses, pictures, disturbances, memory off. */
import t from 'tap';
import { type Configuration, chunksOf, configuredJob, describeConfiguration, thinkingMsOf } from '../../src/evaluation/configuration.js';
import { runEpisode } from '../../src/evaluation/episode.js';
import { EvaluationSession } from '../../src/evaluation/session.js';
import { SIM_JOB } from '../../src/sim/job.js';
import { Simulation } from '../../src/sim/simulation.js';
import { TASKS } from '../../src/sim/tasks/index.js';
import { TASK_NAMES } from '../../src/sim/tasks/task.js';
import { ExpertPolicy } from './expert-policy.js';

const PLAIN: Configuration = { precision: 'f32', memory: 'episode', disturbances: {}, pace: 'virtual' };
const subject = { checkpoint: 'none', job: SIM_JOB };
const open = (policy: ExpertPolicy, configuration = PLAIN): Promise<EvaluationSession> =>
  EvaluationSession.open(subject, configuration, async () => policy);

for (const task of TASK_NAMES) {
  t.test(`the expert's knots succeed at ${task}`, async (t) => {
    const session = await open(new ExpertPolicy());
    const { result, pictures } = await session.run(task, 3);
    await session.close();
    t.match(result, { task, seed: 3, verdict: 'succeeded', why: '', clampedKnots: 0, nudgedAtS: null });
    t.equal(pictures, undefined, 'a success needs no pictures');
    t.ok((result.completionS ?? 0) > 0.5 && (result.completionS ?? Infinity) <= result.robotS, `done after ${result.completionS} s`);
    t.ok(result.peakJerkRadPerS3 > 0);
    t.equal(result.predictMs.length, result.commitMs.length);
  });
}

t.test('time to completion is the moment, not the end of the chunk', async (t) => {
  const session = await open(new ExpertPolicy());
  const { result } = await session.run('touch', 5);
  await session.close();
  const press = result.presses[0]?.timeS ?? Number.NaN;
  t.ok((result.completionS ?? 0) >= press && (result.completionS ?? 0) < press + 0.041, `pressed at ${press} s, done at ${result.completionS} s`);
});

t.test('a failure has a reason and pictures through time', async (t) => {
  const policy = new ExpertPolicy(() => true);
  const session = await open(policy);
  const { result, pictures } = await session.run('press-n', 0);
  await session.close();
  t.equal(result.verdict, 'timeout');
  t.match(result.why, /^pressed 0 of \d times$/);
  t.equal(result.completionS, null);
  t.equal(pictures?.pictures.length, 8);
  t.equal(pictures?.pictures[0]?.timeS, 0);
  t.ok((pictures?.pictures.at(-1)?.timeS ?? 0) >= (11 * 16 - 8) / 25, 'the last one after everything was executed');
  t.equal(policy.predictions.length, 11);
  t.ok(
    policy.predictions.every(({ seed }) => seed === 0),
    "the policy's seed is the episode's",
  );
  t.ok(policy.isClosed);
});

t.test('an error of the cycle is a result', async (t) => {
  const policy = new ExpertPolicy();
  policy.before = (call) => {
    if (call === 'commit') throw new Error('out of order');
  };
  const session = await open(policy);
  const { result } = await session.run('touch', 1);
  await session.close();
  t.equal(result.verdict, 'error');
  t.match(result.why, /out of order/);
});

t.test('an interrupt ends the episode without a result', async (t) => {
  const stop = new AbortController();
  const policy = new ExpertPolicy();
  policy.before = (call) => {
    if (call === 'commit') stop.abort(new Error('enough'));
  };
  const simulation = await Simulation.open({ kind: 'buttons' });
  await t.rejects(runEpisode({ task: TASKS.touch, seed: 0, policy, simulation, configuration: PLAIN, signal: stop.signal }), /enough/);
  simulation.close();
});

t.test('memory off: a new episode from the present picture at every chunk', async (t) => {
  const policy = new ExpertPolicy(() => true);
  const session = await open(policy, { ...PLAIN, memory: 'chunk' });
  const { result } = await session.run('touch', 0);
  await session.close();
  t.equal(policy.commits.length, 0, 'nothing is committed');
  t.equal(policy.resets.length, 11);
  t.same([...new Set(policy.resets.map(({ prompt }) => prompt))], [result.instruction]);
  const seen = policy.predictions.map(({ obs }) => obs?.[0]?.capturedAtNs ?? -1n);
  seen.slice(1).forEach((atNs, chunk) => void t.ok(atNs >= (seen[chunk] ?? 0n) + 320_000_000n, `prediction ${chunk + 1} sees the present`));
  t.equal(result.knots, 11 * 8, 'the robot has the same time as with memory');
});

t.test('steps reach every prediction', async (t) => {
  const policy = new ExpertPolicy(() => true);
  const session = await open(policy, { ...PLAIN, videoSteps: 3, actionSteps: 4 });
  await session.run('touch', 0);
  await session.close();
  t.ok(policy.predictions.length > 1 && policy.predictions.every(({ videoSteps, actionSteps }) => videoSteps === 3 && actionSteps === 4));
});

t.test('the block is knocked aside while it is pushed, by the seed', async (t) => {
  const nudged = { ...PLAIN, disturbances: { blockNudgeMPerS: 0.25 } };
  const times: (number | null)[] = [];
  for (const [seed, configuration] of [
    [4, nudged],
    [4, nudged],
    [5, nudged],
    [4, PLAIN],
  ] as const) {
    const session = await open(new ExpertPolicy(), configuration);
    times.push((await session.run('push', seed)).result.nudgedAtS);
    await session.close();
  }
  t.ok((times[0] ?? 0) > 0.5, `nudged at ${times[0]} s`);
  t.equal(times[1], times[0]);
  t.not(times[2], times[0]);
  t.equal(times[3], null);
});

t.test('a delayed camera is no stale camera', async (t) => {
  const policy = new ExpertPolicy();
  const session = await open(policy, { ...PLAIN, disturbances: { cameraDelayMs: 80, actuatorLagMs: 10 } });
  const { result } = await session.run('touch', 3);
  await session.close();
  t.equal(result.verdict, 'succeeded');
  const firstNs = policy.predictions[0]?.obs?.[0]?.capturedAtNs ?? -1n;
  const moments = policy.commits[0]?.obs.map((frames) => frames[0]?.capturedAtNs ?? -1n) ?? [];
  t.ok(
    moments.every((atNs, index) => index === 0 || atNs === (moments[index - 1] ?? 0n) + 80_000_000n),
    'equidistant',
  );
  t.ok((moments[0] ?? 0n) >= firstNs, 'the first moment may still be shown the first frame');
});

t.test('chunks of an episode', async (t) => {
  t.equal(chunksOf(TASKS.touch, SIM_JOB, 'episode'), TASKS.touch.chunksMax);
  t.equal(chunksOf(TASKS.touch, SIM_JOB, 'chunk'), 2 * TASKS.touch.chunksMax - 1);
  t.equal(chunksOf(TASKS.touch, { ...SIM_JOB, frame_chunk_size: 4 }, 'episode'), 3);
  t.equal(chunksOf(TASKS.touch, { ...SIM_JOB, action_per_frame: 16 }, 'episode'), 4);
});

t.test('configurations in words and as a job', async (t) => {
  const full = { ...PLAIN, videoSteps: 3, actionSteps: 10, videoExecStep: 2, memory: 'chunk', pace: 'real' } as const;
  t.equal(
    describeConfiguration({ ...full, disturbances: { actuatorLagMs: 60 } }),
    '3 video steps, 10 action steps, first 2 passes, f32, memory off, actuator-lag=60ms, real time',
  );
  t.equal(describeConfiguration(PLAIN), 'job steps, f32');
  t.equal(describeConfiguration({ ...PLAIN, precision: 'int8', kvCache: 'int8' }), 'job steps, int8-kv-int8');
  t.equal(describeConfiguration({ ...PLAIN, precision: 'int8', kvCache: 'bf16' }), 'job steps, int8', "the precision's own");
  t.equal(configuredJob(SIM_JOB, full).video_exec_step, 2);
  t.same(configuredJob(SIM_JOB, PLAIN), SIM_JOB);
  const later = { ...PLAIN, mode: 'async-grounded', delayChunks: 1, speedShare: 0.4, imagineSteps: 3 } as const;
  t.equal(describeConfiguration(later), 'async-grounded, delay 100 %, job steps, 3 imagine steps, f32, 40 % of the speed');
  t.equal(describeConfiguration({ ...PLAIN, mode: 'rtc' }), 'rtc, delay 50 %, job steps, f32');
  t.equal(describeConfiguration({ ...PLAIN, commits: 'measured' }), 'job steps, f32, commits what was measured');
  t.equal(configuredJob(SIM_JOB, later).imagine_steps, 3);
  // A chunk of the simulated arm moves for K H / 25 s.
  const chunkMs = (SIM_JOB.frame_chunk_size * SIM_JOB.action_per_frame * 1000) / 25;
  t.same(
    [PLAIN, { ...PLAIN, mode: 'rtc' } as const, later, { ...later, pace: 'real' } as const].map((one) => thinkingMsOf(one, SIM_JOB)),
    [0, chunkMs / 2, chunkMs, undefined],
  );
});
