/**
 * Inpainting by the real engine: weights of 0 change no bit, held actions come close to what was given, the rest is not moved by hand, and wrong
 * arguments never reach the engine.
 */
import { join } from 'node:path';
import t from 'tap';
import { type Chunk, loadPolicy, type Policy, type PredictOptions } from '../../src/index.js';
import { errorOf, goldens, jobOf } from '../support/fixtures.js';
import { begin, pastOf, Scene, SEED, same } from '../support/scene.js';

/** Mean absolute distance over the actions of positions from .. to of every channel. */
function distance(a: Float32Array, b: Float32Array, count: number, from: number, to: number): number {
  const at = [...a.keys()].filter((index) => index % count >= from && index % count < to);
  return at.reduce((sum, index) => sum + Math.abs((a[index] as number) - (b[index] as number)), 0) / at.length;
}

/** A prediction after the commits alone: predict would also see predictions that were made before. */
async function after(policy: Policy, options: Pick<PredictOptions, 'inpaint' | 'actionSteps'> = {}): Promise<Chunk> {
  return policy.predictNext({ executing: new Float32Array(0), seed: SEED, ...options });
}

async function open(name: string, changes: Record<string, unknown> = {}, precision: 'f32' | 'bf16' = 'f32'): Promise<Policy> {
  const checkpoint = join(goldens, name, 'checkpoint');
  return loadPolicy({ checkpoint, job: jobOf(name, changes), precision, promptCache: false, threads: 2 });
}

for (const [name, precision] of [
  ['franka_tiny', 'f32'],
  ['nocfg_partial', 'f32'],
  ['bf16', 'bf16'],
] as const) {
  t.test(name, async (t) => {
    const policy = await open(name, {}, precision);
    t.teardown(() => policy.close());
    const [, K, H] = policy.info.actionShape;
    const count = K * H;
    const half = Math.floor(count / 2);
    const actions = new Scene(policy).actions(K);
    const ones = new Float32Array(count).fill(1);
    const prefix = new Float32Array(count).fill(1, 0, half);
    await begin(policy, pastOf(policy, 1));
    const free = await after(policy);
    same(t, await after(policy, { inpaint: { actions, weights: new Float32Array(count) } }), free, 'weights 0');

    const held = await after(policy, { inpaint: { actions, weights: prefix } });
    const [far, near] = [distance(free.actions, actions, count, 0, half), distance(held.actions, actions, count, 0, half)];
    t.ok(near < far / 4, `the prefix comes close: ${near} instead of ${far}`);
    t.same([...held.latents], [...free.latents], 'the video is not touched');
    const rest = distance(held.actions, actions, count, half, count);
    t.ok(rest > 4 * near, `the rest is not drawn: ${rest}`);

    const soft = await after(policy, { inpaint: { actions, weights: ones.map(() => 0.1) } });
    const [little, much] = [soft, await after(policy, { inpaint: { actions, weights: ones } })].map((chunk) =>
      distance(chunk.actions, actions, count, 0, count),
    ) as [number, number];
    const none = distance(free.actions, actions, count, 0, count);
    t.ok(much < little && little < none, `the firmer, the closer: ${none}, ${little}, ${much}`);
    const weak = await after(policy, { inpaint: { actions, weights: ones, betaMax: 0.5 } });
    t.ok(distance(weak.actions, actions, count, 0, count) > much, 'betaMax bounds it');

    const executing = new Scene(policy).actions(1);
    const next = { executing, forecast: new Float32Array(policy.info.latentShape.reduce((a, b) => a * b) / K), seed: SEED };
    const [loose, firm] = [await policy.predictNext(next), await policy.predictNext({ ...next, inpaint: { actions, weights: ones } })];
    t.ok(distance(firm.actions, actions, count, 0, count) < distance(loose.actions, actions, count, 0, count) / 2, 'predictNext too');
  });
}

t.test('a step never goes past the given actions, however uneven the schedule', async (t) => {
  const policy = await open('nocfg_partial', { action_snr_shift: 0.05 });
  t.teardown(() => policy.close());
  const [, K, H] = policy.info.actionShape;
  const actions = new Scene(policy).actions(K);
  await begin(policy, pastOf(policy, 1));
  for (const actionSteps of [1, 2, 10]) {
    const inpaint = { actions, weights: new Float32Array(K * H).fill(1), betaMax: 1000 };
    const [free, held] = [await after(policy, { actionSteps }), await after(policy, { actionSteps, inpaint })].map((chunk) =>
      distance(chunk.actions, actions, K * H, 0, K * H),
    ) as [number, number];
    t.ok(held < free / 10, `${actionSteps} steps: ${held} instead of ${free}`);
  }
});

t.test('the padding group of a first chunk is not held', async (t) => {
  const policy = await open('nocfg_partial');
  t.teardown(() => policy.close());
  const [, K, H] = policy.info.actionShape;
  const past = pastOf(policy, 1);
  await policy.reset({ prompt: 'push' });
  const free = await policy.predict({ obs: past.first, seed: SEED });
  const weights = new Float32Array(K * H).fill(1, 0, H);
  await policy.reset({ prompt: 'push' });
  same(
    t,
    await policy.predict({ obs: past.first, seed: SEED, inpaint: { actions: new Scene(policy).actions(K), weights } }),
    free,
    'weights of group 0',
  );
});

t.test('wrong arguments', async (t) => {
  const policy = await open('nocfg_partial');
  t.teardown(() => policy.close());
  const [, K, H] = policy.info.actionShape;
  const actions = new Scene(policy).actions(K);
  const weights = new Float32Array(K * H).fill(1);
  await begin(policy, pastOf(policy, 1));
  const broken = (values: Float32Array, value: number) => values.map((one, index) => (index === 3 ? value : one));
  const cases: [unknown, string, string][] = [
    [null, 'ARGUMENT_INVALID', 'inpaint'],
    [{ weights }, 'ACTIONS_INVALID', 'inpaint.actions'],
    [{ actions: actions.slice(1), weights }, 'ACTIONS_INVALID', 'inpaint.actions'],
    [{ actions: broken(actions, Number.NaN), weights }, 'ACTIONS_INVALID', 'inpaint.actions[3]'],
    [{ actions, weights: weights.slice(1) }, 'ARGUMENT_INVALID', 'inpaint.weights'],
    [{ actions, weights: [1] }, 'ARGUMENT_INVALID', 'inpaint.weights'],
    [{ actions, weights: broken(weights, Number.NaN) }, 'ARGUMENT_INVALID', 'inpaint.weights[3]'],
    [{ actions, weights: broken(weights, 1.01) }, 'ARGUMENT_INVALID', 'inpaint.weights[3]'],
    [{ actions, weights: broken(weights, -0.01) }, 'ARGUMENT_INVALID', 'inpaint.weights[3]'],
    [{ actions, weights, betaMax: 0 }, 'ARGUMENT_INVALID', 'inpaint.betaMax'],
    [{ actions, weights, betaMax: Number.POSITIVE_INFINITY }, 'ARGUMENT_INVALID', 'inpaint.betaMax'],
  ];
  for (const [inpaint, code, field] of cases) {
    const error = await errorOf(policy.predict({ inpaint: inpaint as never }));
    t.same([error.code, error.field], [code, field]);
  }
});
