/**
 * Watches the wall clock against the monotonic one: a network time that arrives late, or a person, may step it by hours. Owned by the service,
 * which asks once in a look; nothing of the robot reads the wall clock, so a step is only told and counted.
 */

export interface WatchedClocks {
  readonly wallMs: () => number;
  readonly monotonicMs: () => number;
}

export const SYSTEM_CLOCKS: WatchedClocks = { wallMs: () => Date.now(), monotonicMs: () => performance.now() };

/** A smaller difference between two looks is how clocks are steered, not a step. */
export const STEP_MS_MIN = 50;

export class ClockWatch {
  readonly #clocks: WatchedClocks;
  #offsetMs: number;
  #steps = 0;
  #lastStepMs = 0;

  constructor(clocks: WatchedClocks = SYSTEM_CLOCKS) {
    this.#clocks = clocks;
    this.#offsetMs = this.#measure();
  }

  get steps(): number {
    return this.#steps;
  }

  /** Of the last step; forwards is positive. 0 without one. */
  get lastStepMs(): number {
    return this.#lastStepMs;
  }

  /** The step since the last look, whole milliseconds; undefined when there was none. */
  look(): number | undefined {
    const offsetMs = this.#measure();
    const byMs = offsetMs - this.#offsetMs;
    this.#offsetMs = offsetMs;
    if (Math.abs(byMs) <= STEP_MS_MIN) return undefined;
    this.#steps++;
    this.#lastStepMs = Math.round(byMs);
    return this.#lastStepMs;
  }

  /** A pause between two readings is no step: the pair that was read closest together counts. */
  #measure(): number {
    let best = { widthMs: Number.POSITIVE_INFINITY, offsetMs: 0 };
    for (let reading = 0; reading < READINGS; reading++) {
      const before = this.#clocks.monotonicMs();
      const wallMs = this.#clocks.wallMs();
      const after = this.#clocks.monotonicMs();
      if (after - before < best.widthMs) best = { widthMs: after - before, offsetMs: wallMs - (before + after) / 2 };
    }
    return best.offsetMs;
  }
}

const READINGS = 3;
