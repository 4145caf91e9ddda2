/**
 * A short real prediction for `premotor inspect --measure`: two video passes and one or two action passes on grey pictures, scaled to a whole control
 * cycle. Owned by inspect.ts; what it scales is labelled as such.
 */
import type { Job, Policy } from '../policy/contract.js';
import type { CpuPrecision, KvCache } from '../policy/precision.js';
import type { CliContext } from './context.js';
import { cycleCost, type Dimensions, geometryOf, passFlops } from './cost.js';
import { ProgressBar } from './progress.js';

export interface Measurement {
  readonly backend: string;
  readonly precision: string;
  readonly kvCache: KvCache;
  readonly threads: number;
  readonly videoPassMs: number;
  readonly actionPassMs: number;
  readonly encodeMs: number;
  /** Of the video passes. */
  readonly flopsPerSecond: number;
  /** Scaled: full cache, all passes, without encoding pictures. */
  readonly cycleMs: number;
}

const GREY = 128;

/** Loads the checkpoint and times one prediction. Errors: those of loadPolicy and Policy. */
export async function measure(
  checkpoint: string,
  job: Job,
  dims: Dimensions,
  options: { readonly precision: CpuPrecision; readonly kvCache?: KvCache; readonly allowUncertified: boolean; readonly threads?: number },
  context: CliContext,
): Promise<Measurement> {
  const bar = new ProgressBar(context.err);
  const optional = {
    ...(options.kvCache === undefined ? {} : { kvCache: options.kvCache }),
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  };
  // All steps of the shortened schedule must run, whatever the job's partial denoising says, and only passes that denoise actions are timed.
  const short: Job = { ...job, video_exec_step: -1, infer_mode: 'server' };
  const { precision, allowUncertified } = options;
  const policy = await context.loadPolicy({ checkpoint, job: short, precision, allowUncertified, device: 'auto', ...optional });
  try {
    await policy.reset({ prompt: job.prompt ?? '', signal: context.signal });
    const obs = job.obs_cam_keys.map((camera) => {
      const data = new Uint8Array(job.height * job.width * 3).fill(GREY);
      return { camera, width: job.width, height: job.height, data, capturedAtNs: 0n };
    });
    const chunk = await policy.predict({ obs, videoSteps: 1, actionSteps: 1, signal: context.signal, onProgress: bar.report });
    return scale(chunk.timing, policy.info, job, dims);
  } finally {
    bar.clear();
    await policy.close();
  }
}

type Timing = Awaited<ReturnType<Policy['predict']>>['timing'];

/** From the short prediction's passes to a whole cycle: each modality at the rate it was measured at. */
export function scale(timing: Timing, info: Policy['info'], job: Job, dims: Dimensions): Measurement {
  const { videoTokens, actionTokens, rows } = geometryOf(job);
  const videoPassMs = timing.videoMs / Math.max(1, timing.videoPasses);
  const actionPassMs = timing.actionMs / Math.max(1, timing.actionPasses);
  const actionRows = job.action_guidance_scale > 1 ? rows : 1;
  // The first chunk of an episode finds an empty cache: video attends to itself, actions to the video and themselves.
  const videoFlops = rows * passFlops(dims, 'video', videoTokens, videoTokens);
  const actionFlops = actionRows * passFlops(dims, 'action', actionTokens, videoTokens + actionTokens);
  const msPerFlop = { video: videoPassMs / videoFlops, action: actionPassMs / actionFlops };
  const cycleMs = cycleCost(dims, job, []).passes.reduce(
    (sum, pass) => sum + pass.count * pass.rows * pass.flopsPerRow * msPerFlop[pass.modality],
    0,
  );
  const { backend, precision, kvCache, threads } = info;
  const flopsPerSecond = videoFlops / (videoPassMs / 1000);
  return { backend, precision, kvCache, threads, videoPassMs, actionPassMs, encodeMs: timing.encodeMs, flopsPerSecond, cycleMs };
}
