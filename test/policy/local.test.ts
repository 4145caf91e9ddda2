/** States, checks, aborts and backpressure of the policy in this process, over the fake engine. */
import t from 'tap';
import type { NativePredict } from '../../src/native.js';
import type { Progress } from '../../src/policy/contract.js';
import { nativeError, seeds, TEXT_DIM } from '../support/fake-native.js';
import { actionsOf, deferred, errorOf, frame, moments, observation, openRig, type Rig } from '../support/fixtures.js';

async function inEpisode(changes: Record<string, unknown> = {}): Promise<Rig> {
  const rig = await openRig(changes);
  await rig.policy.reset({ prompt: 'pick up' });
  return rig;
}

/** Waits until the fake has been called that often. */
async function untilCalls(rig: Rig, count: number): Promise<void> {
  while (rig.engine.calls.length < count) await new Promise((resolve) => setImmediate(resolve));
}

t.test('an episode: reset, predict, commit, predict', async (t) => {
  const { policy, engine } = await openRig();
  t.match(policy.cache, { capacity: 100, valid: 0, committed: 0, predicted: 0 });
  const reset = await policy.reset({ prompt: 'pick  up' });
  t.match(reset, { source: 'encoder', cleanedPrompt: 'pick up', tokens: 3, warnings: [] });
  t.equal(reset.trace, undefined);

  const chunk = await policy.predict({ obs: observation(), seed: 7 });
  t.same(chunk.shape, [3, 2, 4]);
  t.equal(chunk.actions.length, 24);
  t.same(chunk.latents.shape, [1, 48, 2, 2, 4]);
  t.equal(chunk.latents.dtype, 'float32');
  t.equal(chunk.latents.data, chunk.latents);
  t.equal(chunk.frameIndex, 0);
  t.equal(chunk.timing.totalMs, 15);
  t.equal(chunk.trace, undefined);
  t.match(policy.cache, { capacity: 100, valid: 2, committed: 0, predicted: 2 });

  const commit = await policy.commit({ obs: moments(4), actions: actionsOf(2) });
  t.equal(commit.frameIndex, 2);
  t.match(policy.cache, { capacity: 100, valid: 2, committed: 2, predicted: 0 });
  t.equal((await policy.predict()).frameIndex, 2);
  t.equal((await policy.commit({ obs: moments(8), actions: actionsOf(2) })).frameIndex, 4);
  t.same(
    engine.calls.map(({ method }) => method),
    ['reset', 'predict', 'commit', 'predict', 'commit'],
  );
});

t.test('predict passes pictures, seed, noise and steps on', async (t) => {
  const { policy, engine } = await inEpisode();
  const noise = { video: new Float32Array(48 * 2 * 2 * 4).fill(1), action: new Float32Array(6 * 2 * 4).fill(2) };
  await policy.predict({ obs: [frame('cam_wrist', 2, 2), frame('cam_high', 3, 3)], seed: 1n << 63n, noise, videoSteps: 3, actionSteps: 4 });
  const options = engine.calls[1]?.options as NativePredict;
  t.same(
    options.frames?.map(({ width }) => width),
    [3, 2],
    "in the job's order",
  );
  t.equal(options.seed, 1n << 63n);
  t.equal(options.noiseVideo, noise.video);
  t.equal(options.noiseAction, noise.action);
  t.match(options, { videoSteps: 3, actionSteps: 4, trace: false });
  await policy.predict();
  const second = engine.calls[2]?.options as NativePredict;
  t.same(Object.keys(second).sort(), ['seed', 'trace'], 'what is not given is not passed');
  t.equal(second.seed, 0n);
});

