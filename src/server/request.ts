/**
 * What a client asks for, read out of a decoded message for one job: which request it is, its pictures, its actions, its text. Everything is checked
 * by the policy's own checks before a policy sees it. Owned by the session; pure, and copies no picture.
 */
import { PremotorError } from '../errors.js';
import type { Frame, Job } from '../policy/contract.js';
import * as check from '../policy/validate.js';
import { describe } from '../wording.js';
import type { WireMap, WireValue } from './msgpack.js';
import { floatsOf, NdArray } from './ndarray.js';

/** Bytes of a prompt; the text encoder takes far fewer. */
const PROMPT_CHARACTERS_MAX = 16_384;
const MOMENTS_PER_FRAME = 4;

export interface RequestRules {
  readonly job: Job;
  readonly cameras: check.Cameras;
  /** Longest side of a picture, pixels. */
  readonly pictureSideMax: number;
  /** Keys of flat observations that stand for a camera of the job. */
  readonly aliases: ReadonlyMap<string, string>;
}

/** `reset`, `commit` and `infer` as LingBot-VA's clients ask; `act` is a flat observation, as openpi's clients send it. */
export type RequestKind = 'reset' | 'commit' | 'infer' | 'act';

export function invalid(field: string, expected: string, value: unknown, remedy = 'docs/SERVER.md lists the fields.'): PremotorError {
  const map = value instanceof Map ? `a map (${[...value.keys()].slice(0, 4).join(', ')})` : undefined;
  const found = map ?? (value instanceof NdArray ? value.toString() : describe(value));
  return new PremotorError('REQUEST_INVALID', `${field}: expected ${expected}, found ${found}. ${remedy}`, { field, expected, found });
}

/** The order is the protocol's. Errors: REQUEST_INVALID. */
export function kindOf(fields: WireMap): RequestKind {
  if (flag(fields, 'reset')) return 'reset';
  if (flag(fields, 'compute_kv_cache')) return 'commit';
  return fields.has('obs') ? 'infer' : 'act';
}

/** A field that is true, false or left out. */
export function flag(fields: WireMap, name: string): boolean {
  const value = fields.get(name) ?? false;
  if (typeof value !== 'boolean') throw invalid(name, 'true or false', value);
  return value;
}

/** The instruction; undefined when there is none. Errors: REQUEST_INVALID. */
export function promptOf(fields: WireMap): string | undefined {
  const prompt = fields.get('prompt') ?? undefined;
  if (prompt === undefined) return undefined;
  if (typeof prompt !== 'string' || prompt.length > PROMPT_CHARACTERS_MAX)
    throw invalid('prompt', `a text of at most ${PROMPT_CHARACTERS_MAX} characters`, prompt);
  return prompt;
}

/** premotor's own fields, by which another premotor says what it wants of a prediction. Errors: ARGUMENT_INVALID, REQUEST_INVALID. */
export function samplingOf(fields: WireMap, job: Job): { seed?: bigint; videoSteps?: number; actionSteps?: number } {
  const seed = fields.get('seed');
  const video = check.checkVideoSteps(fields.get('video_steps'), undefined, job);
  const actionSteps = check.checkSteps(fields.get('action_steps'), 'action_steps');
  return {
    ...(seed === undefined ? {} : { seed: check.checkSeed(seed) }),
    ...(video.videoSteps === undefined ? {} : { videoSteps: video.videoSteps }),
    ...(actionSteps === undefined ? {} : { actionSteps }),
  };
}

/** The one moment that a prediction begins with: a map of pictures, or a list of one. Errors: REQUEST_INVALID, FRAME_INVALID. */
export function observationOf(obs: WireValue | undefined, rules: RequestRules): Frame[] {
  const list = Array.isArray(obs) ? (obs as readonly WireValue[]) : undefined;
  if (list !== undefined && list.length !== 1) throw invalid('obs', 'one moment', list, 'The episode begins with one picture per camera.');
  const moment = list === undefined ? obs : list[0];
  const frames = framesOf(moment, rules, 'obs');
  check.checkObservation(frames, rules.cameras, 'obs');
  return frames;
}

/** A moment's pictures by the job's own names; what else it says is ignored. */
function framesOf(moment: WireValue | undefined, { job, pictureSideMax }: RequestRules, field: string): Frame[] {
  if (!(moment instanceof Map)) throw invalid(field, `a map with ${job.obs_cam_keys.join(', ')}`, moment);
  return job.obs_cam_keys.flatMap((camera) => {
    const picture = moment.get(camera);
    return picture === undefined ? [] : [frameOf(camera, picture, pictureSideMax, `${field}["${camera}"]`)];
  });
}

