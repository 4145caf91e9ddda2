/**
 * An observer that may come later than the service: a new robot has no certificate before its authority has signed one, and all else must not wait
 * for that. While it cannot be opened it is tried again between episodes. Owned by observers.ts; it hides no error but those that a file mends.
 */
import { PremotorError } from '../errors.js';
import type { Observer, ObserverParts, RunControl, StandbyAbout } from '../tap/observer.js';
import type { ObserverFactory } from './observers.js';

const RETRY_MS = 10_000;

export interface LateOptions {
  readonly name: Observer['name'];
  /** Errors that may go away by themselves; all others are the caller's. */
  readonly codes: readonly string[];
  readonly monotonicMs?: () => number;
}

/** A factory whose observer may be opened later. Errors: those of `factory` with other codes. */
export function openLate(factory: ObserverFactory, options: LateOptions): ObserverFactory {
  return async (config, parts) => {
    const open = (): Promise<Observer | undefined> => factory(config, parts);
    try {
      return await open();
    } catch (error) {
      if (!(error instanceof PremotorError) || !options.codes.includes(error.code)) throw error;
      parts.onWarning(error);
      return new LateObserver(open, error, parts, options);
    }
  };
}

class LateObserver implements Observer {
  readonly name: Observer['name'];
  readonly #open: () => Promise<Observer | undefined>;
  readonly #parts: ObserverParts;
  readonly #monotonicMs: () => number;
  #error: PremotorError | undefined;
  #observer: Observer | undefined;
  #attended: readonly [StandbyAbout, RunControl] | undefined;
  #opening: Promise<void> | undefined;
  #dueMs: number;
  #isInEpisode = false;
  #isClosed = false;

  constructor(open: () => Promise<Observer | undefined>, error: PremotorError, parts: ObserverParts, options: LateOptions) {
    const { name, monotonicMs = () => performance.now() } = options;
    this.name = name;
    this.#open = open;
    this.#error = error;
    this.#parts = parts;
    this.#monotonicMs = monotonicMs;
    this.#dueMs = monotonicMs() + RETRY_MS;
  }

  get isConnected(): boolean {
    return this.#observer?.isConnected ?? false;
  }

  get notOpen(): PremotorError | undefined {
    return this.#error;
  }

  async begin(...told: Parameters<Observer['begin']>): Promise<void> {
    this.#isInEpisode = true;
    await this.#opening;
    await this.#observer?.begin(...told);
  }

  async attend(about: StandbyAbout, control: RunControl): Promise<void> {
    this.#attended = [about, control];
    await this.#observer?.attend?.(about, control);
  }

  service(report: Parameters<NonNullable<Observer['service']>>[0]): void {
    this.#observer?.service?.(report);
    if (this.#observer || this.#opening || this.#isInEpisode || this.#isClosed || this.#monotonicMs() < this.#dueMs) return;
    this.#opening = this.#try().finally(() => {
      this.#opening = undefined;
      this.#dueMs = this.#monotonicMs() + RETRY_MS;
    });
  }

  event(...told: Parameters<Observer['event']>): void {
    this.#observer?.event(...told);
  }

  motion(...told: Parameters<Observer['motion']>): void {
    this.#observer?.motion(...told);
  }

  async end(...told: Parameters<Observer['end']>): Promise<void> {
    this.#isInEpisode = false;
    await this.#observer?.end(...told);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#opening;
    await this.#observer?.close();
  }

  async #try(): Promise<void> {
    try {
      const observer = await this.#open();
      this.#error = undefined;
      this.#observer = observer;
      if (this.#attended) await observer?.attend?.(...this.#attended);
    } catch (error) {
      const found = error instanceof Error ? error.message : String(error);
      // Told once; when another file is missing, or what came is wrong, again.
      if (found === this.#error?.message) return;
      this.#error =
        error instanceof PremotorError ? error : new PremotorError('OBSERVER_FAILED', found, { expected: `a working ${this.name}`, found });
      this.#parts.onWarning(this.#error);
    }
  }
}
