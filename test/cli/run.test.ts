/** `premotor run` with scripted policies: what is printed, what becomes of the options, every exit code, and stops by signal. */
import { spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { CliContext } from '../../src/cli/context.js';
import { runCli } from '../../src/cli/main.js';
import { overridden, parseSteps } from '../../src/cli/run.js';
import { readRobotConfig } from '../../src/config/reader.js';
import { PremotorError } from '../../src/errors.js';
import type { LoadPolicyOptions } from '../../src/policy/contract.js';
import { VOCABULARY } from '../../src/runtime/rig.js';
import type { EpisodeSummary } from '../../src/runtime/summary.js';
import { BUTTON_COLOURS } from '../../src/sim/scene.js';
import { type TouchScene, touch } from '../../src/sim/tasks/touch.js';
import { atHome, FakePolicy, hasty } from '../control/fakes.js';
import { expertPolicy } from '../support/expert-policy.js';
import { fakeContext } from './fakes.js';

/** A folder with a configuration in it. */
function prepare(t: Test, more = ''): { dir: string; file: string } {
  const text = `robot: {type: sim}\ntask: {name: touch, seed: 3}\npolicy: {checkpoint_dir: ckpt}\nrecording: {out_dir: out}\n${more}`;
  const dir = t.testdir({ 'arm.yaml': text });
  return { dir, file: join(dir, 'arm.yaml') };
}

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
  readonly loads: readonly LoadPolicyOptions[];
}

async function run(argv: string[], policy: FakePolicy, parts: Partial<CliContext> = {}): Promise<Ran> {
  const loads: LoadPolicyOptions[] = [];
  const load = async (options: LoadPolicyOptions): Promise<FakePolicy> => {
    loads.push(options);
    return policy;
  };
  const { out, err, context } = fakeContext({ loadPolicy: load, ...parts });
  const code = await runCli(['run', ...argv], context);
  return { code, out: out.text, err: err.text, loads };
}

t.test('a task that is done: exit code 0, states, chunks, verdict, summary, film', async (t) => {
  const { dir, file } = prepare(t);
  const policy = await expertPolicy('touch', 3);
  const { code, out, err, loads } = await run([file], policy);
  t.equal(code, 0, err);
  t.match(loads, [{ checkpoint: join(dir, 'ckpt'), precision: 'f32', device: 'auto', isolate: true }]);
  t.match(err, /Task touch: "touch the \w+ button", at most 6 chunks\n/);
  const states = [...err.matchAll(/^state {2}(\w+) -> (\w+): .+$/gm)].map(([, from, to]) => `${from} ${to}`);
  t.same(states, ['disarmed armed', 'armed running', 'running holding', 'holding disarmed']);
  t.match(err, /^chunk 1\/6 {2}predict \d+ ms .*frames at most \d+ ms old {3}clamped \d\/8$/m);
  t.match(out, /task +touch, seed 3: done\nsuccess +yes\ntime to completion +\d\.\d\d s of robot time\n/);
  t.match(out, /predict +p50 .* ms, p99 .* ms/);
  t.ok(existsSync(join(dir, 'out', 'episode.gif')));
  t.ok(policy.isClosed);
});

t.test('a task that is not done: exit code 3; --json prints one document', async (t) => {
  const { file } = prepare(t);
  const argv = [file, '--task', 'push', '--seed', '5', '--chunks', '2', '--steps', '2/3', '--precision', 'bf16', '--kv-cache', 'int8', '--json'];
  const policy = new FakePolicy(hasty);
  const { code, out, err, loads } = await run(argv, policy);
  t.equal(code, 3, err);
  const summary = JSON.parse(out) as EpisodeSummary;
  t.match(summary, {
    task: 'push',
    seed: 5,
    instruction: 'push the block into the zone',
    outcome: 'finished',
    verdict: 'open',
    success: false,
    completionS: null,
    chunksMax: 2,
    frameSkewMsMax: 0,
    setpoints: 24,
  });
  t.equal(summary.chunks.length, 2);
  t.ok(summary.clampedSetpoints > 0);
  t.ok(summary.latencyMs.predict && summary.latencyMs.predict.p50 <= summary.latencyMs.predict.p99);
  t.equal(summary.transitions.length, 4);
  t.match(policy.predictions[0], { videoSteps: 2, actionSteps: 3, seed: 5 });
  t.match(loads, [{ precision: 'bf16', kvCache: 'int8' }]);
});

