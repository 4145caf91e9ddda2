/**
 * The child's side of an isolated policy: takes requests from the parent's channel, runs them on a local policy and sends replies. Owned by
 * engine-process.ts. It decides nothing: states and checks are the local policy's. It ends when the parent is gone.
 */
import type { ChildProcess } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';
import { PremotorError } from '../errors.js';
import { toPremotorError } from '../native.js';
import type {
  CommitOptions,
  LoadPolicyOptions,
  Policy,
  PredictNextOptions,
  PredictOptions,
  Progress,
  ResetOptions,
  RestoreOptions,
  ShapedArray,
} from './contract.js';
import { type Method, plainChunk, plainCommit, plainError, type Reply, type Request } from './protocol.js';

/** How long a running call may take to notice that the parent is gone. */
const exit_grace_ms = 2000;
/** Of a process whose GPU has failed. */
const EXIT_DEVICE_FAULT = 75;

export type Load = (options: LoadPolicyOptions) => Promise<Policy>;

type ReplyBody = Reply extends infer R ? (R extends Reply ? Omit<R, 'generation' | 'episode' | 'id'> : never) : never;

class EngineHost {
  readonly #load: Load;
  readonly #aborts = new Map<number, AbortController>();
  #policy: Policy | undefined;

  constructor(load: Load) {
    this.#load = load;
  }

  async handle(request: Request): Promise<void> {
    if (request.kind === 'abort') {
      this.#aborts.get(request.id)?.abort();
      return;
    }
    try {
      if (request.kind === 'open') {
        const policy = await this.#load(request.options);
        this.#policy = policy;
        this.#reply(request, { kind: 'ready', job: policy.job, info: policy.info, cache: policy.cache });
        return;
      }
      const value = await this.#run(request);
      this.#reply(request, { kind: 'result', value, cache: this.#opened().cache }, request.method === 'close');
    } catch (thrown) {
      const error = toPremotorError(thrown);
      // Nothing of this process can use the GPU any more: its end is what the parent knows how to recover from.
      if (error.code === 'DEVICE_FAULT') return this.#end(error);
      this.#reply(request, { kind: 'error', error: plainError(error), cache: this.#policy?.cache ?? null });
    }
  }

  #end({ message }: PremotorError): void {
    process.stderr.write(`${message}\n`, () => process.exit(EXIT_DEVICE_FAULT));
  }

  /** The parent is gone: frees the engine if it can be done soon, and ends. */
  async leave(): Promise<void> {
    setTimeout(() => process.exit(0), exit_grace_ms).unref();
    await this.#policy?.close().catch(() => undefined);
    process.exit(0);
  }

  async #run(request: Request & { kind: 'call' }): Promise<unknown> {
    const controller = new AbortController();
    this.#aborts.set(request.id, controller);
    const report = (progress: Progress): void => this.#reply(request, { kind: 'progress', progress });
    const given = request.options as Record<string, unknown> | null | undefined;
    const extra = { signal: controller.signal, ...(request.progress ? { onProgress: report } : {}) };
    try {
      return await this.#dispatch(request.method, given ?? {}, extra);
    } finally {
      this.#aborts.delete(request.id);
    }
  }

  async #dispatch(method: Method, given: object, extra: { signal: AbortSignal; onProgress?: (progress: Progress) => void }): Promise<unknown> {
    const policy = this.#opened();
    const options = { ...given, ...extra };
    switch (method) {
      case 'reset':
        return policy.reset(options as ResetOptions & typeof extra);
      case 'predict':
        return plainChunk(await policy.predict(options as PredictOptions));
      case 'commit':
        return plainCommit(await policy.commit(options as CommitOptions & typeof extra));
      case 'predictNext':
        return plainChunk(await policy.predictNext(options as PredictNextOptions & typeof extra));
      case 'encoderState':
        return policy.encoderState();
      case 'restore':
        return policy.restore(options as RestoreOptions & typeof extra);
      case 'occupy':
        return policy.occupy();
      case 'decode': {
        const { video } = await policy.decode((given as { latents: ShapedArray }).latents, extra);
        return { data: video, shape: [...video.shape] };
      }
      case 'close':
        return policy.close();
    }
  }

  #opened(): Policy {
    if (this.#policy === undefined) throw new PremotorError('INTERNAL', 'The engine process was called before it was opened. Report this as a bug.');
    return this.#policy;
  }

  #reply({ generation, episode, id }: Request, body: ReplyBody, last = false): void {
    if (!process.connected) return;
    // A failed send means that the parent is gone; the disconnect event deals with that.
    (process as unknown as ChildProcess).send({ generation, episode, id, ...body }, (error: Error | null) => {
      if (last && error === null) process.exit(0);
    });
  }
}

/** The kernel's measure: with it, whatever fits least into memory, this process is the first to go, long before the supervisor. */
const OOM_SCORE = '800';

/** Raising one's own score needs no rights; where it cannot be written the kernel decides by size alone. */
function offerMemory(): void {
  try {
    writeFileSync('/proc/self/oom_score_adj', OOM_SCORE);
  } catch {
    // As before.
  }
}

/** Whoever gives the supervisor precedence does not mean what computes all the time: the robot's sign of life must not wait for the engine. */
function giveWay(): void {
  try {
    if (getPriority() < 0) setPriority(0);
  } catch {
    // As before.
  }
}

/** Serves the parent until it disconnects. */
export function serveEngine(load: Load): void {
  offerMemory();
  giveWay();
  const host = new EngineHost(load);
  process.on('message', (request) => void host.handle(request as Request));
  process.on('disconnect', () => void host.leave());
  // A terminal's interrupt goes to every process of its group; the supervisor decides when this one ends.
  process.on('SIGINT', () => undefined);
}
