/**
 * A prediction under way while the robot moves: when it began, and whether it has landed on the robot's clock. On virtual time, where the clock
 * stands still while the policy computes, the time that it takes is injected. Owned by the pipeline; it starts and decides nothing.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Chunk } from '../policy/contract.js';

export interface ThinkingOptions {
  readonly call: (signal: AbortSignal) => Promise<Chunk>;
  /** The robot's clock when it began. */
  readonly startNs: bigint;
  /** Injected time; undefined: what it takes. */
  readonly lastsNs: bigint | undefined;
  /** Aborts the call. */
  readonly signal: AbortSignal;
}

export class Thinking {
  /** When it lands, where that is injected. */
  readonly landsNs: bigint | undefined;
  readonly #controller = new AbortController();
  readonly #settled: Promise<void>;
  #isSettled = false;
  #chunk: Chunk | undefined;
  #error: unknown;
  #wallMs = 0;

  constructor({ call, startNs, lastsNs, signal }: ThinkingOptions) {
    this.landsNs = lastsNs === undefined ? undefined : startNs + lastsNs;
    const begun = performance.now();
    const abort = (): void => this.#controller.abort(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    this.#settled = call(this.#controller.signal)
      .then(
        (chunk) => void (this.#chunk = chunk),
        (error: unknown) => void (this.#error = error),
      )
      .finally(() => {
        signal.removeEventListener('abort', abort);
        this.#wallMs = performance.now() - begun;
        this.#isSettled = true;
      });
  }

  /** Whether it has landed. Lets the event loop turn, so that an answer that is there is heard. */
  async hasLanded(nowNs: bigint): Promise<boolean> {
    if (this.landsNs !== undefined) {
      if (nowNs < this.landsNs) return false;
      await this.#settled;
      return true;
    }
    await nextTurn();
    return this.#isSettled;
  }

  /** Resolves when the policy has answered, well or badly. */
  get settled(): Promise<void> {
    return this.#settled;
  }

  /** Wall-clock time that the call took. */
  get wallMs(): number {
    return this.#wallMs;
  }

  /** The chunk, once it has landed. Errors: the policy's. */
  result(): Chunk {
    if (this.#chunk) return this.#chunk;
    throw this.#error;
  }

  /** Nobody wants it any more: stops it and waits until it has stopped. */
  async abandon(): Promise<void> {
    this.#controller.abort(new Error('the chunk is not needed any more'));
    await this.#settled;
  }
}
