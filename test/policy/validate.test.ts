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
  t.equal(frames(0, true), 1, 'the first commit may bring the first frame alone');
  refused(t, 'FRAME_INVALID', () => frames(0, false), 'obs');
  refused(t, 'FRAME_INVALID', () => check.checkMoments('x', cameras, job, true), 'obs');
  const broken = [...moments(3), [frame('cam_high')]];
  refused(t, 'FRAME_INVALID', () => check.checkMoments(broken, cameras, job, true), 'obs[3]');
  const single = parseJob(smallJob({ frame_chunk_size: 1 })).job;
  t.equal(check.checkMoments([], cameras, single, true).frames, 1);
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
  const checked = (noise: unknown, imagined?: number[]) => check.checkNoise(noise, { ...sizes, ...(imagined === undefined ? {} : { imagined }) });
  t.same(checked(undefined), {});
  const video = new Float32Array(4);
  t.equal(checked({ video }).video, video);
  t.equal(checked({ action: new Float32Array(48) }).action?.length, 48);
  t.equal(checked({ imagined: video.slice(0, 2) }, [1, 2, 1, 1, 1]).imagined?.length, 2);
  refused(t, 'NOISE_INVALID', () => checked({ imagined: video }, [1, 2, 1, 1, 1]), 'noise.imagined');
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
  t.equal(check.checkSteps(undefined, 'actionSteps'), undefined);
  t.equal(check.checkSteps(1000, 'actionSteps'), 1000);
  for (const steps of [0, 1001, 1.5, '3', null, -1]) {
    refused(t, 'ARGUMENT_INVALID', () => check.checkSteps(steps, 'actionSteps'), 'actionSteps');
    refused(t, 'ARGUMENT_INVALID', () => check.checkVideoSteps(steps, undefined, job), 'videoSteps');
  }
  t.same(check.checkVideoSteps(undefined, undefined, job), {});
  t.same(check.checkVideoSteps(1, undefined, job), { videoSteps: 1 });
  t.end();
});

t.test('video steps and the passes that run are checked together, with what the job says', (t) => {
  const partial = parseJob(smallJob({ video_exec_step: 4 })).job;
  t.same(check.checkVideoSteps(3, undefined, partial), { videoSteps: 3 });
  refused(t, 'ARGUMENT_INVALID', () => check.checkVideoSteps(2, undefined, partial), 'videoSteps');
  t.same(check.checkVideoSteps(2, 3, partial), { videoSteps: 2, videoExecStep: 3 }, 'the override counts, not the job');
  t.same(check.checkVideoSteps(2, -1, partial), { videoSteps: 2, videoExecStep: -1 });
  refused(t, 'ARGUMENT_INVALID', () => check.checkVideoSteps(2, 4, partial), 'videoExecStep');
  t.same(check.checkVideoSteps(undefined, 6, job), { videoExecStep: 6 }, 'the job has 5 steps');
  for (const step of [0, 7, -2, 1.5, '3', null]) refused(t, 'ARGUMENT_INVALID', () => check.checkVideoSteps(undefined, step, job), 'videoExecStep');
  t.end();
});

t.test('guidance is on or off', (t) => {
  t.same([check.checkGuidance(undefined), check.checkGuidance(true), check.checkGuidance(false)], [true, true, false]);
  for (const guidance of [0, 1, 'no', null]) refused(t, 'ARGUMENT_INVALID', () => check.checkGuidance(guidance), 'guidance');
  t.end();
});

t.test('executing actions have 0 .. K latent frames', (t) => {
  for (const frames of [0, 1, 2]) t.equal(check.checkExecuting(actionsOf(frames), job).frames, frames);
  const odd = new Float32Array(13);
  for (const actions of [actionsOf(3), odd, [], undefined]) refused(t, 'ACTIONS_INVALID', () => check.checkExecuting(actions, job), 'executing');
  const broken = actionsOf(1);
  broken[4] = Number.NaN;
  refused(t, 'ACTIONS_INVALID', () => check.checkExecuting(broken, job), 'executing[4]');
  t.end();
});

t.test('obs and executed come together', (t) => {
  t.equal(check.checkPair([], actionsOf(1)), true);
  t.equal(check.checkPair(undefined, undefined), false);
  refused(t, 'ARGUMENT_INVALID', () => check.checkPair([], undefined), 'executed');
  refused(t, 'ARGUMENT_INVALID', () => check.checkPair(undefined, actionsOf(1)), 'obs');
  t.end();
});

t.test('a forecast has as many frames as the executing actions', (t) => {
  const chunk = [2, 2, 1, 3] as const;
  const one = new Float32Array(6);
  t.equal(check.checkForecast(undefined, chunk, 1), undefined);
  t.equal(check.checkForecast(one, chunk, 1), one);
  t.equal(check.checkForecast({ data: one, shape: [1, 2, 1, 1, 3] }, chunk, 1), one);
  t.equal(check.checkForecast(new Float32Array(0), chunk, 0), undefined);
  refused(t, 'ARGUMENT_INVALID', () => check.checkForecast(one, chunk, 2), 'forecast');
  refused(t, 'ARGUMENT_INVALID', () => check.checkForecast(one, chunk, 0), 'forecast');
  refused(t, 'ARGUMENT_INVALID', () => check.checkForecast(new Float32Array(5), chunk, 1), 'forecast');
  refused(t, 'ARGUMENT_INVALID', () => check.checkForecast(null, chunk, 1), 'forecast');
  refused(t, 'ARGUMENT_INVALID', () => check.checkForecast(Float32Array.of(0, 0, Number.NaN, 0, 0, 0), chunk, 1), 'forecast[2]');
  t.end();
});

t.test('the past of an episode', (t) => {
  const chunk = [2, 2, 1, 3] as const;
  const past = (changes: object) => {
    const commit = { latents: new Float32Array(12), actions: actionsOf(2) };
    return check.checkPast({ prompt: '', commits: [commit], encoder: { data: Uint8Array.of(1) }, ...changes } as never, job, chunk);
  };
  t.match(past({}), { commits: [{ frames: 2 }], encoder: Uint8Array.of(1) });
  for (const commits of [[], undefined, 'x']) refused(t, 'ARGUMENT_INVALID', () => past({ commits }), 'commits');
  refused(t, 'ARGUMENT_INVALID', () => past({ commits: [null] }), 'commits[0].latents');
  refused(t, 'ARGUMENT_INVALID', () => past({ commits: [{ latents: new Float32Array(5), actions: actionsOf(1) }] }), 'commits[0].latents');
  refused(t, 'ACTIONS_INVALID', () => past({ commits: [{ latents: new Float32Array(6), actions: actionsOf(2) }] }), 'commits[0].actions');
  for (const encoder of [undefined, null, Uint8Array.of(1), { data: [1] }]) refused(t, 'ARGUMENT_INVALID', () => past({ encoder }), 'encoder.data');
  refused(t, 'ARGUMENT_INVALID', () => past({ checksum: 5 }), 'checksum');
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
