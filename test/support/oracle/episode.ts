/**
 * The oracle's episode: schedules, guidance, the video and the action loop, and the commit, in the order of docs/MODEL.md sections 4 and 5. It is
 * told the prompt's embeddings, the noise and the encoded observations (text encoder and VAE have tests of their own) and returns traces under the
 * golden traces' names, so that the engine's traces and the recorded ones are compared with it in the same way.
 */
import type { Job, Trace } from '../../../src/policy/contract.js';
import { type Entry, OracleCache, type Update } from './kv-cache.js';
import {
  actionPositions,
  actionsOf,
  actionTokens,
  at,
  type Grid,
  gridOf,
  joinFrames,
  mapGrid,
  type PatchSize,
  patchify,
  unpatchify,
  videoPositions,
} from './layout.js';
import type { Rows } from './math.js';
import type { Modality, OracleTransformer, Text } from './transformer.js';

export type OracleJob = Pick<
  Job,
  | 'guidance_scale'
  | 'action_guidance_scale'
  | 'num_inference_steps'
  | 'video_exec_step'
  | 'action_num_inference_steps'
  | 'snr_shift'
  | 'action_snr_shift'
  | 'used_action_channel_ids'
  | 'norm_stat'
  | 'attn_window'
  | 'frame_chunk_size'
  | 'action_per_frame'
  | 'infer_mode'
>;

export interface PredictInput {
  /** Encoded first observation [1, C, 1, h, w]; first prediction of an episode. */
  readonly obsLatent?: ArrayLike<number>;
  readonly noiseVideo: ArrayLike<number>;
  readonly noiseAction: ArrayLike<number>;
}

export interface CommitInput {
  /** Encoded observations [1, C, F, h, w]; F is one less on the first commit of an episode. */
  readonly obsLatent: ArrayLike<number>;
  /** Executed actions [used, F, H] in physical units. */
  readonly state: ArrayLike<number>;
}

export interface Schedule {
  readonly sigmas: readonly number[];
  readonly timesteps: readonly number[];
}

/**
 * sigma = shift u / (1 + (shift - 1) u), u = 1 - i / N; t = 1000 sigma. Rounded to float32 where the reference holds float32 tensors; its u is a
 * linspace(1, 0, N + 1), which counts the first half from the front and the second half from the back.
 */
export function scheduleOf(steps: number, shift: number): Schedule {
  const width = Math.fround(1 / steps);
  const sigmas = Array.from({ length: steps }, (_, i) => {
    const u = Math.fround(i < Math.floor((steps + 1) / 2) ? 1 - width * i : width * (steps - i));
    return Math.fround(Math.fround(shift * u) / Math.fround(1 + Math.fround((shift - 1) * u)));
  });
  return { sigmas, timesteps: sigmas.map((sigma) => Math.fround(1000 * sigma)) };
}

/** The next sigma, 0 behind the last, minus this one. A pass at t = 0 that steps counts as the last sigma's, as the reference's scheduler has it. */
function stepSize(sigmas: readonly number[], step: number): number {
  const index = Math.min(step, sigmas.length - 1);
  return (sigmas[index + 1] ?? 0) - sigmas[index]!;
}

export class OracleEpisode {
  readonly cache: OracleCache;
  readonly #transformer: OracleTransformer;
  readonly #job: OracleJob;
  readonly #latent: readonly [number, number];
  readonly #patch: PatchSize;
  readonly #texts: readonly Text[];
  #frameIndex = 0;
  #call = 0;
  #init: Grid | undefined;

