/**
 * Real-time chunking (Black, Galliker, Levine, "Real-Time Execution of Action Chunking Flow Policies", arXiv 2506.07339): predicts from the present
 * and paints the new chunk in around the actions that will have been executed when it lands, with a soft mask over the rest of the plan. It needs no
 * training and imagines nothing.
 */
import { actionAt, stackActions } from '../channels.js';
import type { Strategy } from './pipeline.js';
import { softMask } from './timing.js';

/** Largest factor of the correction, as in the paper. */
const BETA_MAX = 5;

export function rtc(): Strategy {
  return {
    overlaps: true,
    imagines: false,
    ask({ executing, ahead, delayActions, chunkActions, channels }) {
      const plan = ahead();
      const overlap = plan.length / channels;
      if (overlap === 0) return { executing };
      // What lies beyond the plan has no weight; it only has to be there.
      const known = (index: number): Float32Array => actionAt(plan, channels, Math.min(index, overlap - 1));
      const actions = stackActions(
        Array.from({ length: chunkActions }, (_, index) => known(index)),
        channels,
      );
      return { executing, inpaint: { actions, weights: softMask(chunkActions, delayActions, overlap), betaMax: BETA_MAX } };
    },
  };
}
