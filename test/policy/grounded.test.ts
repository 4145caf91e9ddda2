/**
 * Grounded steps of the real engine against compositions of commit and predict: what predictNext appends must give the bits that a commit of the
 * same frames and actions gives, and must leave nothing behind. Pictures and actions come from a seeded generator.
 */
import { join } from 'node:path';
import t from 'tap';
import { loadPolicy } from '../../src/index.js';
import { errorOf, goldens, jobOf } from '../support/fixtures.js';
import { begin, leading, type Past, pastOf, Scene, SEED, same } from '../support/scene.js';

const PROMPT = 'push the cube';

const cases: [string, Record<string, unknown>, 'f32' | 'bf16'][] = [
  ['franka_tiny', {}, 'f32'],
  ['nocfg_partial', {}, 'f32'],
  ['robotwin_tiny', { attn_window: 4 }, 'f32'],
  ['bf16', {}, 'bf16'],
];

for (const [name, changes, precision] of cases) {
  t.test(name, async (t) => {
    const checkpoint = join(goldens, name, 'checkpoint');
    const job = jobOf(name, { imagine_steps: 2, ...changes });
    const policy = await loadPolicy({ checkpoint, job, precision, promptCache: false, threads: 2 });
    t.teardown(() => policy.close());
    const [used, K, H] = policy.info.actionShape;
    const [, , h, w] = policy.info.latentShape;
    const past = pastOf(policy, 3);
    const last = past.commits[2] as Past['commits'][number];

    await begin(policy, past, 2);
    const seen = await policy.commit(last);
    t.same(seen.latents.shape, [1, policy.info.latentShape[0], K, h, w]);
    const after = policy.cache;
    const oracle = await policy.predict({ seed: SEED });

    await t.test('E = 0 is a prediction', async (t) => {
      await begin(policy, past);
      const found = await policy.predictNext({ executing: new Float32Array(0), seed: SEED });
      same(t, found, oracle, 'E = 0');
      t.equal(found.imagined, undefined);
      t.same(policy.cache, after);
    });

    await t.test('a true forecast gives what the commit would give, and leaves nothing', async (t) => {
      await begin(policy, past, 2);
      const before = policy.cache;
      const found = await policy.predictNext({ executing: last.actions, forecast: seen.latents, seed: SEED });
      same(t, found, oracle, 'E = K');
      t.same([found.imagined, found.committed], [undefined, undefined]);
      t.same(policy.cache, before);
      await policy.commit(last);
      t.same(policy.cache, after);
      same(t, await policy.predict({ seed: SEED }), oracle, 'afterwards');
    });

    await t.test('one frame of a chunk', async (t) => {
      const actions = leading(last.actions, K, 1, H);
      t.equal(actions.length, used * H);
      await begin(policy, past, 2);
      const { latents } = await policy.commit({ obs: last.obs.slice(0, 4), actions });
      const expected = await policy.predict({ seed: SEED });
      await begin(policy, past, 2);
      same(t, await policy.predictNext({ executing: actions, forecast: latents, seed: SEED }), expected, 'E = 1');
    });

    await t.test('imagined frames are appended as a forecast is', async (t) => {
      for (const E of [1, K]) {
        await begin(policy, past, 1);
        const executing = leading((past.commits[1] as typeof last).actions, K, E, H);
        const [, two] = past.commits;
        const found = await policy.predictNext({ obs: (two as typeof last).obs, executed: (two as typeof last).actions, executing, seed: SEED });
        t.same(found.imagined?.shape, [1, policy.info.latentShape[0], E, h, w]);
        t.ok(found.imagined?.every(Number.isFinite));
        t.equal(found.committed?.frameIndex, 2 * K);
        t.equal(found.frameIndex, 2 * K + E);
        const { checksum } = policy.cache;
        const again = await policy.predictNext({ executing, forecast: found.imagined as Float32Array, seed: SEED });
        same(t, again, found, `E = ${E}`);
        const rough = await policy.predictNext({ executing, seed: SEED, imagineSteps: 1 });
        t.not([...(rough.imagined ?? [])].join(), [...(found.imagined ?? [])].join(), 'imagineSteps counts');
        await begin(policy, past, 2);
        t.equal(policy.cache.checksum, checksum, 'the commit is the same as commit');
      }
    });

    await t.test('a cold start commits frame 0 with its padding group', async (t) => {
      await policy.reset({ prompt: PROMPT });
      const chunk = await policy.predict({ obs: past.first, seed: SEED });
      const padding = leading(chunk.actions, K, 1, H);
      const rest = Float32Array.from(Array.from({ length: used }, (_, c) => [...chunk.actions.subarray((c * K + 1) * H, (c + 1) * K * H)]).flat());
      t.equal((await errorOf(policy.predictNext({ executing: rest }))).code, 'OBS_REQUIRED');
      const next = await policy.predictNext({ obs: [], executed: padding, executing: rest, seed: SEED });
      t.equal(next.committed?.frameIndex, 1);
      t.same(next.committed?.latents.shape, [1, policy.info.latentShape[0], 1, h, w]);
      t.equal(next.frameIndex, K);
      t.equal(policy.cache.predicted, 0, 'the uncommitted prediction is gone');
      const { frameIndex } = await policy.commit({ obs: new Scene(policy).moments(4), actions: leading(rest, K - 1, 1, H) });
      t.equal(frameIndex, 2);
    });

    await t.test('an abort while imagining keeps the commit and nothing else', async (t) => {
      await begin(policy, past);
      const { checksum } = policy.cache;
      await begin(policy, past, 2);
      const controller = new AbortController();
      const stopped = policy.predictNext({
        obs: last.obs,
        executed: last.actions,
        executing: last.actions,
        seed: SEED,
        imagineSteps: 200,
        signal: controller.signal,
        onProgress: ({ stage }) => stage === 'imagine' && controller.abort(),
      });
      t.equal((await errorOf(stopped)).code, 'ABORTED');
      t.equal(policy.cache.checksum, checksum);
      same(t, await policy.predict({ seed: SEED }), oracle, 'afterwards');
    });
  });
}
