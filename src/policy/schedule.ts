/**
 * The flow-matching schedule (docs/MODEL.md, section 4) as far as jobs speak of it: noise levels, and the pass at which a given one is reached. Pure;
 * the engine's own schedule is in cpp/engine/schedule.cpp.
 */

/** Noise levels of the N denoising passes, from 1 down; the final pass at 0 is not among them. */
export function sigmas(steps: number, shift: number): number[] {
  return Array.from({ length: steps }, (_, pass) => {
    const u = 1 - pass / steps;
    return (shift * u) / (1 + (shift - 1) * u);
  });
}

/** Levels this close count as equal: people write 0.5556. */
const TOLERANCE = 1e-4;

/**
 * The video_exec_step that stops after the pass which brings the noise level to at most `stopSigma`, of 0 .. 1. Pass n steps from level n to the next
 * one, so the level after the last denoising pass is 0.
 */
export function execStepAtMost(steps: number, shift: number, stopSigma: number): number {
  const after = [...sigmas(steps, shift).slice(1), 0];
  return after.findIndex((sigma) => sigma <= stopSigma + TOLERANCE) + 1;
}
