/**
 * The policy in a child process: the same interface, states and errors, with an engine whose crash ends only the child. Owned by loadPolicy; it
 * forwards calls, aborts and progress, mirrors the cache state, and never restarts the child: whoever owns the policy decides that.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { PremotorError } from '../errors.js';
import type {
  CacheState,
  Chunk,
  CommitOptions,
  CommitResult,
  DecodedVideo,
  DecodeOptions,
  EncoderState,
  EngineLife,
  Job,
  LoadPolicyOptions,
  PastCommit,
  Policy,
  PolicyInfo,
  PredictNextOptions,
  PredictOptions,
  Progress,
  ResetOptions,
  ResetResult,
  RestoreOptions,
  ShapedArray,
  Tensor,
} from './contract.js';
import { Gate } from './gate.js';
import {
  chunkFrom,
  commitFrom,
  errorFrom,
  type Method,
  type PlainChunk,
  type PlainCommit,
  plainObservation,
  type Reply,
  type Request,
} from './protocol.js';
import { toTensor, toVideo } from './tensor.js';
import { checkOptions, checkPrompt } from './validate.js';

/** How long a closing child may take before it is killed. */
const close_grace_ms = 10_000;

type RequestBody = Request extends infer R ? (R extends Request ? Omit<R, 'generation' | 'episode' | 'id'> : never) : never;
type Answer = Extract<Reply, { kind: 'ready' } | { kind: 'result' }>;

interface Pending {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: PremotorError) => void;
  readonly report: ((progress: Progress) => void) | undefined;
}

/** What opening needs beside the options: the child's entry point, and warnings found before. */
interface OpenParts {
  readonly module?: string;
  readonly warnings?: readonly string[];
}

let generations = 0;

/** The child process and the calls that wait for it. */
class EngineChannel {
  readonly generation = ++generations;
  readonly exited: Promise<void>;
  readonly #child: ChildProcess;
  readonly #pending = new Map<number, Pending>();
  readonly #onCache: (cache: CacheState) => void;
  #ids = 0;
  /** Calls that began an episode, so far. */
  #episode = 0;
  #death: PremotorError | undefined;

  constructor(module: string, onCache: (cache: CacheState) => void) {
    this.#onCache = onCache;
    // The child writes nothing to stdout; should a library do so, it must not mix with the parent's output.
    this.#child = fork(module, [], { serialization: 'advanced', execArgv: childArguments(process.execArgv), stdio: ['ignore', 2, 2, 'ipc'] });
    this.exited = new Promise((resolve) => {
      this.#child.once('exit', (code, signal) => {
        this.#die(signal === null ? `exit code ${code}` : `signal ${signal}`);
        resolve();
      });
      this.#child.once('error', (cause) => {
        this.#die(cause.message, cause);
        if (this.#child.pid === undefined) resolve();
      });
    });
    this.#child.on('message', (reply) => this.#receive(reply as Reply));
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get death(): PremotorError | undefined {
    return this.#death;
  }

  /** Sends a request and waits for its answer. A child with nothing to do does not keep the parent's event loop alive. */
  request(body: RequestBody, signal?: AbortSignal, report?: (progress: Progress) => void): Promise<Answer> {
    if (this.#death !== undefined) return Promise.reject(this.#death);
    const id = ++this.#ids;
    if (body.kind === 'call' && (body.method === 'reset' || body.method === 'restore')) this.#episode++;
    const { generation } = this;
    const episode = this.#episode;
    const abort = (): void => this.#send({ generation, episode, id, kind: 'abort' });
    return new Promise<Answer>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, report });
      this.#hold();
      this.#send({ generation, episode, id, ...body });
      signal?.addEventListener('abort', abort, { once: true });
    }).finally(() => {
      signal?.removeEventListener('abort', abort);
      this.#pending.delete(id);
      this.#hold();
    });
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  /** Lets the exiting child be waited for. */
  keepAlive(): void {
    this.#child.ref();
  }

  #hold(): void {
    if (this.#pending.size > 0) {
      this.#child.ref();
      this.#child.channel?.ref();
    } else {
      this.#child.unref();
      this.#child.channel?.unref();
    }
  }

  #send(request: Request): void {
    if (!this.#child.connected) return; // the exit event follows and rejects what waits
    try {
      this.#child.send(request, () => undefined);
    } catch (cause) {
      const found = (cause as Error).message;
      const message = `The arguments cannot go to the engine process: expected plain data, found that ${found} Pass what docs/CONTRACT.md lists.`;
      throw new PremotorError('ARGUMENT_INVALID', message, { field: 'options', expected: 'plain data', found, cause });
    }
  }

  #receive(reply: Reply): void {
    const pending = this.#pending.get(reply.id);
    // A reply of another generation, or of a call that is settled, is stale.
    if (reply.generation !== this.generation || pending === undefined) return;
    if (reply.kind === 'progress') {
      pending.report?.(reply.progress);
      return;
    }
    if (reply.episode < this.#episode) {
      pending.reject(staleReply(reply.episode, this.#episode));
      return;
    }
    if (reply.cache !== null) this.#onCache(reply.cache);
    if (reply.kind === 'error') pending.reject(errorFrom(reply.error));
    else pending.resolve(reply);
  }

  #die(found: string, cause?: unknown): void {
    if (this.#death !== undefined) return;
    const message = `The engine process ended: expected it to run until close, found ${found}. Load the policy again and rebuild the episode.`;
    this.#death = new PremotorError('ENGINE_DIED', message, {
      expected: 'a running engine process',
      found,
      ...(cause === undefined ? {} : { cause }),
    });
    for (const pending of this.#pending.values()) pending.reject(this.#death);
    this.#pending.clear();
  }
}

