/** `premotor demo`: with the real engine in its own process end to end, and with a scripted policy for what a user sees in each ending. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import t from 'tap';
import { writeUntrainedCheckpoint } from '../../src/checkpoint/untrained.js';
import type { CliContext } from '../../src/cli/context.js';
import { type DemoOptions, type DemoParts, demoConfig, runDemo } from '../../src/cli/demo.js';
import { runCli } from '../../src/cli/main.js';
import { PremotorError } from '../../src/errors.js';
import { loadPolicy } from '../../src/policy/load.js';
import { atHome, FakePolicy } from '../control/fakes.js';
import { expertPolicy } from '../support/expert-policy.js';
import { fakeContext, TextSink } from './fakes.js';

function listen(context: Partial<CliContext>, change: Partial<DemoParts> = {}) {
  const fakes = fakeContext({ loadPolicy, ...context });
  const err = new TextSink(true);
  Object.assign(err, { columns: 200 });
  const parts: DemoParts = {
    writeCheckpoint: (dir, texts) => writeUntrainedCheckpoint(dir, { texts }),
    shippedCheckpoint: '/nowhere/tabletop',
    ...change,
  };
  return { context: { ...fakes.context, err }, out: fakes.out, err, parts };
}
const optionsOf = (out: string, change: Partial<DemoOptions> = {}): DemoOptions => ({
  task: 'touch',
  chunks: 2,
  seed: 3,
  out,
  json: false,
  ...change,
});

t.test('end to end: an untrained checkpoint, the engine in its own process, a film', async (t) => {
  const out = t.testdir();
  const first = listen({});
  const summary = await runDemo(optionsOf(out), first.context, first.parts);
  t.same([summary.outcome, summary.untrained, summary.chunks.length, summary.setpoints], ['finished', true, 2, 24]);
  t.match(first.err.text, /No trained checkpoint ships/);
  t.match(first.err.text, /UNTRAINED.*will not succeed/);
  t.match(first.err.text, /state {2}disarmed -> armed: .*\n[\s\S]*state {2}armed -> running: [\s\S]*state {2}running -> holding: episode finished/);
  t.equal(first.err.text.match(/chunk [12]\/2 {2}predict \d+ ms/g)?.length, 2);
  t.match(first.err.text, /chunk 2\/2: denoising video \[#{24}\] 6\/6/, 'the bar shows the passes');
  t.match(first.out.text, /success +(yes|no)[\s\S]*clamped setpoints +\d+ of 24/);
  const film = join(out, 'episode.gif');
  const { pages, delay, width } = await sharp(film, { pages: -1 }).metadata();
  t.same([pages, delay?.[0], width], [1 + 4 + 8, 80, 4 * 192 + 3 * 6], '12.5 pictures per second, two cameras real and imagined');
  const before = createHash('sha256').update(readFileSync(film)).digest('hex');

  const again = listen(
    {},
    {
      writeCheckpoint: async () => {
        throw new Error('the checkpoint is there already');
      },
    },
  );
  await runDemo(optionsOf(out, { json: true }), again.context, again.parts);
  t.equal(createHash('sha256').update(readFileSync(film)).digest('hex'), before, 'the same seed gives the same film, bit for bit');
  const printed = JSON.parse(again.out.text);
  t.same([printed.outcome, printed.setpoints, printed.chunks.length, printed.animation], ['finished', 24, 2, film], '--json prints one document');
});

t.test('a policy that knows the way succeeds, and the demonstration ends there', async (t) => {
  const policy = await expertPolicy('touch', 3);
  const { context, out, err, parts } = listen({ loadPolicy: async () => policy });
  const summary = await runDemo(optionsOf(t.testdir(), { chunks: 9, checkpoint: 'trained' }), context, parts);
  t.same([summary.outcome, summary.success, summary.untrained, summary.clampedSetpoints], ['reached', true, false, 0]);
  t.ok(summary.chunks.length < 9);
  t.ok(summary.completionS !== null && summary.completionS < summary.robotS && summary.completionS > 0.5, `${summary.completionS} s`);
  t.notMatch(err.text, /UNTRAINED/);
  t.match(out.text, /success +yes/);
  t.ok(policy.isClosed);
});

t.test('an engine that keeps dying: the summary is printed, the arm held, the error thrown', async (t) => {
  const out = t.testdir();
  const policy = new FakePolicy(atHome);
  policy.before = (call) => {
    if (call === 'predict' && policy.chunks.length === 1) throw new PremotorError('ENGINE_DIED', 'The engine process ended.');
  };
  policy.decode = async () => {
    throw new PremotorError('ENGINE_DIED', 'The engine process ended.');
  };
  const heard = listen({ loadPolicy: async () => policy });
  await t.rejects(runDemo(optionsOf(out, { checkpoint: 'x' }), heard.context, heard.parts), { code: 'ENGINE_RESTARTS' });
  t.match(heard.out.text, /outcome +failed \(ENGINE_RESTARTS\)[\s\S]*animation +none/);
  t.match(heard.err.text, /state {2}running -> fault: ENGINE_RESTARTS[\s\S]*The arm decelerates and holds its position\./);
  t.notOk(existsSync(join(out, 'episode.gif')));
  t.ok(policy.isClosed);
});

t.test('the shipped checkpoint is taken when it is there, with its own job', async (t) => {
  const dir = t.testdir({ shipped: { 'job.json': '{}' } });
  const shipped = join(dir, 'shipped');
  const policy = new FakePolicy(atHome);
  const loads: unknown[] = [];
  const load = async (options: unknown): Promise<FakePolicy> => {
    loads.push(options);
    return policy;
  };
  const { context, parts } = listen({ loadPolicy: load }, { shippedCheckpoint: shipped });
  await runDemo(optionsOf(join(dir, 'out'), { chunks: 1 }), context, parts);
  t.match(loads, [{ checkpoint: shipped, job: join(shipped, 'job.json'), isolate: true }]);
});

t.test('a checkpoint that cannot be loaded leaves nothing running', async (t) => {
  const { context, parts } = listen({});
  await t.rejects(runDemo(optionsOf(t.testdir(), { checkpoint: '/nowhere' }), context, parts), { code: 'CHECKPOINT_MISSING_FILE' });
});

t.test('an interrupted checkpoint writer leaves nothing that is taken for complete', async (t) => {
  const out = t.testdir();
  const { context, parts } = listen(
    {},
    {
      writeCheckpoint: async (dir) => {
        await writeUntrainedCheckpoint(dir);
        throw new Error('interrupted');
      },
    },
  );
  await t.rejects(runDemo(optionsOf(out), context, parts), { message: 'interrupted' });
  t.notOk(existsSync(join(out, 'untrained-checkpoint')));
});

t.test('options are checked, and become a configuration', async (t) => {
  for (const wrong of [
    ['--chunks', '0'],
    ['--chunks', 'many'],
    ['--seed', '-1'],
    ['--seed', '1.5'],
    ['--task', 'juggle'],
  ]) {
    t.equal(await runCli(['demo', ...wrong], fakeContext().context), 2, wrong.join(' '));
  }
  const { chunks: _, ...usual } = optionsOf('out', { task: 'push' });
  t.match(demoConfig(usual, '/ckpt'), { task: { name: 'push', seed: 3 }, policy: { checkpoint_dir: '/ckpt', isolate: true } });
  t.equal(demoConfig(usual, '/ckpt').control.chunks_max, undefined, "the task's own number of chunks");
});
