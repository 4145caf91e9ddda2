/**
 * The ladder of a job as the budget uses it: only rungs that `premotor eval certify` found good enough, with this checkpoint and these very steps.
 * Owned by whoever starts a control cycle; it measures nothing and never changes a job.
 */
import { PremotorError } from '../../errors.js';
import type { Job, LadderRung } from '../../policy/contract.js';
import { stepsText } from '../../policy/ladder.js';
import { rungOf } from './cost.js';
import type { Rung } from './types.js';

interface Problem {
  readonly field: string;
  readonly expected: string;
  readonly found: string;
}

export interface LadderOptions {
  /** Take rungs that are not certified all the same. Default: false. */
  readonly force?: boolean;
}

/**
 * The rungs, best first; none when the job has no ladder. Errors: JOB_INVALID when the first rung is not the job's own steps, LADDER_UNCERTIFIED
 * unless forced.
 */
export function ladderOf(job: Job, checkpointHash: string, { force = false }: LadderOptions = {}): readonly Rung[] {
  const rungs = rungsOf(job);
  const [problem] = certificateProblems(job, checkpointHash);
  if (problem && !force) {
    const message =
      `The job's ${problem.field} is not certified: expected ${problem.expected}, found ${problem.found}. ` +
      'Run `premotor eval certify --write` with this checkpoint and job, remove the rung, or force the ladder.';
    throw new PremotorError('LADDER_UNCERTIFIED', message, { ...problem });
  }
  return rungs;
}

/** The rungs, certified or not. Errors: JOB_INVALID when the first is not the job's own steps. */
export function rungsOf(job: Job): readonly Rung[] {
  const [first] = job.ladder ?? [];
  const own = stepsText(asLadderRung(rungOf(job)));
  if (first && stepsText(first) !== own) {
    const details = { field: 'ladder[0]', expected: `the job's own steps (${own})`, found: stepsText(first) };
    const message = `The job is not usable. job.ladder[0]: expected ${details.expected}, found ${details.found}. Begin the ladder with them.`;
    throw new PremotorError('JOB_INVALID', message, details);
  }
  return (job.ladder ?? []).map((rung) => ({
    videoSteps: rung.video_steps,
    videoExecStep: rung.video_exec_step,
    actionSteps: rung.action_steps,
    guidance: rung.guidance,
    imagineSteps: rung.imagine_steps,
  }));
}

/** A rung in the job file's names. */
export const asLadderRung = ({ videoSteps, videoExecStep, actionSteps, guidance, imagineSteps }: Rung): Omit<LadderRung, 'certificate'> => ({
  video_steps: videoSteps,
  video_exec_step: videoExecStep,
  action_steps: actionSteps,
  guidance,
  imagine_steps: imagineSteps,
});

/** What keeps each rung from being used; the first one is what the others are compared with and needs no certificate. */
export function certificateProblems(job: Job, checkpointHash: string): Problem[] {
  const [base, ...others] = job.ladder ?? [];
  if (!base) return [];
  return others.flatMap((rung, index) => problemOf(rung, `ladder[${index + 1}]`, stepsText(base), checkpointHash) ?? []);
}

function problemOf(rung: LadderRung, field: string, base: string, checkpointHash: string): Problem | undefined {
  const { certificate } = rung;
  const steps = stepsText(rung);
  if (!certificate) return { field, expected: `a certificate of "${steps}"`, found: 'none' };
  if (certificate.checkpoint !== checkpointHash) {
    return { field, expected: `a certificate of checkpoint ${checkpointHash}`, found: `one of ${certificate.checkpoint}` };
  }
  if (certificate.rung !== steps || certificate.base !== base) {
    const found = `one of "${certificate.rung}" against "${certificate.base}"`;
    return { field, expected: `a certificate of "${steps}" against "${base}"`, found };
  }
  const [low] = certificate.interval_points;
  if (low >= -certificate.margin_points) return undefined;
  const expected = `a success at most ${certificate.margin_points} points below the first rung's`;
  return { field, expected, found: `a 95 % interval that begins at ${low} points` };
}
