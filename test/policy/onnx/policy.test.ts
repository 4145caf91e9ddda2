/** An exported policy behind the contract: where its actions come from, the first chunk, what it keeps and refuses, and the same in a process. */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Frame, LoadPolicyOptions, Policy } from '../../../src/policy/contract.js';
import { loadPolicy } from '../../../src/policy/load.js';
import { openOnnx } from '../../../src/policy/onnx/open.js';
import { RecoveringPolicy } from '../../../src/policy/recovering.js';
import { Random } from '../../../src/sim/random.js';
import { errorOf } from '../../support/fixtures.js';
import { ACT_TOUCH, cameraInput, imageEcho, imageSpec, type Json, policyFolder, smallMapping, withoutRuntime } from '../../support/onnx.js';
import { echoModel, onnxModel } from '../../support/onnx-model.js';

const skip = withoutRuntime;

const SEED = 30112026;
t.comment(`seed ${SEED}`);
const random = new Random(SEED);

const CAMERA = 'observation.images.cam_front';
const frame = (width = 4, height = 2, camera = CAMERA): Frame => ({
  camera,
  width,
  height,
  data: Uint8Array.from({ length: width * height * 3 }, () => random.integer(256)),
  capturedAtNs: 0n,
});
const moments = (count: number): Frame[][] => Array.from({ length: count }, () => [frame()]);
const executed = (frames: number): Float32Array => new Float32Array(2 * frames * 4);

async function open(t: Test, model = imageEcho(), mapping: Json = smallMapping(), more: Partial<LoadPolicyOptions> = {}): Promise<Policy> {
  const checkpoint = policyFolder(model, mapping, t.testdir());
  const policy = await loadPolicy({ checkpoint, backend: 'onnx', job: join(checkpoint, 'job.json'), threads: 1, ...more });
  t.teardown(() => policy.close());
  return policy;
}

/** What the echoing model gives for a picture: its planes, value by value, as 12 actions of 2 channels. */
function echoed({ data }: Frame): number[][] {
  const planes = [0, 1, 2].flatMap((channel) => Array.from({ length: 8 }, (_, pixel) => data[pixel * 3 + channel] as number));
  return Array.from({ length: 12 }, (_, action) => planes.slice(2 * action, 2 * action + 2));
}

/** Actions from .. to of both channels, as a chunk lays them out. */
const chunkOf = (actions: readonly number[][]): number[] => [0, 1].flatMap((channel) => actions.map((action) => action[channel] as number));

t.test('chunks: the first has padding, later ones begin with the newest picture', { skip }, async (t) => {
  const policy = await open(t);
  await policy.reset({ prompt: 'go' });
  const first = frame();
  const chunk = await policy.predict({ obs: [first] });
  const actions = echoed(first);
  t.same(chunk.shape, [2, 2, 4]);
  t.match(chunk, { frameIndex: 0, generation: 1 });
  const [start] = actions;
  t.same([...chunk.actions], chunkOf([...new Array(4).fill(start), ...actions.slice(0, 4)]), 'group 0 repeats the first action');
  t.same([...chunk.latents.shape], [1, 0, 2, 0, 0]);
  t.same([...(await policy.predict()).actions], [...chunk.actions], 'asked again');

  const seen = moments(4);
  const committed = await policy.commit({ obs: seen, actions: executed(2) });
  t.match(committed, { frameIndex: 2, generation: 1 });
  const next = await policy.predict({ obs: [first] });
  t.equal(next.frameIndex, 2);
  t.same([...next.actions], chunkOf(echoed(seen[3]?.[0] as Frame).slice(0, 8)), 'given pictures are ignored once something was committed');
  t.equal((await policy.commit({ obs: moments(8), actions: executed(2) })).frameIndex, 4);
});

