/**
 * A policy whose engine process may die: it keeps the episode's journal, and when the engine dies it opens another one, rebuilds the episode from the
 * journal and repeats the interrupted call. Owned by whoever runs episodes. It changes no result: a recovered episode goes on bit for bit as the
 * undisturbed one would have. It never recovers from anything but ENGINE_DIED, and never more often than its bound.
 */
import { PremotorError } from '../errors.js';
import { policyIdentity } from '../journal/format.js';
import { checkOwner, Journal, type JournalLimits } from '../journal/journal.js';
import { toPremotorError } from '../native.js';
import type {
  CacheState,
  Chunk,
  CommitOptions,
  CommitResult,
  DecodedVideo,
  DecodeOptions,
  EncoderState,
  Frame,
  Policy,
  PredictNextOptions,
  PredictOptions,
  Progress,
  ResetOptions,
  ResetResult,
  RestoreOptions,
  ShapedArray,
  Tensor,
  Timing,
} from './contract.js';
import { aborted, Gate } from './gate.js';
import { checkOptions, checkPrompt } from './validate.js';

/** Engines that an episode may cost beside its first. */
const RESTARTS_MAX = 3;
/** A robot that waits takes silence of 900 ms for a dead planner. */
const progress_period_ms = 150;
/** Cheap flash memory may take seconds for a few hundred kilobytes; what takes longer is broken. */
const disk_patience_ms = 10_000;

/** A prediction for what it does to the cache, not for its answer. */
const CHEAPEST = { videoSteps: 1, videoExecStep: -1, actionSteps: 1 } as const;

/** An engine's process, where there is one. */
export type Engine = Policy & { readonly pid?: number | undefined };

export interface Recovery {
  readonly phase: 'died' | 'restarted' | 'rebuilt';
  /** Since the death was noticed. */
  readonly elapsedMs: number;
  /** Commits that are rebuilt. */
  readonly commits: number;
}

export interface RecoveringOptions {
  /** Opens an engine; called again after each death. */
  readonly open: () => Promise<Engine>;
  readonly journal: JournalLimits & {
    /** Folder of the journals. */
    readonly dir: string;
    readonly seed: number;
    /** What else has to be the same for a resume. */
    readonly configuration: string;
  };
  /** What the supervisor needs to go on after a commit; asked as soon as the commit is done. */
  readonly supervisor?: () => Uint8Array;
  /** The journal that `restore` goes on with, instead of a new one. */
  readonly resumed?: Journal;
  readonly restartsMax?: number;
  readonly onRecovery?: (recovery: Recovery) => void;
  /** The journal stopped before the episode did: JOURNAL_FULL, JOURNAL_WRITE. */
  readonly onWarning?: (error: PremotorError) => void;
}

/** What is known of the running episode beside the journal. */
interface Episode {
  readonly prompt: string;
  readonly journal: Journal | undefined;
  /** The first observation, until the first commit carries its latent. */
  first: readonly Frame[] | undefined;
  /** The joints that the last prediction was told; one that only repeats it is told the same. */
  state: Float64Array | undefined;
  /** A predict has answered since the last commit. */
  isPredicted: boolean;
  /** Commits so far; the journal has as many while it records. */
  commits: number;
  restarts: number;
  /** What was committed no longer says what the cache holds. */
  isSpoilt: boolean;
}

/** Nothing has happened in it yet. */
const NEW_EPISODE = { first: undefined, state: undefined, isPredicted: false, commits: 0, restarts: 0, isSpoilt: false } as const;

type Report = ((progress: Progress) => void) | undefined;

export class RecoveringPolicy implements Policy {
  readonly job: Policy['job'];
  readonly info: Policy['info'];
  readonly #options: RecoveringOptions;
  readonly #gate = new Gate();
  #engine: Engine;
  #episode: Episode | undefined;
  /** Resets as the caller counts them, whatever engine served them. */
  #generation = 0;
  #resumed: Journal | undefined;

  private constructor(engine: Engine, options: RecoveringOptions) {
    this.#engine = engine;
    this.#options = options;
    this.#resumed = options.resumed;
    this.job = engine.job;
    this.info = engine.info;
  }

  /** Errors: those of opening the engine; JOURNAL_FOREIGN when the journal to resume belongs to another policy. */
  static async open(options: RecoveringOptions): Promise<RecoveringPolicy> {
    const engine = await options.open();
    const { resumed } = options;
    if (resumed) {
      try {
        checkOwner(resumed.dir, resumed.header, policyIdentity(engine.job, engine.info));
      } catch (error) {
        await engine.close();
        throw error;
      }
    }
    return new RecoveringPolicy(engine, options);
  }

  get cache(): CacheState {
    return this.#engine.cache;
  }

