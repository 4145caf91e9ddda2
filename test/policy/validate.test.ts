/** Checks of frames, moments, actions, noise, seeds, steps and latents: the last value accepted and the first refused. */
import t, { type Test } from 'tap';
import { parseJob } from '../../src/policy/job.js';
import { toTensor } from '../../src/policy/tensor.js';
import * as check from '../../src/policy/validate.js';
import { actionsOf, frame, moments, observation, smallJob, thrownBy } from '../support/fixtures.js';

const { job } = parseJob(smallJob());
const cameras = new check.Cameras(job.obs_cam_keys);

/** The field and found of the error of a call, which must have the code. */
function refused(t: Test, code: string, call: () => unknown, field: string): void {
  const error = thrownBy(call);
  t.equal(error.code, code, error.message);
  t.equal(error.field, field);
  t.ok(error.expected && error.found, 'says what was expected and found');
}

t.test('cameras are named by key or by an unambiguous end', (t) => {
  const names = new check.Cameras(['left.cam', 'right.cam', 'a.b.top', 'plain']);
  t.equal(names.indexOf('left.cam', 'f'), 0);
  t.equal(names.indexOf('right.cam', 'f'), 1);
  t.equal(names.indexOf('top', 'f'), 2);
  t.equal(names.indexOf('plain', 'f'), 3);
  t.match(thrownBy(() => names.indexOf('cam', 'f')).message, /several cameras.*full key/);
  refused(t, 'FRAME_INVALID', () => names.indexOf('b.top', 'f'), 'f.camera');
  refused(t, 'FRAME_INVALID', () => names.indexOf(undefined, 'f'), 'f.camera');
  const shadowed = new check.Cameras(['cam', 'left.cam']);
  t.equal(shadowed.indexOf('cam', 'f'), 0, 'a full key wins over the end of another');
  t.end();
});

t.test('an observation is put into the order of the job', (t) => {
  const [high, wrist] = [frame('observation.images.cam_high', 3, 2), frame('cam_wrist', 5, 7)];
  const pictures = check.checkObservation([wrist, high], cameras, 'obs');
  t.same(
    pictures.map(({ width, height }) => [width, height]),
    [
      [3, 2],
      [5, 7],
    ],
  );
  t.equal(pictures[0]?.data, high.data, 'pictures are not copied');
  t.end();
});

t.test('observations that are refused', (t) => {
  const high = frame('cam_high');
  const check1 = (frames: unknown) => () => check.checkObservation(frames, cameras, 'obs');
  refused(t, 'FRAME_INVALID', check1(undefined), 'obs');
  refused(t, 'FRAME_INVALID', check1([high]), 'obs');
  t.match(thrownBy(check1([high])).found, /cam_wrist/);
  refused(t, 'FRAME_INVALID', check1([high, frame('observation.images.cam_high')]), 'obs[1]');
  refused(t, 'FRAME_INVALID', check1([high, frame('cam_low')]), 'obs[1].camera');
  refused(t, 'FRAME_INVALID', check1([...observation(), frame('cam_high')]), 'obs[2]');
  refused(t, 'FRAME_INVALID', check1([high, null]), 'obs[1]');
  for (const side of [0, -4, 2.5, 8193, Number.NaN, '6', undefined]) {
    refused(t, 'FRAME_INVALID', check1([{ ...high, width: side }, frame('cam_wrist')]), 'obs[0].width');
    refused(t, 'FRAME_INVALID', check1([{ ...high, height: side }, frame('cam_wrist')]), 'obs[0].height');
  }
  for (const data of [new Uint8Array(71), new Uint8Array(96), new Uint8ClampedArray(72), new Float32Array(72), undefined, [1]]) {
    refused(t, 'FRAME_INVALID', check1([{ ...high, data }, frame('cam_wrist')]), 'obs[0].data');
  }
  t.doesNotThrow(check1([{ ...high, data: Buffer.from(high.data) }, frame('cam_wrist')]), 'a Buffer is a Uint8Array');
  t.doesNotThrow(check1([frame('cam_high', 8192, 1), frame('cam_wrist', 1, 8192)]), 'the largest sides');
  t.end();
});

t.test('moments make latent frames', (t) => {
  const frames = (count: number, first: boolean) => check.checkMoments(moments(count), cameras, job, first).frames;
  t.equal(frames(4, true), 2);
  t.equal(frames(8, true), 3);
  t.equal(frames(4, false), 1);
  t.equal(frames(8, false), 2);
  for (const count of [1, 3, 5, 7]) {
    for (const first of [true, false]) refused(t, 'FRAME_INVALID', () => frames(count, first), 'obs');
  }
  refused(t, 'FRAME_INVALID', () => frames(0, true), 'obs');
  refused(t, 'FRAME_INVALID', () => frames(0, false), 'obs');
  refused(t, 'FRAME_INVALID', () => check.checkMoments('x', cameras, job, true), 'obs');
  const broken = [...moments(3), [frame('cam_high')]];
  refused(t, 'FRAME_INVALID', () => check.checkMoments(broken, cameras, job, true), 'obs[3]');
  const single = parseJob(smallJob({ frame_chunk_size: 1 })).job;
  t.equal(check.checkMoments([], cameras, single, true).frames, 1, 'K = 1: the first commit brings no pictures');
  refused(t, 'FRAME_INVALID', () => check.checkMoments([], cameras, single, false), 'obs');
  t.end();
});

