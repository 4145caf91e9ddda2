/**
 * Runs the episodes of one configuration under a progress bar: what `premotor eval` and the reports and certificates made of many such runs share.
 * Owned by the command line; src/evaluation runs and measures.
 */
import { evaluate } from '../evaluation/evaluation.js';
import { workersFor } from './eval-options.js';
import type { ProgressBar } from './progress.js';

export type EvaluateOptions = Parameters<typeof evaluate>[0];

export interface ShownRun extends Omit<EvaluateOptions, 'workers' | 'firstSeed' | 'onEpisode'> {
  readonly seed: number;
  readonly workers: number | undefined;
  readonly bar: ProgressBar;
}

/** Errors: those of evaluate. */
export function evaluateShown({ bar, seed, workers, ...run }: ShownRun): ReturnType<typeof evaluate> {
  const total = run.tasks.length * run.episodes;
  bar.update('running episodes', 0, total);
  return evaluate({
    ...run,
    workers: workersFor(workers, run.configuration.pace === 'real'),
    firstSeed: seed,
    onEpisode: (_, done) => bar.update('running episodes', done, total),
  });
}
