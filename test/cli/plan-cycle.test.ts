/** `premotor plan-cycle`: the arithmetic of a plan, its refusals, and once the whole command with an engine. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { writeUntrainedCheckpoint } from '../../src/checkpoint/untrained.js';
import { runCli } from '../../src/cli/main.js';
import { type CycleDocument, planRungs } from '../../src/cli/plan-cycle.js';
import { SIM_JOB } from '../../src/sim/job.js';
import { COSTS, jobWith, LADDER, rung } from '../control/budget/machine.js';
import { TextSink } from './fakes.js';

const sinks = () => ({ out: new TextSink(), err: new TextSink() });
const none = [null, null, null, null];

t.test('what measured costs mean', async (t) => {
  // K = 2, H = 4: 8 actions. The best rung takes 317 ms with two frames executing; 390.4 ms with its margin.
  const at = (rateHz: number) => planRungs(jobWith(), LADDER, COSTS, rateHz, none);
  const [best] = at(20).rungs;
  t.equal(at(20).motionMs, 400);
  t.match(best, { fitsAsync: true, beginsAtFrames: 2, steps: 'video 5, actions 10, imagine 5, guided' });
  t.equal(best?.async.totalMs, 317);
  t.equal(best?.asyncNeedMs.toFixed(6), '390.400000');
  t.equal(best?.leftShare.toFixed(6), (1 - 317 / 400).toFixed(6));
  t.equal(best?.sync.totalMs, 317 - 128);
  t.equal(best?.movesShare.toFixed(6), (400 / 589).toFixed(6));
  t.match(at(21).rungs[0], { fitsAsync: false, beginsAtFrames: null });
  t.equal(at(4).rungs[0]?.beginsAtFrames, 1, 'slow actions: it may begin with one frame left');
  t.same(
    at(40).rungs.map(({ fitsAsync }) => fitsAsync),
    [false, false, true, true],
  );
  const slow = { ...COSTS, video: [{ frames: 2, guided: false, passMs: 900 }] };
  t.equal(planRungs(jobWith(), [rung(1)], slow, 50, none).rungs[0]?.fitsSync, false, 'a pass as long as a sign of life is good for');
  t.equal(planRungs(jobWith(), [rung(1)], COSTS, 50, none).rungs[0]?.fitsSync, true);
});

t.test('with an engine: figures, a refusal, a plan for people', async (t) => {
  const dir = t.testdir();
  const checkpoint = join(dir, 'tiny');
  await writeUntrainedCheckpoint(checkpoint, { size: 'tiny' });
  const steps = { video_exec_step: -1, action_steps: SIM_JOB.action_num_inference_steps, guidance: true, imagine_steps: 5 };
  const ladder = [
    { ...steps, video_steps: SIM_JOB.num_inference_steps, imagine_steps: SIM_JOB.imagine_steps ?? SIM_JOB.num_inference_steps },
    { ...steps, video_steps: 1, video_exec_step: 1, action_steps: 1, imagine_steps: 1 },
  ];
  writeFileSync(join(checkpoint, 'job.json'), JSON.stringify({ ...SIM_JOB, attn_window: 4, prompt: 'touch the red button', ladder }));
  const plan = async (...argv: string[]) => {
    const context = sinks();
    const code = await runCli(['plan-cycle', ...argv, '--repeats', '1'], context);
    return { code, out: context.out.text, err: context.err.text };
  };
  const json = await plan(checkpoint, '--rate', '0.5', '--json');
  t.equal(json.code, 0, json.err);
  const document = JSON.parse(json.out) as CycleDocument;
  t.equal(document.cacheEntries.valid, document.cacheEntries.capacity, 'the cache was full');
  t.equal(document.rungs.length, 2);
  t.equal(document.chosen, 0);
  t.ok((document.rungs[0]?.async.totalMs ?? 0) > (document.rungs[1]?.async.totalMs ?? 0));
  t.match(document.rungs[1], { uncertified: 'none', fitsAsync: true });
  t.equal(document.rungs[0]?.uncertified, null);
  t.ok(document.memory.processBytes > document.memory.weightBytes);
  const text = await plan(join(checkpoint, 'job.json'), '--rate', '0.5');
  t.equal(text.code, 0, text.err);
  t.match(text.out, /^1 +video 1 of 1, actions 1, imagine 1, guided .* fits from 1 of 2/m);
  t.match(text.out, 'Rung 1 is not certified (none)');
  t.match(text.err, /measuring predictions with a full cache 4\/4/);
  const refused = await plan(checkpoint, '--rate', '1000', '--json');
  t.equal(refused.code, 1);
  t.match(JSON.parse(refused.out), {
    error: { code: 'CYCLE_TOO_SLOW', expected: /16\.0 ms of a chunk's motion/ },
    rungs: [{ fitsAsync: false }, {}],
  });
  t.match(refused.err, /error CYCLE_TOO_SLOW: .*attn_window than 4/);
  const printed = await plan(checkpoint, '--rate', '1000');
  t.equal(printed.code, 1);
  t.match(printed.out, 'too slow');
  t.match(printed.err, /error CYCLE_TOO_SLOW/);
  t.equal((await plan(checkpoint, '--rate', '1000', '--mode', 'sync')).code, 0, 'a robot that waits has the time');
  t.match(await plan(checkpoint, '--device', 'cuda'), { code: 1, err: /DEVICE_PRECISION/ });
});

t.test('wrong command lines', async (t) => {
  const dir = t.testdir({ 'job.json': JSON.stringify(SIM_JOB) });
  for (const [line, code, message] of [
    ['plan-cycle', 2, /missing required argument/],
    [`plan-cycle ${join(dir, 'job.json')}`, 2, /a checkpoint, found none/],
    [`plan-cycle ${dir} --rate 0`, 2, /above 0/],
    [`plan-cycle ${join(dir, 'none.json')} --checkpoint ${dir}`, 1, /JOB_MISSING/],
  ] as const) {
    const context = sinks();
    t.equal(await runCli(line.split(' '), context), code, line);
    t.match(context.err.text, message, line);
  }
});

t.test('the document has every option', async (t) => {
  for (const [command, file] of [
    [['plan-cycle'], 'docs/CLI.md'],
    [['eval', 'certify'], 'docs/EVAL.md'],
  ] as const) {
    const document = readFileSync(file, 'utf8');
    const { out, err } = sinks();
    await runCli([...command, '--help'], { out, err });
    for (const [option] of out.text.matchAll(/--[a-z-]+/g)) if (option !== '--help') t.ok(document.includes(option), `${file} has ${option}`);
  }
});