t.test('a task that cannot be done any more ends at once', async (t) => {
  const { file } = prepare(t);
  const wrong = BUTTON_COLOURS.find((colour) => colour !== (touch.scene(3) as TouchScene).target);
  const { code, out } = await run([file, '--json'], await expertPolicy('touch', 3, { target: wrong }));
  t.equal(code, 3);
  const summary = JSON.parse(out) as EpisodeSummary;
  t.match(summary, { outcome: 'reached', verdict: 'failed', success: false, completionS: null });
  t.ok(summary.chunks.length < summary.chunksMax);
});

t.test('a fault: exit code 1, after the summary', async (t) => {
  const { dir, file } = prepare(t);
  const policy = new FakePolicy(atHome);
  policy.before = (call) => {
    if (call === 'predict' && policy.chunks.length === 1) throw new PremotorError('OUT_OF_MEMORY', 'No memory.');
  };
  const { code, out, err } = await run([file], policy);
  t.equal(code, 1);
  t.match(out, /outcome +failed \(OUT_OF_MEMORY\)/);
  t.match(err, /state {2}running -> fault: OUT_OF_MEMORY: No memory\.[\s\S]*error OUT_OF_MEMORY/);
  t.ok(existsSync(join(dir, 'out', 'episode.gif')), 'the film of the chunk that was executed');
});

t.test('what arming finds is exit code 1, before anything moves', async (t) => {
  const { file } = prepare(t, 'control: {limits: {shoulder: {lower_rad: 1.5}}}\n');
  const policy = new FakePolicy(atHome);
  const { code, err } = await run([file], policy);
  t.equal(code, 1);
  t.match(err, /error CONTROL_POSE: Joint shoulder is outside its range/);
  t.same(policy.calls, ['close']);
});

t.test('a stop: exit code 130, the arm held, the summary printed', async (t) => {
  const { file } = prepare(t);
  const interrupt = new AbortController();
  const policy = new FakePolicy(atHome);
  policy.before = (call) => (call === 'commit' ? interrupt.abort() : undefined);
  const { code, out, err } = await run([file, '--json'], policy, { signal: interrupt.signal });
  t.equal(code, 130);
  t.match(JSON.parse(out), { outcome: 'stopped', stopReason: 'interrupted by the user', chunks: { length: 1 } });
  t.match(err, /Stopping\. Interrupt again[\s\S]*state {2}running -> stopping: interrupted by the user[\s\S]*state {2}stopping -> holding/);
  const early = new AbortController();
  early.abort();
  const before = await run([file], new FakePolicy(atHome), { signal: early.signal });
  t.equal(before.code, 130);
  t.match(before.err, /error ABORTED: Interrupted before the episode began\. Nothing has moved/);
});

t.test('no picture, no record and no journal when none is wanted', async (t) => {
  const { dir, file } = prepare(t);
  writeFileSync(
    file,
    'robot: {type: sim}\npolicy: {checkpoint_dir: ckpt, recover: false}\nrecording: {animation: false, replay: false, out_dir: out}\n' +
      'telemetry: {enabled: false}\n',
  );
  const policy = new FakePolicy(atHome);
  const { out } = await run([file, '--chunks', '1'], policy);
  t.match(out, /animation +none/);
  t.notOk(existsSync(join(dir, 'out')));
  t.notOk(policy.calls.includes('decode'));
});