function staleReply(found: number, expected: number): PremotorError {
  const message = `A reply of an episode that is over was dropped: expected one of episode ${expected}, found episode ${found}. Predict again.`;
  return new PremotorError('ABORTED', message, { expected: `episode ${expected}`, found: `episode ${found}` });
}

export class IsolatedPolicy implements Policy {
  readonly job: Job;
  readonly info: PolicyInfo;
  readonly #channel: EngineChannel;
  readonly #gate = new Gate();
  readonly #state: { cache: CacheState };
  readonly life: EngineLife;
  #isClosing = false;

  private constructor(channel: EngineChannel, ready: Answer & { kind: 'ready' }, state: { cache: CacheState }, warnings: readonly string[]) {
    this.#channel = channel;
    this.#state = state;
    this.job = ready.job;
    this.info = { ...ready.info, warnings: [...warnings, ...ready.info.warnings] };
    const unasked = (): PremotorError | undefined => (this.#isClosing ? undefined : channel.death);
    const died = new Promise<PremotorError>((resolve) => {
      void channel.exited.then(() => {
        const death = unasked();
        if (death) resolve(death);
      });
    });
    this.life = {
      get death() {
        return unasked();
      },
      died,
    };
  }

  /** Forks the engine process and loads the policy there. `module` is the child's entry point. Errors: those of loading, ENGINE_DIED. */
  static async open(options: LoadPolicyOptions, { module = entryPoint(), warnings = [] }: OpenParts = {}): Promise<IsolatedPolicy> {
    const state = { cache: { capacity: 0, valid: 0, committed: 0, predicted: 0, checksum: '' } };
    const channel = new EngineChannel(module, (cache) => (state.cache = cache));
    try {
      const { isolate: _, ...inner } = options;
      const ready = await channel.request({ kind: 'open', options: inner });
      return new IsolatedPolicy(channel, ready as Answer & { kind: 'ready' }, state, warnings);
    } catch (error) {
      channel.kill();
      throw error;
    }
  }

  get cache(): CacheState {
    return this.#state.cache;
  }

  /** Process id of the engine, for supervision. */
  get pid(): number | undefined {
    return this.#channel.pid;
  }

  async reset(options: ResetOptions): Promise<ResetResult> {
    return (await this.#begin('reset', options, (given) => ({ prompt: given.prompt, trace: given.trace }))) as ResetResult;
  }

  async predict(options: PredictOptions = {}): Promise<Chunk> {
    return chunkFrom((await this.#call('predict', options, (given) => ({ ...sampling(given), obs: plainObservation(given.obs) }))) as PlainChunk);
  }

  async commit(options: CommitOptions): Promise<CommitResult> {
    const send = (given: CommitOptions) => ({ obs: plainObservation(given.obs), actions: given.actions, trace: given.trace });
    return commitFrom((await this.#call('commit', options, send)) as PlainCommit);
  }

  async predictNext(options: PredictNextOptions): Promise<Chunk> {
    const send = (given: PredictNextOptions) => {
      const { executed, executing, imagineSteps } = given;
      const seen = given.obs === undefined ? {} : { obs: plainObservation(given.obs) };
      return { ...sampling(given), ...seen, executed, executing, forecast: plainLatents(given.forecast), imagineSteps };
    };
    return chunkFrom((await this.#call('predictNext', options, send)) as PlainChunk);
  }

  async encoderState(): Promise<EncoderState> {
    return (await this.#call('encoderState', {}, () => ({}))) as EncoderState;
  }

  async restore(options: RestoreOptions): Promise<ResetResult> {
    const send = ({ prompt, commits, encoder, checksum }: RestoreOptions) => ({ prompt, commits: plainCommits(commits), encoder, checksum });
    return (await this.#begin('restore', options, send)) as ResetResult;
  }

  async occupy(): Promise<CacheState> {
    return (await this.#call('occupy', {}, () => ({}))) as CacheState;
  }

  async decode(latents: Float32Array | Tensor | ShapedArray, options: DecodeOptions = {}): Promise<DecodedVideo> {
    const film = (await this.#call('decode', options, () => ({ latents: plainLatents(latents) }))) as ShapedArray;
    return toVideo(toTensor(film.data, film.shape));
  }

  close(): Promise<void> {
    this.#isClosing = true;
    return this.#gate.close(async () => {
      if (this.#channel.death !== undefined) return;
      this.#channel.keepAlive();
      const timer = setTimeout(() => this.#channel.kill(), close_grace_ms);
      // The child answers and exits; should it die first, closed is closed all the same.
      await this.#channel.request({ kind: 'call', method: 'close', options: {}, progress: false }).catch(() => undefined);
      this.#channel.keepAlive();
      await this.#channel.exited;
      clearTimeout(timer);
    });
  }

  /** `send` picks what the child needs, so that nothing unsendable (signals, callbacks) is tried. */
  #call<T extends object>(method: Method, options: T, send: (given: T) => object): Promise<unknown> {
    return this.#gate.run(method, signalOf(options), async (inner) => {
      checkOptions(options, method);
      return this.#request(method, options, send, inner);
    });
  }

  /** A call that begins an episode: what runs for the old one is stopped, once the prompt is known to be one. */
  #begin<T extends { readonly prompt: string }>(method: Method, options: T, send: (given: T) => object): Promise<unknown> {
    const check = (): void => {
      checkOptions(options, method);
      checkPrompt(options.prompt);
    };
    return this.#gate.begin(method, signalOf(options), (inner) => this.#request(method, options, send, inner), check);
  }

  async #request<T extends object>(method: Method, options: T, send: (given: T) => object, signal: AbortSignal): Promise<unknown> {
    const { onProgress: report } = options as { onProgress?: (progress: Progress) => void };
    const body: RequestBody = { kind: 'call', method, options: send(options), progress: report !== undefined };
    const answer = await this.#channel.request(body, signal, report);
    return (answer as Answer & { kind: 'result' }).value;
  }
}

function signalOf(options: unknown): AbortSignal | undefined {
  const { signal } = (options ?? {}) as { signal?: unknown };
  return signal instanceof AbortSignal ? signal : undefined;
}

function sampling({ seed, noise, videoSteps, actionSteps, videoExecStep, guidance, inpaint, state, trace }: Omit<PredictOptions, 'obs'>): object {
  return { seed, noise, videoSteps, actionSteps, videoExecStep, guidance, inpaint, state, trace };
}

/** Past commits as data: latents may be tensors, which lose their labels on the way. */
function plainCommits(commits: unknown): unknown {
  if (!Array.isArray(commits)) return commits;
  return commits.map((commit: Partial<PastCommit> | null) => ({
    latents: plainLatents(commit?.latents),
    actions: commit?.actions,
    predicted: commit?.predicted,
  }));
}

function plainLatents(latents: unknown): unknown {
  if (typeof latents !== 'object' || latents === null) return latents;
  const { data, shape } = latents as Partial<ShapedArray>;
  if (shape === undefined) return latents;
  return { data, shape: Array.isArray(shape) ? [...(shape as unknown[])] : shape };
}

/** The child runs the same way as this file: compiled, or as TypeScript under a loader. */
function entryPoint(): string {
  return fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? './engine-process.ts' : './engine-process.js', import.meta.url));
}

/** Node's arguments for the child: this process's own (loaders among them) but for those that would run a script, a test runner or a debugger. */
export function childArguments(own: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i < own.length; i++) {
    const argument = own[i] as string;
    const name = argument.split('=')[0] as string;
    if (['-e', '--eval', '-p', '--print', '-pe', '--input-type'].includes(name)) {
      if (!argument.includes('=')) i++;
    } else if (!/^--(inspect|test|watch|cpu-prof|heap-prof|interactive)|^-[ic]$|^--check$/.test(name)) {
      kept.push(argument);
    }
  }
  return kept;
}
