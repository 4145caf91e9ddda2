/** An episode's observer that hears nothing, for tests that look elsewhere; a test may listen to some of it. */
import type { EpisodeObserver } from '../../src/runtime/episode.js';

export function silentObserver(change: Partial<EpisodeObserver> = {}): EpisodeObserver {
  const nothing = (): void => undefined;
  const shared = { ready: nothing, cycle: nothing, decoding: nothing, decoded: nothing, noAnimation: nothing };
  return { ...shared, resumed: nothing, recovery: nothing, warning: nothing, notice: nothing, ...change };
}
