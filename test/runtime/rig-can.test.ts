/**
 * Robots on a bus with real processes: bus, stream process and bridge are those of a robot. In the loop the table is simulated and follows what the
 * bridge measures; in the real world cameras are files and nobody judges. States are asserted, and no times.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import sharp from 'sharp';
import t, { type Test } from 'tap';
import { runCli } from '../../src/cli/main.js';
import { readRobotConfig } from '../../src/config/reader.js';
import type { RobotConfig } from '../../src/config/schema.js';
import { openRig, type Rig, VOCABULARY } from '../../src/runtime/rig.js';
import type { EpisodeSummary } from '../../src/runtime/summary.js';
import { SIM_JOB } from '../../src/sim/job.js';
import { TASKS as SCENES } from '../../src/sim/tasks/index.js';
import { fakeContext } from '../cli/fakes.js';
import { atHome, FakePolicy } from '../control/fakes.js';
import { expertPolicy } from '../support/expert-policy.js';
import { type Hil, HOME, makeHil } from '../support/hil.js';
import { alone } from '../support/real-time.js';
import { until } from '../support/stream-rig.js';

await alone(t);

/** A host that stalls is no slow camera. */
const cameras = 'cameras: {frame_age_max_ms: 2000, frame_skew_max_ms: 2000}\n';
const touch = `task: {name: touch, seed: 3}\n${cameras}`;

interface Ran {
  readonly code: number;
  readonly summary: EpisodeSummary;
  readonly err: string;
}

async function run(hil: Hil, policy: FakePolicy, signal = new AbortController().signal): Promise<Ran> {
  const { out, err, context } = fakeContext({ loadPolicy: async () => policy, signal });
  const code = await runCli(['run', hil.file, '--json'], context);
  // An error that ended an episode follows its summary.
  const [summary = '{}'] = out.text.split('\n}\n{');
  return { code, summary: JSON.parse(summary.endsWith('}') || summary.endsWith('}\n') ? summary : `${summary}\n}`) as EpisodeSummary, err: err.text };
}

const configOf = async (hil: Hil): Promise<RobotConfig> => (await readRobotConfig(hil.file, VOCABULARY)).config;
/** The stream process, from what is printed about it. */
const pidIn = (text: string): number => Number(/process (\d+)\)?/.exec(text)?.[1]);
const isThere = (pid: number): boolean => existsSync(`/proc/${pid}/stat`) && !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));

/** A test that fails must not leave a process that outlives its supervisor by design. */
async function opened(t: Test, config: RobotConfig): Promise<{ rig: Rig; pid: number }> {
  const rig = await openRig(config);
  const pid = pidIn(rig.path);
  t.teardown(async () => {
    if (isThere(pid)) process.kill(pid, 'SIGKILL');
    await rig.close();
  });
  return { rig, pid };
}

t.test('the touch task is done through bus, stream process and bridge, from wherever the bridge is', async (t) => {
  const hil = await makeHil(t, { positionRad: Array.from(HOME, (angle, joint) => angle + (joint === 0 ? 0.3 : 0)), more: touch });
  const { code, summary, err } = await run(hil, await expertPolicy('touch', 3));
  t.equal(code, 0, err);
  t.match(summary, { outcome: 'reached', verdict: 'succeeded', success: true, motion: { setsFollowed: null }, frameSkewMsMax: 0 });
  t.match(err, /bridge protocol on cannelloni:.*, 4 joints, simulated table/);
  await until('the stream process was stopped', () => !isThere(pidIn(err)));
  t.notOk((await hil.bridge.report()).isPowered);
});

