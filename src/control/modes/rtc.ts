/**
 * Real-time chunking (Black, Galliker, Levine, "Real-Time Execution of Action Chunking Flow Policies", arXiv 2506.07339): predicts from the present
 * and paints the new chunk in around the actions that will have been executed when it lands, with a soft mask over the rest of the plan. It needs no
 * training and imagines nothing.
 */
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
      const actions = new Float32Array(channels * chunkActions);
      for (let channel = 0; channel < channels; channel++) {
        for (let index = 0; index < chunkActions; index++) {
          actions[channel * chunkActions + index] = plan[channel * overlap + Math.min(index, overlap - 1)] ?? 0;
        }
      }
      return { executing, inpaint: { actions, weights: softMask(chunkActions, delayActions, overlap), betaMax: BETA_MAX } };
    },
  };
}
