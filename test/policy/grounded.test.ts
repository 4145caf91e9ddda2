/**
 * Grounded steps of the real engine against compositions of commit and predict: what predictNext appends must give the bits that a commit of the
 * same frames and actions gives, and must leave nothing behind. Pictures and actions come from a seeded generator.
 */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type CacheState, type Chunk, type CommitResult, loadPolicy, type Policy } from '../../src/index.js';
import { errorOf, goldens, jobOf } from '../support/fixtures.js';
import { begin, leading, type Past, pastOf, Scene, SEED, same } from '../support/scene.js';

const PROMPT = 'push the cube';

const cases: [string, Record<string, unknown>, 'f32' | 'bf16'][] = [
  ['franka_tiny', {}, 'f32'],
  ['nocfg_partial', {}, 'f32'],
  ['robotwin_tiny', { attn_window: 4 }, 'f32'],
  ['bf16', {}, 'bf16'],
];

/** A policy, a past of three commits, and what the last of them and the prediction after it give. */
interface Scenario {
  readonly policy: Policy;
  readonly past: Past;
  readonly last: Past['commits'][number];
  readonly seen: CommitResult;
  readonly after: CacheState;
  readonly oracle: Chunk;
}

async function noExecuting(t: Test, { policy, past, oracle, after }: Scenario): Promise<void> {
  await begin(policy, past);
  const found = await policy.predictNext({ executing: new Float32Array(0), seed: SEED });
  same(t, found, oracle, 'E = 0');
  t.equal(found.imagined, undefined);
  t.same(policy.cache, after);
}

async function trueForecast(t: Test, { policy, past, last, seen, oracle, after }: Scenario): Promise<void> {
  await begin(policy, past, 2);
  const before = policy.cache;
  const found = await policy.predictNext({ executing: last.actions, forecast: seen.latents, seed: SEED });
  same(t, found, oracle, 'E = K');
  t.same([found.imagined, found.committed], [undefined, undefined]);
  t.same(policy.cache, before);
  await policy.commit(last);
  t.same(policy.cache, after);
  same(t, await policy.predict({ seed: SEED }), oracle, 'afterwards');
}

async function oneFrame(t: Test, { policy, past, last }: Scenario): Promise<void> {
  const [used, K, H] = policy.info.actionShape;
  const actions = leading(last.actions, K, 1, H);
  t.equal(actions.length, used * H);
  await begin(policy, past, 2);
  const { latents } = await policy.commit({ obs: last.obs.slice(0, 4), actions });
  const expected = await policy.predict({ seed: SEED });
  await begin(policy, past, 2);
  same(t, await policy.predictNext({ executing: actions, forecast: latents, seed: SEED }), expected, 'E = 1');
}

