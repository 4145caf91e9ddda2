/** The command line as a whole: help, version, usage errors, exit codes, JSON errors, and the real process with an interrupt. */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import t from 'tap';
import { printError, reportOf } from '../../src/cli/context.js';
import { runCli } from '../../src/cli/main.js';
import { PremotorError } from '../../src/errors.js';
import { fakeContext, fakeNative, fakePolicy, inspection, newCalls, smallJob } from './fakes.js';

async function run(argv: string[], parts = {}): Promise<{ code: number; out: string; err: string }> {
  const { out, err, context } = fakeContext(parts);
  const code = await runCli(argv, context);
  return { code, out: out.text, err: err.text };
}

t.test('version and help are results, with examples for every command', async (t) => {
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
  t.same(await run(['--version']), { code: 0, out: `${version}\n`, err: '' });
  const help = await run(['--help']);
  t.equal(help.code, 0);
  for (const command of ['infer', 'inspect', 'doctor', 'prompt', 'run', 'config', 'demo']) t.match(help.out, new RegExp(`^  ${command}\\b`, 'm'));
  t.match(help.out, /Examples:/);
  for (const command of ['infer', 'inspect', 'doctor', 'run', 'demo']) {
    const { code, out } = await run([command, '--help']);
    t.equal(code, 0);
    t.match(out, /Examples:\n {2}premotor/, command);
  }
});

t.test('a wrong command line is error USAGE and exit code 2', async (t) => {
  const cases: [string[], RegExp][] = [
    [['infer'], /^error USAGE: required option '--checkpoint <dir>' not specified\.\n {2}hint: /],
    [['infr'], /^error USAGE: unknown command 'infr'.*infer/],
    [['doctor', '--jsn'], /^error USAGE: unknown option '--jsn'/],
    [['infer', '--checkpoint', 'a', '--job', 'b', '--image', 'c', '--precision', 'int3'], /Allowed choices are f32, bf16, int8, int4/],
    [['infer', '--checkpoint', 'a', '--job', 'b', '--image', 'c', '--chunks', '0'], /--chunks <n>.*whole number of 1/],
    [['infer', '--checkpoint', 'a', '--job', 'b', '--image', 'c', '--seed', '-1'], /--seed <n>.*0 \.\. 2\^64 - 1/],
    [['infer', '--checkpoint', 'a', '--job', 'b', '--image', 'c', '--fps', 'x'], /above 0/],
    [['inspect'], /missing required argument 'dir'/],
    [['inspect', 'dir', '--measure'], /--measure needs a job/],
  ];
  for (const [argv, expected] of cases) {
    const { code, out, err } = await run(argv);
    t.equal(code, 2, argv.join(' '));
    t.match(err, expected);
    t.equal(out, '');
    t.equal(err.match(/error /g)?.length, 1, 'printed once');
  }
  const none = await run([]);
  t.equal(none.code, 2);
  t.match(none.err, /Usage: premotor/);
});

t.test('errors have code, details that the message lacks, and a hint; with --json also a document', async (t) => {
  const job = join(t.testdir(), 'none.json');
  const plain = await run(['inspect', 'dir', '--job', job]);
  t.equal(plain.code, 1);
  t.match(plain.err, /^error JOB_MISSING: .*none\.json.*\n(?: {2}\w+: .*\n)* {2}hint: A job is a JSON file/);
  t.equal(plain.out, '');
  const json = await run(['inspect', 'dir', '--json', '--job', job]);
  t.equal(json.code, 1);
  const { error } = JSON.parse(json.out) as { error: Record<string, string> };
  t.match(error, { code: 'JOB_MISSING', file: job, expected: 'a JSON file', hint: /JSON/ });
  t.match(json.err, /^error JOB_MISSING/);
});

t.test('a bug is INTERNAL and shows its stack', async (t) => {
  const broken = fakeNative({
    inspect: () => {
      throw new TypeError('x is not a function');
    },
  });
  const { code, err } = await run(['inspect', 'dir'], { loadNative: broken });
  t.equal(code, 1);
  t.match(err, /^error INTERNAL: x is not a function\n/);
  const sinks = fakeContext();
  printError(new TypeError('boom'), sinks, false);
  t.match(sinks.err.text, /main\.test\.ts/);
  t.match(reportOf(new PremotorError('SOME_CODE', 'm')), { code: 'SOME_CODE', hint: 'docs/ERRORS.md explains SOME_CODE.' });
  t.match(reportOf('text'), { code: 'INTERNAL', message: 'text' });
});

