/**
 * The certificate of a precision and its KV cache: what the paired comparison of a checkpoint run so with itself in float32 says. Pure;
 * src/cli/eval-certify-precision.ts runs the episodes and writes the file.
 */
import type { PrecisionCertificate } from '../policy/certificate.js';
import { formOf, hasDefaultKvCache, type PrecisionPair } from '../policy/precision.js';
import { outcomes, points, shareOf } from './certify.js';
import type { Evaluation } from './evaluation.js';
import { comparePaired, pairedInterval } from './statistics.js';

export interface PrecisionParts {
  readonly pair: PrecisionPair;
  readonly marginPoints: number;
  /** The same scenes and steps, in float32 and as the pair says. */
  readonly base: Evaluation;
  readonly evaluation: Evaluation;
}

export function certifyPrecision({ pair, marginPoints, base, evaluation }: PrecisionParts): PrecisionCertificate {
  const paired = comparePaired(outcomes(base), outcomes(evaluation));
  const { low, high } = pairedInterval(paired.onlyFirst, paired.onlySecond, paired.pairs);
  return {
    format: 1,
    precision: pair.precision,
    ...(hasDefaultKvCache(pair) ? {} : { kv_cache: pair.kvCache }),
    weights: formOf(pair),
    base_precision: 'f32',
    checkpoint: evaluation.checkpoint.hash,
    date: evaluation.date,
    tool: evaluation.versions.premotor,
    commit: evaluation.versions.commit,
    backend: evaluation.checkpoint.backend,
    job: evaluation.job.hash,
    mode: evaluation.mode,
    video_steps: evaluation.job.videoSteps,
    action_steps: evaluation.job.actionSteps,
    tasks: evaluation.tasks.map(({ task }) => task),
    episodes: Math.max(...evaluation.tasks.map(({ episodes }) => episodes)),
    seed: Math.min(...evaluation.episodes.map(({ seed }) => seed)),
    pairs: paired.pairs,
    only_base: paired.onlyFirst,
    only_this: paired.onlySecond,
    success: shareOf(evaluation),
    base_success: shareOf(base),
    difference_points: points(paired.difference),
    interval_points: [points(low, Math.floor), points(high, Math.ceil)],
    mcnemar_p: paired.p,
    margin_points: marginPoints,
  };
}
