/**
 * What a control cycle tells its listeners while it runs, and the report it ends with. Types and a small emitter; a listener can watch the cycle but
 * never change or break it.
 */
import type { PremotorError } from '../errors.js';
import type { Frame, Progress, Tensor, Timing } from '../policy/contract.js';
import type { Transition } from './lifecycle.js';

/** One frame per camera, in the job's order. */
export type Observation = readonly Frame[];

export interface EpisodeOptions {
  readonly prompt: string;
  /** The episode ends after so many chunks. */
  readonly chunks: number;
  /** Seed of the policy's noise. Default: 0. */
  readonly seed?: number;
  /** Asked after every commit, in asynchronous modes after every latent frame; true ends the episode as 'reached'. */
  readonly until?: () => boolean;
  /** The policy has been given the past of an interrupted episode; go on from there. */
  readonly resume?: {
    /** Chunks that were completed. */
    readonly chunk: number;
    /** Latent frames that the policy remembers. */
    readonly frameIndex: number;
    /** The generation of the policy's episode. */
    readonly generation: number;
    /** Where the robot was when the episode began, [joints]; for actions that are relative to it. */
    readonly beganAtRad?: readonly number[];
  };
}

/** In asynchronous modes a report covers the time from the landing of the chunk before to its own. */
export interface ChunkReport {
  /** Number of the chunk in the episode, from 0. */
  readonly chunk: number;
  /** Its first latent frame. */
  readonly frameIndex: number;
  /** Setpoint knots executed, and how many of them had to be clamped. */
  readonly knots: number;
  readonly clampedKnots: number;
  /** Knots that the stream consumed while the policy thought about it: the delay. 0 in a synchronous cycle. */
  readonly delayKnots: number;
  /** Latent frames that were imagined, or taken from an old forecast, for what was being executed meanwhile. */
  readonly assumedFrames: number;
  /**
   * The rung of the ladder that the budget chose, whether it was expected to land in time, and how long it was expected to take, null before anything
   * was measured; null without a budget.
   */
  readonly rung: { readonly index: number; readonly fits: boolean; readonly expectedMs: number | null } | null;
  /** Over its observations: the oldest frame's age when it was used, and the largest time between the cameras' captures. */
  readonly frameAgeMsMax: number;
  readonly frameSkewMsMax: number;
  /** Wall-clock time of the three parts. */
  readonly predictMs: number;
  readonly executeMs: number;
  readonly commitMs: number;
  /** What the engine measured while predicting. */
  readonly timing: Timing;
}

/**
 * How an episode ended: every chunk done, `until` came true, a stop was requested, or something failed. The robot holds after each of them; only a
 * robot that itself failed could not be held, and then `holdError` says so.
 */
export type Outcome = 'finished' | 'reached' | 'stopped' | 'failed';

export interface CycleReport {
  readonly outcome: Outcome;
  /** Why it was stopped. */
  readonly stopReason?: string;
  readonly error?: PremotorError;
  readonly holdError?: PremotorError;
  /** Completed chunks: predicted, executed and committed. */
  readonly chunks: readonly ChunkReport[];
  /** Over the whole episode, chunks that were cut short included. */
  readonly knots: number;
  readonly clampedKnots: number;
  /** Time that passed on the robot's clock: until the last action ended or the episode was cut short, and with coming to rest and holding. */
  readonly activeMs: number;
  readonly robotMs: number;
  /** Listeners that threw. They were ignored. */
  readonly listenerErrors: readonly Error[];
}

export type CycleEvent =
  | { readonly type: 'state'; readonly transition: Transition }
  | {
      readonly type: 'started';
      readonly prompt: string;
      readonly chunks: number;
      readonly observation: Observation;
      /** [joints], where the robot was. */
      readonly positionsRad: Float64Array;
    }
  | { readonly type: 'progress'; readonly chunk: number; readonly progress: Progress }
  | {
      readonly type: 'predicted';
      readonly chunk: number;
      readonly frameIndex: number;
      readonly latents: Tensor;
      readonly timing: Timing;
      /** The frames before it, as they were imagined or forecast, [1, C, E, h, w]. */
      readonly assumed?: Tensor;
    }
  | {
      readonly type: 'executed';
      readonly chunk: number;
      /** First latent frame of what follows. */
      readonly frameIndex: number;
      /** [used, F, H], the clamped actions as they are committed. */
      readonly actions: Float32Array;
      readonly moments: readonly Observation[];
      readonly clampedKnots: number;
    }
  /** What the network saw of it, [1, C, F, h, w]; `frameIndex`: its first latent frame. */
  | { readonly type: 'remembered'; readonly frameIndex: number; readonly latents: Tensor }
  | { readonly type: 'committed'; readonly chunk: number; readonly report: ChunkReport }
  | { readonly type: 'holding'; readonly why: Outcome }
  | { readonly type: 'ended'; readonly report: CycleReport };

export type CycleListener = (event: CycleEvent) => void;

export class Listeners {
  readonly #listeners = new Set<CycleListener>();
  readonly errors: Error[] = [];

  /** Returns what removes the listener again. */
  add(listener: CycleListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  emit(event: CycleEvent): void {
    for (const listener of this.#listeners) {
      try {
        listener(event);
      } catch (error) {
        this.errors.push(error instanceof Error ? error : new Error(String(error)));
      }
    }
  }
}
