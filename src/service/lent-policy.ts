/**
 * The service's policy as an episode has it: every call goes to the one engine that outlives the episode, and closing gives it back instead of
 * ending it. Owned by the episode; it computes nothing.
 */
import type {
  CommitOptions,
  DecodeOptions,
  Policy,
  PredictNextOptions,
  PredictOptions,
  ResetOptions,
  RestoreOptions,
  ShapedArray,
  Tensor,
} from '../policy/contract.js';

export class LentPolicy implements Policy {
  readonly #inner: Policy;

  constructor(inner: Policy) {
    this.#inner = inner;
  }

  get job(): Policy['job'] {
    return this.#inner.job;
  }

  get info(): Policy['info'] {
    return this.#inner.info;
  }

  get cache(): Policy['cache'] {
    return this.#inner.cache;
  }

  reset(options: ResetOptions): ReturnType<Policy['reset']> {
    return this.#inner.reset(options);
  }

  predict(options?: PredictOptions): ReturnType<Policy['predict']> {
    return this.#inner.predict(options);
  }

  commit(options: CommitOptions): ReturnType<Policy['commit']> {
    return this.#inner.commit(options);
  }

  predictNext(options: PredictNextOptions): ReturnType<Policy['predictNext']> {
    return this.#inner.predictNext(options);
  }

  encoderState(): ReturnType<Policy['encoderState']> {
    return this.#inner.encoderState();
  }

  restore(options: RestoreOptions): ReturnType<Policy['restore']> {
    return this.#inner.restore(options);
  }

  occupy(): ReturnType<Policy['occupy']> {
    return this.#inner.occupy();
  }

  decode(latents: Float32Array | Tensor | ShapedArray, options?: DecodeOptions): ReturnType<Policy['decode']> {
    return this.#inner.decode(latents, options);
  }

  async close(): Promise<void> {
    // The engine stays: whoever lent it closes it.
  }
}
