/**
 * Rebuilding an episode from what it committed: the same cache, the same bits afterwards, also in another process's policy, and a clear refusal of
 * what belongs to another checkpoint, job or episode.
 */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Chunk, type EncoderState, type LoadPolicyOptions, loadPolicy, type PastCommit, type Policy, type Progress } from '../../src/index.js';
import { errorOf, goldens, jobOf } from '../support/fixtures.js';
import { type Past, pastOf, SEED, same } from '../support/scene.js';

const PROMPT = 'push the cube';
const COMMITS = 9;

async function open(
  t: Test,
  name: string,
  precision: 'f32' | 'bf16' | 'int8' = 'f32',
  changes: Record<string, unknown> = {},
  held: Pick<LoadPolicyOptions, 'kvCache'> = {},
): Promise<Policy> {
  const checkpoint = join(goldens, name, 'checkpoint');
  const job = jobOf(name, { imagine_steps: 1, ...changes });
  const policy = await loadPolicy({ checkpoint, job, precision, ...held, allowUncertified: true, promptCache: false, threads: 2 });
  t.teardown(() => policy.close());
  return policy;
}

interface Run {
  readonly commits: PastCommit[];
  readonly encoder: EncoderState;
  readonly checksum: string;
}

/** An asynchronous episode: one prediction, then grounded steps, as a controller makes them; the last commit is made alone. */
async function run(policy: Policy, past: Past, count: number): Promise<Run> {
  const commits: PastCommit[] = [];
  await policy.reset({ prompt: PROMPT });
  await policy.predict({ obs: past.first, seed: SEED });
  for (const [at, { obs, actions }] of past.commits.slice(0, count).entries()) {
    const executing = (past.commits[at + 1] as Past['commits'][number]).actions;
    const grounded = at % 2 === 0;
    const { committed } = grounded ? await policy.predictNext({ obs, executed: actions, executing, seed: SEED }) : { committed: undefined };
    const { latents } = committed ?? (await policy.commit({ obs, actions }));
    commits.push({ latents: latents.slice(), actions });
  }
  return { commits, encoder: await policy.encoderState(), checksum: policy.cache.checksum };
}

/** What follows the past: a grounded step and a prediction. */
async function goOn(policy: Policy, past: Past, count: number): Promise<Chunk[]> {
  const { obs, actions } = past.commits[count] as Past['commits'][number];
  return [
    await policy.predict({ seed: SEED }),
    await policy.predictNext({ obs, executed: actions, executing: actions, seed: SEED }),
    await policy.predict({ seed: SEED }),
  ];
}

for (const [name, precision, changes, held] of [
  ['franka_tiny', 'f32', {}, {}],
  ['nocfg_partial', 'f32', {}, {}],
  ['robotwin_tiny', 'f32', { attn_window: 16 }, {}],
  ['bf16', 'bf16', {}, {}],
  ['robotwin_tiny', 'int8', { attn_window: 16 }, { kvCache: 'int8' }],
] as const) {
  t.test(`${name} at ${precision}, ${held.kvCache ?? 'its own'} KV cache`, async (t) => {
    const policy = await open(t, name, precision, changes, held);
    const other = await open(t, name, precision, changes, held);
    const past = pastOf(policy, COMMITS + 1);
    for (const count of [1, 2, COMMITS]) {
      const { commits, encoder, checksum } = await run(policy, past, count);
      const kept = policy.cache;
      const expected = await goOn(policy, past, count);
      for (const one of [other, policy]) {
        const seen: Progress[] = [];
        const restored = await one.restore({ prompt: PROMPT, commits, encoder, checksum, onProgress: (progress) => seen.push(progress) });
        t.match(restored, { cleanedPrompt: PROMPT });
        t.same(one.cache, kept, `cache after ${count} commits`);
        t.same(seen.at(-1), { stage: 'recover', done: count, total: count });
        for (const [at, chunk] of (await goOn(one, past, count)).entries()) same(t, chunk, expected[at] as Chunk, `${count} commits, step ${at}`);
      }
    }
  });
}

t.test('what does not belong is refused, and no episode runs', async (t) => {
  const policy = await open(t, 'nocfg_partial');
  const past = pastOf(policy, 3);
  t.equal((await errorOf(policy.encoderState())).code, 'NO_EPISODE');
  await policy.reset({ prompt: PROMPT });
  t.equal((await errorOf(policy.encoderState())).code, 'OBS_REQUIRED');
  await policy.predict({ obs: past.first });
  t.equal((await errorOf(policy.encoderState())).code, 'OBS_REQUIRED');
  const { commits, encoder, checksum } = await run(policy, past, 2);
  const good = { prompt: PROMPT, commits, encoder, checksum };

  const bent = (at: number): EncoderState => ({ data: encoder.data.map((byte, index) => (index === at ? byte ^ 1 : byte)) });
  const wider = await open(t, 'nocfg_partial', 'f32', { width: 128 });
  const foreign = [
    await run(await open(t, 'franka_tiny'), pastOf(await open(t, 'franka_tiny'), 2), 1),
    await run(wider, pastOf(wider, 2), 1),
    await run(await open(t, 'bf16', 'bf16'), past, 2),
    await run(await open(t, 'nocfg_partial', 'f32', {}, { kvCache: 'int8' }), past, 2),
  ].map(({ encoder }) => encoder);
  const states = [{ data: new Uint8Array(0) }, { data: encoder.data.slice(0, -1) }, bent(0), bent(9), bent(30), bent(encoder.data.length - 20)];
  for (const state of [...states, ...foreign]) {
    const error = await errorOf(policy.restore({ ...good, encoder: state }));
    t.equal(error.code, 'RESTORE_STATE', error.message);
    t.equal((await errorOf(policy.predict())).code, 'NO_EPISODE');
  }
  const short = await errorOf(policy.restore({ ...good, commits: commits.slice(0, 1) }));
  t.equal(short.code, 'RESTORE_MISMATCH');
  t.equal((await errorOf(policy.predict())).code, 'NO_EPISODE');
  const controller = new AbortController();
  const stopped = policy.restore({ ...good, signal: controller.signal, onProgress: () => controller.abort() });
  const ended = await stopped.then(
    () => 'done',
    (error: { code: string }) => error.code,
  );
  t.match(ended, /^(done|ABORTED)$/, 'the last check may be past');
  t.equal((await policy.restore(good)).source, 'encoder');
  t.equal(policy.cache.checksum, checksum);
});

t.test('i2va episodes have no commits to restore', async (t) => {
  const policy = await open(t, 'i2va_tiny');
  t.equal((await errorOf(policy.restore({ prompt: '', commits: [], encoder: { data: new Uint8Array(1) } }))).code, 'MODE_UNSUPPORTED');
});

t.test('occupy fills the cache as many commits would', async (t) => {
  const policy = await open(t, 'robotwin_tiny');
  t.equal((await errorOf(policy.occupy())).code, 'NO_EPISODE');
  await policy.reset({ prompt: PROMPT });
  const { valid, committed, predicted, capacity } = await policy.occupy();
  t.same([valid, committed, predicted], [capacity, capacity, 0]);
  const past = pastOf(policy, 2);
  const { obs, actions } = past.commits[1] as Past['commits'][number];
  await policy.reset({ prompt: PROMPT });
  await policy.predict({ obs: past.first });
  t.equal((await policy.occupy()).valid, capacity);
  const chunk = await policy.predictNext({ obs, executed: actions, executing: actions });
  t.ok(chunk.actions.every(Number.isFinite));
  t.equal(policy.cache.valid, capacity);
});
