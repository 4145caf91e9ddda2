/**
 * One call at a time: the doorway of every policy. A second call while one runs is refused at once (backpressure, not a queue), but for one that
 * begins an episode, which stops the old episode's prediction. Calls after close are refused, aborts reach the running call. Owned by one policy; it
 * knows nothing about what the calls do.
 */
import { PremotorError } from '../errors.js';
import { toPremotorError } from '../native.js';

/** Calls that a new episode stops, and those that it waits for. */
const PREDICTIONS: ReadonlySet<string> = new Set(['predict', 'predictNext']);
const GIVES_WAY: ReadonlySet<string> = new Set([...PREDICTIONS, 'commit', 'occupy', 'encoderState']);

const UNCHANGED = 'Nothing changed; call it again when wanted.';

/** What a call that a new episode stopped was aborted with. */
const EPISODE_RESET = new Error('the episode was reset');

interface Running {
  readonly name: string;
  readonly controller: AbortController;
  readonly settled: Promise<void>;
}

interface Entry<T> {
  readonly name: string;
  readonly signal: AbortSignal | undefined;
  readonly body: (signal: AbortSignal) => Promise<T>;
  /** Given: the call begins an episode. */
  readonly check?: () => void;
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
  run<T>(name: string, signal: AbortSignal | undefined, body: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return this.#enter({ name, signal, body });
  }

  /**
   * As run, for a call that begins an episode: predictions of the old one are aborted, commits are waited for. `check` comes before that, so that a
   * call with wrong arguments stops nothing. Errors: also those of `check`; BUSY only beside another beginning or a decode.
   */
  begin<T>(name: string, signal: AbortSignal | undefined, body: (signal: AbortSignal) => Promise<T>, check: () => void): Promise<T> {
    return this.#enter({ name, signal, body, check });
  }

  async #enter<T>({ name, signal, body, check }: Entry<T>): Promise<T> {
    if (this.#closing !== undefined) {
      throw new PremotorError('CLOSED', `${name}: expected an open policy, found a closed one. Load the policy again.`, {
        expected: 'open',
        found: 'closed',
      });
    }
    const before = this.#running;
    if (before !== undefined && !(check !== undefined && GIVES_WAY.has(before.name))) {
      const found = `${before.name} running`;
      const message = `${name}: expected an idle policy, found ${found}. Await it, or abort it, before the next call: calls do not queue.`;
      throw new PremotorError('BUSY', message, { expected: 'idle', found });
    }
    if (signal?.aborted) throw aborted(name, signal.reason);
    check?.();
    const controller = new AbortController();
    const forward = (): void => controller.abort(signal?.reason);
    let settle: () => void = () => undefined;
    const own = { name, controller, settled: new Promise<void>((resolve) => (settle = resolve)) };
    this.#running = own;
    signal?.addEventListener('abort', forward, { once: true });
    try {
      if (before !== undefined) await displace(before, name, controller.signal);
      const result = await body(controller.signal);
      // It came too late to be stopped, but its episode is over.
      if (controller.signal.reason === EPISODE_RESET) throw aborted(name, EPISODE_RESET, afterAbort(name, EPISODE_RESET));
      return result;
    } catch (error) {
      const known = toPremotorError(error);
      const { aborted: stopped, reason } = controller.signal;
      if (known.code === 'ABORTED' && stopped)
        throw aborted(name, reason, this.#closing === undefined ? afterAbort(name, reason) : 'Load the policy again.');
      throw known;
    } finally {
      signal?.removeEventListener('abort', forward);
      if (this.#running === own) this.#running = undefined;
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

/** Stops a prediction of the old episode, or waits for what must not be stopped. */
async function displace(before: Running, name: string, signal: AbortSignal): Promise<void> {
  if (PREDICTIONS.has(before.name)) before.controller.abort(EPISODE_RESET);
  await before.settled;
  if (signal.aborted) throw aborted(name, signal.reason);
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
function afterAbort(name: string, reason: unknown): string {
  if (reason === EPISODE_RESET) return 'What it would have given belongs to an episode that is over; predict in the new one.';
  if (name === 'predict' || name === 'decode') return UNCHANGED;
  if (name === 'predictNext') return 'What was seen and executed is committed; go on with predict or with the next moments.';
  return 'Call reset before the next prediction.';
}
