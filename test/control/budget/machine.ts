/**
 * A machine made of numbers: it answers with the Timing that the engine would give for a prediction, from pass costs, how full the cache is and how
 * slow it runs just now. Not a test itself.
 */
import type { PassCosts } from '../../../src/control/budget/cost.js';
import type { Rung, Think } from '../../../src/control/budget/types.js';
import type { Job, Timing } from '../../../src/policy/contract.js';
import { parseJob } from '../../../src/policy/job.js';
import { smallJob } from '../../support/fixtures.js';

export const jobWith = (changes: Record<string, unknown> = {}): Job => parseJob(smallJob(changes)).job;

export const rung = (videoSteps: number, changes: Partial<Rung> = {}): Rung => ({
  videoSteps,
  videoExecStep: -1,
  actionSteps: 10,
  guidance: true,
  imagineSteps: videoSteps,
  ...changes,
});

export const LADDER: readonly Rung[] = [
  rung(5),
  rung(3),
  rung(2, { videoExecStep: 2, actionSteps: 5 }),
  rung(1, { videoExecStep: 1, actionSteps: 2 }),
];
export const NEXT: Think = { commitFrames: 2, executingFrames: 2, imagines: true };
export const ALONE: Think = { commitFrames: 2, executingFrames: 0, imagines: false };

/** At a full cache, for K = 2. */
export const COSTS: PassCosts = {
  encodeMsPerMoment: 1,
  commitMsPerFrame: 10,
  video: [{ frames: 2, guided: false, passMs: 20 }],
  action: [{ frames: 2, guided: false, passMs: 4 }],
  otherMs: 1,
};

export interface Condition {
  /** 1: as measured. */
  readonly slowdown?: number;
  /** Share of a pass's cost at an empty cache that a full one adds. */
  readonly fill?: number;
  /** Rows of a guided pass cost so much of two. */
  readonly guided?: boolean;
}

/** What this machine would report. Passes cost in proportion to their frames. */
export function timingOf(think: Think, { videoSteps, videoExecStep, actionSteps, imagineSteps }: Rung, condition: Condition = {}): Timing {
  const { slowdown = 1, fill = 1, guided = false } = condition;
  const video = 20 * slowdown * fill * (guided ? 1.6 : 1);
  const action = 4 * slowdown * fill;
  const passes = videoExecStep === -1 ? videoSteps + 1 : videoExecStep;
  const share = think.executingFrames / 2;
  const encodeMs = slowdown * (think.commitFrames === 0 ? 6 : 4 * think.commitFrames);
  const commitMs = 10 * slowdown * fill * think.commitFrames;
  const imagineMs = think.executingFrames === 0 ? 0 : share * (think.imagines ? (imagineSteps + 1) * video + 2 * action : video + action);
  const [videoMs, actionMs] = [passes * video, actionSteps * action];
  const totalMs = encodeMs + commitMs + imagineMs + videoMs + actionMs + slowdown;
  // The engine counts a commit's two passes too.
  const extra = think.commitFrames > 0 ? 1 : 0;
  return { encodeMs, videoMs, actionMs, commitMs, imagineMs, totalMs, videoPasses: passes + extra, actionPasses: actionSteps + extra };
}
