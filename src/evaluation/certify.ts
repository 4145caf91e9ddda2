/**
 * Certificates of a ladder's rungs: which configuration a rung is, and what its paired comparison with the first rung says. Pure;
 * src/cli/eval-certify.ts runs the episodes and writes the file.
 */
import type { Job, LadderCertificate, LadderRung } from '../policy/contract.js';
import { stepsText } from '../policy/ladder.js';
import type { TaskName } from '../sim/tasks/task.js';
import type { Configuration } from './configuration.js';
import type { Evaluation } from './evaluation.js';
import { comparePaired, type Paired, pairedInterval } from './statistics.js';

/** A rung's steps, undisturbed and in virtual time; how predicting and moving are interleaved is added by the caller. */
export function rungConfiguration(rung: LadderRung, { precision, kvCache }: Pick<Configuration, 'precision' | 'kvCache'>): Configuration {
  return {
    precision,
    ...(kvCache === undefined ? {} : { kvCache }),
    videoSteps: rung.video_steps,
    actionSteps: rung.action_steps,
    videoExecStep: rung.video_exec_step,
    guidance: rung.guidance,
    imagineSteps: rung.imagine_steps,
    memory: 'episode',
    disturbances: {},
    pace: 'virtual',
  };
}

export interface RungResult {
  /** In the ladder. */
  readonly index: number;
  readonly steps: string;
  readonly success: number;
  readonly successByTask: readonly { readonly task: TaskName; readonly success: number; readonly differencePoints: number }[];
  readonly paired: Paired;
  /** Of the first rung too, which is not written: its difference from itself. */
  readonly certificate: LadderCertificate;
  readonly isNonInferior: boolean;
}

/** Of all episodes of all tasks. */
export const shareOf = (evaluation: Evaluation): number =>
  evaluation.episodes.filter(({ verdict }) => verdict === 'succeeded').length / Math.max(1, evaluation.episodes.length);

export const outcomes = ({ episodes }: Evaluation): Map<string, boolean> =>
  new Map(episodes.map(({ task, seed, verdict }) => [`${task} ${seed}`, verdict === 'succeeded']));

/** Points of percent, to a hundredth. The lower bound is rounded down and the upper one up, so that rounding never certifies. */
export const points = (share: number, round: (value: number) => number = Math.round): number => round(1e4 * share) / 100;

export interface CertifyParts {
  readonly job: Job;
  readonly checkpointHash: string;
  readonly marginPoints: number;
  /** One per rung of the job's ladder, in its order, on the same seeds. */
  readonly evaluations: readonly Evaluation[];
}

/** Compares every rung with the first over all episodes of all tasks together. */
export function certifyRungs({ job, checkpointHash, marginPoints, evaluations }: CertifyParts): RungResult[] {
  const ladder = job.ladder ?? [];
  const [base] = evaluations;
  const [first] = ladder;
  if (!base || !first || ladder.length !== evaluations.length) throw new RangeError('certification needs the evaluation of every rung');
  const seeds = base.episodes.map(({ seed }) => seed);
  return evaluations.map((evaluation, index): RungResult => {
    const paired = comparePaired(outcomes(base), outcomes(evaluation));
    const { low, high } = pairedInterval(paired.onlyFirst, paired.onlySecond, paired.pairs);
    const steps = stepsText(ladder[index] as LadderRung);
    const certificate: LadderCertificate = {
      date: evaluation.date,
      checkpoint: checkpointHash,
      tool: evaluation.versions.premotor,
      tasks: evaluation.tasks.map(({ task }) => task),
      episodes: Math.max(...evaluation.tasks.map(({ episodes }) => episodes)),
      seed: Math.min(...seeds),
      success: shareOf(evaluation),
      base_success: shareOf(base),
      difference_points: points(paired.difference),
      interval_points: [points(low, Math.floor), points(high, Math.ceil)],
      margin_points: marginPoints,
      mode: evaluation.mode,
      rung: steps,
      base: stepsText(first),
    };
    const successByTask = evaluation.tasks.map(({ task, success }) => {
      const before = base.tasks.find((summary) => summary.task === task)?.success ?? 0;
      return { task, success, differencePoints: points(success - before) };
    });
    const isNonInferior = certificate.interval_points[0] >= -marginPoints;
    return { index, steps, success: certificate.success, successByTask, paired, certificate, isNonInferior };
  });
}