async function imagined(t: Test, { policy, past }: Scenario): Promise<void> {
  const [, K, H] = policy.info.actionShape;
  const [, , h, w] = policy.info.latentShape;
  const { obs, actions } = past.commits[1] as Past['commits'][number];
  for (const E of [1, K]) {
    await begin(policy, past, 1);
    const executing = leading(actions, K, E, H);
    const found = await policy.predictNext({ obs, executed: actions, executing, seed: SEED });
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
}

async function coldStart(t: Test, { policy, past }: Scenario): Promise<void> {
  const [used, K, H] = policy.info.actionShape;
  const [, , h, w] = policy.info.latentShape;
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
}

async function abortWhileImagining(t: Test, { policy, past, last, oracle }: Scenario): Promise<void> {
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
}

for (const [name, changes, precision] of cases) {
  t.test(name, async (t) => {
    const checkpoint = join(goldens, name, 'checkpoint');
    const job = jobOf(name, { imagine_steps: 2, ...changes });
    const policy = await loadPolicy({ checkpoint, job, precision, promptCache: false, threads: 2 });
    t.teardown(() => policy.close());
    const past = pastOf(policy, 3);
    const last = past.commits[2] as Past['commits'][number];
    await begin(policy, past, 2);
    const seen = await policy.commit(last);
    const [channels, K, h, w] = policy.info.latentShape;
    t.same(seen.latents.shape, [1, channels, K, h, w]);
    const after = policy.cache;
    const scenario = { policy, past, last, seen, after, oracle: await policy.predict({ seed: SEED }) };
    await t.test('E = 0 is a prediction', (t) => noExecuting(t, scenario));
    await t.test('a true forecast gives what the commit would give, and leaves nothing', (t) => trueForecast(t, scenario));
    await t.test('one frame of a chunk', (t) => oneFrame(t, scenario));
    await t.test('imagined frames are appended as a forecast is', (t) => imagined(t, scenario));
    await t.test('a cold start commits frame 0 with its padding group', (t) => coldStart(t, scenario));
    await t.test('an abort while imagining keeps the commit and nothing else', (t) => abortWhileImagining(t, scenario));
  });
}

t.test('guidance: false is the unguided job, and leaves a cache that may be guided again', async (t) => {
  const checkpoint = join(goldens, 'franka_tiny', 'checkpoint');
  const open = async (changes: Record<string, unknown>): Promise<Policy> => {
    const job = jobOf('franka_tiny', { imagine_steps: 2, ...changes });
    const policy = await loadPolicy({ checkpoint, job, promptCache: false, threads: 2 });
    t.teardown(() => policy.close());
    return policy;
  };
  const [guided, plain] = [await open({}), await open({ guidance_scale: 1 })];
  const past = pastOf(guided, 2);
  const last = past.commits[1] as Past['commits'][number];
  const next = { obs: last.obs, executed: last.actions, executing: last.actions, seed: SEED };
  await begin(plain, past, 1);
  const expected = await plain.predictNext(next);
  await begin(guided, past, 1);
  const found = await guided.predictNext({ ...next, guidance: false });
  same(t, found, expected, 'one row');
  t.same([...(found.imagined ?? [])], [...(expected.imagined ?? [])], 'imagined without guidance too');
  const again = await guided.predictNext({ executing: last.actions, seed: SEED });
  await begin(guided, past, 1);
  same(t, again, await guided.predictNext(next), 'guided afterwards');
  t.not([...again.actions].join(), [...found.actions].join(), 'guidance matters');
  await begin(guided, past);
  await guided.predict({ seed: SEED, guidance: false });
  const second = await guided.predict({ seed: SEED });
  await begin(guided, past);
  await guided.predict({ seed: SEED, guidance: false, trace: true });
  same(t, await guided.predict({ seed: SEED, trace: true }), second, 'a trace changes nothing');
});

t.test('videoExecStep is the video_exec_step of one call', async (t) => {
  const checkpoint = join(goldens, 'nocfg_partial', 'checkpoint');
  const [full, partial] = await Promise.all(
    [-1, 3].map((video_exec_step) => loadPolicy({ checkpoint, job: jobOf('nocfg_partial', { video_exec_step }), promptCache: false, threads: 1 })),
  );
  if (full === undefined || partial === undefined) throw new Error('two policies were opened');
  t.teardown(() => Promise.all([full.close(), partial.close()]));
  const past = pastOf(full, 1);
  for (const one of [full, partial]) await begin(one, past);
  const executing = new Float32Array(0);
  const [expected, found] = [
    await partial.predictNext({ executing, seed: SEED }),
    await full.predictNext({ executing, seed: SEED, videoExecStep: 3 }),
  ];
  same(t, found, expected, '3 passes');
  t.equal(found.timing.videoPasses, 3);
  t.equal((await partial.predictNext({ executing, seed: SEED, videoExecStep: -1 })).timing.videoPasses, 6);
});

t.test('the isolated engine gives the same bits', async (t) => {
  const checkpoint = join(goldens, 'nocfg_partial', 'checkpoint');
  const open = (isolate: boolean) => loadPolicy({ checkpoint, job: jobOf('nocfg_partial'), promptCache: false, threads: 2, isolate });
  const [here, there] = [await open(false), await open(true)];
  t.teardown(() => Promise.all([here.close(), there.close()]));
  const past = pastOf(here, 3);
  const last = past.commits[2] as Past['commits'][number];
  const count = here.info.actionShape[1] * here.info.actionShape[2];
  const results = [];
  for (const policy of [here, there]) {
    await begin(policy, past, 2);
    const inpaint = { actions: last.actions, weights: new Float32Array(count).fill(0.5) };
    const chunk = await policy.predictNext({ obs: last.obs, executed: last.actions, executing: last.actions, seed: SEED, guidance: false, inpaint });
    const { timing: _, ...rest } = chunk;
    results.push({ rest, encoder: await policy.encoderState(), cache: policy.cache });
  }
  t.same(results[1], results[0]);
});
