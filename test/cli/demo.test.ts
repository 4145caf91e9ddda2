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
import { touchKnots } from '../../src/sim/expert.js';
import { touchScene } from '../../src/sim/touch.js';
import { FakePolicy } from '../control/fakes.js';

interface Heard {
  readonly out: string[];
  readonly said: string[];
  readonly drawn: string[];
}

function listen(change: Partial<DemoDependencies>): { deps: DemoDependencies; heard: Heard } {
  const heard: Heard = { out: [], said: [], drawn: [] };
  const deps: DemoDependencies = {
    loadPolicy,
    writeCheckpoint: (dir, texts) => writeUntrainedCheckpoint(dir, { texts }),
    out: (text) => void heard.out.push(text),
    say: (text) => void heard.said.push(text),
    draw: (line) => void heard.drawn.push(line),
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
  t.ok(heard.said.some((line) => line.includes('UNTRAINED') && line.includes('will not succeed')));
  t.equal(heard.said.filter((line) => /^chunk [12]\/2 {2}predict \d+ ms/.test(line)).length, 2);
  t.ok(
    heard.drawn.some((line) => line.includes('video 6/6')),
    'the bar shows the passes',
  );
  t.match(heard.out.join(), /clamped setpoints +\d+ of 48[\s\S]*success +(yes|no)/);
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
  t.same(
    JSON.parse(again.heard.out.join()),
    JSON.parse(JSON.stringify({ ...JSON.parse(again.heard.out.join()), outcome: 'finished', setpoints: 48 })),
  );
});

t.test('a policy that knows the way succeeds, and the demonstration ends there', async (t) => {
  const scene = touchScene(3);
  const knots = touchKnots(scene.layout[scene.target]);
  const policy = new FakePolicy((channel, knot) => knots[Math.max(0, Math.min(knot, knots.length - 1))]?.[channel] ?? 0);
  const { deps, heard } = listen({ loadPolicy: async () => policy });
  const result = await runDemo(optionsOf(t.testdir(), { chunks: 9, checkpoint: 'trained' }), deps);
  t.same([result.outcome, result.success, result.untrained], ['reached', true, false]);
  t.ok(result.chunks.length < 9);
  t.notOk(heard.said.some((line) => line.includes('UNTRAINED')));
  t.match(heard.out.join(), /success +yes/);
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
  t.match(heard.out.join(), /outcome +failed[\s\S]*animation +none/);
  t.ok(heard.said.includes('The arm decelerates and holds its position.'));
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
    const had = /chunk 1\/1000/.test(stderr);
    stderr += data;
    if (!had && /chunk 1\/1000/.test(stderr)) child.kill('SIGINT');
  });
  const code = await new Promise((resolve) => child.on('exit', resolve));
  t.equal(code, 130, stderr.slice(-400));
  t.match(stderr, /Stopping[\s\S]*decelerates and holds/);
  const result = JSON.parse(stdout);
  t.equal(result.outcome, 'stopped');
  t.ok(result.chunks.length >= 1 && result.chunks.length < 1000);
  t.ok(existsSync(result.animation), 'the film of what was done is there');
});