t.test('predictNext: the part that follows the executing actions', { skip }, async (t) => {
  const policy = await open(t);
  await policy.reset({ prompt: 'go' });
  const first = frame();
  await policy.predict({ obs: [first] });
  t.match(await errorOf(policy.predictNext({ executing: executed(0) })), { code: 'OBS_REQUIRED' });
  const one = await policy.predictNext({ obs: [], executed: executed(1), executing: executed(1) });
  t.match(one, { frameIndex: 2, committed: { frameIndex: 1 } });
  t.same([...one.actions], chunkOf(echoed(first).slice(4, 12)));
  const seen = moments(4);
  const two = await policy.predictNext({ obs: seen, executed: executed(1), executing: executed(0), forecast: new Float32Array(0) });
  t.match(two, { frameIndex: 2, committed: { frameIndex: 2 } });
  t.same([...two.actions], chunkOf(echoed(seen[3]?.[0] as Frame).slice(0, 8)));
  const far = await errorOf(policy.predictNext({ executing: executed(2) }));
  t.match(far, { code: 'ONNX_UNSUPPORTED', expected: /within the 12 actions/, found: /16, 8 of them executing/ });
  t.equal((await policy.predictNext({ executing: executed(0) })).frameIndex, 2, 'a refusal commits nothing');
});

t.test('every source reaches the model as its job says', { skip }, async (t) => {
  const inputs = [
    imageSpec({ type: 'uint8', shape: [2, 4, 3] }),
    { name: 'joints', type: 'float64', shape: [1, 2] },
    { name: 'text', type: 'int32', shape: [5] },
    { name: 'z', type: 'float32', shape: [1, 3] },
  ] as const;
  const mapping = smallMapping({
    inputs: {
      image: cameraInput({ dtype: 'u8', layout: 'HWC', order: 'bgr' }),
      joints: { from: 'state', joints: [1, 0], mean: [0.5, 1], std: [2, 4] },
      text: { from: 'instruction', words: { press: 4, red: 6 }, length: 5, padding: 2 },
      z: { from: 'constant', shape: [1, 3], value: [1, 2, 3] },
    },
  });
  const policy = await open(t, echoModel(inputs, 'image', [1, 12, 2]), mapping);
  t.equal(policy.info.usesState, true);
  t.match(await policy.reset({ prompt: ' Press\n red' }), { cleanedPrompt: 'Press red', tokens: 5 });
  const seen = frame();
  const { trace, actions } = await policy.predict({ obs: [seen], state: Float64Array.of(5, 2.5), trace: true });
  t.same(trace?.get('input.joints'), { dtype: 'float32', shape: [1, 2], data: Float32Array.of((2.5 - 0.5) / 2, (5 - 1) / 4) });
  t.same(trace?.get('input.text'), { dtype: 'int32', shape: [5], data: Int32Array.of(4, 6, 2, 2, 2) });
  t.same(trace?.get('input.z'), { dtype: 'float32', shape: [1, 3], data: Float32Array.of(1, 2, 3) });
  const swapped = Array.from({ length: 24 }, (_, at) => seen.data[at - (at % 3) + 2 - (at % 3)] as number);
  t.same(trace?.get('input.image'), { dtype: 'uint8', shape: [2, 4, 3], data: Uint8Array.from(swapped) });
  t.same([...(trace?.get('output.actions')?.data ?? [])], swapped, 'and the model saw just that');
  t.equal(actions[0], swapped[0]);
  t.match(await errorOf(policy.reset({ prompt: 'press blue' })), { code: 'ONNX_INSTRUCTION' });
  t.equal((await policy.predict({ state: new Float64Array(2) })).generation, 1, 'the episode goes on');
});

t.test('joints: missing, too few, no numbers', { skip }, async (t) => {
  const policy = await open(t, imageEcho(), smallMapping({ output: { name: 'actions', layout: '1HD', channels: [0, 1], values: 'from_state' } }));
  await policy.reset({ prompt: 'go' });
  const obs = [frame()];
  for (const state of [undefined, new Float64Array(1), Float64Array.of(0, Number.NaN), [0, 0] as unknown as Float64Array]) {
    const given = state === undefined ? {} : { state };
    t.match(await errorOf(policy.predict({ obs, ...given })), { code: 'ONNX_STATE', expected: /Float64Array of 2/ });
  }
  const { actions } = await policy.predict({ obs, state: Float64Array.of(1000, -1000) });
  t.same(
    [...actions].slice(4, 8),
    echoed(obs[0] as Frame)
      .slice(0, 4)
      .map(([angle]) => 1000 + (angle as number)),
  );
});

