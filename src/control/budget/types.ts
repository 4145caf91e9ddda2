/**
 * What the control cycle and the budget say to each other: rungs of denoising, what a prediction consists of, which rung was chosen, and the
 * interface of a budget. Types only, owned by src/control/budget; nothing here computes.
 */
import type { Timing } from '../../policy/contract.js';

/** How finely a prediction denoises. */
export interface Rung {
  readonly videoSteps: number;
  /** -1: all passes. */
  readonly videoExecStep: number;
  readonly actionSteps: number;
  /** false: without guidance. true: the job's. */
  readonly guidance: boolean;
  /** Denoising steps that imagine the frames of executing actions. */
  readonly imagineSteps: number;
}

/** What a prediction consists of besides its rung. */
export interface Think {
  /** Latent frames that it commits first; 0 when nothing is committed. */
  readonly commitFrames: number;
  /** Latent frames whose actions are being executed; 0 when the robot waits. */
  readonly executingFrames: number;
  /** false: their frames are given (the stale forecast) instead of imagined. */
  readonly imagines: boolean;
}

export interface Choice {
  /** In the ladder; 0 is the best quality. */
  readonly index: number;
  /** undefined: the job's own steps. */
  readonly rung: Rung | undefined;
  /** Expected time of the prediction, without margin; Infinity before anything was measured. */
  readonly expectedMs: number;
  /** false: even the cheapest rung is expected to land too late. */
  readonly fits: boolean;
}

/** Chooses how finely to denoise. Pure: time comes in as numbers, and equal calls give equal answers. */
export interface Budget {
  /** The rung for a prediction that must land within `availableMs`. Infinity: nothing waits for it. */
  choose(think: Think, availableMs: number): Choice;
  /**
   * How long before its landing a prediction should begin, margin included, so that `choose` finds the best rung that this machine has time for.
   * Infinity before anything was measured: begin at once.
   */
  expectedMs(think: Think): number;
  /** What it took: the engine's Timing of the finished prediction. */
  note(choice: Choice, think: Think, timing: Timing): void;
}
