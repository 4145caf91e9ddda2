/**
 * Checks what callers pass to a policy, once, before anything native sees it: frames, moments, actions, noise, seeds, steps, latents. Each check
 * returns the value in the form that the native side takes. Owned by the policies; it keeps no state and copies no picture.
 */
import { PremotorError } from '../errors.js';
import type { NativeFrame } from '../native.js';
import { describe } from '../wording.js';
import type { Inpaint, Job, Noise, PastCommit, RestoreOptions } from './contract.js';
import { countOf } from './tensor.js';

const SIDE_PIXELS_MAX = 8192;
const STEPS_MAX = 1000;
const SEED_LIMIT = 1n << 64n;
/** Pictures per latent frame: the VAE's temporal factor. */
const PICTURES_PER_LATENT = 4;

interface Wrong {
  readonly field: string;
  readonly expected: string;
  readonly found: string;
  readonly remedy: string;
}

function wrong(code: string, { field, expected, found, remedy }: Wrong): PremotorError {
  return new PremotorError(code, `${field}: expected ${expected}, found ${found}. ${remedy}`, { field, expected, found });
}

/** The cameras of a job and how frames may call them: by the full key, or by what follows its last dot where that is unambiguous. */
export class Cameras {
  readonly keys: readonly string[];
  readonly #index = new Map<string, number>();
  readonly #ambiguous = new Set<string>();

  constructor(keys: readonly string[]) {
    this.keys = keys;
    const suffixes = keys.map((key) => key.slice(key.lastIndexOf('.') + 1));
    suffixes.forEach((suffix, index) => {
      if (suffixes.indexOf(suffix) === suffixes.lastIndexOf(suffix)) this.#index.set(suffix, index);
      else this.#ambiguous.add(suffix);
    });
    keys.forEach((key, index) => {
      this.#index.set(key, index);
      this.#ambiguous.delete(key);
    });
  }

  /** Index in obs_cam_keys. Errors: FRAME_INVALID. */
  indexOf(camera: unknown, field: string): number {
    const index = typeof camera === 'string' ? this.#index.get(camera) : undefined;
    if (index !== undefined) return index;
    const ambiguous = typeof camera === 'string' && this.#ambiguous.has(camera);
    throw wrong('FRAME_INVALID', {
      field: `${field}.camera`,
      expected: `one of ${this.keys.join(', ')}`,
      found: ambiguous ? `${describe(camera)}, which several cameras end in` : describe(camera),
      remedy: ambiguous ? 'Use the full key.' : "Use the job's obs_cam_keys.",
    });
  }
}

/** One observation, a frame per camera in any order, as pictures in obs_cam_keys order. Errors: FRAME_INVALID. */
export function checkObservation(frames: unknown, cameras: Cameras, field: string): NativeFrame[] {
  const remedy = `Pass one frame per camera: ${cameras.keys.join(', ')}.`;
  if (!Array.isArray(frames)) throw wrong('FRAME_INVALID', { field, expected: 'a list of frames', found: describe(frames), remedy });
  const ordered: (NativeFrame | undefined)[] = cameras.keys.map(() => undefined);
  for (const [position, frame] of frames.entries()) {
    const place = `${field}[${position}]`;
    if (typeof frame !== 'object' || frame === null) {
      throw wrong('FRAME_INVALID', { field: place, expected: 'a frame', found: describe(frame), remedy });
    }
    const index = cameras.indexOf((frame as { camera?: unknown }).camera, place);
    if (ordered[index] !== undefined) {
      throw wrong('FRAME_INVALID', { field: place, expected: 'each camera once', found: `camera "${cameras.keys[index]}" again`, remedy });
    }
    ordered[index] = checkPicture(frame as Record<string, unknown>, place);
  }
  const missing = cameras.keys.filter((_, index) => ordered[index] === undefined);
  if (missing.length > 0) {
    const found = `no frame of ${missing.join(', ')}`;
    throw wrong('FRAME_INVALID', { field, expected: `${cameras.keys.length} frames, one per camera`, found, remedy });
  }
  return ordered as NativeFrame[];
}

