/**
 * A native module without mathematics, for the tests of states, errors and aborts: it keeps a cache count, waits when told to, fails when told to,
 * and records what it was called with. Used by test/policy; a fact about the model must never be tested with it.
 */
import type {
  NativeCache,
  NativeChunk,
  NativeCommit,
  NativeEmbedding,
  NativeEngine,
  NativeEngineInfo,
  NativeEngineModule,
  NativeJob,
  NativePredict,
  NativePredictNext,
  NativeRestore,
  NativeTiming,
} from '../../src/native.js';
import type { TextProvider } from '../../src/policy/local.js';

export const TEXT_DIM = 4;

/** Seeds that tell the fake what to do; they also work across a process boundary. */
export const seeds = { waitForCancel: 1001n, fail: 1002n, exit: 1003n, deviceFault: 1004n } as const;

const timing: NativeTiming = {
  encodeMs: 1,
  videoMs: 2,
  actionMs: 3,
  commitMs: 4,
  imagineMs: 5,
  totalMs: 15,
  videoPasses: 6,
  actionPasses: 7,
};

/** An error as the addon throws it: a plain Error with fields. */
export function nativeError(code: string, message: string, fields: Record<string, string> = {}): Error {
  return Object.assign(new Error(message), { code, ...fields });
}

export interface RecordedCall {
  readonly method: string;
  readonly options: unknown;
}

export class FakeEngine implements NativeEngine {
  readonly info: NativeEngineInfo;
  readonly calls: RecordedCall[] = [];
  /** Awaited inside every computing call: lets a test decide when the call goes on. */
  hold: Promise<void> = Promise.resolve();
  closes = 0;
  /** Calls that the engine is working on. */
  working = 0;
  /** True when it was closed in the middle of a call, which must not happen. */
  closedAtWork = false;
  cancels = 0;
  /** Set by a test: the next computing call rejects with it. */
  failure: Error | undefined;
  /** Set by a test: the next predictNext fails after its commit. */
  failAfterCommit = false;
  readonly #job: NativeJob;
  #cancel: (() => void) | undefined;
  #frameIndex = 0;
  #committed = 0;
  #predicted = 0;

  constructor(job: NativeJob) {
    this.#job = job;
    const rows = Math.floor(job.height / 16);
    const latentShape: [number, number, number, number] = [48, job.frameChunkSize, rows, Math.floor(job.width / 16) * job.cameras];
    this.info = {
      backend: 'fake',
      weightBytes: 10,
      cacheBytes: 20,
      parameters: 30,
      unusedTensors: ['patch_embedding.weight'],
      latentShape,
      actionShape: [job.usedActionChannelIds.length, job.frameChunkSize, job.actionPerFrame],
      textDim: TEXT_DIM,
    };
  }

  async reset(positive: NativeEmbedding, negative: NativeEmbedding | null): Promise<void> {
    await this.#work('reset', { positive, negative });
    this.#frameIndex = this.#committed = this.#predicted = 0;
  }

  async predict(options: NativePredict): Promise<NativeChunk> {
    await this.#work('predict', options, options.seed);
    options.onProgress?.('video', 1, 2);
    options.onProgress?.('video', 2, 2);
    this.#predicted += this.#job.frameChunkSize;
    return this.#chunk(options);
  }

