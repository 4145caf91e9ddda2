/**
 * Takes the cycles of the setpoint stream out of the shared memory while somebody wants them, a few at once, and hands all of them to everybody.
 * Owned by the rig of a robot on a bus; it changes nothing in the motion.
 */
import type { NativeSamples, NativeStreamClient } from '../native.js';

/** The ring holds two seconds of cycles; who sees them late sees them all the same. */
const take_period_ms = 8;

export class StreamSamples {
  readonly #client: Pick<NativeStreamClient, 'samples'>;
  readonly #listeners = new Set<(samples: NativeSamples) => void>();
  #timer: NodeJS.Timeout | undefined;

  constructor(client: Pick<NativeStreamClient, 'samples'>) {
    this.#client = client;
  }

  /** Returns what removes the listener again. What was before the first one looked is nobody's. */
  add(listener: (samples: NativeSamples) => void): () => void {
    if (this.#listeners.size === 0) this.#client.samples();
    this.#listeners.add(listener);
    this.#timer ??= setInterval(() => this.take(), take_period_ms);
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.close();
    };
  }

  /** What has come since the last time, now. */
  take(): void {
    if (this.#listeners.size === 0) return;
    const samples = this.#client.samples();
    if (samples.count > 0) for (const listener of this.#listeners) listener(samples);
  }

  /** Idempotent. */
  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#listeners.clear();
  }
}
