/** One client's episode without a socket: what each request becomes for the policy, what it answers, and everything that is refused before that. */
import t from 'tap';
import { PremotorError } from '../../src/errors.js';
import { decode, type Encodable, encode, type WireMap } from '../../src/server/msgpack.js';
import { arrayOf, floatsOf, NdArray } from '../../src/server/ndarray.js';
import { Session, type SessionOptions } from '../../src/server/session.js';
import { errorOf } from '../support/fixtures.js';
import { commit, infer, JOB, moment, picture, reset, SESSION, StrictModel } from './support.js';

function open(options: Partial<SessionOptions> = {}, job = JOB) {
  const model = new StrictModel(job);
  const session = new Session(model, { ...SESSION, ...options });
  const ask = async (request: Encodable): Promise<WireMap> => decode(encode((await session.handle(encode(request))).fields)) as WireMap;
  return { model, session, ask };
}
const floats = (answer: WireMap, name: string): Float32Array => floatsOf(answer.get(name) as NdArray) as Float32Array;

t.test('an episode as LingBot-VA asks for it is the local one, bit by bit', async (t) => {
  const { model, ask } = open();
  const local = new StrictModel();
  t.same(await ask(reset()), new Map());
  await local.reset({ prompt: 'pick' });
  const frames = (fill: number) =>
    JOB.obs_cam_keys.map((camera, index) => ({ camera, width: 2, height: 2, data: new Uint8Array(12).fill(fill * 3 + index), capturedAtNs: 0n }));
  for (const [chunk, moments] of [4, 8, 8].entries()) {
    const answer = await ask(infer());
    const chunkOfLocal = await local.predict({ ...(chunk === 0 ? { obs: frames(0) } : {}), seed: SESSION.seed });
    t.match(answer.get('action'), { dtype: '<f4', shape: [3, 2, 4] });
    t.same(floats(answer, 'action'), chunkOfLocal.actions);
    t.same(await ask(commit(moments, 2)), new Map());
    await local.commit({ obs: Array.from({ length: moments }, (_, index) => frames(index + 1)), actions: new Float32Array(24).fill(0.25) });
  }
  t.equal(model.cache.checksum, local.cache.checksum);
  t.same(model.calls, ['reset', 'predict', 'commit', 'predict', 'commit', 'predict', 'commit']);
  t.same(model.unchecked, []);
  // Pictures that come again are not looked at.
  t.equal(model.frames.length, 1 + 4 + 8 + 8);
  t.same(model.seeds, [7, 7, 7]);
});

t.test("fields are looked at in the protocol's order", async (t) => {
  const { model, ask } = open();
  await ask({ ...commit(4, 2), ...infer(), reset: true, prompt: 'a' });
  await ask(infer({ reset: false, compute_kv_cache: null }));
  await ask({ ...infer(), ...commit(4, 2) });
  t.same(model.calls, ['reset', 'predict', 'commit']);
});

t.test('one picture per camera as a list of one, state as doubles, the first commit without pictures', async (t) => {
  const { model, ask } = open();
  await ask(reset());
  await ask({ obs: [moment(0)], prompt: 'pick' });
  const state = new NdArray('<f8', [3, 1, 4], new Uint8Array(new Float64Array(12).fill(0.5).buffer));
  await ask({ obs: [], compute_kv_cache: true, state });
  t.same(model.calls, ['reset', 'predict', 'commit']);
  t.same(model.unchecked, []);
});

t.test('reset without a prompt takes that of the first prediction, or of the job', async (t) => {
  const { model, ask } = open();
  await ask({ reset: true });
  t.same(model.calls, []);
  await ask(infer());
  t.same(model.calls, ['reset', 'predict']);
  const jobs = open({}, { ...JOB, prompt: 'the usual' });
  await jobs.ask({ reset: true, prompt: null });
  await jobs.ask({ obs: moment(0) });
  t.same(jobs.model.calls, ['reset', 'predict']);
  const none = open();
  await none.ask({ reset: true });
  t.equal((await errorOf(none.ask({ obs: moment(0) }))).code, 'REQUEST_INVALID');
});

