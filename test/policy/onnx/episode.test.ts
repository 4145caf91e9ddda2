/**
 * The shipped exported policy through the whole path: cameras, control cycle, setpoint stream, firmware, simulated motors. What it does follows from
 * the seed, what it cannot do ends in a named state, and nothing it says wrong reaches a motor.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { runCli } from '../../../src/cli/main.js';
import { readRobotConfig } from '../../../src/config/reader.js';
import { ControlCycle } from '../../../src/control/cycle.js';
import type { CycleEvent } from '../../../src/control/events.js';
import type { Configuration, Subject } from '../../../src/evaluation/configuration.js';
import type { EpisodeOutcome } from '../../../src/evaluation/episode.js';
import { EvaluationSession } from '../../../src/evaluation/session.js';
import type { Policy } from '../../../src/policy/contract.js';
import { loadPolicy } from '../../../src/policy/load.js';
import { contractJob, readOnnxJob } from '../../../src/policy/onnx/job.js';
import { policyOptions, VOCABULARY } from '../../../src/runtime/rig.js';
import { EpisodeFilm } from '../../../src/sim/film.js';
import { Simulation } from '../../../src/sim/simulation.js';
import { touch } from '../../../src/sim/tasks/touch.js';
import { fakeContext } from '../../cli/fakes.js';
import { errorOf } from '../../support/fixtures.js';
import { ACT_TOUCH, policyFolder, withoutRuntime } from '../../support/onnx.js';
import { onnxModel } from '../../support/onnx-model.js';

const skip = withoutRuntime;
const SEED = 10_004;
t.comment(`seed ${SEED}`);

const TABLETOP = fileURLToPath(new URL('../../../models/tabletop', import.meta.url));
const JOB = join(ACT_TOUCH, 'job.json');
const PLAIN: Configuration = { precision: 'f32', memory: 'episode', disturbances: {}, pace: 'virtual' };
const subject = async (): Promise<Subject> => ({ checkpoint: ACT_TOUCH, onnxJob: JOB, job: contractJob(await readOnnxJob(JOB)) });

async function evaluated(configuration: Configuration, seed = SEED): Promise<EpisodeOutcome> {
  const session = await EvaluationSession.open(await subject(), configuration, loadPolicy);
  try {
    return await session.run('touch', seed);
  } finally {
    await session.close();
  }
}

/** Without what the wall clock says. */
const lasting = ({ result: { predictMs: _, commitMs: __, ...rest } }: EpisodeOutcome): object => rest;

t.test('it touches the named button; the same seed is the same episode', { skip }, async (t) => {
  const first = await evaluated(PLAIN);
  t.match(first.result, { verdict: 'succeeded', why: '', clampedKnots: 0, presses: [{ colour: touch.scene(SEED).target }] });
  t.same(lasting(await evaluated(PLAIN)), lasting(first));
});

t.test('the modes that make sense without a memory', { skip }, async (t) => {
  for (const mode of ['ensemble', 'async-naive'] as const) {
    const { result } = await evaluated({ ...PLAIN, mode });
    t.equal(result.verdict, 'succeeded', `${mode}: ${result.why}`);
    t.equal(result.assumed, undefined, 'it assumes no frames');
  }
  for (const mode of ['async-grounded', 'rtc'] as const) {
    const error = await errorOf(evaluated({ ...PLAIN, mode }));
    t.match(error, { code: 'CONTROL_MODE', field: 'mode', expected: 'sync, ensemble, async-naive', found: mode });
  }
  t.match((await evaluated({ ...PLAIN, memory: 'chunk' })).result, { verdict: 'succeeded' }, 'with its memory, which it has none of, cleared');
});

/** A folder with a configuration for `premotor run`. */
function configured(t: Test, more = ''): { dir: string; file: string } {
  const text = `
robot: {type: sim}
task: {name: touch, seed: ${SEED}}
policy: {backend: onnx, checkpoint_dir: ${ACT_TOUCH}, threads: 1}
recording: {out_dir: out, recorder: {mode: "off"}}
telemetry: {enabled: false}
dashboard: {enabled: false}
${more}`;
  const dir = t.testdir({ 'arm.yaml': text });
  return { dir, file: join(dir, 'arm.yaml') };
}

t.test('premotor run: configured, isolated, recorded, filmed, replayed', { skip }, async (t) => {
  const { dir, file } = configured(t);
  const { out, err, context } = fakeContext({ loadPolicy });
  t.equal(await runCli(['run', file, '--json'], context), 0, err.text);
  const summary = JSON.parse(out.text) as Record<string, unknown>;
  t.match(summary, { task: 'touch', seed: SEED, success: true, verdict: 'succeeded' });
  t.ok(existsSync(join(dir, 'out', 'episode.gif')), 'a film of what was seen');
  t.notMatch(err.text, 'Decoding', 'which nothing was decoded for');
  const again = fakeContext({ loadPolicy });
  const record = join(dir, 'out', 'episode.replay');
  t.equal(await runCli(['replay', record, '--json'], again.context), 0, again.err.text);
  const report = JSON.parse(again.out.text) as {
    same: boolean;
    predictions: number;
    settings: { name: string; recorded: string; replayed: string }[];
  };
  t.equal(report.same, true);
  t.ok(report.predictions >= 2);
  for (const { name, recorded, replayed } of report.settings) t.equal(replayed, recorded, name);
});