t.test('the table follows the measured joints; cycles, status and pictures are of one clock', async (t) => {
  const hil = await makeHil(t, { robot: '  stays: true\n', more: touch });
  const { rig, pid } = await opened(t, await configOf(hil));
  const [before] = await rig.cameras.capture();
  await rig.robot.arm();
  const seen: bigint[] = [];
  const unwatch = rig.watch(({ timeNs }) => seen.push(timeNs));
  const goal = HOME.map((angle, joint) => angle + (joint === 0 ? 0.4 : 0));
  await rig.robot.moveTo(goal);
  await until('cycles are told', () => seen.length > 100);
  unwatch();
  t.ok(
    seen.every((timeNs, index) => index === 0 || timeNs > (seen[index - 1] ?? 0n)),
    'every cycle once, in order',
  );
  const [after] = await rig.cameras.capture();
  t.ok(before && after && after.capturedAtNs > before.capturedAtNs && after.capturedAtNs <= rig.nowNs(), 'stamped by the clock of the stream');
  t.not(Buffer.compare(before?.data ?? new Uint8Array(), after?.data ?? new Uint8Array()), 0, 'the arm is seen elsewhere');
  t.equal(rig.verdict(), 'open', 'nothing was touched on the way to the beginning');
  t.match(rig.status(), { stream: 'holding', link: 'armed', bridge: /holding|following/, faultCode: '', counts: { chunks: 1, world_holes: 0 } });
  await rig.close();
  t.ok(isThere(pid), 'told to stay');
  t.ok((await hil.bridge.report()).isPowered, 'and it still holds');

  const again = await opened(t, await configOf(hil));
  t.equal(again.pid, pid, 'attached to what ran');
  t.match(again.rig.notices, [/^Attached to the stream process \d+, which ran already/]);
  const { positionsRad } = await again.rig.robot.getState();
  t.ok(Math.abs((positionsRad[0] ?? 0) - (goal[0] ?? 0)) < 0.01, 'no step: it is where it was');
  t.equal(again.rig.status().stream, 'holding', 'and nobody has armed it again');
  await t.rejects(openRig(await configOf(hil)), { code: 'STREAM_PROCESS_BUSY' }, 'one supervisor at a time');
  await again.rig.close();
  const config = await configOf(hil);
  const other = { ...config, control: { ...config.control, limits: { yaw: { upper_rad: 1 } } } };
  await t.rejects(openRig(other), { code: 'STREAM_PROCESS_CONFIG', message: /runs with another configuration\. Stop it/ });
  t.ok(isThere(pid), 'a foreign process is left alone');
  process.kill(pid, 'SIGTERM');
  await until('it ends', () => !isThere(pid));
});

t.test('the next episode is about something else: another scene, another instruction', async (t) => {
  const hil = await makeHil(t, { more: touch });
  const config = await configOf(hil);
  const { rig } = await opened(t, config);
  const seen = async () => Buffer.from((await rig.cameras.capture())[0]?.data ?? []);
  const [first, before] = [rig.instruction, await seen()];
  const other = [4, 5, 6, 7].find((seed) => SCENES.touch.scene(seed).instruction !== first) ?? 0;
  rig.setTask?.({ ...config.task, seed: other });
  t.equal(rig.instruction, SCENES.touch.scene(other).instruction);
  t.not(Buffer.compare(await seen(), before), 0, 'the table is laid anew');
  rig.setTask?.({ ...config.task, name: 'press-n', instruction: 'press it' });
  t.match(rig, { task: 'press-n', instruction: 'press it', chunksMax: SCENES['press-n'].chunksMax });
  t.throws(() => rig.setTask?.({ ...config.task, name: 'push' }), { code: 'SIM_TASK', message: /with buttons, found push, for one with a block/ });
  t.throws(() => rig.setTask?.({ ...config.task, name: 'dance' }), { code: 'SIM_TASK' });
  t.throws(() => rig.checkTask({ ...config.task, name: 'push' }), { code: 'SIM_TASK' });
  t.doesNotThrow(() => rig.checkTask({ ...config.task, name: 'sequence' }));
  t.equal(rig.task, 'press-n', 'what is refused changes nothing');
});

t.test('the stream process is killed during an episode: the bridge holds, and the episode says why it failed', async (t) => {
  const hil = await makeHil(t, { more: touch });
  const policy = new FakePolicy(atHome);
  let pid = 0;
  policy.before = (call) => {
    if (call !== 'commit') return;
    pid = (JSON.parse(readFileSync(hil.output, 'utf8').split('\n')[0] ?? '{}') as { pid?: number }).pid ?? 0;
    process.kill(pid, 'SIGKILL');
  };
  const { code, summary, err } = await run(hil, policy);
  t.equal(code, 1);
  t.match(summary, {
    outcome: 'failed',
    error: { code: 'STREAM_PROCESS_DIED', message: /The bridge stops the robot.*stream\.jsonl/ },
    success: false,
  });
  t.match(err, /running -> fault: STREAM_PROCESS_DIED/);
  await until('the bridge misses its host', () => hil.bridge.events.all.some(({ faultName }) => faultName === 'host lost'));
  t.ok((await hil.bridge.report()).isPowered, 'it holds with power');
  t.ok(pid > 0);
});

t.test('the bridge falls silent during an episode', async (t) => {
  const hil = await makeHil(t, { more: touch });
  const policy = new FakePolicy(atHome);
  policy.before = (call) => (call === 'commit' ? hil.bridge.kill() : undefined);
  const { code, summary, err } = await run(hil, policy);
  t.equal(code, 1);
  // On a starved machine the bridge may have missed its host before it was killed.
  t.match(summary, { outcome: 'failed', error: { code: /^(BRIDGE_LOST|BRIDGE_FAULT|STREAM_FEEDBACK)$/ } }, summary.error?.message ?? '');
  // Its lock is let go first; on a busy machine the kernel takes a moment for the rest.
  await until('the stream process ends all the same', () => !isThere(pidIn(err)));
  await t.rejects(openRig(await configOf(hil)), { code: 'ROBOT_NO_FEEDBACK' }, 'and no world is made without a robot');
});