t.test('the first observation', async (t) => {
  const { policy, engine } = await openRig();
  t.equal((await errorOf(policy.predict({ obs: observation() }))).code, 'NO_EPISODE');
  await policy.reset({ prompt: 'a' });
  t.equal((await errorOf(policy.predict())).code, 'OBS_REQUIRED');
  t.equal((await errorOf(policy.predict({ obs: [] }))).code, 'OBS_REQUIRED');
  t.equal((await errorOf(policy.predict({ obs: [frame('cam_high')] }))).code, 'FRAME_INVALID');
  const early = await errorOf(policy.commit({ obs: moments(4), actions: actionsOf(2) }));
  t.equal(early.code, 'OBS_REQUIRED', 'a commit needs the first prediction');
  const next = await errorOf(policy.predictNext({ obs: moments(4), executed: actionsOf(2), executing: actionsOf(2) }));
  t.equal(next.code, 'OBS_REQUIRED');
  engine.failure = nativeError('OUT_OF_MEMORY', 'full');
  t.equal((await errorOf(policy.predict({ obs: observation() }))).code, 'OUT_OF_MEMORY');
  t.equal((await errorOf(policy.predict())).code, 'OBS_REQUIRED', 'a failed first prediction leaves the episode without an observation');

  await policy.predict({ obs: observation() });
  const framesOf = (call: number) => (engine.calls[call]?.options as NativePredict | undefined)?.frames?.length;
  const calls = engine.calls.length;
  await policy.predict();
  t.equal(framesOf(calls), undefined, 'it is not needed again');
  await policy.predict({ obs: observation() });
  t.equal(framesOf(calls + 1), 2, 'before the first commit a newer one is taken');
  await policy.commit({ obs: moments(4), actions: actionsOf(2) });
  await policy.predict({ obs: [frame('any camera')] });
  t.equal(framesOf(calls + 3), undefined, 'afterwards it is ignored, unread');
  await policy.reset({ prompt: 'b' });
  t.equal((await errorOf(policy.predict())).code, 'OBS_REQUIRED', 'a new episode needs a new one');
});

t.test('arguments are checked before the engine is called', async (t) => {
  const { policy, engine } = await inEpisode();
  const calls = engine.calls.length;
  t.equal((await errorOf(policy.predict({ obs: observation(), seed: -1 }))).code, 'ARGUMENT_INVALID');
  t.equal((await errorOf(policy.predict({ obs: observation(), noise: { video: new Float32Array(1) } }))).code, 'NOISE_INVALID');
  t.equal((await errorOf(policy.predict({ obs: observation(), videoSteps: 0 }))).code, 'ARGUMENT_INVALID');
  t.equal((await errorOf(policy.predict(null as never))).code, 'ARGUMENT_INVALID');
  t.equal((await errorOf(policy.reset(undefined as never))).code, 'ARGUMENT_INVALID');
  t.equal((await errorOf(policy.reset({} as never))).field, 'prompt');
  t.equal((await errorOf(policy.decode(new Float32Array(5)))).code, 'ARGUMENT_INVALID');
  t.equal(engine.calls.length, calls);
  await policy.predict({ obs: observation() });
  t.equal(
    (await errorOf(policy.commit({ obs: moments(8), actions: actionsOf(2) }))).code,
    'ACTIONS_INVALID',
    '8 moments are 3 latent frames at first',
  );
  t.equal((await errorOf(policy.commit({ obs: moments(3), actions: actionsOf(2) }))).code, 'FRAME_INVALID');
  await policy.commit({ obs: moments(8), actions: actionsOf(3) });
  t.equal((await errorOf(policy.commit({ obs: moments(8), actions: actionsOf(3) }))).code, 'ACTIONS_INVALID', 'and 2 later');
  await policy.commit({ obs: moments(4), actions: actionsOf(1) });
  t.equal((await errorOf(policy.predictNext({ obs: moments(8), executed: actionsOf(2), executing: new Float32Array(7) }))).field, 'executing');
  t.equal((await errorOf(policy.predictNext({ obs: moments(8), executed: actionsOf(1), executing: actionsOf(2) }))).field, 'executed');
});