t.test('problems found by inspect are exit code 1 without an error message', async (t) => {
  const sick = inspection({ vae: { problems: [{ code: 'CHECKPOINT_SHAPE', message: 'bad' }] } });
  const { code, out, err } = await run(['inspect', 'dir'], { loadNative: fakeNative({ inspect: async () => sick }) });
  t.equal(code, 1);
  t.equal(err, '');
  t.match(out, /CHECKPOINT_SHAPE \(vae\): bad/);
});

t.test('an interrupt stops a prediction, closes the policy and is exit code 130', async (t) => {
  const dir = t.testdir({ 'job.json': JSON.stringify(smallJob()) });
  await sharp({ create: { width: 4, height: 4, channels: 3, background: 'red' } })
    .png()
    .toFile(join(dir, 'a.png'));
  const calls = newCalls();
  const controller = new AbortController();
  const picture = join(dir, 'a.png');
  const argv = ['infer', '--checkpoint', dir, '--job', join(dir, 'job.json'), '--image', `cam_high=${picture}`, `cam_wrist=${picture}`];
  const running = run([...argv, '--prompt', 'go', '--out', join(dir, 'out')], {
    loadPolicy: fakePolicy(calls, { hang: true }),
    signal: controller.signal,
  });
  while (calls.predictions.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  controller.abort();
  const { code, err } = await running;
  t.equal(code, 130);
  t.match(err, /error ABORTED/);
  t.equal(calls.closed, 1);
});

t.test('the process itself: SIGINT reaches the policy through the signal', async (t) => {
  const dir = t.testdir({ 'job.json': JSON.stringify(smallJob({ obs_cam_keys: ['cam'] })) });
  await sharp({ create: { width: 4, height: 4, channels: 3, background: 'red' } })
    .png()
    .toFile(join(dir, 'a.png'));
  const source = (path: string): string => new URL(path, import.meta.url).href;
  const argv = [
    'infer',
    '--checkpoint',
    dir,
    '--job',
    join(dir, 'job.json'),
    '--image',
    join(dir, 'a.png'),
    '--prompt',
    'go',
    '--out',
    join(dir, 'out'),
  ];
  // The fake policy waits for ever, so only the interrupt can end this process; "waiting" says that it is inside predict.
  const script = `
    import { runCli } from ${JSON.stringify(source('../../src/cli/main.ts'))};
    import { fakePolicy, newCalls } from ${JSON.stringify(source('./fakes.ts'))};
    const calls = newCalls();
    const wait = setInterval(() => { if (calls.predictions.length > 0) { console.log('waiting'); clearInterval(wait); } }, 5);
    const keep = setInterval(() => undefined, 1000);
    process.exitCode = await runCli(${JSON.stringify(argv)}, { loadPolicy: fakePolicy(calls, { hang: true }) });
    console.log('closed ' + calls.closed);
    clearInterval(keep);`;
  writeFileSync(join(dir, 'run.mts'), script);
  const child = spawn(process.execPath, ['--import', 'tsx', join(dir, 'run.mts')], { stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
    if (text.includes('waiting')) child.kill('SIGINT');
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  const code = await new Promise((resolve) => child.on('close', resolve));
  t.equal(code, 130, err);
  t.match(out, /closed 1/);
  t.match(err, /error ABORTED/);
});

t.test('the process itself: a reader that has gone ends no command', async (t) => {
  const source = new URL('../../src/cli/main.ts', import.meta.url).href;
  const script = `
    import { runCli } from ${JSON.stringify(source)};
    process.stdin.once('data', async () => {
      const code = await runCli(['--help']);
      await new Promise((resolve) => setTimeout(resolve, 50));
      process.stderr.write('code ' + code);
      process.exit(code);
    });`;
  const file = join(t.testdir({ 'run.mts': script }), 'run.mts');
  const child = spawn(process.execPath, ['--import', 'tsx', file], { stdio: ['pipe', 'pipe', 'pipe'] });
  let err = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  child.stdout.destroy();
  child.stdout.once('close', () => child.stdin.write('go'));
  const code = await new Promise((resolve) => child.on('close', resolve));
  t.equal(err, 'code 0');
  t.equal(code, 0);
});