t.test('pictures: another size, another camera, resized', { skip }, async (t) => {
  const policy = await open(t);
  await policy.reset({ prompt: 'go' });
  t.match(await errorOf(policy.predict({ obs: [frame(8, 4)] })), {
    code: 'FRAME_INVALID',
    expected: '4 x 2 pixels',
    found: '8 x 4',
    message: /"area"/,
  });
  t.match(await errorOf(policy.predict({ obs: [frame(4, 2, 'other')] })), { code: 'FRAME_INVALID' });
  t.match(await errorOf(policy.predict()), { code: 'OBS_REQUIRED' });
  const resizing = await open(t, imageEcho(), smallMapping({ inputs: { image: cameraInput({ resize: 'area' }) } }));
  await resizing.reset({ prompt: 'go' });
  const flat: Frame = { ...frame(8, 4), data: new Uint8Array(96).fill(7) };
  t.ok((await resizing.predict({ obs: [flat] })).actions.every((angle) => angle === 7));
});

/** Gives log(value - 128) of its pictures: no number where a picture is dark. */
const logModel = (): Uint8Array =>
  onnxModel({
    inputs: [imageSpec()],
    outputs: [{ name: 'actions', type: 'float32', shape: [1, 12, 2] }],
    nodes: [
      { op: 'Sub', inputs: ['image', 'grey'], outputs: ['less'] },
      { op: 'Log', inputs: ['less'], outputs: ['log'] },
      { op: 'Reshape', inputs: ['log', 'shape'], outputs: ['actions'] },
    ],
    tensors: [
      { name: 'grey', shape: [1], data: Float32Array.of(128) },
      { name: 'shape', shape: [3], data: BigInt64Array.of(1n, 12n, 2n) },
    ],
  });

t.test('a model that gives no numbers: refused, and it can be asked again', { skip }, async (t) => {
  const policy = await open(t, logModel());
  await policy.reset({ prompt: 'go' });
  const grey = (byte: number): Frame => ({ ...frame(), data: new Uint8Array(24).fill(byte) });
  t.ok((await policy.predict({ obs: [grey(129)] })).actions.every((angle) => angle === 0));
  t.match(await errorOf(policy.predict({ obs: [grey(3)] })), { code: 'ONNX_OUTPUT_VALUE', found: /NaN in action 0/ });
  t.match(await errorOf(policy.predict({ obs: [grey(128)] })), { code: 'ONNX_OUTPUT_VALUE', found: /-Infinity/ });
  t.ok((await policy.predict({ obs: [grey(129)] })).actions.every((angle) => angle === 0));
});

t.test('what it cannot do says so', { skip }, async (t) => {
  const policy = await open(t);
  t.match(await errorOf(policy.predict({ obs: [frame()] })), { code: 'NO_EPISODE' });
  t.match(await errorOf(policy.commit({ obs: [], actions: executed(1) })), { code: 'NO_EPISODE' });
  await policy.reset({ prompt: 'go' });
  t.match(await errorOf(policy.commit({ obs: moments(4), actions: executed(2) })), { code: 'OBS_REQUIRED' });
  t.match(await errorOf(policy.encoderState()), { code: 'OBS_REQUIRED' });
  const { latents } = await policy.predict({ obs: [frame()] });
  t.match(await errorOf(policy.encoderState()), { code: 'OBS_REQUIRED' });
  t.match(await errorOf(policy.decode(latents)), { code: 'ONNX_UNSUPPORTED', field: 'decode' });
  const inpaint = { actions: executed(2), weights: new Float32Array(8) };
  t.match(await errorOf(policy.predict({ inpaint })), { code: 'ONNX_UNSUPPORTED', field: 'inpaint' });
  t.match(await errorOf(policy.predict({ noise: {} })), { code: 'ONNX_UNSUPPORTED', field: 'noise' });
  t.match(await errorOf(policy.commit({ obs: moments(3), actions: executed(2) })), { code: 'FRAME_INVALID' });
  t.match(await errorOf(policy.commit({ obs: moments(4), actions: executed(1) })), { code: 'ACTIONS_INVALID' });
  t.equal((await policy.predict()).frameIndex, 0, 'refused commits commit nothing');
  t.match(await errorOf(policy.predict({ signal: AbortSignal.abort() })), { code: 'ABORTED' });
  const [one, two] = await Promise.allSettled([policy.predict(), policy.predict()]);
  t.equal(one.status, 'fulfilled');
  t.match(two, { status: 'rejected', reason: { code: 'BUSY' } });
  t.same(await policy.occupy(), policy.cache);
  await policy.close();
  await policy.close();
  t.match(await errorOf(policy.predict()), { code: 'CLOSED' });
});