function checkPicture(frame: Record<string, unknown>, field: string): NativeFrame {
  const { width, height, data } = frame;
  for (const [name, side] of [
    ['width', width],
    ['height', height],
  ] as const) {
    if (!Number.isInteger(side) || (side as number) < 1 || (side as number) > SIDE_PIXELS_MAX) {
      const expected = `a whole number of 1 .. ${SIDE_PIXELS_MAX}`;
      throw wrong('FRAME_INVALID', { field: `${field}.${name}`, expected, found: describe(side), remedy: 'Give the size of the picture in pixels.' });
    }
  }
  const length = (width as number) * (height as number) * 3;
  if (!(data instanceof Uint8Array) || data.length !== length) {
    throw wrong('FRAME_INVALID', {
      field: `${field}.data`,
      expected: `a Uint8Array of ${length} bytes (${height} x ${width} x 3)`,
      found: describe(data),
      remedy: 'Pictures are RGB, 8 bits, row by row, without alpha or padding.',
    });
  }
  return { width: width as number, height: height as number, data };
}

export interface Moments {
  readonly moments: NativeFrame[][];
  /** Latent frames that the moments are committed as, F. */
  readonly frames: number;
  /** How F follows from the moments, for the error about the actions. */
  readonly reason: string;
}

/** What was seen since the last commit. The first one already has its first latent frame, so it may bring no moments. Errors: FRAME_INVALID. */
export function checkMoments(obs: unknown, cameras: Cameras, job: Job, first: boolean): Moments {
  const chunk = job.frame_chunk_size;
  const usual = PICTURES_PER_LATENT * (first ? chunk - 1 : chunk);
  const remedy = `Pass the frames seen at every ${PICTURES_PER_LATENT}th part of a latent frame: ${usual} moments for a chunk of ${chunk}.`;
  const rule = first ? '4 (F - 1) moments on the first commit' : '4 F moments';
  if (!Array.isArray(obs)) throw wrong('FRAME_INVALID', { field: 'obs', expected: 'a list of moments', found: describe(obs), remedy });
  const found = `${obs.length} moments`;
  if (obs.length % PICTURES_PER_LATENT !== 0) {
    throw wrong('FRAME_INVALID', { field: 'obs', expected: `${rule}, a multiple of ${PICTURES_PER_LATENT}`, found, remedy });
  }
  if (obs.length === 0 && !first) throw wrong('FRAME_INVALID', { field: 'obs', expected: `${rule}, at least ${PICTURES_PER_LATENT}`, found, remedy });
  const frames = obs.length / PICTURES_PER_LATENT + (first ? 1 : 0);
  const moments = obs.map((moment, index) => checkObservation(moment, cameras, `obs[${index}]`));
  const reason = `${found} are ${frames} latent frame${frames === 1 ? '' : 's'}${first ? ', with the one of the first prediction' : ''}`;
  return { moments, frames, reason };
}

/** Actions [used, frames, H] in physical units. `reason` says where `frames` comes from. Errors: ACTIONS_INVALID. */
export function checkActions(actions: unknown, job: Job, frames: number, field: string, reason: string): Float32Array {
  const used = job.used_action_channel_ids.length;
  const length = used * frames * job.action_per_frame;
  const shape = `[${used}, ${frames}, ${job.action_per_frame}]`;
  const remedy = `Pass the actions as [used channels, latent frames, actions per frame] = ${shape}: ${reason}.`;
  if (!(actions instanceof Float32Array) || actions.length !== length) {
    throw wrong('ACTIONS_INVALID', { field, expected: `a Float32Array of ${length} values`, found: describe(actions), remedy });
  }
  const bad = actions.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw wrong('ACTIONS_INVALID', { field: `${field}[${bad}]`, expected: 'a finite number', found: describe(actions[bad]), remedy });
  return actions;
}

/** The actions that are being executed, [used, E, H] of E = 0 .. K latent frames. Errors: ACTIONS_INVALID. */
export function checkExecuting(actions: unknown, job: Job): { actions: Float32Array; frames: number } {
  const chunk = job.frame_chunk_size;
  const perFrame = job.used_action_channel_ids.length * job.action_per_frame;
  const frames = actions instanceof Float32Array ? actions.length / perFrame : Number.NaN;
  const reason = `executing actions are those of 0 .. ${chunk} latent frames`;
  if (Number.isInteger(frames) && frames <= chunk) return { actions: checkActions(actions, job, frames, 'executing', reason), frames };
  throw wrong('ACTIONS_INVALID', {
    field: 'executing',
    expected: `a Float32Array of E x ${perFrame} values, E of 0 .. ${chunk}`,
    found: describe(actions),
    remedy: `Pass the actions as [used channels, E latent frames, actions per frame]: ${reason}.`,
  });
}

