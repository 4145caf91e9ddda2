/** `premotor demo`: with the real engine in its own process end to end, and with a scripted policy for what a user sees in each ending. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import sharp from 'sharp';
import t from 'tap';
import { writeUntrainedCheckpoint } from '../../src/checkpoint/untrained.js';
import { type DemoDependencies, type DemoOptions, registerDemo, runDemo } from '../../src/cli/demo.js';
import { PremotorError } from '../../src/errors.js';
import { loadPolicy } from '../../src/policy/load.js';
import { touchScene } from '../../src/sim/touch.js';
import { FakePolicy } from '../control/fakes.js';
import { touchKnots } from '../sim/expert.js';

/** What was printed: results, and progress as a terminal would get it. */
interface Heard {
  out: string;
  err: string;
}

function listen(change: Partial<DemoDependencies>): { deps: DemoDependencies; heard: Heard } {
  const heard: Heard = { out: '', err: '' };
  const deps: DemoDependencies = {
    loadPolicy,
    writeCheckpoint: (dir, texts) => writeUntrainedCheckpoint(dir, { texts }),
    out: { write: (text) => (heard.out += text) },
    err: { write: (text) => (heard.err += text), isTTY: true, columns: 200 },
    onInterrupt: () => () => undefined,
    ...change,
  };
  return { deps, heard };
}
const optionsOf = (out: string, change: Partial<DemoOptions> = {}): DemoOptions => ({ chunks: 2, seed: 3, out, json: false, ...change });

t.test('end to end: an untrained checkpoint, the engine in its own process, a film', async (t) => {
  const out = t.testdir();
  const { deps, heard } = listen({});
  const result = await runDemo(optionsOf(out), deps);
  t.same([result.outcome, result.untrained, result.chunks.length, result.setpoints], ['finished', true, 2, 48]);
  t.match(heard.err, /UNTRAINED.*will not succeed/);
  t.equal(heard.err.match(/chunk [12]\/2 {2}predict \d+ ms/g)?.length, 2);
  t.match(heard.err, /chunk 2\/2: denoising video \[#{24}\] 6\/6/, 'the bar shows the passes');
  t.match(heard.out, /clamped setpoints +\d+ of 48[\s\S]*success +(yes|no)/);
  const film = join(out, 'episode.gif');
  const { pages, delay, width } = await sharp(film, { pages: -1 }).metadata();
  t.same([pages, delay?.[0], width], [1 + 4 + 8, 80, 4 * 192 + 3 * 6], '12.5 pictures per second, two cameras real and imagined');
  const before = createHash('sha256').update(readFileSync(film)).digest('hex');

  const again = listen({
    writeCheckpoint: async () => {
      throw new Error('the checkpoint is there already');
    },
  });
  await runDemo(optionsOf(out, { json: true }), again.deps);
  t.equal(createHash('sha256').update(readFileSync(film)).digest('hex'), before, 'the same seed gives the same film, bit for bit');
  const printed = JSON.parse(again.heard.out);
  t.same([printed.outcome, printed.setpoints, printed.chunks.length, printed.animation], ['finished', 48, 2, film], '--json prints one document');
});

t.test('a policy that knows the way succeeds, and the demonstration ends there', async (t) => {
  const scene = touchScene(3);
  const knots = touchKnots(scene.layout[scene.target]);
  const policy = new FakePolicy((channel, knot) => knots[Math.max(0, Math.min(knot, knots.length - 1))]?.[channel] ?? 0);
  const { deps, heard } = listen({ loadPolicy: async () => policy });
  const result = await runDemo(optionsOf(t.testdir(), { chunks: 9, checkpoint: 'trained' }), deps);
  t.same([result.outcome, result.success, result.untrained], ['reached', true, false]);
  t.ok(result.chunks.length < 9);
  t.notMatch(heard.err, /UNTRAINED/);
  t.match(heard.out, /success +yes/);
  t.ok(policy.isClosed);
});

t.test('an engine that dies: the result is printed, the arm held, the error thrown', async (t) => {
  const out = t.testdir();
  const policy = new FakePolicy(() => 0);
  policy.before = (call) => {
    if (call === 'predict' && policy.chunks.length === 1) throw new PremotorError('ENGINE_DIED', 'The engine process ended.');
  };
  policy.decode = async () => {
    throw new PremotorError('ENGINE_DIED', 'The engine process ended.');
  };
  const { deps, heard } = listen({ loadPolicy: async () => policy });
  await t.rejects(runDemo(optionsOf(out, { checkpoint: 'x' }), deps), { code: 'ENGINE_DIED' });
  t.match(heard.out, /outcome +failed[\s\S]*animation +none/);
  t.match(heard.err, /The arm decelerates and holds its position\./);
  t.notOk(existsSync(join(out, 'episode.gif')));
  t.ok(policy.isClosed);
});

t.test('a checkpoint that cannot be loaded leaves nothing running', async (t) => {
  const { deps } = listen({});
  await t.rejects(runDemo(optionsOf(t.testdir(), { checkpoint: '/nowhere' }), deps), { code: 'CHECKPOINT_MISSING_FILE' });
});

t.test('an interrupted checkpoint writer leaves nothing that is taken for complete', async (t) => {
  const out = t.testdir();
  const { deps } = listen({
    writeCheckpoint: async (dir) => {
      await writeUntrainedCheckpoint(dir);
      throw new Error('interrupted');
    },
  });
  await t.rejects(runDemo(optionsOf(out), deps), { message: 'interrupted' });
  t.notOk(existsSync(join(out, 'untrained-checkpoint')));
});

t.test('options are checked', async (t) => {
  for (const wrong of [
    ['--chunks', '0'],
    ['--chunks', 'many'],
    ['--seed', '-1'],
    ['--seed', '1.5'],
  ]) {
    const program = new Command().exitOverride().configureOutput({ writeErr: () => undefined });
    registerDemo(program);
    for (const command of program.commands) command.exitOverride().configureOutput({ writeErr: () => undefined });
    await t.rejects(program.parseAsync(['node', 'premotor', 'demo', ...wrong]), { code: 'commander.invalidArgument' }, wrong.join(' '));
  }
});

t.test('SIGINT ends the command after holding, with exit code 130', async (t) => {
  const out = t.testdir();
  const script = `import { Command } from 'commander';
    import { registerDemo } from './src/cli/demo.ts';
    const program = new Command();
    registerDemo(program);
    await program.parseAsync(['node', 'premotor', 'demo', '--chunks', '1000', '--json', '--out', ${JSON.stringify(out)}]);`;
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const child = spawn(process.execPath, ['--import=tsx', '--input-type=module', '-e', script], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (data) => (stdout += data));
  child.stderr.on('data', (data) => {
    const had = /chunk 1\/1000 {2}predict/.test(stderr);
    stderr += data;
    if (!had && /chunk 1\/1000 {2}predict/.test(stderr)) child.kill('SIGINT');
  });
  const code = await new Promise((resolve) => child.on('exit', resolve));
  t.equal(code, 130, stderr.slice(-400));
  t.match(stderr, /Stopping[\s\S]*decelerates and holds/);
  const result = JSON.parse(stdout);
  t.equal(result.outcome, 'stopped');
  t.ok(result.chunks.length >= 1 && result.chunks.length < 1000);
  t.ok(existsSync(result.animation), 'the film of what was done is there');
});