t.test('guidance needs the negative prompt, which is embedded once', async (t) => {
  const plain = await inEpisode();
  t.same(plain.text.asked, ['pick up']);
  t.equal((plain.engine.calls[0]?.options as { negative: unknown } | undefined)?.negative, null);
  const guided = await inEpisode({ guidance_scale: 5 });
  await guided.policy.reset({ prompt: 'put down' });
  t.same(guided.text.asked, ['pick up', '', 'put down']);
  t.match(guided.engine.calls[1]?.options, { positive: { count: 3 }, negative: { count: 1 } });
});

t.test('the trace of a reset holds padded ids, masks and embeddings', async (t) => {
  const { policy } = await openRig({ guidance_scale: 5 });
  const { trace } = await policy.reset({ prompt: 'abc de', trace: true });
  t.same([...(trace?.keys() ?? [])].sort(), [
    'prompt_embeds_neg',
    'prompt_embeds_pos',
    'token_ids_neg',
    'token_ids_pos',
    'token_mask_neg',
    'token_mask_pos',
  ]);
  const ids = trace?.get('token_ids_pos');
  t.match(ids, { dtype: 'int32', shape: [1, 512] });
  t.same([...(ids?.data.slice(0, 5) ?? [])], [4, 3, 1, 0, 0]);
  const embeds = trace?.get('prompt_embeds_pos');
  t.match(embeds, { dtype: 'float32', shape: [1, 512, TEXT_DIM] });
  t.same([...(embeds?.data.slice(0, 16) ?? [])], [3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0]);
  t.same(
    [...(trace?.get('token_mask_neg')?.data ?? [])].filter((one) => one !== 0),
    [1],
  );
  const unguided = await openRig();
  t.equal((await unguided.policy.reset({ prompt: 'a', trace: true })).trace?.has('token_ids_neg'), false);
});

t.test('traces and progress', async (t) => {
  const { policy } = await inEpisode();
  const seen: Progress[] = [];
  const chunk = await policy.predict({ obs: observation(), trace: true, onProgress: (progress) => seen.push(progress) });
  t.same(chunk.trace?.get('video.s0.out'), { dtype: 'float32', shape: [1, 2], data: Float32Array.of(1, 2) });
  t.same(seen, [
    { stage: 'video', done: 1, total: 2 },
    { stage: 'video', done: 2, total: 2 },
  ]);
  const commit = await policy.commit({ obs: moments(4), actions: actionsOf(2), trace: true });
  t.same([...(commit.trace?.keys() ?? [])], ['video.input']);
});

t.test('predictNext', async (t) => {
  const { policy, engine } = await inEpisode();
  await policy.predict({ obs: observation() });
  const imagined = new Float32Array(48 * 2 * 2 * 4);
  const chunk = await policy.predictNext({ obs: moments(4), executed: actionsOf(2), executing: actionsOf(2), seed: 3, noise: { imagined } });
  t.equal(chunk.actions[0], 3);
  const call = engine.calls.at(-1)?.options as { moments: unknown[]; noiseImagined: Float32Array; frames?: unknown };
  t.equal(call.moments.length, 4);
  t.equal(call.noiseImagined, imagined);
  t.notOk('frames' in call);
  t.same(chunk.imagined?.shape, [1, 48, 2, 2, 4]);
  t.equal(chunk.frameIndex, 4);
  t.match(chunk.committed, { frameIndex: 2, latents: { shape: [1, 48, 2, 2, 4] } });
  await policy.predictNext({ obs: moments(8), executed: actionsOf(2), executing: actionsOf(2) });
  t.equal(engine.calls.at(-1)?.method, 'predictNext', 'the next ones bring 4 K moments');
});