/** What predictNext commits: obs and executed come together or not at all. Errors: ARGUMENT_INVALID. */
export function checkPair(obs: unknown, executed: unknown): boolean {
  if ((obs === undefined) === (executed === undefined)) return obs !== undefined;
  const [given, missing] = obs === undefined ? ['executed', 'obs'] : ['obs', 'executed'];
  throw wrong('ARGUMENT_INVALID', {
    field: missing,
    expected: `a value, because ${given} is given`,
    found: 'undefined',
    remedy: 'Pass what was seen and what was executed, or neither to commit nothing.',
  });
}

/** Frames of executing actions, [1, C, E, h, w]: as checkLatents takes them. Errors: ARGUMENT_INVALID. */
export function checkForecast(forecast: unknown, chunk: readonly [number, number, number, number], frames: number): Float32Array | undefined {
  if (forecast === undefined || (frames === 0 && forecast instanceof Float32Array && forecast.length === 0)) return undefined;
  const found = checkLatents(forecast as Float32Array, chunk, 'forecast');
  if (found.frames === frames) return found.data;
  throw wrong('ARGUMENT_INVALID', {
    field: 'forecast',
    expected: `${frames} latent frames, as many as the executing actions have`,
    found: `${found.frames}`,
    remedy: 'Pass the frames of the executing actions, or leave it out to imagine them.',
  });
}

export interface NoiseSizes {
  /** [1, C, K, h, w] */
  readonly video: readonly number[];
  /** [1, action_dim, K, H, 1] */
  readonly action: readonly number[];
  /** [1, C, E, h, w], only where frames are imagined. */
  readonly imagined?: readonly number[];
}

/** Injected noise, each part optional. Errors: NOISE_INVALID. */
export function checkNoise(noise: unknown, sizes: NoiseSizes): Noise {
  if (noise === undefined) return {};
  const remedy = 'Leave noise out to draw it from the seed.';
  if (typeof noise !== 'object' || noise === null) {
    throw wrong('NOISE_INVALID', { field: 'noise', expected: 'an object with video and action', found: describe(noise), remedy });
  }
  const parts: [string, readonly number[]][] = [
    ['video', sizes.video],
    ['action', sizes.action],
  ];
  if (sizes.imagined !== undefined) parts.push(['imagined', sizes.imagined]);
  const unknown = Object.keys(noise).find((key) => !parts.some(([name]) => name === key) && (noise as Record<string, unknown>)[key] !== undefined);
  if (unknown !== undefined) {
    throw wrong('NOISE_INVALID', { field: `noise.${unknown}`, expected: `only ${parts.map(([name]) => name).join(', ')}`, found: unknown, remedy });
  }
  const checked: Record<string, Float32Array> = {};
  for (const [name, shape] of parts) {
    const value = (noise as Record<string, unknown>)[name];
    if (value === undefined) continue;
    const field = `noise.${name}`;
    if (!(value instanceof Float32Array) || value.length !== countOf(shape)) {
      const expected = `a Float32Array of ${countOf(shape)} values [${shape.join(', ')}]`;
      throw wrong('NOISE_INVALID', { field, expected, found: describe(value), remedy });
    }
    const bad = value.findIndex((one) => !Number.isFinite(one));
    if (bad >= 0) throw wrong('NOISE_INVALID', { field: `${field}[${bad}]`, expected: 'a finite number', found: describe(value[bad]), remedy });
    checked[name] = value;
  }
  return checked;
}

/** A seed as the 64-bit number that the generator takes; 0 when not given. Errors: ARGUMENT_INVALID. */
export function checkSeed(seed: unknown): bigint {
  if (seed === undefined) return 0n;
  if (typeof seed === 'bigint' && seed >= 0n && seed < SEED_LIMIT) return seed;
  if (typeof seed === 'number' && Number.isSafeInteger(seed) && seed >= 0) return BigInt(seed);
  throw wrong('ARGUMENT_INVALID', {
    field: 'seed',
    expected: 'a whole number of 0 .. 2^53 - 1, or a bigint of 0 .. 2^64 - 1',
    found: describe(seed),
    remedy: 'Use such a number.',
  });
}

/** An override of a number of denoising steps. Errors: ARGUMENT_INVALID. */
export function checkSteps(steps: unknown, field: string): number | undefined {
  if (steps === undefined) return undefined;
  if (!Number.isInteger(steps) || (steps as number) < 1 || (steps as number) > STEPS_MAX) {
    const remedy = 'Leave it out to use the number of the job.';
    throw wrong('ARGUMENT_INVALID', { field, expected: `a whole number of 1 .. ${STEPS_MAX}`, found: describe(steps), remedy });
  }
  return steps as number;
}

