/**
 * One call at a time: the doorway of every policy. A second call while one runs is refused at once (backpressure, not a queue), calls after close are
 * refused, aborts reach the running call. Owned by one policy; it knows nothing about what the calls do.
 */
import { PremotorError } from '../errors.js';
import { toPremotorError } from '../native.js';

const UNCHANGED = 'Nothing changed; call it again when wanted.';

interface Running {
  readonly name: string;
  readonly controller: AbortController;
  readonly settled: Promise<void>;
}

export class Gate {
  #running: Running | undefined;
  #closing: Promise<void> | undefined;

  /** Name of the running call. */
  get running(): string | undefined {
    return this.#running?.name;
  }

  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /**
   * Runs `body` unless another call runs. The signal that `body` gets aborts when the caller's does and when the policy is closed. `body` starts
   * before this returns, so that whatever it checks first is checked in the order of the calls. Errors: CLOSED, BUSY, ABORTED and those of `body`.
   */
  async run<T>(name: string, signal: AbortSignal | undefined, body: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#closing !== undefined) {
      throw new PremotorError('CLOSED', `${name}: expected an open policy, found a closed one. Load the policy again.`, {
        expected: 'open',
        found: 'closed',
      });
    }
    if (this.#running !== undefined) {
      const found = `${this.#running.name} running`;
      const message = `${name}: expected an idle policy, found ${found}. Await it, or abort it, before the next call: calls do not queue.`;
      throw new PremotorError('BUSY', message, { expected: 'idle', found });
    }
    if (signal?.aborted) throw aborted(name, signal.reason);
    const controller = new AbortController();
    const forward = (): void => controller.abort(signal?.reason);
    let settle: () => void = () => undefined;
    this.#running = { name, controller, settled: new Promise<void>((resolve) => (settle = resolve)) };
    signal?.addEventListener('abort', forward, { once: true });
    try {
      return await body(controller.signal);
    } catch (error) {
      const known = toPremotorError(error);
      if (known.code === 'ABORTED' && controller.signal.aborted)
        throw aborted(name, controller.signal.reason, this.#closing === undefined ? afterAbort(name) : 'Load the policy again.');
      throw known;
    } finally {
      signal?.removeEventListener('abort', forward);
      this.#running = undefined;
      settle();
    }
  }

  /** Refuses new calls, aborts the running one, waits for it, then runs `finish` once; later calls get the same promise. */
  close(finish: () => Promise<void>): Promise<void> {
    this.#closing ??= (async () => {
      this.#running?.controller.abort(new Error('the policy was closed'));
      await this.#running?.settled;
      await finish();
    })();
    return this.#closing;
  }
}

/** The error of an aborted call; its cause is the signal's reason. Without a remedy the engine had not begun. */
export function aborted(name: string, reason: unknown, remedy = UNCHANGED): PremotorError {
  const why = reason instanceof Error ? reason.message : String(reason ?? 'no reason given');
  return new PremotorError('ABORTED', `${name} was aborted: ${why}. ${remedy}`, {
    expected: 'a call that is let run',
    found: 'an abort',
    cause: reason,
  });
}

/** What an abort of a call that the engine had begun leaves behind. */
function afterAbort(name: string): string {
  if (name === 'predict' || name === 'decode') return UNCHANGED;
  if (name === 'predictNext') return 'What was seen and executed is committed; go on with predict or with the next moments.';
  return 'Call reset before the next prediction.';
}