t.test('actions follow the latent frames', (t) => {
  const checked = (actions: unknown, frames: number) => check.checkActions(actions, job, frames, 'actions', 'because of the moments');
  t.equal(checked(actionsOf(2), 2).length, 24);
  const error = thrownBy(() => checked(actionsOf(1), 2));
  t.equal(error.code, 'ACTIONS_INVALID');
  t.match(error.message, /\[3, 2, 4\].*because of the moments/);
  refused(t, 'ACTIONS_INVALID', () => checked([0, 0], 2), 'actions');
  refused(t, 'ACTIONS_INVALID', () => checked(undefined, 2), 'actions');
  refused(t, 'ACTIONS_INVALID', () => checked(new Float64Array(24), 2), 'actions');
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    const actions = actionsOf(2);
    actions[23] = value;
    refused(t, 'ACTIONS_INVALID', () => checked(actions, 2), 'actions[23]');
  }
  t.end();
});

t.test('noise', (t) => {
  const sizes = { video: [1, 2, 2, 1, 1], action: [1, 6, 2, 4, 1] };
  const checked = (noise: unknown, imagined = false) => check.checkNoise(noise, sizes, imagined);
  t.same(checked(undefined), {});
  const video = new Float32Array(4);
  t.equal(checked({ video }).video, video);
  t.equal(checked({ action: new Float32Array(48) }).action?.length, 48);
  t.equal(checked({ imagined: video }, true).imagined, video);
  refused(t, 'NOISE_INVALID', () => checked({ imagined: video }), 'noise.imagined');
  refused(t, 'NOISE_INVALID', () => checked({ vidoe: video }), 'noise.vidoe');
  refused(t, 'NOISE_INVALID', () => checked(null), 'noise');
  refused(t, 'NOISE_INVALID', () => checked({ video: new Float32Array(3) }), 'noise.video');
  refused(t, 'NOISE_INVALID', () => checked({ action: new Float32Array(49) }), 'noise.action');
  refused(t, 'NOISE_INVALID', () => checked({ action: [1] }), 'noise.action');
  refused(t, 'NOISE_INVALID', () => checked({ video: Float32Array.of(0, 0, Number.NaN, 0) }), 'noise.video[2]');
  t.end();
});

t.test('seeds', (t) => {
  t.equal(check.checkSeed(undefined), 0n);
  t.equal(check.checkSeed(7), 7n);
  t.equal(check.checkSeed(Number.MAX_SAFE_INTEGER), 9007199254740991n);
  t.equal(check.checkSeed((1n << 64n) - 1n), (1n << 64n) - 1n);
  for (const seed of [-1, 0.5, 2 ** 53, Number.NaN, -1n, 1n << 64n, '7', null]) refused(t, 'ARGUMENT_INVALID', () => check.checkSeed(seed), 'seed');
  t.end();
});

t.test('steps', (t) => {
  t.equal(check.checkSteps(undefined, 'videoSteps', job), undefined);
  t.equal(check.checkSteps(1, 'videoSteps', job), 1);
  t.equal(check.checkSteps(1000, 'actionSteps', job), 1000);
  for (const steps of [0, 1001, 1.5, '3', null, -1]) {
    refused(t, 'ARGUMENT_INVALID', () => check.checkSteps(steps, 'actionSteps', job), 'actionSteps');
  }
  const partial = parseJob(smallJob({ video_exec_step: 4 })).job;
  t.equal(check.checkSteps(3, 'videoSteps', partial), 3);
  refused(t, 'ARGUMENT_INVALID', () => check.checkSteps(2, 'videoSteps', partial), 'videoSteps');
  t.equal(check.checkSteps(2, 'actionSteps', partial), 2, 'video_exec_step is about the video');
  t.end();
});

t.test('options', (t) => {
  t.doesNotThrow(() => check.checkOptions({}, 'predict'));
  for (const options of [undefined, null, 5, []]) refused(t, 'ARGUMENT_INVALID', () => check.checkOptions(options, 'predict'), 'options');
  refused(t, 'ARGUMENT_INVALID', () => check.checkOptions({ signal: {} }, 'predict'), 'signal');
  refused(t, 'ARGUMENT_INVALID', () => check.checkOptions({ onProgress: 1 }, 'predict'), 'onProgress');
  refused(t, 'ARGUMENT_INVALID', () => check.checkOptions({ trace: 'yes' }, 'predict'), 'trace');
  refused(t, 'ARGUMENT_INVALID', () => check.checkPrompt(undefined), 'prompt');
  t.equal(check.checkPrompt(''), '');
  t.end();
});

t.test('latents', (t) => {
  const chunk = [2, 3, 1, 2] as const;
  const checked = (latents: unknown) => check.checkLatents(latents, chunk);
  t.equal(checked(new Float32Array(8)).frames, 2);
  t.equal(checked(toTensor(new Float32Array(12), [1, 2, 3, 1, 2])).frames, 3);
  t.equal(checked({ data: new Float32Array(4), shape: [1, 2, 1, 1, 2] }).frames, 1);
  for (const latents of [undefined, null, [], new Float32Array(0), new Float32Array(7), { data: new Float32Array(4) }, { shape: [1, 2, 1, 1, 2] }]) {
    refused(t, 'ARGUMENT_INVALID', () => checked(latents), 'latents');
  }
  refused(t, 'ARGUMENT_INVALID', () => checked({ data: new Float32Array(4), shape: [1, 1, 2, 1, 2] }), 'latents.shape');
  refused(t, 'ARGUMENT_INVALID', () => checked({ data: new Float32Array(4), shape: [2, 1, 1, 2] }), 'latents.shape');
  refused(t, 'ARGUMENT_INVALID', () => checked(Float32Array.of(0, Number.NaN, 0, 0)), 'latents[1]');
  t.end();
});
