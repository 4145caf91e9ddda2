/**
 * A policy that computes something aside while its owner does not need it: pictures for whoever watches. The owner's calls always come first: they
 * make what runs aside give way, or, where waiting costs the robot nothing, let it finish. Owned by the episode; it changes no result, and nothing
 * that watches can make a call of the owner fail.
 */
import { PremotorError } from '../errors.js';
import type {
  CacheState,
  Chunk,
  CommitOptions,
  CommitResult,
  DecodedVideo,
  DecodeOptions,
  EncoderState,
  Job,
  Policy,
  PolicyInfo,
  PredictNextOptions,
  PredictOptions,
  ResetOptions,
  ResetResult,
  RestoreOptions,
  ShapedArray,
  Tensor,
} from './contract.js';

interface Aside {
  readonly controller: AbortController;
  readonly settled: Promise<unknown>;
}

const OWNER_CALLS = new Error('the control cycle needs the engine');

export class YieldingPolicy implements Policy {
  readonly #inner: Policy;
  readonly #isPatient: boolean;
  /** Calls of the owner that have not answered. */
  #calls = 0;
  #aside: Aside | undefined;

  /** `isPatient`: the owner waits for what runs aside; for robots whose clock stands still meanwhile. */
  constructor(inner: Policy, { isPatient }: { readonly isPatient: boolean }) {
    this.#inner = inner;
    this.#isPatient = isPatient;
  }

  get job(): Job {
    return this.#inner.job;
  }

  get info(): PolicyInfo {
    return this.#inner.info;
  }

  get cache(): CacheState {
    return this.#inner.cache;
  }

  /** Decodes while nobody needs the engine. Errors: BUSY when somebody does, ABORTED when somebody did meanwhile, those of decode. */
  async decodeAside(latents: Float32Array | Tensor | ShapedArray): Promise<DecodedVideo> {
    if (this.#calls > 0 || this.#aside) {
      const message = 'The engine is computing. Pictures are decoded while it has nothing to do: ask again then.';
      throw new PremotorError('BUSY', message, { expected: 'idle', found: 'computing' });
    }
    const controller = new AbortController();
    const video = this.#inner.decode(latents, { signal: controller.signal });
    const aside = { controller, settled: video.catch(() => undefined) };
    this.#aside = aside;
    try {
      return await video;
    } finally {
      if (this.#aside === aside) this.#aside = undefined;
    }
  }

  /** Lets the owner in. Without anything aside the call starts before this returns, as everywhere. */
  #first<T>(call: () => Promise<T>): Promise<T> {
    this.#calls++;
    return (this.#aside ? this.#after(this.#aside, call) : call()).finally(() => {
      this.#calls--;
    });
  }

  async #after<T>({ controller, settled }: Aside, call: () => Promise<T>): Promise<T> {
    if (!this.#isPatient) controller.abort(OWNER_CALLS);
    await settled;
    return call();
  }

  reset(options: ResetOptions): Promise<ResetResult> {
    return this.#first(() => this.#inner.reset(options));
  }

  predict(options?: PredictOptions): Promise<Chunk> {
    return this.#first(() => this.#inner.predict(options));
  }

  commit(options: CommitOptions): Promise<CommitResult> {
    return this.#first(() => this.#inner.commit(options));
  }

  predictNext(options: PredictNextOptions): Promise<Chunk> {
    return this.#first(() => this.#inner.predictNext(options));
  }

  encoderState(): Promise<EncoderState> {
    return this.#first(() => this.#inner.encoderState());
  }

  restore(options: RestoreOptions): Promise<ResetResult> {
    return this.#first(() => this.#inner.restore(options));
  }

  occupy(): Promise<CacheState> {
    return this.#first(() => this.#inner.occupy());
  }

  decode(latents: Float32Array | Tensor | ShapedArray, options?: DecodeOptions): Promise<DecodedVideo> {
    return this.#first(() => this.#inner.decode(latents, options));
  }

  async close(): Promise<void> {
    this.#aside?.controller.abort(OWNER_CALLS);
    await this.#inner.close();
  }
}
