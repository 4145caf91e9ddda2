/** `premotor serve` and `premotor run --policy` with scripted policies: options, logs, refusals, a served episode, and the end by a signal. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { runCli } from '../../src/cli/main.js';
import { PremotorError } from '../../src/errors.js';
import type { LoadPolicyOptions, Policy } from '../../src/policy/contract.js';
import type { EpisodeSummary } from '../../src/runtime/summary.js';
import { SIM_JOB } from '../../src/sim/job.js';
import { Client, commit, infer, JOB, reset, StrictModel } from '../server/support.js';
import { expertPolicy } from '../support/expert-policy.js';
import { fakeContext, TextSink } from './fakes.js';

/** A folder with files; a test may have several. */
function folder(t: Test, files: Readonly<Record<string, string>>): string {
  const dir = mkdtempSync(join(tmpdir(), 'premotor-serve-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text);
  return dir;
}

/** A sink that somebody waits for. */
class Heard extends TextSink {
  readonly #waiting: { readonly pattern: RegExp; readonly resolve: (found: RegExpExecArray) => void }[] = [];

  override write(text: string): void {
    super.write(text);
    for (const { pattern, resolve } of this.#waiting) {
      const found = pattern.exec(this.text);
      if (found) resolve(found);
    }
  }

  says(pattern: RegExp): Promise<RegExpExecArray> {
    return new Promise((resolve) => {
      this.#waiting.push({ pattern, resolve });
      this.write('');
    });
  }
}

interface Running {
  readonly out: Heard;
  readonly err: Heard;
  readonly loads: LoadPolicyOptions[];
  readonly code: Promise<number>;
  readonly stop: () => void;
}

/** A served checkpoint folder that has a job and nothing else. */
function start(t: Test, argv: readonly string[], policy: () => Policy | Promise<Policy> = () => new StrictModel(), job: object = JOB): Running {
  const dir = folder(t, { 'job.json': JSON.stringify(job) });
  const [out, err, interrupt] = [new Heard(), new Heard(), new AbortController()];
  const loads: LoadPolicyOptions[] = [];
  const loadPolicy = async (options: LoadPolicyOptions): Promise<Policy> => {
    loads.push(options);
    return policy();
  };
  const { context } = fakeContext({ loadPolicy, out, err, signal: interrupt.signal });
  const code = runCli(['serve', dir, '--port', '0', ...argv], context);
  const stop = (): void => interrupt.abort(new PremotorError('ABORTED', 'Interrupted.'));
  t.teardown(stop);
  return { out, err, loads, code, stop };
}

t.test('it loads, says where it listens, serves, and ends with 0', async (t) => {
  const { err, out, loads, code, stop } = start(t, ['--connections', '2', '--threads', '3', '--precision', 'bf16', '--seed', '5']);
  const [, url] = await err.says(/listening url=(\S+) port=\d+ engine="fake, f32"/);
  t.match(err.text, /^\S+Z loading checkpoint=\S+ policies=2\n\S+ loaded policy=1 of=2 after_ms=\d+\n\S+ loaded policy=2 of=2 after_ms=\d+\n/);
  t.match(loads, [{ precision: 'bf16', threads: 3, isolate: true, allowUncertified: false, device: 'auto' }, {}]);
  t.match(loads[0]?.job, /job\.json$/);
  const client = await Client.open(t, url as string);
  await client.next();
  for (const request of [reset(), infer(), commit(4, 2)]) t.type(await client.ask(request), Map);
  stop();
  t.equal(await code, 0);
  t.match(await client.closed, { code: 1001 });
  t.match(err.text, /connected connection=1 client=127\.0\.0\.1:\d+\n.*answered connection=1 request=reset ms=[\d.]+\n/s);
  t.match(err.text, /closed connection=1 requests=3 why="the server is stopping"\n\S+ stopped after_ms=\d+\n$/);
  t.equal(out.text, '');
});

t.test('--json: every event is a line of JSON on standard output', async (t) => {
  const { err, out, code, stop } = start(t, ['--json']);
  const [, port] = await out.says(/"event":"listening".*"port":(\d+)/);
  const client = await Client.open(t, `ws://127.0.0.1:${port}`);
  await client.next();
  t.match(await client.ask({}), /^REQUEST_INVALID/);
  await client.closed;
  await out.says(/"event":"closed"/);
  stop();
  t.equal(await code, 0);
  const lines = out.text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  t.same(
    lines.map(({ event }) => event),
    ['loading', 'loaded', 'listening', 'connected', 'error', 'closed', 'stopping', 'stopped'],
  );
  t.match(lines[4], { level: 'warn', time: /^\d{4}-.*Z$/, connection: 1, code: 'REQUEST_INVALID' });
  t.equal(err.text, '');
});

t.test('what cannot be served is refused with an exit code', async (t) => {
  const token = join(folder(t, { short: 'short\n', long: `${'x'.repeat(20)}\n` }), 'short');
  const cases: [readonly string[], number, RegExp][] = [
    [['--host', '0.0.0.0'], 1, /^.*loading.*\nerror SERVER_OPEN: .*--token-file/s],
    [['--token-file', token], 1, /error TOKEN_INVALID: .*5 characters.*openssl/],
    [['--token-file', `${token}er`], 1, /error TOKEN_INVALID: .*no readable file/],
    [['--job', 'nowhere.json'], 1, /error JOB_MISSING/],
    [['--camera', 'a=cam_nose'], 2, /error USAGE: --camera a=cam_nose: expected one of observation\.images/],
    [['--camera', 'nonsense'], 2, /KEY=CAMERA/],
    [['--port', '70000'], 2, /65535/],
    [['--connections', '0'], 2, /1 \.\. 64/],
  ];
  for (const [argv, exit, says] of cases) {
    const { err, code } = start(t, argv);
    t.equal(await code, exit, argv.join(' '));
    t.match(err.text, says);
  }
  const failing = start(t, [], () => Promise.reject(new PremotorError('CHECKPOINT_MISSING_FILE', 'No such checkpoint.')));
  t.equal(await failing.code, 1);
  t.match(failing.err.text, /error CHECKPOINT_MISSING_FILE/);
});

/** A robot's configuration whose policy has a job of its own and no checkpoint. */
function arm(t: Test, more = ''): string {
  const file = join(folder(t, { 'sim-job.json': JSON.stringify(SIM_JOB) }), 'arm.yaml');
  const policy = 'policy: {backend: remote, url: "ws://127.0.0.1:9", job: sim-job.json}';
  writeFileSync(file, `robot: {type: sim}\ntask: {name: touch, seed: 3}\n${policy}\nrecording: {out_dir: out}\n${more}`);
  return file;
}

t.test('a robot whose policy is served does its task as with the policy here', async (t) => {
  const served = start(t, ['--json'], () => expertPolicy('touch', 3), SIM_JOB);
  const [, port] = await served.out.says(/"event":"listening".*"port":(\d+)/);
  const run = async (argv: readonly string[], policy?: Policy) => {
    const { out, err, context } = fakeContext(policy ? { loadPolicy: async () => policy } : {});
    return { code: await runCli(['run', ...argv, '--json'], context), summary: JSON.parse(out.text) as EpisodeSummary, err: err.text };
  };
  const far = await run([arm(t), '--policy', `ws://127.0.0.1:${port}`]);
  t.equal(far.code, 0, far.err);
  t.match(far.err, /Policy: server ws:\/\/127\.0\.0\.1:\d+: fake\n/);
  t.match(far.err, /warning REPLAY_UNAVAILABLE/);
  t.match(far.err, /No animation: A policy server cannot do this: .* decode/);
  t.match(far.summary, { success: true, outcome: 'reached', untrained: false, checkpoint: `ws://127.0.0.1:${port}`, animation: null });
  const local = join(
    folder(t, { 'arm.yaml': 'robot: {type: sim}\ntask: {name: touch, seed: 3}\npolicy: {checkpoint_dir: c}\nrecording: {out_dir: out}\n' }),
    'arm.yaml',
  );
  const near = await run([local], await expertPolicy('touch', 3));
  t.equal(near.code, 0, near.err);
  t.equal(far.summary.completionS, near.summary.completionS, 'in the same time of the robot');
  t.same(far.summary.motion, near.summary.motion, 'with the same setpoints');
  served.stop();
  t.equal(await served.code, 0);
});

t.test('without a server, or in a mode that it cannot serve, nothing moves', async (t) => {
  const run = async (argv: readonly string[]) => {
    const { err, context } = fakeContext();
    return { code: await runCli(['run', ...argv], context), err: err.text };
  };
  const gone = await run([arm(t)]);
  t.match(gone, { code: 1, err: /error REMOTE_UNREACHABLE: .*ws:\/\/127\.0\.0\.1:9/ });
  t.notMatch(gone.err, /^state/m);
  t.match(await run([arm(t), '--resume']), { code: 1, err: /error REMOTE_UNSUPPORTED: .*--resume/ });
  t.match(await run([arm(t, 'control: {mode: rtc}\n')]), { code: 1, err: /error CONFIG_INVALID: .*:5:11: control\.mode: expected "sync"/ });
  t.match(await run([arm(t), '--policy', 'http://x:1']), { code: 2, err: /ws:\/\/HOST:PORT/ });
  const mode = join(folder(t, { 'a.yaml': 'robot: {type: sim}\npolicy: {checkpoint_dir: c}\ncontrol: {mode: async-naive}\n' }), 'a.yaml');
  t.match(await run([mode, '--policy', 'ws://127.0.0.1:9']), { code: 1, err: /error REMOTE_UNSUPPORTED: .*control\.mode sync.*async-naive/ });
});
