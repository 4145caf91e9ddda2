/**
 * Passes out of config.json alone: the same, step by step, as a plan of the weights says; and at the released size, where nobody needs the weights,
 * what docs/PERF.md says about it. Predictions for devices follow their ceilings.
 */
import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { runCli } from '../../src/cli/main.js';
import { loadNative } from '../../src/native.js';
import { buildPlan } from '../../src/plan/build.js';
import { chunkTotal, passTotal, stepTime } from '../../src/plan/ceilings.js';
import { DEVICE_NAMES, deviceCeilings } from '../../src/plan/devices.js';
import { type PlanPass, readPlan } from '../../src/plan/directory.js';
import { sketchPasses } from '../../src/plan/sketch.js';
import { readJob } from '../../src/policy/job.js';
import { TextSink } from '../cli/fakes.js';

const tabletop = 'models/tabletop';
const released = 'bench/released';

async function run(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const sinks = { out: new TextSink(), err: new TextSink() };
  const code = await runCli(argv, sinks);
  return { code, out: sinks.out.text, err: sinks.err.text };
}

for (const [precision, kvCache] of [
  ['f32', 'f32'],
  ['bf16', 'bf16'],
  ['int8', 'int8'],
  ['int4', 'bf16'],
] as const) {
  t.test(`the passes of a plan, ${precision}`, async (t) => {
    const { job } = await readJob(join(tabletop, 'job.json'));
    const file = join(t.testdir(), 'a.plan');
    const native = loadNative();
    await buildPlan({ checkpoint: tabletop, job, precision, kvCache, threads: 1, tune: false, file, tool: 'test' }, native);
    const { passes } = await readPlan(file, native);
    t.ok(passes.length >= 4);
    t.same(await sketchPasses({ checkpoint: tabletop, job, precision, kvCache }, native), passes);
  });
}

t.test('config.json files are enough', async (t) => {
  const { job } = await readJob(join(tabletop, 'job.json'));
  const dir = t.testdir();
  for (const part of ['transformer', 'vae']) {
    mkdirSync(join(dir, part));
    cpSync(join(tabletop, part, 'config.json'), join(dir, part, 'config.json'));
  }
  const native = loadNative();
  const whole = await sketchPasses({ checkpoint: tabletop, job, precision: 'bf16' }, native);
  t.same(await sketchPasses({ checkpoint: dir, job, precision: 'bf16' }, native), whole);
  rmSync(join(dir, 'vae', 'config.json'));
  await t.rejects(sketchPasses({ checkpoint: dir, job, precision: 'bf16' }, native), { code: 'CHECKPOINT_MISSING_FILE' });
});

const named = (passes: readonly PlanPass[], name: string): PlanPass => {
  const pass = passes.find((one) => one.name === name);
  if (!pass) throw new Error(`no pass ${name} among ${passes.map((one) => one.name).join(', ')}`);
  return pass;
};

t.test('the released size: figures of docs/PERF.md section 1', async (t) => {
  const { job } = await readJob(join(released, 'job.json'));
  const passes = await sketchPasses({ checkpoint: released, job, precision: 'bf16' }, loadNative());
  const near = (found: number, wanted: number, share: number, what: string): void => {
    t.ok(Math.abs(found / wanted - 1) < share, `${what}: ${found.toPrecision(4)} beside ${wanted}`);
  };
  const video = passTotal(named(passes, 'video'), undefined);
  const action = passTotal(named(passes, 'action'), undefined);
  t.equal(named(passes, 'video').entries, 9792);
  near(video.flops / 2, 3.02e12, 0.05, 'operations of a video pass for each guidance row');
  near(action.flops, 0.4e12, 0.05, 'operations of an action pass');
  near(action.weightBytes, 8.7e9, 0.03, 'bytes of weights');
  near(action.cacheBytes, 3.6e9, 0.03, 'bytes of cache');
});

t.test('a prediction: arithmetic or memory, whichever is longer, and the launches', async (t) => {
  const { job } = await readJob(join(released, 'job.json'));
  const native = loadNative();
  const bf16 = await sketchPasses({ checkpoint: released, job, precision: 'bf16' }, native);
  for (const name of DEVICE_NAMES) {
    const ceilings = deviceCeilings(name);
    const { launchMs = 0 } = ceilings;
    for (const { steps } of named(bf16, 'action').groups) {
      for (const step of steps) {
        const { ms, arithmeticMs, memoryMs } = stepTime(step, ceilings);
        t.equal(ms, Math.max(arithmeticMs, memoryMs) + launchMs);
      }
    }
  }
  const of = (device: (typeof DEVICE_NAMES)[number]): number => chunkTotal({ passes: [...bf16] }, deviceCeilings(device)).ms ?? 0;
  t.ok(of('orin') > of('thor') && of('thor') > of('rtx4090') && of('rtx4090') > of('h100'));
  const small = await sketchPasses({ checkpoint: released, job, precision: 'int8', kvCache: 'int8' }, native);
  const action = (passes: readonly PlanPass[]): number => passTotal(named(passes, 'action'), deviceCeilings('thor')).ms ?? 0;
  t.ok(action(small) < 0.6 * action(bf16), 'half the bytes: an action pass is bound by memory');
});

t.test('premotor plan explain of a folder', async (t) => {
  const thor = await run('plan', 'explain', released, '--device', 'thor', '--steps', '2/4', '--json');
  t.equal(thor.code, 0, thor.err);
  const document = JSON.parse(thor.out) as { precision: string; assumptions: string[]; passes: PlanPass[]; chunk: { ms: number } };
  t.match(document, { precision: 'bf16', ceilings: { name: /Thor/, gigabytesPerSecond: 240 } });
  t.ok(document.assumptions.length > 3 && document.chunk.ms > 0);
  t.same(
    document.passes
      .map(({ name, perChunk, guidanceRows }) => [name, perChunk, guidanceRows])
      .filter(([name]) => /^(video|action)$/.test(String(name))),
    [
      ['video', 2, 2],
      ['action', 4, 1],
    ],
  );
  const text = await run('plan', 'explain', released, '--device', 'orin', '--no-guidance', '--precision', 'int8', '--kv-cache', 'int8');
  t.match(text.out, /as config.json describes it, int8\nceilings {3}Jetson AGX Orin, predicted: 173.0 GB\/s.*, 4 us a step\n/);
  t.match(text.out, /^video: .* 240 video tokens, over 9792 cache entries in int8$/m);
  t.match(text.out, /^Assumed:\n- /m);
  t.match((await run('plan', 'explain', released)).out, /Add --measure .*--device/);
});

t.test('what is refused', async (t) => {
  const file = join(t.testdir({ 'a.plan': 'x' }), 'a.plan');
  for (const [argv, code, message] of [
    [['plan', 'explain', file, '--steps', '2/4'], 2, /--steps: a plan was built for them already/],
    [['plan', 'explain', file, '--no-guidance'], 2, /--guidance: a plan was built/],
    [['plan', 'explain', released, '--device', 'tpu'], 2, /orin, thor, rtx4090, h100/],
    [['plan', 'explain', released, '--device', 'thor', '--ceilings', 'bandwidth=1,f32=1'], 2, /cannot be used with/],
    [['plan', 'explain', join(released, 'vae')], 2, /Expected a job, found none/],
  ] as const) {
    const result = await run(...argv);
    t.equal(result.code, code, argv.join(' '));
    t.match(result.err, message);
  }
});
