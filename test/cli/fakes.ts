/** Stand-ins for the command line's outside: sinks that keep what was written, a policy that records its calls, an inspection. Not a test itself. */
import type { CliContext, Sink } from '../../src/cli/context.js';
import { PremotorError } from '../../src/errors.js';
import type { NativeEngineModule, NativeInspection } from '../../src/native.js';
import type { Chunk, DecodedVideo, Frame, Job, LoadPolicyOptions, Policy, PredictOptions } from '../../src/policy/contract.js';
import { readJob } from '../../src/policy/job.js';
import { defaultKvCache } from '../../src/policy/precision.js';
import { toTensor } from '../../src/policy/tensor.js';

export class TextSink implements Sink {
  text = '';
  readonly isTTY: boolean;
  readonly columns = 80;

  constructor(isTTY = false) {
    this.isTTY = isTTY;
  }

  write(text: string): void {
    this.text += text;
  }
}

export interface FakeCalls {
  load: LoadPolicyOptions[];
  prompts: string[];
  predictions: PredictOptions[];
  decodedFrames: number[];
  closed: number;
}

/** A policy of 2 channels x 2 frames x 3 steps whose values tell chunk, channel, frame and step apart. */
export function fakePolicy(calls: FakeCalls, options: { readonly hang?: boolean } = {}): (load: LoadPolicyOptions) => Promise<Policy> {
  return async (load) => {
    calls.load.push(load);
    const { job } = await readJob(load.job);
    const { precision = 'f32', kvCache = defaultKvCache(precision), threads = 1 } = load;
    let frameIndex = 0;
    const [channels, frames, steps] = [job.used_action_channel_ids.length, job.frame_chunk_size, job.action_per_frame];
    const timing = { encodeMs: 1, videoMs: 60, actionMs: 20, commitMs: 0, imagineMs: 0, totalMs: 81, videoPasses: 6, actionPasses: 10 };
    const policy = {
      job,
      info: { backend: 'fake', precision, kvCache, threads, warnings: ['a warning'], checkpointHash: 'h', parameters: 5 },
      reset: async ({ prompt }: { prompt: string }) => {
        calls.prompts.push(prompt);
        return { source: 'encoder', cleanedPrompt: prompt.trim(), tokens: 4, warnings: [] };
      },
      predict: async (request: PredictOptions): Promise<Chunk> => {
        calls.predictions.push(request);
        request.onProgress?.({ stage: 'video', done: 6, total: 6 });
        if (options.hang === true) {
          const { signal } = request;
          await new Promise((_, reject) =>
            signal?.addEventListener('abort', () => reject(new PremotorError('ABORTED', 'The prediction was stopped.'))),
          );
        }
        const start = frameIndex;
        frameIndex += frames;
        const actions = Float32Array.from({ length: channels * frames * steps }, (_, index) => {
          const [step, frame, channel] = [index % steps, Math.floor(index / steps) % frames, Math.floor(index / (steps * frames))];
          return start * 1000 + channel * 100 + frame * 10 + step + 0.1;
        });
        const latents = toTensor(new Float32Array(48 * frames * 4), [1, 48, frames, 2, 2]);
        return { actions, shape: [channels, frames, steps], latents, timing, frameIndex: start, generation: 1 };
      },
      decode: async (latents: Float32Array & { shape: readonly number[] }): Promise<DecodedVideo> => {
        const count = 1 + ((latents.shape[2] ?? 1) - 1) * 4;
        calls.decodedFrames.push(latents.shape[2] ?? 0);
        const video = Array.from({ length: count }, (_, index): Frame => {
          const data = new Uint8Array(32 * 32 * 3).fill(index * 9);
          return { camera: 'imagined', width: 32, height: 32, data, capturedAtNs: 0n };
        });
        return Object.assign(video, { video: toTensor(new Float32Array(0), [0]) }) as unknown as DecodedVideo;
      },
      close: async () => void calls.closed++,
    };
    return policy as unknown as Policy;
  };
}

export const newCalls = (): FakeCalls => ({ load: [], prompts: [], predictions: [], decodedFrames: [], closed: 0 });

/** A small but complete job. */
export function smallJob(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    obs_cam_keys: ['observation.images.cam_high', 'observation.images.cam_wrist'],
    guidance_scale: 5,
    action_guidance_scale: 1,
    num_inference_steps: 5,
    action_num_inference_steps: 10,
    snr_shift: 5,
    action_snr_shift: 1,
    used_action_channel_ids: [0, 28],
    norm_stat: { q01: Array(30).fill(-1), q99: Array(30).fill(1) },
    attn_window: 4,
    height: 32,
    width: 32,
    frame_chunk_size: 2,
    action_per_frame: 3,
    ...changes,
  };
}

export const releasedJob = async (changes: Record<string, unknown>): Promise<Job> => (await readJob(smallJob(changes))).job;

export const transformerConfig = {
  patch_size: [1, 2, 2],
  num_attention_heads: 2,
  attention_head_dim: 24,
  in_channels: 48,
  action_dim: 30,
  text_dim: 32,
  ffn_dim: 96,
  num_layers: 2,
};

type Component = NativeInspection['components'][number];

export function inspection(changes: Partial<Record<'transformer' | 'vae' | 'text_encoder', Partial<Component>>> = {}): NativeInspection {
  const component = (name: 'transformer' | 'vae' | 'text_encoder', config: Record<string, unknown>, tensors: Component['tensors']): Component => ({
    name,
    present: true,
    config,
    files: [{ path: `${name}/weights.safetensors`, bytes: 4096 }],
    tensors,
    parameters: tensors.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0),
    bytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0),
    problems: [],
    ...changes[name],
  });
  const tensor = (name: string, dtype: string, shape: number[], used = true) => {
    const bytes = shape.reduce((product, size) => product * size, 1) * (dtype === 'F32' ? 4 : 2);
    return { name, dtype, shape, bytes, used };
  };
  return {
    components: [
      component('transformer', transformerConfig, [
        tensor('a.weight', 'F32', [48, 48]),
        tensor('a.bias', 'F32', [48]),
        tensor('b.weight', 'BF16', [48, 96]),
        tensor('c.weight', 'F16', [10, 10]),
        tensor('patch_embedding.weight', 'F32', [48, 48, 1, 2, 2], false),
      ]),
      component('vae', { z_dim: 48, base_dim: 4 }, [
        tensor('encoder.conv_in.weight', 'F32', [4, 12, 3, 3, 3]),
        tensor('n.gamma', 'F32', [4, 1, 1, 1]),
      ]),
      component('text_encoder', { d_model: 32 }, [
        tensor('shared.weight', 'F32', [300, 32]),
        tensor('encoder.block.0.x.weight', 'F32', [32, 32]),
        tensor('encoder.block.1.x.weight', 'F32', [32, 32]),
        tensor('encoder.block.1.y.weight', 'F32', [32, 8]),
      ]),
    ],
  };
}

export function fakeNative(parts: Partial<NativeEngineModule>): CliContext['loadNative'] {
  return () => parts as ReturnType<CliContext['loadNative']>;
}

/** A context of fakes, and the sinks behind it. */
export function fakeContext(parts: Partial<CliContext> = {}): { out: TextSink; err: TextSink; context: CliContext } {
  const out = new TextSink();
  const err = new TextSink();
  const unexpected = () => {
    throw new Error('not expected to be called');
  };
  return { out, err, context: { out, err, loadPolicy: unexpected, loadNative: unexpected, signal: new AbortController().signal, ...parts } };
}
