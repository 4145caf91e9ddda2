/**
 * The worker processes of an evaluation: forks them, hands out episodes to whichever is idle, and gives the results back in the order asked for,
 * so that their number and speed change nothing but the time it takes. Owned by the command; a worker that dies ends the evaluation.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { PremotorError } from '../errors.js';
import type { PolicyInfo } from '../policy/contract.js';
import { childArguments } from '../policy/isolated.js';
import { errorFrom } from '../policy/protocol.js';
import type { TaskName } from '../sim/tasks/task.js';
import type { Configuration, Subject } from './configuration.js';
import type { EpisodeOutcome } from './episode.js';
import type { WorkerReply, WorkerRequest } from './worker.js';

export interface EpisodeName {
  readonly task: TaskName;
  readonly seed: number;
}

export interface RunOptions {
  /** The most workers that run at a time. Default: all of the pool. */
  readonly workers?: number;
  readonly signal?: AbortSignal;
  /** Called after every episode, in the order in which they end. */
  readonly onEpisode?: (outcome: EpisodeOutcome, done: number) => void;
}

/** One process; it answers one request at a time. */
class Worker {
  readonly #child: ChildProcess;
  #waiting: { resolve: (reply: WorkerReply) => void; reject: (error: PremotorError) => void } | undefined;
  #death: PremotorError | undefined;

  constructor(module: string) {
    // The child writes nothing to stdout; should a library do so, it must not mix with the results.
    this.#child = fork(module, [], { serialization: 'advanced', execArgv: childArguments(process.execArgv), stdio: ['ignore', 2, 2, 'ipc'] });
    this.#child.on('message', (message) => {
      const waiting = this.#waiting;
      this.#waiting = undefined;
      waiting?.resolve(message as WorkerReply);
    });
    this.#child.once('exit', (code, signal) => this.#die(signal === null ? `exit code ${code}` : `signal ${signal}`));
    this.#child.once('error', (error) => this.#die(error.message));
  }

  #die(found: string): void {
    const message = `An evaluation worker ended: expected it to run, found ${found}. Run again; with fewer --workers if memory is short.`;
    this.#death ??= new PremotorError('EVAL_WORKER', message, { expected: 'a running worker', found });
    this.#waiting?.reject(this.#death);
    this.#waiting = undefined;
  }

  async ask(request: WorkerRequest): Promise<Exclude<WorkerReply, { kind: 'error' }>> {
    const death = this.#death;
    if (death) throw death;
    const reply = await new Promise<WorkerReply>((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#child.send(request, () => undefined);
    });
    if (reply.kind === 'error') throw errorFrom(reply.error);
    return reply;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

export class WorkerPool {
  readonly #workers: readonly Worker[];

  /** @param module the workers' entry point */
  constructor(count: number, module = entryPoint()) {
    this.#workers = Array.from({ length: count }, () => new Worker(module));
  }

  /** Opens the configuration in every worker and runs the episodes. Errors: those of loadPolicy, EVAL_WORKER, the signal's reason. */
  async run(
    subject: Subject,
    configuration: Configuration,
    episodes: readonly EpisodeName[],
    { workers = this.#workers.length, signal, onEpisode }: RunOptions = {},
  ): Promise<{ readonly info: PolicyInfo; readonly outcomes: readonly EpisodeOutcome[] }> {
    const outcomes = new Array<EpisodeOutcome>(episodes.length);
    let [next, done] = [0, 0];
    let info: PolicyInfo | undefined;
    const drive = async (worker: Worker): Promise<void> => {
      const ready = await worker.ask({ kind: 'open', subject, configuration });
      if (ready.kind === 'ready') info = ready.info;
      while (next < episodes.length && signal?.aborted !== true) {
        const index = next++;
        const { task, seed } = episodes[index] as EpisodeName;
        const reply = await worker.ask({ kind: 'episode', task, seed });
        if (reply.kind !== 'episode') continue;
        outcomes[index] = reply.outcome;
        onEpisode?.(reply.outcome, ++done);
      }
    };
    // An interrupt does not wait for the episodes that run: their results would not be used.
    const kill = (): void => this.close();
    signal?.addEventListener('abort', kill, { once: true });
    try {
      signal?.throwIfAborted();
      await Promise.all(this.#workers.slice(0, Math.max(1, Math.min(workers, episodes.length))).map(drive));
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener('abort', kill);
    }
    signal?.throwIfAborted();
    return { info: info as PolicyInfo, outcomes };
  }

  /** Ends the workers. Idempotent. */
  close(): void {
    for (const worker of this.#workers) worker.kill();
  }
}

/** The child runs the same way as this file: compiled, or as TypeScript under a loader. */
function entryPoint(): string {
  return fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? './worker-process.ts' : './worker-process.js', import.meta.url));
}
