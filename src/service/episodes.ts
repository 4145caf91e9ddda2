/**
 * The episodes of a service: one at a time, on the robot and the policy that the service keeps open. Owned by the service; it opens a recording
 * for each episode, counts how they end, and knows when the running one got somewhere last. It decides no state and arms nothing that the service
 * did not.
 */
import type { RobotConfig } from '../config/schema.js';
import type { CycleReport } from '../control/events.js';
import { PremotorError } from '../errors.js';
import { toPremotorError } from '../native.js';
import type { Policy } from '../policy/contract.js';
import { Observers, PASSING, together } from '../runtime/observers.js';
import { type EpisodeObserver, PreparedEpisode } from '../runtime/prepared-episode.js';
import type { Rig } from '../runtime/rig.js';
import type { RunControl } from '../tap/observer.js';
import type { ServiceLog } from './log.js';

/** What may be different from the configuration. */
export interface EpisodeWish {
  readonly task?: string | undefined;
  readonly seed?: number | undefined;
  readonly instruction?: string | undefined;
}

export interface EpisodesParts {
  readonly config: RobotConfig;
  /** The robot for an episode of this configuration; a simulated world that was used is set up anew, which takes the power away. */
  readonly rigFor: (config: RobotConfig) => Promise<Rig>;
  /** The policy, to be closed by whoever borrows it. Called again when its engine died. */
  readonly lend: () => Promise<Policy>;
  readonly observers: Observers;
  /** What the observers are given for the time of an episode. */
  readonly controlled: (own: RunControl) => RunControl;
  readonly log: ServiceLog;
  readonly onWarning: (error: PremotorError) => void;
  readonly monotonicMs: () => number;
}

/** How an episode ended; `error`: it failed, or could not begin. */
export interface EpisodeEnd {
  readonly outcome: CycleReport['outcome'] | 'not begun';
  readonly stopReason?: string;
  readonly error?: PremotorError;
}

/** The configuration with a wish. The file's instruction was written for the file's task. */
export function wished(config: RobotConfig, { task, seed, instruction }: EpisodeWish): RobotConfig {
  const { instruction: written, ...scene } = config.task;
  const kept = written !== undefined && (task === undefined || task === scene.name) ? { instruction: written } : {};
  return {
    ...config,
    task: {
      ...scene,
      ...kept,
      ...(task === undefined ? {} : { name: task }),
      ...(seed === undefined ? {} : { seed }),
      ...(instruction === undefined ? {} : { instruction }),
    },
  };
}

export class Episodes {
  readonly #parts: EpisodesParts;
  #ended = 0;
  #succeeded = 0;
  #last: string | null = null;
  #abort: AbortController | undefined;
  #own: RunControl | undefined;
  #stopReason: string | undefined;
  /** undefined: what is awaited now tells no progress, such as a policy that is being loaded. */
  #progressMs: number | undefined;

  constructor(parts: EpisodesParts) {
    this.#parts = parts;
  }

  get counts(): { readonly ended: number; readonly succeeded: number; readonly last: string | null } {
    return { ended: this.#ended, succeeded: this.#succeeded, last: this.#last };
  }

  /** Of the running episode; undefined: none runs. */
  get control(): RunControl | undefined {
    return this.#own;
  }

  /** Whether the running episode got somewhere within so many milliseconds; true when none runs. */
  isProgressing(withinMs: number): boolean {
    return this.#progressMs === undefined || this.#parts.monotonicMs() - this.#progressMs <= withinMs;
  }

  /** A controlled stop of the running episode. Idempotent. */
  stop(reason: string): void {
    this.#stopReason ??= reason;
    if (this.#own) this.#own.requestStop(reason);
    else this.#abort?.abort(new PremotorError('ABORTED', `The episode was stopped before it began: ${reason}.`));
  }

  /** Runs one episode to its end. Never throws. */
  async run(wish: EpisodeWish): Promise<EpisodeEnd> {
    const abort = new AbortController();
    this.#abort = abort;
    this.#stopReason = undefined;
    try {
      const end = await this.#run(wished(this.#parts.config, wish), abort.signal);
      this.#ended++;
      this.#last = end.outcome;
      return end;
    } catch (thrown) {
      const error = toPremotorError(thrown);
      return { outcome: 'not begun', error, ...(this.#stopReason === undefined ? {} : { stopReason: this.#stopReason }) };
    } finally {
      this.#abort = undefined;
      this.#own = undefined;
      this.#progressMs = undefined;
    }
  }

  async #run(config: RobotConfig, signal: AbortSignal): Promise<EpisodeEnd> {
    const { rigFor, lend, observers, controlled, log, onWarning } = this.#parts;
    const rig = await rigFor(config);
    const recorder = await Observers.open(config, { onNotice: (text) => log('info', 'notice', { text }), onWarning }, PASSING);
    let episode: PreparedEpisode | undefined;
    try {
      episode = await PreparedEpisode.open(config, {
        rig,
        observers: together(observers, recorder),
        observer: this.#narrator(),
        signal,
        open: lend,
        keepsPower: true,
        control: (own) => {
          this.#own = own;
          this.#progress();
          if (this.#stopReason !== undefined) own.requestStop(this.#stopReason);
          return controlled(own);
        },
      });
      const { summary, report } = await episode.run();
      if (summary.success) this.#succeeded++;
      const { outcome, chunks, verdict, completionS } = summary;
      log('info', 'episode', { outcome, verdict, chunks: chunks.length, ...(completionS === null ? {} : { completion_s: completionS }) });
      const error = report.error ?? report.holdError;
      return { outcome: report.outcome, ...(error ? { error } : {}), ...(report.stopReason === undefined ? {} : { stopReason: report.stopReason }) };
    } catch (error) {
      await recorder.end(undefined);
      throw error;
    } finally {
      // Whoever asks between two episodes is answered by the service.
      this.#own = undefined;
      this.#progressMs = undefined;
      await episode?.close();
      await recorder.close();
    }
  }

  #progress(): void {
    this.#progressMs = this.#parts.monotonicMs();
  }

  /** An episode in the log. */
  #narrator(): EpisodeObserver {
    const { log, onWarning } = this.#parts;
    return {
      ready: ({ rig, untrained }) =>
        log('info', 'episode begins', { task: rig.task, instruction: rig.instruction, chunks_max: rig.chunksMax, untrained }),
      cycle: (event) => {
        this.#progress();
        if (event.type === 'state') log('info', 'cycle', { from: event.transition.from, to: event.transition.to, reason: event.transition.reason });
        if (event.type === 'committed') {
          const { chunk, predictMs, executeMs, clampedKnots } = event.report;
          log('info', 'chunk', { chunk, predict_ms: Math.round(predictMs), execute_ms: Math.round(executeMs), clamped_knots: clampedKnots });
        }
      },
      decoding: () => this.#progress(),
      decoded: () => this.#progress(),
      noAnimation: (why) => log('warn', 'no animation', { why }),
      resumed: () => undefined,
      recovery: ({ phase, elapsedMs, commits }) => log('warn', 'engine', { phase, elapsed_ms: Math.round(elapsedMs), commits }),
      warning: onWarning,
      notice: (text) => log('info', 'notice', { text }),
    };
  }
}
