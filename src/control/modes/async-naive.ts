/**
 * Naive asynchronous control, the baseline: as the frames of the executing actions it keeps the forecast of the prediction that made these actions,
 * although it knows by now what was seen since.
 */
import type { Strategy } from './pipeline.js';

export function asyncNaive(): Strategy {
  return {
    overlaps: false,
    imagines: false,
    ask({ executing, forecast }) {
      const frames = forecast();
      return frames === undefined ? { executing } : { executing, forecast: frames };
    },
  };
}
