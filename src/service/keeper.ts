/**
 * Keeps one thing open, the robot or the policy: opens it in the background, tries again with a growing pause when that fails, and knows why it is
 * not there. Owned by the service, which says when it is wanted. It never opens two at a time.
 */
import type { PremotorError } from '../errors.js';
import { toPremotorError } from '../native.js';

export interface KeeperOptions<T> {
  readonly open: () => Promise<T>;
  readonly close: (one: T) => Promise<void>;
  /** First pause after a failure; doubled with each further one. */
  readonly retryMs: number;
  readonly monotonicMs: () => number;
  readonly onOpen?: (one: T) => void;
  readonly onFailure?: (error: PremotorError) => void;
}

/** The pause grows no further than so many times the first. */
export const RETRY_FACTOR_MAX = 30;

export class Keeper<T> {
  readonly #options: KeeperOptions<T>;
  #value: T | undefined;
  #error: PremotorError | undefined;
  #opening: Promise<T> | undefined;
  #failures = 0;
  #dueMs = 0;
  #isClosed = false;

  constructor(options: KeeperOptions<T>) {
    this.#options = options;
  }

  get value(): T | undefined {
    return this.#value;
  }

  /** Why it is not there; undefined before the first try has ended, and while it is there. */
  get error(): PremotorError | undefined {
    return this.#error;
  }

  get isOpening(): boolean {
    return this.#opening !== undefined;
  }

  /** Begins to open it if it is not there and a try is due. */
  want(): void {
    if (this.#value !== undefined || this.#opening || this.#isClosed || this.#options.monotonicMs() < this.#dueMs) return;
    void this.take().catch(() => undefined);
  }

  /** It, opened now if it is not there. Errors: those of opening it. */
  take(): Promise<T> {
    if (this.#value !== undefined) return Promise.resolve(this.#value);
    this.#opening ??= this.#open(this.#options.open).finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  /** It is there no more; it is opened again when that is wanted, after a pause. */
  lost(error: PremotorError): void {
    if (this.#value === undefined) return;
    this.#value = undefined;
    this.#fail(error);
  }

  /** Closes what is there and opens another one in its place. Errors: those of closing and of opening. */
  renew(open: () => Promise<T>): Promise<T> {
    const old = this.#value;
    this.#value = undefined;
    const make = async (): Promise<T> => {
      if (old !== undefined) await this.#options.close(old);
      return this.#open(open);
    };
    const opening = make().finally(() => {
      this.#opening = undefined;
    });
    this.#opening = opening;
    return opening;
  }

  /** Idempotent; waits for an opening that is under way. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#opening?.catch(() => undefined);
    const old = this.#value;
    this.#value = undefined;
    if (old !== undefined) await this.#options.close(old);
  }

  async #open(open: () => Promise<T>): Promise<T> {
    try {
      const opened = await open();
      this.#value = opened;
      this.#error = undefined;
      this.#options.onOpen?.(opened);
      return opened;
    } catch (thrown) {
      const error = toPremotorError(thrown);
      this.#fail(error);
      this.#options.onFailure?.(error);
      throw error;
    }
  }

  #fail(error: PremotorError): void {
    const { retryMs, monotonicMs } = this.#options;
    this.#error = error;
    this.#dueMs = monotonicMs() + retryMs * Math.min(RETRY_FACTOR_MAX, 2 ** Math.min(this.#failures++, 10));
  }

  /** It has proved itself: the next pause is the first again. */
  proven(): void {
    this.#failures = 0;
  }
}