t.test('premotor config check knows the mapping', { skip }, async (t) => {
  const { file } = configured(t);
  const check = async (path: string): Promise<{ code: number; text: string }> => {
    const { out, err, context } = fakeContext();
    return { code: await runCli(['config', 'check', path], context), text: out.text + err.text };
  };
  const fine = await check(file);
  t.equal(fine.code, 0, fine.text);
  t.match(fine.text, /policy\.backend +"onnx"/);
  writeFileSync(file, readFileSync(file, 'utf8').replace(ACT_TOUCH, TABLETOP));
  const wrong = await check(file);
  t.not(wrong.code, 0);
  t.match(wrong.text, /policy\.job.*a usable job/s, 'the job of a checkpoint is no mapping');
  const shipped = await check(fileURLToPath(new URL('../../../robots/sim-act-touch.yaml', import.meta.url)));
  t.equal(shipped.code, 0, shipped.text);
  const { config } = await readRobotConfig(file, VOCABULARY);
  t.match(policyOptions(config), { backend: 'onnx', checkpoint: TABLETOP, job: join(TABLETOP, 'job.json') });
});

t.test('premotor eval: found by what the folder holds; refuses steps', { skip }, async (t) => {
  const run = async (...more: string[]): Promise<{ code: number; out: string; err: string }> => {
    const { out, err, context } = fakeContext();
    const argv = ['eval', '--task', 'touch', '--episodes', '2', '--seed', `${SEED}`, '--checkpoint', ACT_TOUCH, '--workers', '1', '--json', ...more];
    return { code: await runCli(argv, context), out: out.text, err: err.text };
  };
  const { code, out, err } = await run();
  t.equal(code, 0, err);
  t.match(JSON.parse(out), { checkpoint: { name: 'act-touch', backend: /^onnxruntime/ }, tasks: [{ task: 'touch', episodes: 2, errors: 0 }] });
  t.match(await run('--steps', '3/5'), { code: 2, err: /--steps and --video-exec-step are for policies that denoise/ });
  t.match(await run('--backend', 'engine'), { code: 1, err: /JOB_INVALID/ }, 'the engine finds no job of its own');
});

/** Gives log(brightest - 1000): no number, because no picture is that bright. */
const brokenModel = (): Uint8Array =>
  onnxModel({
    inputs: [{ name: 'image', type: 'uint8', shape: [1, 96, 96, 3] }],
    outputs: [{ name: 'actions', type: 'float32', shape: [1, 16, 4] }],
    nodes: [
      { op: 'Cast', inputs: ['image'], outputs: ['values'], attributes: { to: 1 } },
      { op: 'ReduceMax', inputs: ['values'], outputs: ['brightest'], attributes: { keepdims: 0 } },
      { op: 'Sub', inputs: ['brightest', 'white'], outputs: ['less'] },
      { op: 'Log', inputs: ['less'], outputs: ['log'] },
      { op: 'Expand', inputs: ['log', 'shape'], outputs: ['actions'] },
    ],
    tensors: [
      { name: 'white', shape: [1], data: Float32Array.of(1000) },
      { name: 'shape', shape: [3], data: BigInt64Array.of(1n, 16n, 4n) },
    ],
  });

async function openBroken(t: Test): Promise<Policy> {
  const mapping = {
    format: 'premotor-onnx',
    version: 1,
    frame_chunk_size: 2,
    action_per_frame: 8,
    inputs: { image: { from: 'camera', camera: 'observation.images.cam_front', layout: 'NHWC', height: 96, width: 96, dtype: 'u8' } },
    output: { name: 'actions', layout: '1HD', channels: [0, 1, 2, 3] },
  };
  const checkpoint = policyFolder(brokenModel(), mapping, t.testdir());
  const policy = await loadPolicy({ checkpoint, backend: 'onnx', job: join(checkpoint, 'job.json'), threads: 1 });
  t.teardown(() => policy.close());
  return policy;
}

t.test('no numbers: the robot holds where it is', { skip }, async (t) => {
  const simulation = await Simulation.open({ kind: touch.kind });
  t.teardown(() => simulation.close());
  simulation.reset(touch.scene(SEED).layout, SEED);
  const { robot, cameras } = simulation;
  const cycle = new ControlCycle({ policy: await openBroken(t), robot, cameras, actionRateHz: 25 });
  await cycle.arm();
  const before = [...(await robot.getState()).positionsRad];
  const report = await cycle.run({ prompt: 'go', chunks: 2 });
  t.match(report, { outcome: 'failed', error: { code: 'ONNX_OUTPUT_VALUE' }, knots: 0 });
  t.equal(cycle.state, 'fault');
  const after = [...(await robot.getState()).positionsRad];
  // A servo that holds gives way by less than this.
  for (const [joint, angle] of after.entries()) t.ok(Math.abs(angle - (before[joint] ?? 0)) < 1e-3, `joint ${joint} stands`);
});

t.test('the film of a policy that imagines nothing shows what was seen', { skip }, async (t) => {
  const policy = await loadPolicy({ checkpoint: ACT_TOUCH, backend: 'onnx', job: JOB, threads: 1 });
  t.teardown(() => policy.close());
  const simulation = await Simulation.open({ kind: touch.kind });
  t.teardown(() => simulation.close());
  simulation.reset(touch.scene(SEED).layout, SEED);
  const film = new EpisodeFilm();
  const seen: CycleEvent[] = [];
  const cycle = new ControlCycle({ policy, robot: simulation.robot, cameras: simulation.cameras, actionRateHz: 25 });
  cycle.on(film.listen);
  cycle.on((event) => void (event.type === 'executed' && seen.push(event)));
  await cycle.arm();
  await cycle.run({ prompt: touch.scene(SEED).instruction, chunks: 2 });
  t.notOk(film.isEmpty);
  const rows = await film.compose(policy);
  t.equal(rows.length, 1 + 4 + 8, 'the first picture and every moment');
  t.equal(rows[0]?.width, 192, 'one camera, twice its size, nothing beside it');
  t.same(await film.imagined(policy), []);
});
