/**
 * Rebuilding an episode whose KV cache is full: predictions evict entries that the commit after them no longer sees, so what is rebuilt has the same
 * bits only where a past commit says that a prediction came before it.
 */
import { join } from 'node:path';
import t from 'tap';
import { loadPolicy, type PastCommit, type Policy } from '../../src/index.js';
import { goldens, jobOf } from '../support/fixtures.js';
import { pastOf, SEED } from '../support/scene.js';

const PROMPT = 'push the cube';
const COMMITS = 7;
const CHEAPEST = { videoSteps: 1, videoExecStep: -1, actionSteps: 1 } as const;

const bits = (array: Float32Array): Buffer => Buffer.from(array.buffer, array.byteOffset, array.byteLength);

for (const name of ['nocfg_partial', 'franka_tiny']) {
  t.test(name, async (t) => {
    const open = async (): Promise<Policy> => {
      const policy = await loadPolicy({
        checkpoint: join(goldens, name, 'checkpoint'),
        job: jobOf(name, { attn_window: 6 }),
        promptCache: false,
        threads: 2,
      });
      t.teardown(() => policy.close());
      return policy;
    };
    const [policy, other] = [await open(), await open()];
    const past = pastOf(policy, COMMITS + 1);
    const commits: PastCommit[] = [];
    await policy.reset({ prompt: PROMPT });
    for (const [at, { obs, actions }] of past.commits.slice(0, COMMITS).entries()) {
      await policy.predict({ ...(at === 0 ? { obs: past.first } : {}), seed: SEED });
      const { latents } = await policy.commit({ obs, actions });
      commits.push({ latents: latents.slice(), actions, predicted: true });
    }
    t.equal(policy.cache.valid, policy.cache.capacity, 'the cache is full');
    const call = { prompt: PROMPT, encoder: await policy.encoderState(), checksum: policy.cache.checksum };
    const { obs, actions } = past.commits[COMMITS] ?? { obs: [], actions: new Float32Array(0) };
    const goOn = async (one: Policy): Promise<Buffer[]> => {
      const next = bits((await one.predict({ seed: SEED })).actions);
      await one.commit({ obs, actions });
      return [next, bits((await one.predict({ seed: SEED })).actions)];
    };
    await other.restore({ ...call, commits });
    const expected = await goOn(policy);
    t.same(await goOn(other), expected);
    // An engine that died after its prediction: the cheapest one makes the same room.
    await other.restore({ ...call, commits });
    await other.predict(CHEAPEST);
    await other.commit({ obs, actions });
    t.same(bits((await other.predict({ seed: SEED })).actions), expected[1]);
    await other.restore({ ...call, commits: commits.map(({ latents, actions }) => ({ latents, actions })) });
    t.notSame(await goOn(other), expected, 'without its predictions it is another history');
  });
}
