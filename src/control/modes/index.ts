/** The modes by name. Owned by the control cycle, which picks one; it runs nothing itself. */
import { asyncGrounded } from './async-grounded.js';
import { asyncNaive } from './async-naive.js';
import { ensemble } from './ensemble.js';
import type { Mode, ModeName } from './mode.js';
import { Pipeline } from './pipeline.js';
import { rtc } from './rtc.js';
import { sync } from './sync.js';

export const MODES: Readonly<Record<ModeName, Mode>> = {
  sync,
  'async-naive': { runChunks: (run) => new Pipeline(run, asyncNaive()).runChunks() },
  'async-grounded': { runChunks: (run) => new Pipeline(run, asyncGrounded()).runChunks() },
  rtc: { runChunks: (run) => new Pipeline(run, rtc()).runChunks() },
  ensemble: { runChunks: (run) => new Pipeline(run, ensemble()).runChunks() },
};