/** Overrides of the number of video steps and of how many passes run; what is not given is the job's. Errors: ARGUMENT_INVALID. */
export function checkVideoSteps(steps: unknown, execStep: unknown, job: Job): { videoSteps?: number; videoExecStep?: number } {
  const videoSteps = checkSteps(steps, 'videoSteps');
  const total = videoSteps ?? job.num_inference_steps;
  if (execStep === undefined) {
    if (job.video_exec_step > total + 1) {
      const expected = `at least ${job.video_exec_step - 1}, because the job runs the first ${job.video_exec_step} passes (video_exec_step)`;
      const remedy = 'Use more steps, or pass a smaller videoExecStep.';
      throw wrong('ARGUMENT_INVALID', { field: 'videoSteps', expected, found: describe(steps), remedy });
    }
    return videoSteps === undefined ? {} : { videoSteps };
  }
  if (!Number.isInteger(execStep) || !(execStep === -1 || ((execStep as number) >= 1 && (execStep as number) <= total + 1))) {
    const expected = `-1, or a whole number of 1 .. ${total + 1}, because there are ${total} video steps`;
    const remedy = "Leave it out to use the job's video_exec_step.";
    throw wrong('ARGUMENT_INVALID', { field: 'videoExecStep', expected, found: describe(execStep), remedy });
  }
  return { ...(videoSteps === undefined ? {} : { videoSteps }), videoExecStep: execStep as number };
}

const BETA_MAX = 5;

/** Actions to hold while a chunk is denoised. Errors: ACTIONS_INVALID, ARGUMENT_INVALID. */
export function checkInpaint(inpaint: unknown, job: Job): Required<Inpaint> | undefined {
  if (inpaint === undefined) return undefined;
  const remedy = 'Pass { actions, weights } aligned with the chunk that is predicted; docs/CONTRACT.md describes them.';
  if (typeof inpaint !== 'object' || inpaint === null) {
    throw wrong('ARGUMENT_INVALID', { field: 'inpaint', expected: 'an object', found: describe(inpaint), remedy });
  }
  const { actions, weights, betaMax = BETA_MAX } = inpaint as Record<string, unknown>;
  const held = checkActions(actions, job, job.frame_chunk_size, 'inpaint.actions', 'one whole chunk is predicted');
  const count = job.frame_chunk_size * job.action_per_frame;
  if (!(weights instanceof Float32Array) || weights.length !== count) {
    const expected = `a Float32Array of ${count} values, one per action`;
    throw wrong('ARGUMENT_INVALID', { field: 'inpaint.weights', expected, found: describe(weights), remedy });
  }
  const bad = weights.findIndex((weight) => !(weight >= 0 && weight <= 1));
  if (bad >= 0) {
    throw wrong('ARGUMENT_INVALID', { field: `inpaint.weights[${bad}]`, expected: 'a number of 0 .. 1', found: describe(weights[bad]), remedy });
  }
  if (typeof betaMax !== 'number' || !Number.isFinite(betaMax) || betaMax <= 0) {
    throw wrong('ARGUMENT_INVALID', { field: 'inpaint.betaMax', expected: 'a finite number above 0', found: describe(betaMax), remedy });
  }
  return { actions: held, weights, betaMax };
}

/** Whether a prediction uses the job's guidance. Errors: ARGUMENT_INVALID. */
export function checkGuidance(guidance: unknown): boolean {
  if (guidance === undefined || typeof guidance === 'boolean') return guidance ?? true;
  throw wrong('ARGUMENT_INVALID', {
    field: 'guidance',
    expected: 'true or false',
    found: describe(guidance),
    remedy: 'Leave it out to use the job.',
  });
}

export interface Past {
  readonly commits: { latents: Float32Array; actions: Float32Array; frames: number; predicted: boolean }[];
  readonly encoder: Uint8Array;
}