t.test('options and files are checked', async (t) => {
  const { dir, file } = prepare(t);
  const policy = new FakePolicy(atHome);
  for (const wrong of [
    [],
    [file, '--task', 'juggle'],
    [file, '--seed', '-1'],
    [file, '--chunks', '0'],
    [file, '--steps', '5'],
    [file, '--steps', '0/1'],
  ]) {
    t.equal((await run(wrong, policy)).code, 2, wrong.slice(1).join(' '));
  }
  t.same(parseSteps('5/10'), { video: 5, action: 10 });
  t.match(await run([join(dir, 'none.yaml')], policy), { code: 1, err: /error CONFIG_MISSING[\s\S]*premotor config example/ });
  writeFileSync(file, 'robot: {type: arm}\n');
  t.match(await run([file], policy), { code: 1, err: /error CONFIG_INVALID: .*arm\.yaml:1:9: robot\.type: expected "sim"/ });
  t.same(policy.calls, []);
});

t.test('what the command line overrides', async (t) => {
  const { file } = prepare(t);
  writeFileSync(file, 'robot: {type: sim}\ntask: {name: touch, instruction: press it}\npolicy: {checkpoint_dir: ckpt}\n');
  const { config } = await readRobotConfig(file, VOCABULARY);
  t.same(overridden(config, { json: false }), config);
  t.equal(overridden(config, { json: false, task: 'touch' }).task.instruction, 'press it');
  t.equal(overridden(config, { json: false, task: 'push' }).task.instruction, undefined, 'an instruction belongs to its task');
  t.match(overridden(config, { json: false, seed: 4, out: '/elsewhere' }), { task: { seed: 4 }, recording: { out_dir: '/elsewhere' } });
});

/** Starts the command in a process of its own with a fake policy; `before` is the policy's, as source text. */
function start(t: Test, file: string, before: string) {
  const source = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href);
  const script = `
    import { runCli } from ${source('../../src/cli/main.ts')};
    import { atHome, FakePolicy } from ${source('../control/fakes.ts')};
    const policy = new FakePolicy(atHome);
    policy.before = ${before};
    const keep = setInterval(() => undefined, 1000);
    process.exitCode = await runCli(['run', ${JSON.stringify(file)}, '--chunks', '1000', '--json'], { loadPolicy: async () => policy });
    clearInterval(keep);`;
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const child = spawn(process.execPath, ['--import=tsx', '--input-type=module', '-e', script], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  t.teardown(() => child.kill('SIGKILL'));
  const heard = { out: '', err: '' };
  child.stdout.on('data', (data) => (heard.out += data));
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  /** Resolves when standard error has the text. */
  const says = (pattern: RegExp): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (pattern.test(heard.err)) resolve();
      };
      child.stderr.on('data', look);
      look();
    });
  child.stderr.on('data', (data) => (heard.err += data));
  return { child, heard, ended, says };
}

t.test('SIGINT: a controlled stop while the arm moves, exit code 130', async (t) => {
  const { file } = prepare(t);
  const { child, heard, ended, says } = start(t, file, '() => undefined');
  await says(/chunk 2\/1000 {2}predict/);
  child.kill('SIGINT');
  t.equal(await ended, 130, heard.err.slice(-400));
  t.match(heard.err, /Stopping[\s\S]*running -> stopping[\s\S]*decelerates and holds[\s\S]*stopping -> holding[\s\S]*holding -> disarmed/);
  const summary = JSON.parse(heard.out) as EpisodeSummary;
  t.equal(summary.outcome, 'stopped');
  t.ok(summary.chunks.length >= 2 && summary.chunks.length < 1000);
  t.ok(summary.animation !== null && existsSync(summary.animation), 'the film of what was done is there');
});

t.test('a second SIGINT ends the process at once', async (t) => {
  const { file } = prepare(t);
  const stuck = "(call) => { if (call === 'commit') { console.error('committing for ever'); return new Promise(() => undefined); } }";
  const { child, heard, ended, says } = start(t, file, stuck);
  await says(/committing for ever/);
  child.kill('SIGINT');
  await says(/Stopping/);
  child.kill('SIGINT');
  t.equal(await ended, 130);
  t.equal(heard.out, '', 'no summary: it did not wait for anything');
});
