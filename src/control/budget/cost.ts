/**
 * The online model of what predictions cost: milliseconds per pass by kind, frames and guidance, per committed frame and per encoded moment. A cost
 * is a reference (at a full KV cache) times the pace at which the machine has lately run its kind of work. Owned by a budget; it has no clock and
 * sees only the engine's own measurements.
 */
import type { Job, PolicyInfo, Timing } from '../../policy/contract.js';
import type { Rung, Think } from './types.js';

const MOMENTS_PER_FRAME = 4;
/** A guided pass computes two rows; it never costs more than two passes of one. */
const GUIDED_ROWS = 2;
/** A nanosecond: what is shorter is the clock's noise, and ratios of it would leave the numbers. */
const CLOCK_MS = 1e-6;
/** Predictions that the pace remembers at least, in case the cache holds few chunks. */
const WINDOW_MIN = 16;

export interface PassCost {
  readonly frames: number;
  readonly guided: boolean;
  readonly passMs: number;
}

/** Measured at a full cache, as preflight.ts does. */
export interface PassCosts {
  readonly encodeMsPerMoment: number;
  readonly commitMsPerFrame: number;
  readonly video: readonly PassCost[];
  readonly action: readonly PassCost[];
  /** What a prediction takes beside its stages. */
  readonly otherMs: number;
}

export interface CostOptions {
  readonly job: Job;
  /** Without them the first measurements serve, scaled up by `saturation`. */
  readonly costs?: PassCosts;
  /** How much more a pass costs at a full cache than at an empty one, at least 1. Default: 1; saturationOf counts it. */
  readonly saturation?: number;
}

export interface StageMs {
  readonly encodeMs: number;
  readonly commitMs: number;
  readonly imagineMs: number;
  readonly videoMs: number;
  readonly actionMs: number;
  readonly otherMs: number;
  readonly totalMs: number;
}

type Modality = 'video' | 'action';
type Kind = Modality | 'encode' | 'commit' | 'other';

/** The job's own steps as a rung. */
export function rungOf(job: Job): Rung {
  return {
    videoSteps: job.num_inference_steps,
    videoExecStep: job.video_exec_step,
    actionSteps: job.action_num_inference_steps,
    guidance: true,
    imagineSteps: job.imagine_steps ?? job.num_inference_steps,
  };
}

/** Passes that the rung's video runs, the one at noise level 0 among them. */
export const videoPassesOf = ({ videoSteps, videoExecStep }: Rung): number => (videoExecStep === -1 ? videoSteps + 1 : videoExecStep);

const VALUE_BYTES: Readonly<Record<PolicyInfo['kvCache'], number>> = { f32: 4, bf16: 2, int8: 1 };

/**
 * Arithmetic of a token at a full cache over that at an empty one: a token meets every weight once and every cached key and value once. `parameters`
 * counts some weights that a pass does not meet, so this is a floor; the scales of an int8 cache count as values, a few in a hundred.
 */
export function saturationOf(info: Pick<PolicyInfo, 'cacheBytes' | 'parameters' | 'kvCache'>, job: Job): number {
  const rows = job.guidance_scale > 1 || job.action_guidance_scale > 1 ? GUIDED_ROWS : 1;
  const cachedValues = info.cacheBytes / rows / VALUE_BYTES[info.kvCache];
  return info.parameters > 0 ? 1 + cachedValues / info.parameters : 1;
}

/**
 * Follows a high quantile: the second largest of the newest `length` ratios. One hiccup does not move it, two do, and so does a step. The window is
 * as long as the cache takes to fill, so what a full cache cost is remembered until it is full again in the next episode.
 */
class Pace {
  readonly #ratios: number[];
  readonly #length: number;

  constructor(length: number, start: readonly number[]) {
    this.#length = length;
    this.#ratios = [...start];
  }