t.test('a flat observation is an episode of its own, answered by action', async (t) => {
  const { model, ask } = open({ aliases: new Map([['observation/exterior', 'observation.images.cam_high']]) });
  const local = new StrictModel();
  await local.reset({ prompt: 'fold' });
  const frames = JOB.obs_cam_keys.map((camera, index) => ({
    camera,
    width: 3,
    height: 2,
    data: new Uint8Array(18).fill(index + 1),
    capturedAtNs: 0n,
  }));
  const { actions } = await local.predict({ obs: frames, seed: 7 });
  const shapes: Record<string, Encodable>[] = [
    { 'observation/exterior': picture(2, 3, 1), 'observation/cam_wrist': picture(2, 3, 2) },
    { 'observation/images/cam_high': picture(2, 3, 1), 'observation.images.cam_wrist': picture(2, 3, 2) },
    { images: { cam_high: picture(2, 3, 1), cam_wrist: new NdArray('|u1', [3, 2, 4], new Uint8Array(24).fill(2)) } },
  ];
  for (const [index, pictures] of shapes.entries()) {
    const answer = await ask({ ...pictures, 'observation/state': new NdArray('<f8', [7], new Uint8Array(56)), prompt: 'fold' });
    t.same([...answer.keys()], ['actions'], 'nothing beside it that a client could slice');
    t.match(answer.get('actions'), { dtype: '<f4', shape: [4, 3] });
    if (index === 2) continue;
    const turned = floats(answer, 'actions');
    for (let action = 0; action < 4; action++)
      for (let channel = 0; channel < 3; channel++) t.equal(turned[action * 3 + channel], actions[channel * 8 + 4 + action]);
  }
  // Channels first become rows of pixels.
  t.match(model.frames[2]?.[1], { width: 4, height: 2 });
  t.same(model.calls, ['reset', 'predict', 'reset', 'predict', 'reset', 'predict']);
  t.equal((await errorOf(ask(infer()))).code, 'NO_EPISODE', 'it leaves no episode to go on with');
});

t.test('another premotor is told more, and is heard on seeds and steps', async (t) => {
  const { model, ask } = open();
  const about = async (request: Record<string, Encodable>) => (await ask({ ...request, premotor: true })).get('premotor') as WireMap;
  t.match(Object.fromEntries(await about(reset())), { source: 'encoder', cleaned_prompt: 'pick', tokens: 1, warnings: [] });
  const predicted = await about(infer({ seed: 11, video_steps: 2, action_steps: 3 }));
  t.same((predicted.get('latents') as NdArray).shape, [1, 48, 2, 2, 2]);
  t.equal(predicted.get('frame_index'), 0);
  t.equal((predicted.get('timing') as WireMap).get('videoPasses'), 6);
  const committed = await about(commit(4, 2));
  t.equal((committed.get('cache') as WireMap).get('checksum'), model.cache.checksum);
  t.same(model.seeds, [11n]);
});