/** What an episode is rebuilt from. Errors: ARGUMENT_INVALID, ACTIONS_INVALID. */
export function checkPast(options: RestoreOptions, job: Job, chunk: readonly [number, number, number, number]): Past {
  const commits: unknown = options.commits;
  const remedy = 'Pass what each commit of the episode wrote, from the first on, and what encoderState() gave after the last.';
  if (!Array.isArray(commits) || commits.length === 0) {
    throw wrong('ARGUMENT_INVALID', { field: 'commits', expected: 'a list of at least one commit', found: describe(commits), remedy });
  }
  const checked = commits.map((commit: Partial<PastCommit> | null, index) => {
    const field = `commits[${index}]`;
    const { data: latents, frames } = checkLatents(commit?.latents as Float32Array, chunk, `${field}.latents`);
    const reason = `its latents are ${frames} latent frame${frames === 1 ? '' : 's'}`;
    const predicted = commit?.predicted === true;
    return { latents, actions: checkActions(commit?.actions, job, frames, `${field}.actions`, reason), frames, predicted };
  });
  const encoder: unknown = (options.encoder as { data?: unknown } | null | undefined)?.data;
  if (!(encoder instanceof Uint8Array)) {
    throw wrong('ARGUMENT_INVALID', { field: 'encoder.data', expected: 'a Uint8Array', found: describe(encoder), remedy });
  }
  const checksum: unknown = options.checksum;
  if (checksum !== undefined && typeof checksum !== 'string') {
    throw wrong('ARGUMENT_INVALID', { field: 'checksum', expected: 'a text', found: describe(checksum), remedy: 'Pass cache.checksum or nothing.' });
  }
  return { commits: checked, encoder };
}

/** The one argument of a policy's method. Errors: ARGUMENT_INVALID. */
export function checkOptions(options: unknown, method: string): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    const remedy = `Call ${method}({ ... }); docs/CONTRACT.md lists the options.`;
    throw wrong('ARGUMENT_INVALID', { field: 'options', expected: 'an object', found: describe(options), remedy });
  }
  const { signal, onProgress, trace } = options as Record<string, unknown>;
  const remedy = 'Correct the option or leave it out.';
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw wrong('ARGUMENT_INVALID', { field: 'signal', expected: 'an AbortSignal', found: describe(signal), remedy });
  }
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw wrong('ARGUMENT_INVALID', { field: 'onProgress', expected: 'a function', found: describe(onProgress), remedy });
  }
  if (trace !== undefined && typeof trace !== 'boolean') {
    throw wrong('ARGUMENT_INVALID', { field: 'trace', expected: 'true or false', found: describe(trace), remedy });
  }
}

/** An instruction. Its length is the business of the text encoder. Errors: ARGUMENT_INVALID. */
export function checkPrompt(prompt: unknown): string {
  if (typeof prompt === 'string') return prompt;
  const remedy = 'Pass the instruction of the episode.';
  throw wrong('ARGUMENT_INVALID', { field: 'prompt', expected: 'a text', found: describe(prompt), remedy });
}

/** Latents [1, C, F, h, w], as a tensor, as { data, shape } or as the plain values. Errors: ARGUMENT_INVALID. */
export function checkLatents(
  latents: unknown,
  chunk: readonly [number, number, number, number],
  field = 'latents',
): { data: Float32Array; frames: number } {
  const [channels, , height, width] = chunk;
  const perFrame = channels * height * width;
  const wanted = `[1, ${channels}, F, ${height}, ${width}]`;
  const remedy = "Pass a chunk's latents, or several joined along their frames.";
  const plain = latents instanceof Float32Array;
  const data: unknown = plain ? latents : (latents as { data?: unknown } | null | undefined)?.data;
  const shape = (latents as { shape?: unknown } | null | undefined)?.shape;
  if (!(data instanceof Float32Array) || (!plain && !Array.isArray(shape))) {
    throw wrong('ARGUMENT_INVALID', {
      field,
      expected: `a Float32Array, or { data, shape }, of ${wanted}`,
      found: describe(latents),
      remedy,
    });
  }
  const frames = data.length / perFrame;
  if (frames < 1 || !Number.isInteger(frames)) {
    const expected = `a multiple of ${perFrame} values ${wanted}`;
    throw wrong('ARGUMENT_INVALID', { field, expected, found: `${data.length} values`, remedy });
  }
  const expectedShape = [1, channels, frames, height, width];
  if (Array.isArray(shape) && (shape.length !== 5 || expectedShape.some((size, axis) => shape[axis] !== size))) {
    throw wrong('ARGUMENT_INVALID', { field: `${field}.shape`, expected: `[${expectedShape.join(', ')}]`, found: `[${shape.join(', ')}]`, remedy });
  }
  const bad = data.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw wrong('ARGUMENT_INVALID', { field: `${field}[${bad}]`, expected: 'a finite number', found: describe(data[bad]), remedy });
  return { data, frames };
}