  add(ratio: number): void {
    this.#ratios.push(ratio);
    if (this.#ratios.length > this.#length) this.#ratios.shift();
  }

  get newest(): number | undefined {
    return this.#ratios.at(-1);
  }

  get high(): number {
    const sorted = [...this.#ratios].sort((a, b) => b - a);
    return sorted[1] ?? sorted[0] ?? 1;
  }
}

interface Reference {
  readonly kind: Kind;
  readonly frames: number;
  readonly guided: boolean;
  /** At a full cache: of one pass, moment or committed frame. */
  readonly ms: number;
}

const keyOf = (kind: Kind, frames: number, guided: boolean): string => `${kind} ${frames} ${guided}`;

/**
 * What the engine runs for executing actions: the actions, their frames' denoising, and frames and actions once more as a commit writes them. All
 * of it computes as many rows as the video's denoising.
 */
const imagining = ({ imagines }: Think, { imagineSteps }: Rung): { video: number; action: number } =>
  imagines ? { video: imagineSteps + 1, action: 2 } : { video: 1, action: 1 };

export class CostModel {
  readonly #job: Job;
  readonly #saturation: number;
  readonly #windowLength: number;
  readonly #references = new Map<string, Reference>();
  readonly #paces = new Map<Kind, Pace>();

  constructor({ job, costs, saturation = 1 }: CostOptions) {
    this.#job = job;
    this.#saturation = Math.max(1, saturation);
    // The cache holds attn_window / 2 chunks, and two measurements at a full one must outlast its filling.
    this.#windowLength = Math.max(WINDOW_MIN, Math.floor(job.attn_window / 2) + 2);
    if (!costs) return;
    this.#refer('encode', 1, false, costs.encodeMsPerMoment);
    this.#refer('commit', 1, false, costs.commitMsPerFrame);
    this.#refer('other', 1, false, costs.otherMs);
    for (const modality of ['video', 'action'] as const) {
      for (const { frames, guided, passMs } of costs[modality]) this.#refer(modality, frames, guided, passMs);
    }
    for (const kind of ['encode', 'commit', 'video', 'action', 'other'] as const) this.#paces.set(kind, new Pace(this.#windowLength, [1, 1]));
  }

  /** Expected time of a prediction by stage; Infinity where nothing was measured yet. */
  stages(think: Think, rung: Rung): StageMs {
    const { commitFrames, executingFrames } = think;
    const frames = this.#job.frame_chunk_size;
    const imagined = imagining(think, rung);
    const guided = this.#guided('video', rung);
    const encodeMs = commitFrames === 0 ? 0 : MOMENTS_PER_FRAME * commitFrames * (this.#known('encode') ?? 0);
    const commitMs = commitFrames === 0 ? 0 : commitFrames * (this.#known('commit') ?? this.#commitFrame(commitFrames));
    const imagineMs =
      executingFrames === 0
        ? 0
        : imagined.video * this.#pass('video', executingFrames, guided) + imagined.action * this.#pass('action', executingFrames, guided);
    const videoMs = videoPassesOf(rung) * this.#pass('video', frames, guided);
    const actionMs = rung.actionSteps * this.#pass('action', frames, this.#guided('action', rung));
    const otherMs = this.#known('other') ?? 0;
    return { encodeMs, commitMs, imagineMs, videoMs, actionMs, otherMs, totalMs: encodeMs + commitMs + imagineMs + videoMs + actionMs + otherMs };
  }

  /** Learns from a finished prediction. The passes are counted from the rung: Timing counts those of a commit among them. */
  note(think: Think, rung: Rung, timing: Timing): void {
    const { executingFrames } = think;
    const times = [timing.encodeMs, timing.commitMs, timing.imagineMs, timing.videoMs, timing.actionMs, timing.totalMs] as const;
    // A measurement that is no time teaches nothing.
    if (!times.every((ms) => Number.isFinite(ms) && ms >= 0)) return;
    const [encodeMs = 0, commitMs = 0, imagineMs = 0, videoMs = 0, actionMs = 0, totalMs = 0] = times.map((ms) => (ms < CLOCK_MS ? 0 : ms));
    // An episode's first prediction may be planned with a commit, but has nothing to commit yet.
    const commitFrames = commitMs > 0 ? think.commitFrames : 0;
    const frames = this.#job.frame_chunk_size;
    const guided = { video: this.#guided('video', rung), action: this.#guided('action', rung) };
    this.#learn('action', frames, guided.action, actionMs / rung.actionSteps);
    const chunkPassMs = videoMs / videoPassesOf(rung);
    if (executingFrames === 0) this.#learn('video', frames, guided.video, chunkPassMs);
    else this.#learnVideo(think, rung, imagineMs, chunkPassMs);
    if (commitFrames > 0) {
      this.#learn('encode', 1, false, encodeMs / (MOMENTS_PER_FRAME * commitFrames), 1);
      this.#learn('commit', 1, false, commitMs / commitFrames);
    } else if (encodeMs > 0 && this.#known('encode') === undefined) {
      // The one observation that an episode begins with costs more than a moment of a commit: it serves until there is one.
      this.#learn('encode', 1, false, encodeMs, 1);
    }
    this.#learn('other', 1, false, Math.max(0, totalMs - encodeMs - commitMs - imagineMs - videoMs - actionMs), 1);
  }

  /** Video passes of the chunk and of the imagined frames are one kind of work: the slower of the two is the prediction's pace. */
  #learnVideo(think: Think, rung: Rung, imagineMs: number, chunkPassMs: number): void {
    const guided = this.#guided('video', rung);
    const { video, action } = imagining(think, rung);
    const actionMs = action * this.#pass('action', think.executingFrames, guided);
    // The share of the actions is an estimate from above: it must not make the frames look free.
    const imaginedPassMs = Math.max((imagineMs - actionMs) / video, imagineMs / (video + action));
    const chunk = { frames: this.#job.frame_chunk_size, passMs: chunkPassMs };
    const imagined = { frames: think.executingFrames, passMs: imaginedPassMs };
    const ratio = ({ frames, passMs }: typeof chunk): number => passMs / (this.#references.get(keyOf('video', frames, guided))?.ms ?? Infinity);
    // Where both have as many frames they share a reference, and the second introduction changes nothing.
    const [slower, other] = ratio(imagined) > ratio(chunk) ? [imagined, chunk] : [chunk, imagined];
    this.#learn('video', slower.frames, guided, slower.passMs);
    this.#introduce('video', other.frames, guided, other.passMs, this.#saturation);
  }

  #learn(kind: Kind, frames: number, guided: boolean, ms: number, saturation = this.#saturation): void {
    const { ms: reference } = this.#introduce(kind, frames, guided, ms, saturation);
    if (reference > 0) this.#paceOf(kind).add(ms / reference);
  }

  /** The reference of this work; what was never measured before gets one that agrees with the present pace. */
  #introduce(kind: Kind, frames: number, guided: boolean, ms: number, saturation: number): Reference {
    const known = this.#references.get(keyOf(kind, frames, guided));
    if (known && (known.ms > 0 || ms === 0)) return known;
    const newest = this.#paceOf(kind).newest;
    return this.#refer(kind, frames, guided, newest === undefined || newest === 0 ? ms * saturation : ms / newest, newest === undefined);
  }

  #refer(kind: Kind, frames: number, guided: boolean, ms: number, isFirst = false): Reference {
    const reference: Reference = { kind, frames, guided, ms };
    this.#references.set(keyOf(kind, frames, guided), reference);
    // The first measurement stands for a full cache from now on: twice, so that the next, cheaper one is not taken for the truth.
    if (isFirst && ms > 0) this.#paces.set(kind, new Pace(this.#windowLength, [1, 1]));
    return reference;
  }

  #paceOf(kind: Kind): Pace {
    const pace = this.#paces.get(kind) ?? new Pace(this.#windowLength, []);
    this.#paces.set(kind, pace);
    return pace;
  }

  #known(kind: 'encode' | 'commit' | 'other'): number | undefined {
    const reference = this.#references.get(keyOf(kind, 1, false));
    return reference && reference.ms * this.#paceOf(kind).high;
  }

  /** A commit that was never measured: its two passes. */
  #commitFrame(frames: number): number {
    const guided = this.#job.guidance_scale > 1;
    return (this.#pass('video', frames, guided) + this.#pass('action', frames, guided)) / frames;
  }

  /**
   * Of work that was never measured, the lowest upper bound that measured work gives: more frames in proportion, fewer not cheaper, two rows for
   * one.
   */
  #pass(modality: Modality, frames: number, guided: boolean): number {
    const known = this.#references.get(keyOf(modality, frames, guided));
    const pace = this.#paceOf(modality).high;
    if (known) return known.ms * pace;
    let bound = Infinity;
    for (const reference of this.#references.values()) {
      if (reference.kind !== modality) continue;
      const rows = guided && !reference.guided ? GUIDED_ROWS : 1;
      bound = Math.min(bound, reference.ms * rows * Math.max(1, frames / reference.frames));
    }
    return bound * pace;
  }

  #guided(modality: Modality, rung: Rung): boolean {
    const scale = modality === 'video' ? this.#job.guidance_scale : this.#job.action_guidance_scale;
    return rung.guidance && scale > 1;
  }
}
