/**
 * What a control cycle tells its listeners while it runs, and the report it ends with. Types and a small emitter; a listener can watch the cycle but
 * never change or break it.
 */
import type { PremotorError } from '../errors.js';
import type { Frame, Progress, Tensor, Timing } from '../policy/contract.js';
import type { Transition } from './lifecycle.js';

/** One frame per camera, in the job's order. */
export type Observation = readonly Frame[];

export interface ChunkReport {
  /** Number of the chunk in the episode, from 0. */
  readonly chunk: number;
  /** Its first latent frame. */
  readonly frameIndex: number;
  /** Setpoint knots executed, and how many of them had to be clamped. */
  readonly knots: number;
  readonly clampedKnots: number;
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
  | { readonly type: 'started'; readonly prompt: string; readonly chunks: number; readonly observation: Observation }
  | { readonly type: 'progress'; readonly chunk: number; readonly progress: Progress }
  | { readonly type: 'predicted'; readonly chunk: number; readonly frameIndex: number; readonly latents: Tensor; readonly timing: Timing }
  | {
      readonly type: 'executed';
      readonly chunk: number;
      /** [used, K, H], the clamped actions as they are committed. */
      readonly actions: Float32Array;
      readonly moments: readonly Observation[];
      readonly clampedKnots: number;
    }
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