  /** Process id of the present engine, for supervision. */
  get pid(): number | undefined {
    return this.#engine.pid;
  }

  /** The running episode's journal, for whoever wants to know where it is. */
  get journal(): Journal | undefined {
    return this.#episode?.journal;
  }

  reset(options: ResetOptions): Promise<ResetResult> {
    const begin = async (signal: AbortSignal): Promise<ResetResult> => {
      const before = this.#episode;
      const begun: Episode = { prompt: options?.prompt, journal: undefined, ...NEW_EPISODE };
      this.#episode = begun;
      const result = await this.#guarded(undefined, signal, (engine) => engine.reset({ ...options, signal })).catch(async (error: unknown) => {
        // A refused argument changes nothing; after anything else it is not known whether the old episode goes on.
        const isRefused = toPremotorError(error).code === 'ARGUMENT_INVALID';
        this.#episode = isRefused ? before : undefined;
        if (!isRefused) await before?.journal?.close();
        throw error;
      });
      await before?.journal?.close();
      this.#generation++;
      this.#episode = { ...begun, journal: await this.#newJournal(options.prompt) };
      return { ...result, generation: this.#generation };
    };
    return this.#gate.begin('reset', options?.signal, begin, () => checkBeginning(options, 'reset'));
  }

  predict(options: PredictOptions = {}): Promise<Chunk> {
    return this.#gate.run('predict', options?.signal, async (signal) => {
      const chunk = await this.#guarded(options?.onProgress, signal, (engine) => engine.predict({ ...options, signal }));
      const episode = this.#episode;
      if (episode) {
        episode.isPredicted = true;
        episode.state = options?.state?.slice();
      }
      // Kept for an engine that dies before the first commit; the caller may reuse its pictures.
      if (episode && episode.commits === 0 && options?.obs && options.obs.length > 0) episode.first = options.obs.map(copied);
      return { ...chunk, generation: this.#generation };
    });
  }

  commit(options: CommitOptions): Promise<CommitResult> {
    return this.#gate.run('commit', undefined, (signal) => this.#commit(options, signal));
  }

  /**
   * In two calls, so that what was committed is in the journal before anything is predicted from it: whether a commit that an engine took with it had
   * happened could not be told.
   */
  predictNext(options: PredictNextOptions): Promise<Chunk> {
    return this.#gate.run('predictNext', options?.signal, async (signal) => {
      const { obs, executed, ...rest } = options;
      const { onProgress, trace } = options;
      const commits = obs !== undefined && executed !== undefined;
      const call = { obs: obs ?? [], actions: executed ?? new Float32Array(0), ...(trace === undefined ? {} : { trace }) };
      const done = commits ? await this.#commit({ ...call, ...(onProgress ? { onProgress } : {}) }, signal) : undefined;
      if (signal.aborted) throw aborted('predictNext', signal.reason);
      // Only one of both given is for the engine to refuse.
      const next = commits ? rest : options;
      const chunk = await this.#guarded(onProgress, signal, (engine) => engine.predictNext({ ...next, signal }));
      return { ...(done ? joined(done, chunk) : chunk), generation: this.#generation };
    });
  }

  encoderState(): Promise<EncoderState> {
    return this.#gate.run('encoderState', undefined, (signal) => this.#guarded(undefined, signal, (engine) => engine.encoderState()));
  }

  /** Goes on with the journal that was given to `open`. Without one the episode runs, but is not recovered. */
  restore(options: RestoreOptions): Promise<ResetResult> {
    const begin = async (signal: AbortSignal): Promise<ResetResult> => {
      await this.#leave();
      const begun: Episode = { prompt: options?.prompt, journal: undefined, ...NEW_EPISODE };
      this.#episode = begun;
      const call = { ...options, signal };
      const result = await this.#guarded(options.onProgress, signal, (engine) => engine.restore(call)).catch((error: unknown) => {
        this.#episode = undefined;
        throw error;
      });
      const journal = this.#resumed;
      this.#resumed = undefined;
      this.#generation++;
      // Commits that come from elsewhere have no checksums that a journal could be begun with.
      this.#episode = { ...begun, journal, commits: options.commits.length, isSpoilt: journal === undefined };
      return { ...result, generation: this.#generation };
    };
    return this.#gate.begin('restore', options?.signal, begin, () => checkBeginning(options, 'restore'));
  }

  /** Spoils the episode, as the contract says: it cannot be rebuilt any more. */
  occupy(): Promise<CacheState> {
    return this.#gate.run('occupy', undefined, (signal) => {
      if (this.#episode) this.#episode.isSpoilt = true;
      return this.#guarded(undefined, signal, (engine) => engine.occupy());
    });
  }

  decode(latents: Float32Array | Tensor | ShapedArray, options: DecodeOptions = {}): Promise<DecodedVideo> {
    return this.#gate.run('decode', options?.signal, (signal) =>
      this.#guarded(options?.onProgress, signal, (engine) => engine.decode(latents, { ...options, signal })),
    );
  }

  /** The episode is over and nothing is left to resume; without it, closing leaves the journal for a resume. */
  async finish(outcome: string): Promise<void> {
    await this.#episode?.journal?.end(outcome);
  }

  close(): Promise<void> {
    return this.#gate.close(async () => {
      await this.#leave();
      await this.#resumed?.close();
      await this.#engine.close();
    });
  }

  async #leave(): Promise<void> {
    const journal = this.#episode?.journal;
    this.#episode = undefined;
    await journal?.close();
  }

  /** An episode without a journal runs all the same, but is not recovered. */
  async #newJournal(prompt: string): Promise<Journal | undefined> {
    const { journal, supervisor, onWarning } = this.#options;
    const { dir, seed, configuration, ...limits } = journal;
    const about = { prompt, seed, configuration, hasSupervisor: supervisor !== undefined, ...policyIdentity(this.job, this.info) };
    try {
      return await Journal.create(dir, about, { ...limits, ...(onWarning ? { onWarning } : {}) });
    } catch (error) {
      onWarning?.(toPremotorError(error));
      return undefined;
    }
  }

  /** Commits, then begins to write it down: the next prediction does not wait for the disk, the next commit does. */
  async #commit(options: CommitOptions, signal: AbortSignal): Promise<CommitResult> {
    const journal = this.#episode?.journal;
    await settled(journal, options?.onProgress);
    const records = journal?.state === 'recording';
    const { result, encoder, cache } = await this.#guarded(options?.onProgress, signal, async (engine) => {
      const done = await engine.commit(options);
      // An engine that dies here takes the commit with it, so both are repeated.
      return { result: done, encoder: records ? await engine.encoderState() : undefined, cache: engine.cache };
    });
    const episode = this.#episode;
    const predicted = episode?.isPredicted === true;
    if (episode) {
      episode.commits++;
      episode.first = undefined;
      episode.isPredicted = false;
    }
    if (journal && encoder) {
      const { latents, frameIndex } = result;
      const supervisor = this.#options.supervisor?.();
      journal.append({
        commit: { latents, actions: options.actions, predicted, frameIndex, checksum: cache.checksum },
        encoder: encoder.data,
        ...(supervisor === undefined ? {} : { supervisor }),
      });
    }
    return { ...result, generation: this.#generation };
  }

  /** Runs a call on the engine; when the engine dies in it, on the next one. */
  async #guarded<T>(report: Report, signal: AbortSignal, call: (engine: Engine) => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await call(this.#engine);
      } catch (error) {
        const known = toPremotorError(error);
        if (known.code !== 'ENGINE_DIED') throw known;
        await this.#recover(known, report, signal);
      }
    }
  }

  /** Replaces a dead engine by one that stands where the journal says. Errors: ENGINE_RESTARTS, ENGINE_DIED without a past, ABORTED, open's. */
  async #recover(death: PremotorError, report: Report, signal: AbortSignal): Promise<void> {
    const episode = this.#episode;
    if (!episode || this.job.infer_mode === 'i2va') throw death;
    const beganMs = performance.now();
    const tell = (phase: Recovery['phase']): void => {
      this.#options.onRecovery?.({ phase, elapsedMs: performance.now() - beganMs, commits: episode.commits });
    };
    const progress = { stage: 'recover', done: 0, total: Math.max(1, episode.commits) } as const;
    let done = 0;
    const beat = (): void => report?.({ ...progress, done });
    tell('died');
    beat();
    const timer = setInterval(beat, progress_period_ms);
    try {
      const past = await pastOf(episode);
      for (let last = death; ; ) {
        if (episode.restarts >= (this.#options.restartsMax ?? RESTARTS_MAX)) throw tooOften(episode.restarts, last);
        if (signal.aborted) throw aborted('recover', signal.reason);
        episode.restarts++;
        try {
          await this.#engine.close();
          this.#engine = await this.#replacement(episode, past, tell, { signal, onProgress: (now) => void (done = now.done) });
          tell('rebuilt');
          return;
        } catch (error) {
          last = toPremotorError(error);
          if (last.code !== 'ENGINE_DIED') throw last;
        }
      }
    } finally {
      clearInterval(timer);
    }
  }

  async #replacement(
    episode: Episode,
    past: Past | undefined,
    tell: (phase: Recovery['phase']) => void,
    call: Pick<RestoreOptions, 'signal' | 'onProgress'>,
  ): Promise<Engine> {
    const engine = await this.#options.open();
    try {
      tell('restarted');
      if (past === undefined) await beginAgain(engine, episode, call.signal);
      else await rebuild(engine, episode, past, call);
      return engine;
    } catch (error) {
      await engine.close();
      throw error;
    }
  }
}