t.test('an episode goes on in another policy as in the first', { skip }, async (t) => {
  const [one, two, other] = [await open(t), await open(t), await open(t, echoModel([imageSpec()], 'image', [1, 8, 3]))];
  await one.reset({ prompt: 'go' });
  await one.predict({ obs: [frame()] });
  await one.commit({ obs: moments(4), actions: executed(2) });
  const encoder = await one.encoderState();
  const { checksum } = one.cache;
  const past = { prompt: 'go', commits: [], encoder, checksum };
  await two.restore(past);
  t.same(two.cache, one.cache);
  t.same((await two.predict()).actions, (await one.predict()).actions);
  t.equal((await two.predict()).frameIndex, 2);
  t.equal((await two.commit({ obs: moments(8), actions: executed(2) })).frameIndex, 4);
  t.not(two.cache.checksum, checksum);
  t.match(await errorOf(two.restore({ ...past, checksum: '0' })), { code: 'RESTORE_MISMATCH' });
  t.match(await errorOf(two.restore({ ...past, encoder: { data: encoder.data.slice(0, 20) } })), { code: 'RESTORE_STATE' });
  t.match(await errorOf(two.restore({ ...past, encoder: {} as typeof encoder })), { code: 'ARGUMENT_INVALID', field: 'encoder.data' });
  t.match(await errorOf(other.restore(past)), { code: 'RESTORE_STATE', found: 'that of another' });
});

t.test('in a process of its own: the same bits; its death is survived', { skip }, async (t) => {
  const load = (isolate: boolean) => loadPolicy({ checkpoint: ACT_TOUCH, backend: 'onnx', job: join(ACT_TOUCH, 'job.json'), threads: 1, isolate });
  const local = await load(false);
  t.teardown(() => local.close());
  const kills: (() => void)[] = [];
  const recovering = await RecoveringPolicy.open({
    open: async () => {
      const engine = (await load(true)) as Policy & { readonly pid: number };
      kills.push(() => process.kill(engine.pid, 'SIGKILL'));
      return engine;
    },
    journal: { dir: t.testdir(), seed: 0, configuration: 'c' },
  });
  t.teardown(() => recovering.close());
  t.same(recovering.info, local.info);
  const state = Float64Array.of(0, -0.2, 1.9, 1.4);
  const picture = (): Frame => frame(96, 96);
  const [first, seen] = [picture(), Array.from({ length: 4 }, () => [picture()])];
  const chunks: Float32Array[][] = [];
  for (const policy of [local, recovering]) {
    const own: Float32Array[] = [];
    await policy.reset({ prompt: 'touch the green button' });
    const chunk = await policy.predict({ obs: [first], state });
    if (policy === recovering) kills.at(-1)?.();
    await policy.commit({ obs: seen, actions: chunk.actions });
    if (policy === recovering) kills.at(-1)?.();
    const next = await policy.predict({ state });
    own.push(chunk.actions, next.actions);
    chunks.push(own);
  }
  t.same(chunks[1], chunks[0]);
  t.equal(kills.length, 3, 'one process, and one for each death');
  t.match(await errorOf(recovering.predict()), { code: 'ONNX_STATE' }, 'errors come through');
});

t.test('open() in this process ignores isolate', { skip }, async (t) => {
  const policy = await openOnnx({ checkpoint: ACT_TOUCH, backend: 'onnx', job: join(ACT_TOUCH, 'job.json'), threads: 1, isolate: true });
  t.notOk('pid' in policy);
  await policy.close();
});
