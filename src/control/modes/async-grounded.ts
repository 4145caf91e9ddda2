/**
 * Grounded asynchronous control (the paper's algorithm; docs/MODEL.md section 7): before each prediction what was really seen and executed is
 * committed, and the frames that the executing actions will cause are imagined from there.
 */
import type { Strategy } from './pipeline.js';

export function asyncGrounded(): Strategy {
  return { overlaps: false, imagines: true, ask: ({ executing }) => ({ executing }) };
}