t.test('everything that is refused, by code and field, and the policy is not asked', async (t) => {
  const wrongly = (pictures: Encodable) => ({ ...moment(0), 'observation.images.cam_high': pictures });
  const state = (shape: number[], values = new Float32Array(shape.reduce((a, b) => a * b, 1))) => ({ state: arrayOf(values, shape) });
  const cases: [string, Encodable, string, string?][] = [
    ['a list', [1], 'REQUEST_INVALID', 'the message'],
    ['an empty map', {}, 'REQUEST_INVALID', 'the message'],
    ['reset as a number', { reset: 1 }, 'REQUEST_INVALID', 'reset'],
    ['a prompt that is a list', { reset: true, prompt: ['a'] }, 'REQUEST_INVALID', 'prompt'],
    ['a prompt without end', { reset: true, prompt: 'x'.repeat(20_000) }, 'REQUEST_INVALID', 'prompt'],
    ['obs as a number', infer({ obs: 3 }), 'REQUEST_INVALID', 'obs'],
    ['two moments', infer({ obs: [moment(0), moment(1)] }), 'REQUEST_INVALID', 'obs'],
    ['a camera that is missing', infer({ obs: { 'observation.images.cam_high': picture(2, 2) } }), 'FRAME_INVALID', 'obs'],
    ['a picture in grey', infer({ obs: wrongly(new NdArray('|u1', [2, 2, 1], new Uint8Array(4))) }), 'REQUEST_INVALID'],
    ['a picture of floats', infer({ obs: wrongly(new NdArray('<f4', [2, 2, 3], new Uint8Array(48))) }), 'REQUEST_INVALID'],
    ['a picture as a list', infer({ obs: wrongly([[[1, 2, 3]]]) }), 'REQUEST_INVALID'],
    ['a picture of no pixels', infer({ obs: wrongly(picture(0, 2)) }), 'FRAME_INVALID'],
    ['a picture that is too wide', infer({ obs: wrongly(picture(1, 65)) }), 'REQUEST_INVALID'],
    ['a seed below 0', infer({ seed: -1 }), 'ARGUMENT_INVALID', 'seed'],
    ['half a step', infer({ action_steps: 0.5 }), 'ARGUMENT_INVALID', 'action_steps'],
    ['no steps', infer({ video_steps: 0 }), 'ARGUMENT_INVALID', 'videoSteps'],
    ['obs that is no list', commit(4, 2, { obs: moment(0) }), 'REQUEST_INVALID', 'obs'],
    ['5 moments', commit(5, 2), 'FRAME_INVALID', 'obs'],
    ['more moments than a chunk has', commit(12, 4), 'REQUEST_INVALID', 'obs'],
    ['a moment that is no map', commit(4, 2, { obs: [1, 2, 3, 4] }), 'REQUEST_INVALID', 'obs[0]'],
    ['no state', commit(4, 2, { state: null }), 'REQUEST_INVALID', 'state'],
    ['state of other frames', commit(4, 1), 'REQUEST_INVALID', 'state'],
    ['state the wrong way round', commit(4, 2, state([2, 3, 4])), 'REQUEST_INVALID', 'state'],
    ['state by action', commit(4, 2, state([8, 3])), 'REQUEST_INVALID', 'state'],
    ['state as bytes', commit(4, 2, { state: new NdArray('|u1', [3, 2, 4], new Uint8Array(24)) }), 'REQUEST_INVALID', 'state'],
    ['state that is no number', commit(4, 2, state([3, 2, 4], new Float32Array(24).fill(Number.NaN))), 'ACTIONS_INVALID', 'state[0]'],
    ['state without end', commit(4, 2, state([3, 2, 4], new Float32Array(24).fill(Infinity))), 'ACTIONS_INVALID', 'state[0]'],
  ];
  for (const [what, request, code, field] of cases) {
    const { model, ask } = open();
    await ask(reset());
    await ask(infer());
    const before = model.calls.length;
    const error = await errorOf(ask(request));
    t.match(error, { code, ...(field === undefined ? {} : { field }) }, what);
    t.match(error.message, /expected .+, found .+\. \w/, what);
    t.equal(model.calls.length, before, what);
  }
});

t.test('requests that come too early', async (t) => {
  t.equal((await errorOf(open().ask(infer()))).code, 'NO_EPISODE');
  t.equal((await errorOf(open().ask(commit(4, 2)))).code, 'NO_EPISODE');
  const { ask } = open();
  await ask(reset());
  t.equal((await errorOf(ask(commit(4, 2)))).code, 'OBS_REQUIRED');
  t.equal(
    (await errorOf(open({}, { ...JOB, frame_chunk_size: 1 }).ask({ cam_high: picture(1, 1), cam_wrist: picture(1, 1), prompt: 'a' }))).code,
    'REQUEST_INVALID',
  );
});

t.test('two keys for one camera, and a failed reset', async (t) => {
  const both = { 'observation/cam_high': picture(1, 1), 'a/cam_high': picture(1, 1), cam_wrist: picture(1, 1), prompt: 'a' };
  t.match(await errorOf(open().ask(both)), { code: 'REQUEST_INVALID', message: /same camera/ });
  const { model, ask } = open();
  await ask(reset());
  model.hook = (call) => {
    if (call === 'reset') throw new PremotorError('TEXT_INVALID', 'no such prompt');
  };
  t.equal((await errorOf(ask(reset('b')))).code, 'TEXT_INVALID');
  t.equal((await errorOf(ask(infer()))).code, 'NO_EPISODE', 'after a failed reset no old episode goes on');
});

t.test('one request at a time, and closing stops the one that runs', async (t) => {
  const { model, session, ask } = open();
  await ask(reset());
  model.delayMs = 20;
  const running = errorOf(ask(infer()));
  t.equal((await errorOf(ask(infer()))).code, 'REQUEST_OVERLAP');
  await session.close('the test is over');
  t.equal((await running).code, 'ABORTED');
  await session.close('again');
  t.same(model.unchecked, []);
});
