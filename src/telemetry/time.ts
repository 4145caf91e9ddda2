/**
 * The time of telemetry: the wall clock as it was when it was last followed, carried on by the monotonic clock, and timers. Owned by the telemetry of
 * a run; tests bring a faster one. It never runs backwards between two calls of follow(), whatever is done to the machine's clock.
 */

export interface Time {
  /** Milliseconds since 1970. */
  nowMs(): number;
  /** Calls once; returns what prevents it. */
  after(delayMs: number, run: () => void): () => void;
  /** How far the machine's clock is from nowMs() now: what follow() would step. */
  stepMs(): number;
  /** Takes the machine's clock over. */
  follow(): void;
}

export interface Clocks {
  readonly wallMs: () => number;
  readonly monotonicMs: () => number;
}

const SYSTEM: Clocks = { wallMs: () => Date.now(), monotonicMs: () => performance.now() };

export class SystemTime implements Time {
  readonly #clocks: Clocks;
  #offsetMs: number;

  constructor(clocks: Clocks = SYSTEM) {
    this.#clocks = clocks;
    this.#offsetMs = clocks.wallMs() - clocks.monotonicMs();
  }

  nowMs(): number {
    return Math.floor(this.#clocks.monotonicMs() + this.#offsetMs);
  }

  /** A timer holds no process up: whoever must wait for something awaits it. */
  after(delayMs: number, run: () => void): () => void {
    const timer = setTimeout(run, delayMs);
    return () => clearTimeout(timer);
  }

  stepMs(): number {
    return this.#clocks.wallMs() - this.#clocks.monotonicMs() - this.#offsetMs;
  }

  follow(): void {
    this.#offsetMs += this.stepMs();
  }
}