function frameOf(camera: string, picture: WireValue | undefined, sideMax: number, field: string): Frame {
  const [height, width, channels] = picture instanceof NdArray ? picture.shape : [];
  if (!(picture instanceof NdArray) || picture.dtype !== '|u1' || picture.shape.length !== 3 || channels !== 3) {
    throw invalid(field, 'an array |u1 [height, width, 3]', picture, 'Pictures are RGB, 8 bits, row by row.');
  }
  const [rows, columns] = [height as number, width as number];
  if (rows > sideMax || columns > sideMax)
    throw invalid(field, `sides of at most ${sideMax} pixels`, picture, 'Send smaller ones, or start the server with --picture-side-max.');
  return { camera, width: columns, height: rows, data: picture.data, capturedAtNs: process.hrtime.bigint() };
}

export interface CommitRequest {
  readonly obs: Frame[][];
  readonly actions: Float32Array;
  /** Latent frames that it commits. */
  readonly frames: number;
}

/** What was seen and executed. Errors: REQUEST_INVALID, FRAME_INVALID, ACTIONS_INVALID. */
export function commitOf(fields: WireMap, rules: RequestRules, isFirst: boolean): CommitRequest {
  const { job, cameras } = rules;
  const obs = fields.get('obs');
  const most = MOMENTS_PER_FRAME * job.frame_chunk_size;
  if (!Array.isArray(obs) || obs.length > most) throw invalid('obs', `a list of at most ${most} moments`, obs);
  const moments = (obs as readonly WireValue[]).map((moment, index) => framesOf(moment, rules, `obs[${index}]`));
  const { frames, reason } = check.checkMoments(moments, cameras, job, isFirst);
  const state = fields.get('state');
  const used = job.used_action_channel_ids.length;
  const shape = [used, frames, job.action_per_frame];
  const expected = `an array <f4 [${shape.join(', ')}]: ${reason}`;
  if (!(state instanceof NdArray) || state.shape.length !== 3 || shape.some((size, axis) => state.shape[axis] !== size))
    throw invalid('state', expected, state, 'Send the executed actions in the form in which they came.');
  const actions = floatsOf(state);
  if (actions === undefined) throw invalid('state', 'floats, <f4 or <f8', state);
  return { obs: moments, actions: check.checkActions(actions, job, frames, 'state', reason), frames };
}

/** How a flat observation may call a camera: as the job, with slashes for dots, by the name after the last of them, or by an alias. */
function cameraOf(key: string, { cameras, aliases }: RequestRules): string | undefined {
  const named = aliases.get(key);
  if (named !== undefined) return named;
  const dotted = key.replaceAll('/', '.');
  const whole = cameras.keys.find((camera) => camera === dotted);
  if (whole !== undefined) return whole;
  const last = dotted.slice(dotted.lastIndexOf('.') + 1);
  const alike = cameras.keys.filter((camera) => camera.slice(camera.lastIndexOf('.') + 1) === last);
  return alike.length === 1 ? alike[0] : undefined;
}

/** Pictures of a flat observation, where some stand in a map of their own and with the channels first. Errors: REQUEST_INVALID, FRAME_INVALID. */
export function flatObservationOf(fields: WireMap, rules: RequestRules): Frame[] {
  const frames = new Map<string, Frame>();
  const look = (map: WireMap, prefix: string): void => {
    for (const [key, value] of map) {
      const place = `${prefix}${key}`;
      if (prefix === '' && value instanceof Map) look(value, `${key}/`);
      const camera = value instanceof NdArray && value.shape.length === 3 ? cameraOf(place, rules) : undefined;
      if (camera === undefined) continue;
      if (frames.has(camera)) throw invalid(place, `one picture of ${camera}`, value, 'Two keys stand for the same camera.');
      frames.set(camera, frameOf(camera, rowsFirst(value as NdArray), rules.pictureSideMax, place));
    }
  };
  look(fields, '');
  const missing = rules.cameras.keys.filter((camera) => !frames.has(camera));
  if (missing.length > 0) {
    const remedy = 'Send reset, obs or pictures under the names of the cameras; --camera KEY=NAME names them otherwise.';
    const found = [...fields.keys()].slice(0, 16).join(', ') || 'an empty map';
    const [field, expected] = ['the message', `a request, or pictures of ${missing.join(', ')}`];
    throw new PremotorError('REQUEST_INVALID', `${field}: expected ${expected}, found ${found}. ${remedy}`, { field, expected, found });
  }
  const obs = [...frames.values()];
  check.checkObservation(obs, rules.cameras, 'observation');
  return obs;
}

/** A picture with the channels last, as [3, height, width] becomes when no side but the first is 3. */
function rowsFirst(picture: NdArray): NdArray {
  const [channels = 0, rows = 0, columns = 0] = picture.shape;
  if (picture.dtype !== '|u1' || channels !== 3 || columns === 3) return picture;
  const plane = rows * columns;
  const data = new Uint8Array(plane * 3);
  for (let pixel = 0; pixel < plane; pixel++) {
    for (let channel = 0; channel < 3; channel++) data[pixel * 3 + channel] = picture.data[channel * plane + pixel] as number;
  }
  return new NdArray(picture.dtype, [rows, columns, 3], data);
}