t.test('what does not fit is found before anything is started', async (t) => {
  const hil = await makeHil(t, { more: touch });
  const config = await configOf(hil);
  const real: RobotConfig = { ...config, robot: { ...config.robot, world: 'real' } };
  await t.rejects(openRig(real), { code: 'CAMERA_MISSING', field: 'cameras.sources', message: /cam_front, .*cam_wrist, found none\. Name a source/ });
  await t.rejects(
    openRig({ ...real, cameras: { ...real.cameras, sources: { [SIM_JOB.obs_cam_keys[0] ?? '']: { type: 'sim', port: 0, loop: true } } } }),
    {
      code: 'CAMERA_MISSING',
      message: /Name a source for observation\.images\.cam_wrist in/,
    },
  );
  const { yaw, shoulder } = config.robot.joints ?? {};
  const two = { ...config, robot: { ...config.robot, joints: { ...(yaw && shoulder ? { yaw, shoulder } : {}) } } };
  await t.rejects(openRig(two), { code: 'CONTROL_JOINTS', field: 'robot.joints', message: /expected 4 joints, .* found 2 in robot\.joints/ });
  t.notOk(existsSync(hil.output), 'no stream process was started');

  const few = await makeHil(t, { positionRad: [0.1, 0.2, 0.3], more: touch });
  await t.rejects(openRig(await configOf(few)), { code: /^(BRIDGE_VERSION|ROBOT_NO_FEEDBACK)$/ }, 'a bridge with three axes');

  const { err, context } = fakeContext();
  t.equal(await runCli(['run', hil.file, '--pace', 'virtual'], context), 2);
  t.match(err.text, /no virtual time/);
  const resumed = fakeContext();
  t.equal(await runCli(['run', hil.file, '--resume'], resumed.context), 1);
  t.match(resumed.err.text, /error RESUME_WORLD/);
});

/** The same robot in the real world, with pictures that change as its cameras. */
async function realWorld(t: Test, control: string): Promise<Hil> {
  const hil = await makeHil(t, { world: 'real', control: `  chunks_max: 1\n${control}` });
  const sources: string[] = [];
  for (const [index, key] of SIM_JOB.obs_cam_keys.entries()) {
    const file = join(dirname(hil.file), `${index}.png`);
    writeFileSync(
      file,
      await sharp({ create: { width: 96, height: 96, channels: 3, background: { r: 90, g: 120, b: 60 } } })
        .png()
        .toBuffer(),
    );
    sources.push(`    ${key}: {type: file, path: ${file}}\n`);
  }
  const more = `task: {instruction: shove it}\ncameras:\n  frame_age_max_ms: 2000\n  frame_skew_max_ms: 2000\n  sources:\n${sources.join('')}`;
  writeFileSync(hil.file, readFileSync(hil.file, 'utf8') + more);
  return hil;
}

t.test('in the real world nobody judges: an episode that ran to its end is no failure', async (t) => {
  const hil = await realWorld(t, '');
  const { code, summary, err } = await run(hil, new FakePolicy(atHome));
  t.equal(code, 0, err);
  t.match(summary, { task: 'instruction', instruction: 'shove it', outcome: 'finished', verdict: 'open', success: null, completionS: null });
  t.match(err, /4 joints\n/);
});

t.test('a stop that keeps power: the stream process stays and holds the robot', async (t) => {
  const hil = await realWorld(t, '  stop_category: 2\n');
  const interrupt = new AbortController();
  const policy = new FakePolicy(atHome);
  policy.before = (call) => (call === 'commit' ? interrupt.abort() : undefined);
  const { code, summary, err } = await run(hil, policy, interrupt.signal);
  t.equal(code, 130, err);
  t.match(summary, { outcome: 'stopped', success: null });
  const pid = Number(/The stream process (\d+) stays and holds the robot with power; premotor stop ends it/.exec(err)?.[1]);
  t.ok(isThere(pid), err);
  t.ok((await hil.bridge.report()).isPowered);
  process.kill(pid, 'SIGTERM');
  await until('it ends', () => !isThere(pid));
});

t.test('a robot in the real world is told the next instruction, and needs one', async (t) => {
  const hil = await realWorld(t, '');
  const config = await configOf(hil);
  const { rig } = await opened(t, config);
  rig.setTask?.({ ...config.task, instruction: 'pull it', seed: 5 });
  t.equal(rig.instruction, 'pull it');
  const { instruction: _, ...mute } = config.task;
  t.throws(() => rig.setTask?.({ ...mute, name: 'lift' }), { code: 'TASK_INSTRUCTION', field: 'task.instruction', message: /--instruction/ });
  t.throws(() => rig.checkTask({ ...mute, name: 'lift' }), { code: 'TASK_INSTRUCTION' });
  t.equal(rig.instruction, 'pull it');
});
