/**
 * A native module that answers with a recorded trace, whatever it is asked to compute. With it the golden harness, the text path, the local and the
 * isolated policy are tested without an engine; it proves nothing about the engine. `change` lets a test spoil an answer.
 */
import { PremotorError } from '../../src/errors.js';
import type { NativeChunk, NativeCommit, NativeEngine, NativeEngineModule, NativePredict, NativeTensor, NativeTiming } from '../../src/native.js';
import type { TraceTensor } from '../../src/policy/contract.js';
import { type Golden, type GoldenCall, recorded } from './golden.js';

export type Change = (name: string, tensor: NativeTensor) => NativeTensor | undefined;

const timing: NativeTiming = { encodeMs: 0, videoMs: 0, actionMs: 0, commitMs: 0, imagineMs: 0, totalMs: 0, videoPasses: 0, actionPasses: 0 };

class ReplayEngine implements NativeEngine {
  readonly info: NativeEngine['info'];
  readonly #golden: Golden;
  readonly #change: Change;
  #next = 0;
  #last: GoldenCall | undefined;

  constructor(golden: Golden, change: Change) {
    this.#golden = golden;
    this.#change = change;
    const first = golden.calls.find(({ kind }) => kind === 'infer') as GoldenCall;
    const shapeOf = (name: string): number[] => [...(golden.tensors.get(`${first.prefix}.${name}`)?.shape ?? [])];
    this.info = {
      backend: 'replay',
      weightBytes: 0,
      cacheBytes: 0,
      parameters: 0,
      unusedTensors: [],
      latentShape: shapeOf('noise.video').slice(1) as [number, number, number, number],
      actionShape: shapeOf('action') as [number, number, number],
      textDim: golden.tensors.get('c00.prompt_embeds_pos')?.shape[2] ?? 0,
    };
  }

  async reset(): Promise<void> {
    this.#take('reset');
  }

  async predict(options: NativePredict): Promise<NativeChunk> {
    const call = this.#take('infer');
    const tensors = this.#answer(call);
    this.#same(options.noiseVideo, `${call.prefix}.noise.video`);
    this.#same(options.noiseAction, `${call.prefix}.noise.action`);
    for (const [camera, frame] of (options.frames ?? []).entries()) this.#same(frame.data, `${call.prefix}.img${camera}`);
    if ((options.frames === undefined) !== (call.obs_ignored === true)) throw new Error(`${call.prefix}: pictures passed or missing`);
    for (const [name, tensor] of this.#golden.tensors) if (name.startsWith('sched.')) tensors[name] = this.#changed(name, tensor);
    const of = (name: string): Float32Array => Float32Array.from(tensors[name]?.data ?? []);
    return { actions: of('action'), latents: of('latents'), frameIndex: call.frame_st_id ?? -1, timing, trace: tensors };
  }

  async commit({ actions, moments }: Parameters<NativeEngine['commit']>[0]): Promise<NativeCommit> {
    const call = this.#take('kv');
    this.#same(actions, `${call.prefix}.state`);
    const size = moments[0]?.[0]?.data.length ?? 0;
    const pictures = new Uint8Array(moments.length * size);
    for (const [at, moment] of moments.entries()) pictures.set(moment[0]?.data ?? [], at * size);
    this.#same(pictures, `${call.prefix}.img0`);
    const trace = this.#answer(call);
    const seen = trace['video.input'];
    const latents = Float32Array.from(seen?.data ?? []);
    return { frameIndex: call.frame_st_id_after ?? -1, frames: seen?.shape[2] ?? 0, latents, timing, trace };
  }

  async predictNext(): Promise<NativeChunk> {
    throw new Error('no trace of predictNext exists');
  }

  async encoderState(): Promise<Uint8Array> {
    throw new Error('no trace of encoderState exists');
  }

  async restore(): Promise<void> {
    throw new Error('no trace of restore exists');
  }

  async occupy(): Promise<void> {
    throw new Error('no trace of occupy exists');
  }

  async decode(latents: Float32Array): Promise<{ data: Float32Array; shape: [number, number, number, number] }> {
    const call = this.#take('decode');
    this.#same(latents, `${call.prefix}.latents_all`);
    const video = this.#changed(`${call.prefix}.video`, this.#golden.tensors.get(`${call.prefix}.video`) as TraceTensor);
    return { data: Float32Array.from(video.data), shape: video.shape as [number, number, number, number] };
  }

  cache(): ReturnType<NativeEngine['cache']> {
    const { kv_capacity: capacity = 0, kv_valid: valid = 0, kv_pred_valid: predicted = 0 } = this.#last ?? {};
    return { capacity, valid, committed: valid - predicted, predicted, checksum: '' };
  }

  cancel(): void {}

  async close(): Promise<void> {}

  #take(kind: GoldenCall['kind']): GoldenCall {
    const call = this.#golden.calls[this.#next++];
    if (call?.kind !== kind) throw new Error(`the recording goes on with ${call?.kind ?? 'nothing'}, not with ${kind}`);
    this.#last = call;
    return call;
  }

  #answer(call: GoldenCall): Record<string, NativeTensor> {
    const entries: [string, NativeTensor][] = [];
    for (const [name, tensor] of recorded(this.#golden, call)) entries.push([name, this.#changed(`${call.prefix}.${name}`, tensor)]);
    return Object.fromEntries(entries.filter(([, tensor]) => tensor.shape.length > 0));
  }

  /** A copy, possibly changed; no shape: left out. */
  #changed(name: string, tensor: TraceTensor): NativeTensor {
    const copy: NativeTensor = { dtype: tensor.dtype, shape: [...tensor.shape], data: tensor.data.slice() };
    return this.#change(name, copy) ?? { ...copy, shape: [] };
  }

  #same(found: ArrayLike<number> | undefined, name: string): void {
    const wanted = this.#golden.tensors.get(name)?.data;
    const equal = found !== undefined && wanted !== undefined && found.length === wanted.length && wanted.every((value, at) => found[at] === value);
    if (!equal) throw new Error(`${name} did not arrive as it was recorded`);
  }
}

/** The module for one case. encodeText answers with the recorded embeddings of the recorded ids. */
export function replayNative(golden: Golden, change: Change = (_, tensor) => tensor): NativeEngineModule {
  return {
    openEngine: async () => new ReplayEngine(golden, change),
    encodeText: async ({ ids }) => {
      for (const [name, tensor] of golden.tensors) {
        const recordedIds = /token_ids_(pos|neg)$/.test(name) ? tensor.data : undefined;
        if (recordedIds === undefined || !ids.every((id, at) => id === recordedIds[at]) || recordedIds[ids.length] === ids.at(-1)) continue;
        const embeds = golden.tensors.get(name.replace('token_ids', 'prompt_embeds')) as TraceTensor;
        const width = embeds.shape[2] ?? 0;
        return { rows: (embeds.data as Float32Array).slice(0, ids.length * width), count: ids.length };
      }
      throw new PremotorError('TEXT_INVALID', `no prompt of the recording has the ids ${[...ids].join(' ')}`);
    },
    inspect: () => Promise.reject(new Error('nothing is inspected')),
    noise: (_seed, _stream, _frame, count) => new Float32Array(count),
    cpu: () => ({ name: 'replay', features: [] }),
  };
}
