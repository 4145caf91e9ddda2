/**
 * Temporal ensembling (Zhao et al., "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware", arXiv 2304.13705): predicts from the
 * present as often as it can, and executes the mean of all predictions of an action, weighted w_i = exp(-m i), i = 0 for the oldest.
 */
import { actionAt, stackActions } from '../channels.js';
import type { Strategy } from './pipeline.js';

/** The paper's m: the smaller, the more the new predictions count. */
const DECAY = 0.01;
/** Predictions of one action that are kept. */
const PREDICTIONS_MAX = 16;

/** The weighted mean of predictions [channels], oldest first. */
export function blend(predictions: readonly Float32Array[]): Float32Array {
  const mean = new Float32Array(predictions[0]?.length ?? 0);
  const weights = predictions.map((_, index) => Math.exp(-DECAY * index));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  mean.forEach((_, channel) => {
    mean[channel] = predictions.reduce((sum, prediction, index) => sum + ((weights[index] ?? 0) / total) * (prediction[channel] ?? 0), 0);
  });
  return mean;
}

export function ensemble(): Strategy {
  const known = new Map<number, Float32Array[]>();
  return {
    overlaps: true,
    imagines: false,
    ask: ({ executing }) => ({ executing }),
    place(first, actions, channels) {
      const count = actions.length / channels;
      const blended: Float32Array[] = [];
      for (const number of known.keys()) if (number < first) known.delete(number);
      for (let index = 0; index < count; index++) {
        const one = actionAt(actions, channels, index);
        const all = [...(known.get(first + index) ?? []), one].slice(-PREDICTIONS_MAX);
        known.set(first + index, all);
        blended.push(blend(all));
      }
      return stackActions(blended, channels);
    },
  };
}