type Past = Omit<RestoreOptions, 'prompt' | 'signal' | 'onProgress'>;

/** What can be refused before the old episode is touched. */
function checkBeginning(options: ResetOptions, name: string): void {
  checkOptions(options, name);
  checkPrompt(options.prompt);
}

/** What the journal has; undefined before the first commit. Errors: ENGINE_DIED when it does not have the whole episode. */
async function pastOf(episode: Episode): Promise<Past | undefined> {
  const { commits, journal, isSpoilt } = episode;
  if (commits === 0) return undefined;
  if (journal === undefined || isSpoilt) throw lost('an episode without a journal');
  const past = await journal.read().catch((error: unknown) => {
    throw lost(toPremotorError(error).message, error);
  });
  if (past.commits.length !== commits || !past.encoder) throw lost(`${past.commits.length} of ${commits} commits`);
  const checksum = past.commits.at(-1)?.checksum;
  return { commits: past.commits, encoder: { data: past.encoder }, ...(checksum === undefined ? {} : { checksum }) };
}

function lost(found: string, cause?: unknown): PremotorError {
  const message = `The engine process ended and the episode cannot be rebuilt: expected its journal, found ${found}. Begin the episode anew.`;
  const details = { expected: 'a journal of the whole episode', found };
  return new PremotorError('ENGINE_DIED', message, cause === undefined ? details : { ...details, cause });
}