t.test('predictNext: nothing to commit, nothing executing, a forecast', async (t) => {
  const { policy, engine } = await inEpisode();
  await policy.predict({ obs: observation() });
  const early = await errorOf(policy.predictNext({ executing: actionsOf(1) }));
  t.equal(early.code, 'OBS_REQUIRED');
  t.match(early.message, /first commit.*padding group/s);
  const first = await policy.predictNext({ obs: [], executed: actionsOf(1), executing: actionsOf(1), imagineSteps: 3, guidance: false });
  t.same([first.frameIndex, first.committed?.frameIndex, first.imagined?.shape[2]], [2, 1, 1]);
  t.match(engine.calls.at(-1)?.options, { moments: [], imagineSteps: 3, guidance: false });
  const forecast = new Float32Array(48 * 2 * 2 * 4);
  const stale = await policy.predictNext({ executing: actionsOf(2), forecast });
  t.same([stale.frameIndex, stale.committed, stale.imagined], [3, undefined, undefined]);
  const options = engine.calls.at(-1)?.options as { forecast: unknown; moments?: unknown; executed?: unknown };
  t.equal(options.forecast, forecast);
  t.notOk('moments' in options || 'executed' in options || 'guidance' in options);
  const fresh = await policy.predictNext({ executing: actionsOf(0) });
  t.same([fresh.frameIndex, fresh.imagined], [1, undefined]);
  t.equal((await errorOf(policy.predictNext({ obs: moments(4), executing: actionsOf(1) }))).field, 'executed');
  t.equal((await errorOf(policy.predictNext({ executing: actionsOf(3) }))).field, 'executing');
  t.equal((await errorOf(policy.predictNext({ executing: actionsOf(1), forecast }))).field, 'forecast');
  t.equal((await errorOf(policy.predictNext({ executing: actionsOf(1), imagineSteps: 0 }))).field, 'imagineSteps');
});

t.test('a predictNext that fails after its commit keeps the commit', async (t) => {
  const { policy, engine } = await inEpisode();
  await policy.predict({ obs: observation() });
  engine.failAfterCommit = true;
  const error = await errorOf(policy.predictNext({ obs: moments(4), executed: actionsOf(2), executing: actionsOf(2) }));
  t.equal(error.code, 'ABORTED');
  engine.failAfterCommit = false;
  t.equal((await errorOf(policy.commit({ obs: moments(4), actions: actionsOf(2) }))).code, 'ACTIONS_INVALID', 'the next commit is not the first');
  t.equal((await policy.commit({ obs: moments(8), actions: actionsOf(2) })).frameIndex, 4);
});

t.test('a predictNext that fails before its commit leaves the first one to come', async (t) => {
  const { policy, engine } = await inEpisode();
  await policy.predict({ obs: observation() });
  engine.failure = nativeError('OUT_OF_MEMORY', 'full');
  await errorOf(policy.predictNext({ obs: moments(4), executed: actionsOf(2), executing: actionsOf(2) }));
  t.equal((await policy.commit({ obs: moments(4), actions: actionsOf(2) })).frameIndex, 2);
});

