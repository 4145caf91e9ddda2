/**
 * How many denoising passes stop at a given noise level: arithmetic on the flow-matching schedule (docs/MODEL.md, section 4), so that "stopped at
 * s = 0.5" can be said for any number of steps. Pure; the schedule itself is in src/policy/schedule.ts.
 */
import { sigmas } from '../policy/schedule.js';

/** The job's video_exec_step that makes the last pass the one whose noise level is nearest to `stopSigma`; of two equally near ones the later. */
export function execStepNear(steps: number, shift: number, stopSigma: number): number {
  let best = 0;
  const levels = sigmas(steps, shift);
  levels.forEach((sigma, pass) => {
    if (Math.abs(sigma - stopSigma) <= Math.abs((levels[best] ?? Infinity) - stopSigma)) best = pass;
  });
  return best + 1;
}
