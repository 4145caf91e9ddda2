/**
 * What an execution mode is: the order in which an episode predicts, moves and commits. A mode owns that order and nothing else: the episode's
 * services (src/control/run.ts) own robot, cameras and safety. Types only; one file per mode beside this one.
 */
import type { Outcome } from '../events.js';
import type { EpisodeRun } from '../run.js';

export { MODE_NAMES, type ModeName } from '../../mode-names.js';

export interface Mode {
  /** Runs the chunks of an episode. Errors end the episode; a requested stop is thrown as StopRequested. */
  runChunks(run: EpisodeRun): Promise<Outcome>;
}