  async commit(options: Parameters<NativeEngine['commit']>[0]): Promise<NativeCommit> {
    await this.#work('commit', options);
    this.#keep(options.actions);
    const trace = options.trace ? { trace: { 'video.input': { dtype: 'float32' as const, shape: [1], data: Float32Array.of(5) } } } : {};
    return { ...this.#committedFrames(options.actions), ...trace };
  }

  async predictNext(options: NativePredictNext): Promise<NativeChunk> {
    await this.#work('predictNext', options, options.seed);
    const { executed, executing, forecast } = options;
    if (executed !== undefined) this.#keep(executed);
    if (this.failAfterCommit) throw nativeError('ABORTED', 'cancelled while imagining');
    const frames = this.#framesOf(executing);
    return {
      ...this.#chunk(options),
      frameIndex: this.#frameIndex + frames,
      ...(executed === undefined ? {} : { committed: this.#committedFrames(executed) }),
      ...(frames === 0 || forecast !== undefined ? {} : { imagined: this.#latents(frames) }),
    };
  }

  async encoderState(tag: string): Promise<Uint8Array> {
    await this.#work('encoderState', tag);
    return Uint8Array.of(1, 2, 3);
  }

  async restore(options: NativeRestore): Promise<void> {
    await this.#work('restore', options);
    this.#frameIndex = this.#committed = this.#predicted = 0;
    for (const [at, { actions }] of options.commits.entries()) {
      this.#keep(actions);
      options.onProgress?.('recover', at + 1, options.commits.length);
    }
  }

  async occupy(): Promise<void> {
    await this.#work('occupy', {});
    this.#committed = 100;
    this.#predicted = 0;
  }

  async decode(latents: Float32Array, frames: number): Promise<{ data: Float32Array; shape: [number, number, number, number] }> {
    await this.#work('decode', { latents, frames });
    const pictures = 1 + 4 * (frames - 1);
    const data = Float32Array.from({ length: pictures * 2 * 2 * 3 }, (_, index) => (index % 256) / 255);
    return { data, shape: [pictures, 2, 2, 3] };
  }

  cache(): NativeCache {
    const checksum = this.#committed.toString(16).padStart(16, '0');
    return { capacity: 100, valid: this.#committed + this.#predicted, committed: this.#committed, predicted: this.#predicted, checksum };
  }

  cancel(): void {
    this.cancels++;
    this.#cancel?.();
  }

  async close(): Promise<void> {
    this.closes++;
    this.closedAtWork = this.working > 0;
  }

  #keep(executed: Float32Array): void {
    const frames = this.#framesOf(executed);
    this.#predicted = 0;
    this.#committed += frames;
    this.#frameIndex += frames;
  }

  #framesOf(actions: Float32Array): number {
    return actions.length / (this.info.actionShape[0] * this.info.actionShape[2]);
  }

  #latents(frames: number): Float32Array {
    const [channels, , height, width] = this.info.latentShape;
    return Float32Array.from({ length: channels * frames * height * width }, (_, index) => index);
  }

  #committedFrames(actions: Float32Array): NativeCommit {
    const frames = this.#framesOf(actions);
    return { frameIndex: this.#frameIndex, frames, latents: this.#latents(frames), timing };
  }

  #chunk(options: { readonly seed: bigint; readonly trace: boolean }): NativeChunk {
    const actions = new Float32Array(this.info.actionShape.reduce((a, b) => a * b)).fill(Number(options.seed));
    const latents = this.#latents(this.info.latentShape[1]);
    const trace = options.trace ? { trace: { 'video.s0.out': { dtype: 'float32' as const, shape: [1, 2], data: Float32Array.of(1, 2) } } } : {};
    return { actions, latents, frameIndex: this.#frameIndex, timing, ...trace };
  }

  async #work(method: string, options: unknown, seed?: bigint): Promise<void> {
    this.calls.push({ method, options });
    this.working++;
    const cancelled = new Promise<never>((_, reject) => {
      this.#cancel = () => reject(nativeError('ABORTED', 'The call was cancelled.'));
    });
    cancelled.catch(() => undefined);
    try {
      if (seed === seeds.exit) process.exit(7);
      if (seed === seeds.deviceFault) throw Object.assign(new Error('the GPU stopped working'), { code: 'DEVICE_FAULT' });
      if (seed === seeds.waitForCancel) await cancelled;
      await Promise.race([this.hold, cancelled]);
      const failure = seed === seeds.fail ? nativeError('OUT_OF_MEMORY', 'no memory', { expected: '1 GB', found: '1 MB' }) : this.failure;
      this.failure = undefined;
      if (failure !== undefined) throw failure;
    } finally {
      this.#cancel = undefined;
      this.working--;
    }
  }
}

export class FakeNative implements NativeEngineModule {
  readonly engines: FakeEngine[] = [];
  readonly opened: Parameters<NativeEngineModule['openEngine']>[0][] = [];

  async openEngine(options: Parameters<NativeEngineModule['openEngine']>[0]): Promise<NativeEngine> {
    const engine = new FakeEngine(options.job);
    this.opened.push(options);
    this.engines.push(engine);
    return engine;
  }

  async encodeText({ ids }: Parameters<NativeEngineModule['encodeText']>[0]): Promise<NativeEmbedding> {
    return { rows: Float32Array.from({ length: ids.length * TEXT_DIM }, (_, index) => index + 1), count: ids.length };
  }

  async inspect(): Promise<never> {
    throw nativeError('INTERNAL', 'the fake inspects nothing');
  }

  noise(_seed: bigint, _stream: number, _frameIndex: number, count: number): Float32Array {
    return new Float32Array(count);
  }

  cpu(): { name: string; features: string[] } {
    return { name: 'fake', features: [] };
  }
}

/** One token per word and an end mark; a word's embedding is its length. "slow" never answers until aborted or released. */
export class FakeText implements TextProvider {
  readonly asked: string[] = [];
  hold: Promise<void> = Promise.resolve();

  async embedPrompt(prompt: string): ReturnType<TextProvider['embedPrompt']> {
    this.asked.push(prompt);
    await this.hold;
    const words = prompt.split(/\s+/).filter((word) => word !== '');
    const count = words.length + 1;
    const rows = Float32Array.from({ length: count * TEXT_DIM }, (_, index) => words[Math.floor(index / TEXT_DIM)]?.length ?? 1);
    const ids = new Int32Array(512);
    const mask = new Uint8Array(512).fill(1, 0, count);
    ids.set(words.map((word) => word.length + 1));
    ids[count - 1] = 1;
    return { rows, count, ids, mask, cleaned: words.join(' '), source: 'encoder', warnings: [] };
  }
}