async function rebuild(
  engine: Engine,
  { prompt, isPredicted, state }: Episode,
  past: Past,
  call: Pick<RestoreOptions, 'signal' | 'onProgress'>,
): Promise<void> {
  await engine.restore({ prompt, ...past, ...call });
  const [expected, found] = [past.checksum, engine.cache.checksum];
  if (expected === undefined || expected === found) {
    // What a prediction evicts from a full cache, the commit after it no longer sees.
    if (isPredicted) await engine.predict({ ...CHEAPEST, ...(state ? { state } : {}), ...(call.signal ? { signal: call.signal } : {}) });
    return;
  }
  const message = `The rebuilt KV cache is another one: expected checksum ${expected}, found ${found}. Begin the episode anew; please report this.`;
  throw new PremotorError('RESTORE_MISMATCH', message, { field: 'checksum', expected, found });
}

/** Nothing was committed yet. Where something was seen, the cheapest prediction shows it again: what it predicts is dropped by the first commit. */
async function beginAgain(engine: Engine, { prompt, first, state }: Episode, signal: AbortSignal | undefined): Promise<void> {
  const call = signal === undefined ? {} : { signal };
  await engine.reset({ prompt, ...call });
  if (first !== undefined) await engine.predict({ obs: first, ...CHEAPEST, ...(state ? { state } : {}), ...call });
}

const copied = ({ camera, width, height, data, capturedAtNs }: Frame): Frame => ({ camera, width, height, data: data.slice(), capturedAtNs });

/** Two calls as the one that was asked for. */
function joined({ frameIndex, latents, timing, trace }: CommitResult, chunk: Chunk): Chunk {
  const sum = (name: keyof Timing): number => timing[name] + chunk.timing[name];
  const names = Object.keys(chunk.timing) as (keyof Timing)[];
  return {
    ...chunk,
    timing: Object.fromEntries(names.map((name) => [name, sum(name)])) as unknown as Timing,
    committed: { frameIndex, latents },
    ...(trace || chunk.trace ? { trace: new Map([...(trace ?? []), ...(chunk.trace ?? [])]) } : {}),
  };
}

function tooOften(restarts: number, cause: PremotorError): PremotorError {
  const [expected, found] = [`at most ${restarts} deaths in an episode`, 'another'];
  const remedy = 'Look for its cause (memory, the system log) before the next episode.';
  const message = `The engine process keeps dying: expected ${expected}, found ${found}. ${remedy}`;
  return new PremotorError('ENGINE_RESTARTS', message, { expected, found, cause });
}

/**
 * Until the commit before is on the disk. A slow disk is no policy that hangs, and the arm is not waiting for anything else: signs of life are given
 * meanwhile, for so long as a disk may take.
 */
async function settled(journal: Journal | undefined, report: Report): Promise<void> {
  const beganMs = performance.now();
  const timer = setInterval(() => {
    if (performance.now() - beganMs < disk_patience_ms) report?.({ stage: 'journal', done: 0, total: 1 });
  }, progress_period_ms);
  try {
    await journal?.settled();
  } finally {
    clearInterval(timer);
  }
}