t.test('decode takes tensors, shaped arrays and plain arrays, also without an episode', async (t) => {
  const { policy, engine } = await openRig();
  const data = new Float32Array(48 * 3 * 2 * 4);
  const video = await policy.decode(data);
  t.same(engine.calls.at(-1)?.options, { latents: data, frames: 3 });
  t.equal(video.length, 9);
  t.same(video.video.shape, [9, 2, 2, 3]);
  t.match(video[0], { camera: 'imagined', width: 2, height: 2, capturedAtNs: 0n });
  t.same([...(video[0]?.data ?? [])], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  await policy.decode({ data, shape: [1, 48, 3, 2, 4] });
  await policy.reset({ prompt: 'a' });
  const { latents } = await policy.predict({ obs: observation() });
  t.equal((await policy.decode(latents)).length, 5);
});

t.test('backpressure: a second call is refused at once, whatever it is', async (t) => {
  const { policy, engine } = await inEpisode();
  const { promise, release } = deferred();
  engine.hold = promise;
  const first = policy.predict({ obs: observation() });
  const refused = [
    policy.predict({ obs: observation() }),
    policy.commit({ obs: moments(4), actions: actionsOf(2) }),
    policy.predictNext({ obs: moments(4), executed: actionsOf(2), executing: actionsOf(2) }),
    policy.decode(new Float32Array(48 * 2 * 4)),
    policy.encoderState(),
    policy.predict({ seed: -1 }),
  ];
  for (const promise of refused) {
    const error = await errorOf(promise);
    t.equal(error.code, 'BUSY');
    t.equal(error.found, 'predict running');
  }
  t.equal(engine.calls.length, 2, 'none of them reached the engine');
  release();
  t.equal((await first).frameIndex, 0, 'the running one is not disturbed');
  await policy.commit({ obs: moments(4), actions: actionsOf(2) });
});

t.test('the cache of a running call is the one before it', async (t) => {
  const { policy, engine } = await inEpisode();
  const { promise, release } = deferred();
  engine.hold = promise;
  const first = policy.predict({ obs: observation() });
  t.equal(policy.cache.valid, 0);
  release();
  await first;
  t.equal(policy.cache.valid, 2);
});

t.test('abort: the engine is told, the call rejects, the cache is as before, the episode goes on', async (t) => {
  const rig = await inEpisode();
  const { policy, engine } = rig;
  const controller = new AbortController();
  const running = policy.predict({ obs: observation(), seed: seeds.waitForCancel, signal: controller.signal });
  await untilCalls(rig, 2);
  const reason = new Error('too late');
  controller.abort(reason);
  const error = await errorOf(running);
  t.equal(error.code, 'ABORTED');
  t.equal(error.cause, reason);
  t.match(error.message, /predict was aborted: too late/);
  t.equal(engine.cancels, 1);
  t.equal(policy.cache.valid, 0);
  t.equal((await policy.predict({ obs: observation() })).frameIndex, 0);
  controller.abort();
  t.equal(engine.cancels, 1, 'a signal is forgotten when its call has ended');
});

t.test('a signal that is already aborted', async (t) => {
  const { policy, engine } = await inEpisode();
  const signal = AbortSignal.abort('no');
  for (const call of [
    policy.predict({ obs: observation(), signal }),
    policy.reset({ prompt: 'x', signal }),
    policy.decode(new Float32Array(384), { signal }),
  ]) {
    const error = await errorOf(call);
    t.equal(error.code, 'ABORTED');
    t.equal(error.cause, 'no');
  }
  t.equal(engine.calls.length, 1);
  t.equal(engine.cancels, 0);
  await policy.predict({ obs: observation() });
});

t.test('an abort that comes too late changes nothing: the finished result is given', async (t) => {
  const rig = await inEpisode();
  const { promise, release } = deferred();
  rig.engine.hold = promise;
  rig.engine.cancel = () => undefined; // an engine that is past its last check
  const controller = new AbortController();
  const running = rig.policy.predict({ obs: observation(), signal: controller.signal });
  await untilCalls(rig, 2);
  controller.abort();
  release();
  t.equal((await running).frameIndex, 0);
});

t.test('reset: aborted while the prompt is embedded, the old episode stays', async (t) => {
  const { policy, text, engine } = await inEpisode();
  await policy.predict({ obs: observation() });
  const { promise, release } = deferred();
  text.hold = promise;
  const controller = new AbortController();
  const running = policy.reset({ prompt: 'new', signal: controller.signal });
  controller.abort();
  t.equal((await errorOf(policy.predict())).code, 'BUSY', 'the encoder still runs');
  release();
  t.equal((await errorOf(running)).code, 'ABORTED');
  t.equal(engine.calls.filter(({ method }) => method === 'reset').length, 1);
  t.equal((await policy.predict()).frameIndex, 0);
});

t.test('reset: failed in the engine, no episode runs', async (t) => {
  const { policy, engine } = await inEpisode();
  await policy.predict({ obs: observation() });
  engine.failure = nativeError('TEXT_INVALID', 'bad rows');
  t.equal((await errorOf(policy.reset({ prompt: 'x' }))).code, 'TEXT_INVALID');
  t.equal((await errorOf(policy.predict({ obs: observation() }))).code, 'NO_EPISODE');
  await policy.reset({ prompt: 'y' });
  await policy.predict({ obs: observation() });
});

t.test('errors of the engine keep their code and details', async (t) => {
  const { policy, engine } = await inEpisode();
  engine.failure = nativeError('CHECKPOINT_SHAPE', 'bad', { file: 'a.safetensors', tensor: 'w', expected: '[1]', found: '[2]' });
  const error = await errorOf(policy.predict({ obs: observation() }));
  t.match(error, { code: 'CHECKPOINT_SHAPE', file: 'a.safetensors', tensor: 'w', expected: '[1]', found: '[2]', message: 'bad' });
  engine.failure = new TypeError('a bug');
  t.equal((await errorOf(policy.predict({ obs: observation() }))).code, 'INTERNAL');
  engine.failure = Object.assign(new Error('odd'), { code: 'not a code' });
  t.equal((await errorOf(policy.predict({ obs: observation() }))).code, 'INTERNAL');
});

t.test('close: idempotent, and nothing works afterwards', async (t) => {
  const { policy, engine } = await inEpisode();
  await policy.predict({ obs: observation() });
  await Promise.all([policy.close(), policy.close()]);
  await policy.close();
  t.equal(engine.closes, 1);
  for (const call of [
    policy.predict(),
    policy.reset({ prompt: 'a' }),
    policy.commit({ obs: moments(4), actions: actionsOf(2) }),
    policy.predictNext({ obs: moments(4), executed: actionsOf(2), executing: actionsOf(2) }),
    policy.decode(new Float32Array(384)),
  ]) {
    t.equal((await errorOf(call)).code, 'CLOSED');
  }
  t.equal(policy.cache.valid, 2, 'the last state can still be read');
});

t.test('close while a call runs: the call is aborted, then the engine is closed', async (t) => {
  const rig = await inEpisode();
  const running = rig.policy.predict({ obs: observation(), seed: seeds.waitForCancel });
  await untilCalls(rig, 2);
  const rejected = errorOf(running);
  const closing = rig.policy.close();
  t.equal((await errorOf(rig.policy.predict())).code, 'CLOSED');
  await closing;
  const error = await rejected;
  t.equal(error.code, 'ABORTED');
  t.match(error.message, /the policy was closed\. Load the policy again/);
  t.equal(rig.engine.closes, 1);
  t.equal(rig.engine.closedAtWork, false, 'the call ended first');
});

t.test('i2va: predictions are the history, so there are no commits', async (t) => {
  const { policy, engine } = await inEpisode({ infer_mode: 'i2va' });
  await policy.predict({ obs: observation() });
  t.equal((await errorOf(policy.commit({ obs: moments(4), actions: actionsOf(2) }))).code, 'MODE_UNSUPPORTED');
  const next = policy.predictNext({ obs: moments(4), executed: actionsOf(2), executing: actionsOf(2) });
  t.equal((await errorOf(next)).code, 'MODE_UNSUPPORTED');
  await policy.predict({ obs: observation() });
  t.notOk((engine.calls.at(-1)?.options as NativePredict | undefined)?.frames, 'the frame index has moved on');
});

t.test('generations count resets, failed ones too', async (t) => {
  const { policy, engine } = await openRig();
  t.equal((await policy.reset({ prompt: 'a' })).generation, 1);
  t.equal((await policy.predict({ obs: observation() })).generation, 1);
  t.equal((await policy.commit({ obs: moments(4), actions: actionsOf(2) })).generation, 1);
  engine.failure = nativeError('TEXT_INVALID', 'bad rows');
  await errorOf(policy.reset({ prompt: 'b' }));
  await errorOf(policy.reset({ prompt: 'c', signal: AbortSignal.abort() }));
  t.equal((await policy.reset({ prompt: 'd' })).generation, 3, 'the failed one ended an episode, the aborted one none');
});

for (const method of ['predict', 'predictNext'] as const) {
  t.test(`reset stops a running ${method}`, async (t) => {
    const rig = await inEpisode();
    const { policy, engine } = rig;
    await policy.predict({ obs: observation() });
    const seed = seeds.waitForCancel;
    const next = { obs: moments(4), executed: actionsOf(2), executing: actionsOf(1), seed };
    const running = method === 'predict' ? policy.predict({ seed }) : policy.predictNext(next);
    const rejected = errorOf(running);
    await untilCalls(rig, 3);
    t.equal((await errorOf(policy.reset({} as never))).code, 'ARGUMENT_INVALID');
    t.equal(engine.cancels, 0, 'wrong arguments stop nothing');
    const reset = policy.reset({ prompt: 'new' });
    t.equal((await errorOf(policy.reset({ prompt: 'newer' }))).code, 'BUSY', 'one reset at a time');
    t.equal((await errorOf(policy.predict({ obs: observation() }))).code, 'BUSY', 'the reset has the turn');
    const error = await rejected;
    t.equal(error.code, 'ABORTED');
    t.match(error.message, /was aborted: the episode was reset\. What it would have given/);
    t.equal((await reset).generation, 2);
    t.equal(engine.cancels, 1);
    t.equal((await policy.predict({ obs: observation() })).generation, 2);
  });
}

t.test('reset: a prediction that ends all the same is not given', async (t) => {
  const rig = await inEpisode();
  const { promise, release } = deferred();
  rig.engine.hold = promise;
  rig.engine.cancel = () => undefined; // an engine that is past its last check
  const rejected = errorOf(rig.policy.predict({ obs: observation() }));
  await untilCalls(rig, 2);
  const reset = rig.policy.reset({ prompt: 'new' });
  release();
  t.equal((await rejected).code, 'ABORTED');
  await reset;
  t.equal((await errorOf(rig.policy.predict())).code, 'OBS_REQUIRED', 'nor does it count as the first observation');
});

t.test('reset waits for a commit', async (t) => {
  const rig = await inEpisode();
  const { policy, engine } = rig;
  await policy.predict({ obs: observation() });
  const { promise, release } = deferred();
  engine.hold = promise;
  const commit = policy.commit({ obs: moments(4), actions: actionsOf(2) });
  await untilCalls(rig, 3);
  const reset = policy.reset({ prompt: 'new' });
  release();
  t.equal((await commit).generation, 1);
  t.equal((await reset).generation, 2);
  t.equal(engine.cancels, 0);
});

t.test('reset that waits: aborted or overtaken by close', async (t) => {
  for (const how of ['abort', 'close'] as const) {
    const rig = await inEpisode();
    const { policy, engine } = rig;
    await policy.predict({ obs: observation() });
    const { promise, release } = deferred();
    engine.hold = promise;
    const commit = policy.commit({ obs: moments(4), actions: actionsOf(2) });
    await untilCalls(rig, 3);
    const controller = new AbortController();
    const rejected = errorOf(policy.reset({ prompt: 'new', signal: controller.signal }));
    const closing = how === 'close' ? policy.close() : controller.abort(new Error('changed my mind'));
    release();
    t.equal((await rejected).code, 'ABORTED', how);
    await commit;
    await closing;
    t.equal(engine.calls.filter(({ method }) => method === 'reset').length, 1);
    if (how === 'abort') t.equal((await policy.predict()).generation, 1, 'the old episode goes on');
    else t.equal(engine.closedAtWork, false);
  }
});

t.test('K = 1: the first commit brings no pictures', async (t) => {
  const { policy } = await inEpisode({ frame_chunk_size: 1 });
  await policy.predict({ obs: observation() });
  t.equal((await policy.commit({ obs: [], actions: actionsOf(1) })).frameIndex, 1);
  t.equal((await errorOf(policy.commit({ obs: [], actions: actionsOf(1) }))).code, 'FRAME_INVALID');
});