  /**
   * latent: rows and columns of a latent frame. prompts: embeddings [text rows, text_dim] of the prompt and, with guidance, of the negative prompt.
   */
  constructor(transformer: OracleTransformer, job: OracleJob, latent: readonly [number, number], prompts: readonly ArrayLike<number>[]) {
    const { patch_size: patch, text_dim: dim } = transformer.weights.config;
    this.#transformer = transformer;
    this.#job = job;
    this.#latent = latent;
    this.#patch = [patch[1], patch[2]];
    const rows = job.guidance_scale > 1 || job.action_guidance_scale > 1 ? 2 : 1;
    if (prompts.length < rows) throw new Error(`oracle: ${rows} prompts are needed, found ${prompts.length}`);
    this.#texts = prompts.slice(0, rows).map((prompt) => {
      const values = Float64Array.from(prompt);
      return transformer.text(Array.from({ length: values.length / dim }, (_, row) => values.subarray(row * dim, (row + 1) * dim)));
    });
    const videoTokens = (job.frame_chunk_size * (latent[0] * latent[1])) / (this.#patch[0] * this.#patch[1]);
    const actionTokens = job.frame_chunk_size * job.action_per_frame;
    this.cache = new OracleCache(Math.floor(job.attn_window / 2) * (videoTokens + actionTokens));
  }

  predict(input: PredictInput): Trace {
    this.#call++;
    const { frame_chunk_size: frames, action_per_frame: perFrame, infer_mode: mode } = this.#job;
    const { in_channels: channels, action_dim: dim } = this.#transformer.weights.config;
    const trace: Trace = new Map();
    if (input.obsLatent !== undefined) this.#init = gridOf([channels, 1, ...this.#latent], input.obsLatent);
    const first = this.#frameIndex === 0;
    if (first && this.#init === undefined) throw new Error('oracle: the first prediction needs an observation');
    this.#denoiseVideo(gridOf([channels, frames, ...this.#latent], input.noiseVideo), first, trace);
    this.#denoiseAction(gridOf([dim, frames, perFrame, 1], input.noiseAction), first, trace);
    if (mode === 'i2va') this.#frameIndex += frames;
    this.#traceCache(trace);
    return trace;
  }

  commit(input: CommitInput): Trace {
    this.#call++;
    const { config } = this.#transformer.weights;
    const [rows, columns] = this.#latent;
    const encoded = gridOf([config.in_channels, input.obsLatent.length / (config.in_channels * rows * columns), rows, columns], input.obsLatent);
    const video = this.#frameIndex === 0 ? joinFrames(this.#init!, encoded) : encoded;
    const action = this.#normalised(input.state, video.frames);
    const clean = new Array<number>(video.frames).fill(0);
    this.cache.dropPredicted();
    this.#pass('video', video, clean, 'committed');
    this.#pass('action', action, clean, 'committed');
    this.#frameIndex += video.frames;
    const trace: Trace = new Map();
    addGrid(trace, 'video.input', video);
    addGrid(trace, 'action.input', action);
    this.#traceCache(trace);
    return trace;
  }

  #denoiseVideo(noise: Grid, first: boolean, trace: Trace): void {
    const job = this.#job;
    const partial = job.video_exec_step !== -1;
    const { sigmas, timesteps } = scheduleOf(job.num_inference_steps, job.snr_shift);
    const loop = partial ? [...timesteps, 0].slice(0, job.video_exec_step) : [...timesteps, 0];
    // Frame 0 of an episode was seen: it is put in place before the first pass and after every step.
    const impose = (x: Grid): Grid => (first ? mapGrid(x, (value, c, f, row, column) => (f === 0 ? at(this.#init!, c, 0, row, column) : value)) : x);
    let x = impose(noise);
    loop.forEach((timestep, step) => {
      const last = step === loop.length - 1;
      const outs = this.#pass('video', x, frameTimesteps(x.frames, timestep, first), last ? 'predicted' : 'temporary');
      addRows(trace, `video.s${step}.out`, outs, x.channels);
      if (last && !partial) return;
      const velocity = unpatchify(guide(outs, job.guidance_scale), x, this.#patch);
      addGrid(trace, `video.s${step}.pred`, velocity);
      x = impose(stepped(x, velocity, stepSize(sigmas, step)));
      addGrid(trace, `video.s${step}.x`, x);
    });
    addGrid(trace, 'latents', x);
  }

  #denoiseAction(noise: Grid, first: boolean, trace: Trace): void {
    const job = this.#job;
    const { sigmas, timesteps } = scheduleOf(job.action_num_inference_steps, job.action_snr_shift);
    const used = new Set(job.used_action_channel_ids);
    // The actions of the episode's frame 0 are padding.
    const impose = (x: Grid): Grid => (first ? mapGrid(x, (value, _, f) => (f === 0 ? 0 : value)) : x);
    const zeroUnused = (x: Grid): Grid => mapGrid(x, (value, c) => (used.has(c) ? value : 0));
    let x = impose(noise);
    [...timesteps, 0].forEach((timestep, step) => {
      x = zeroUnused(x);
      const last = step === timesteps.length;
      const outs = this.#pass('action', x, frameTimesteps(x.frames, timestep, first), last ? 'predicted' : 'temporary');
      addRows(trace, `action.s${step}.out`, outs, x.channels);
      if (last) return;
      const velocity = actionsOf(guide(outs, job.action_guidance_scale), x);
      addGrid(trace, `action.s${step}.pred`, velocity);
      x = impose(stepped(x, velocity, stepSize(sigmas, step)));
      addGrid(trace, `action.s${step}.x`, x);
    });
    addGrid(trace, 'action.final_norm', zeroUnused(x));
    const physical = job.used_action_channel_ids.map((channel, order) => ({ order, channel, ...this.#range(channel) }));
    const robot = gridOf([physical.length, x.frames, x.rows, 1], new Float64Array(physical.length * x.frames * x.rows));
    const actions = mapGrid(robot, (_, u, f, j) => ((at(x, physical[u]!.channel, f, j, 0) + 1) / 2) * physical[u]!.span + physical[u]!.low);
    trace.set('action', { dtype: 'float32', shape: [robot.channels, robot.frames, robot.rows], data: Float32Array.from(actions.data) });
  }

  /** One network pass of every guidance row; they share the cache's slots. Output per row. */
  #pass(modality: Modality, input: Grid, timesteps: readonly number[], update: Update): Float64Array[][] {
    const video = modality === 'video';
    const tokens = video ? patchify(input, this.#patch) : actionTokens(input);
    const positions = video ? videoPositions(input, this.#patch, this.#frameIndex) : actionPositions(input, this.#frameIndex);
    const perFrame = tokens.length / input.frames;
    const tokenTimesteps = tokens.map((_, token) => timesteps[Math.floor(token / perFrame)]!);
    const written: Entry[] = this.cache.write(tokens.length, update, this.#texts.length, this.#call);
    const pass = { modality, tokens, positions, timesteps: tokenTimesteps };
    const outs = this.#texts.map((text, row) => this.#transformer.forward(pass, row, text, this.cache, written));
    if (update === 'temporary') this.cache.remove(written);
    return outs;
  }

  #range(channel: number): { readonly low: number; readonly span: number } {
    const { q01, q99 } = this.#job.norm_stat;
    return { low: q01[channel]!, span: q99[channel]! - q01[channel]! + 1e-6 };
  }

  /** Executed actions as the network sees them; channels the robot lacks are zero. */
  #normalised(state: ArrayLike<number>, frames: number): Grid {
    const { action_per_frame: perFrame, used_action_channel_ids: used } = this.#job;
    const executed = gridOf([used.length, frames, perFrame, 1], state);
    const { action_dim: dim } = this.#transformer.weights.config;
    const zeros = gridOf([dim, frames, perFrame, 1], new Float64Array(dim * frames * perFrame));
    return mapGrid(zeros, (zero, channel, f, j) => {
      const u = used.indexOf(channel);
      const { low, span } = this.#range(channel);
      return u < 0 ? zero : (2 * (at(executed, u, f, j, 0) - low)) / span - 1;
    });
  }

  /** The pool after this call and what the call left in it; first and last layer. */
  #traceCache(trace: Trace): void {
    const { config } = this.#transformer.weights;
    const slots = this.cache.slots;
    const mine = slots.flatMap((entry, slot) => (entry?.call === this.#call ? [{ entry, slot }] : []));
    for (const layer of new Set([0, config.num_layers - 1])) {
      const name = `kv.L${layer}`;
      const ints = (values: number[]) => ({ dtype: 'int32' as const, shape: [values.length], data: Int32Array.from(values) });
      const flags = (values: boolean[]) => ({ dtype: 'uint8' as const, shape: [values.length], data: Uint8Array.from(values, Number) });
      trace.set(`${name}.mask`, flags(slots.map((entry) => entry !== undefined)));
      trace.set(`${name}.id`, ints(slots.map((entry) => entry?.id ?? -1)));
      trace.set(`${name}.is_pred`, flags(slots.map((entry) => entry?.predicted ?? false)));
      trace.set(`${name}.slots`, ints(mine.map(({ slot }) => slot)));
      for (const part of ['k', 'v'] as const) {
        const data = this.#texts.flatMap((_, row) => mine.flatMap(({ entry }) => [...entry[part][row]![layer]!]));
        const shape = [this.#texts.length, mine.length, config.num_attention_heads, config.attention_head_dim];
        trace.set(`${name}.${part}`, { dtype: 'float32', shape, data: Float32Array.from(data) });
      }
    }
  }
}

/** Frame 0 of an episode is clean at every step. */
const frameTimesteps = (frames: number, timestep: number, first: boolean): number[] =>
  Array.from({ length: frames }, (_, frame) => (first && frame === 0 ? 0 : timestep));

/** negative + scale * (positive - negative); the positive row alone without guidance. */
function guide([positive, negative]: readonly Rows[], scale: number): Rows {
  if (scale <= 1) return positive!;
  return positive!.map((row, token) => row.map((value, i) => negative![token]![i]! + scale * (value - negative![token]![i]!)));
}

const stepped = (x: Grid, velocity: Grid, size: number): Grid =>
  mapGrid(x, (value, c, f, row, column) => value + at(velocity, c, f, row, column) * size);

function addGrid(trace: Trace, name: string, { channels, frames, rows, columns, data }: Grid): void {
  trace.set(name, { dtype: 'float32', shape: [1, channels, frames, rows, columns], data: Float32Array.from(data) });
}

/** Outputs of all guidance rows, [rows, pixels or actions, channels]: a video token's features are its patch's pixels, each with its channels. */
function addRows(trace: Trace, name: string, outs: readonly Rows[], channels: number): void {
  const data = outs.flatMap((rows) => rows.flatMap((row) => [...row]));
  const shape = [outs.length, data.length / outs.length / channels, channels];
  trace.set(name, { dtype: 'float32', shape, data: Float32Array.from(data) });
}
