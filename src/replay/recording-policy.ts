/**
 * A policy that writes down what it was asked and what it answered, so that an episode can be run again bit for bit. Owned by whoever runs the
 * episode; it forwards everything unchanged, and a disk that refuses ends the record, never the episode.
 */
import { crc32 } from 'node:zlib';
import { toPremotorError } from '../native.js';
import type {
  CacheState,
  Chunk,
  CommitOptions,
  CommitResult,
  DecodedVideo,
  DecodeOptions,
  EncoderState,
  Policy,
  PredictNextOptions,
  PredictOptions,
  ResetOptions,
  ResetResult,
  RestoreOptions,
  ShapedArray,
  Tensor,
} from '../policy/contract.js';
import { compressedCall, type RecordedCall, type RecordWriter } from './record.js';

/** A call, told to whoever watches. */
export interface CallNote {
  readonly call: RecordedCall;
  /** As a replay record keeps it. Never rejects unhandled; the pictures in `call` may change once its owner goes on. */
  readonly bytes: Promise<Uint8Array>;
  readonly cache: CacheState;
}

type Answer = Pick<RecordedCall, 'actions' | 'shape' | 'frameIndex' | 'latents'>;

export class RecordingPolicy implements Policy {
  readonly #policy: Policy;
  readonly #writer: RecordWriter | undefined;
  readonly #onCall: ((note: CallNote) => void) | undefined;

  constructor(policy: Policy, writer?: RecordWriter, onCall?: (note: CallNote) => void) {
    this.#policy = policy;
    this.#writer = writer;
    this.#onCall = onCall;
  }

  get job(): Policy['job'] {
    return this.#policy.job;
  }
  get info(): Policy['info'] {
    return this.#policy.info;
  }
  get cache(): CacheState {
    return this.#policy.cache;
  }

  reset(options: ResetOptions): Promise<ResetResult> {
    return this.#record('reset', options, () => this.#policy.reset(options));
  }

  restore(options: RestoreOptions): Promise<ResetResult> {
    return this.#record('restore', options, () => this.#policy.restore(options));
  }

  predict(options: PredictOptions = {}): Promise<Chunk> {
    return this.#record('predict', options, () => this.#policy.predict(options), ofChunk);
  }

  predictNext(options: PredictNextOptions): Promise<Chunk> {
    return this.#record('predictNext', options, () => this.#policy.predictNext(options), ofChunk);
  }

  commit(options: CommitOptions): Promise<CommitResult> {
    return this.#record(
      'commit',
      options,
      () => this.#policy.commit(options),
      ({ frameIndex, latents }) => ({ frameIndex, latents: checksumOf(latents) }),
    );
  }

  occupy(): Promise<CacheState> {
    return this.#record('occupy', {}, () => this.#policy.occupy());
  }

  /** Asks and changes nothing, so it is not recorded; nor is decode. */
  encoderState(): Promise<EncoderState> {
    return this.#policy.encoderState();
  }

  decode(latents: Float32Array | Tensor | ShapedArray, options?: DecodeOptions): Promise<DecodedVideo> {
    return this.#policy.decode(latents, options);
  }

  async close(): Promise<void> {
    await this.#policy.close();
    await this.#writer?.close();
  }

  /** A call is written when it has settled: until then its pictures stay unchanged. */
  async #record<T>(method: RecordedCall['method'], options: object, call: () => Promise<T>, answerOf?: (result: T) => Answer): Promise<T> {
    // Started first: whether it is refused as BUSY must not depend on the disk.
    const running = call();
    try {
      const result = await running;
      await this.#note({ method, options: plain(options), ...(answerOf ? answerOf(result) : {}), checksum: this.cache.checksum });
      return result;
    } catch (error) {
      const { code } = toPremotorError(error);
      // A call that was refused at the door has asked nothing.
      if (code !== 'BUSY' && code !== 'CLOSED') await this.#note({ method, options: plain(options), error: code, checksum: this.cache.checksum });
      throw error;
    }
  }

  /** At most one call waits to be written. */
  async #note(call: RecordedCall): Promise<void> {
    await this.#writer?.settled();
    const bytes = compressedCall(call);
    bytes.catch(() => undefined);
    this.#writer?.add(call, bytes);
    this.#onCall?.({ call, bytes, cache: this.cache });
  }
}

const plain = (options: object): Record<string, unknown> => ({ ...options });

const checksumOf = (array: Float32Array): number => crc32(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));

const ofChunk = ({ actions, shape, frameIndex, latents }: Chunk): Answer => ({
  actions,
  shape: [...shape],
  frameIndex,
  latents: checksumOf(latents),
});
