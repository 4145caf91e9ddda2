/**
 * Measures what passes cost on this machine with a full KV cache, before the robot moves: a few short asynchronous predictions on grey pictures.
 * Called by `premotor plan-cycle` or by whoever starts a control cycle; it spoils the policy's episode, and takes all times from the engine.
 */
import type { CacheState, Frame, Policy, Timing } from '../../policy/contract.js';
import type { PassCost, PassCosts } from './cost.js';
import type { Rung } from './types.js';

const GREY = 128;
const MOMENTS_PER_FRAME = 4;
/** Steps of the predictions that are measured: enough passes for a mean, few enough for a slow machine. */
const VIDEO_STEPS = 2;
const VIDEO_PASSES = VIDEO_STEPS + 1;
const ACTION_STEPS = 2;
const IMAGINE_STEPS = 2;
/** Beside each imagining: the append of the frames, and the actions before and after them. */
const IMAGINE_VIDEO_PASSES = IMAGINE_STEPS + 1;
const IMAGINE_ACTION_PASSES = 2;

export interface PreflightOptions {
  readonly policy: Policy;
  /** What is measured: with and without guidance, where rungs have both. */
  readonly rungs: readonly Rung[];
  /** Predictions of each kind that count; one before them does not. Default: 3. */
  readonly repeats?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, total: number) => void;
}

export interface Preflight {
  readonly costs: PassCosts;
  readonly cache: CacheState;
  readonly repeats: number;
}

/** One kind of prediction to measure. */
interface Kind {
  readonly guidance: boolean;
  readonly frames: number;
}

/** Errors: those of the policy, ABORTED. */
export async function measureCosts({ policy, rungs, repeats = 3, signal, onProgress }: PreflightOptions): Promise<Preflight> {
  const { job } = policy;
  const frames = job.frame_chunk_size;
  const abort = signal === undefined ? {} : { signal };
  const guided = job.guidance_scale > 1 ? [true, false].filter((guidance) => rungs.some((rung) => rung.guidance === guidance)) : [true];
  const kinds = guided.flatMap((guidance): Kind[] => [...new Set([frames, 1])].map((executing) => ({ guidance, frames: executing })));
  const total = kinds.length * (repeats + 1);
  await policy.reset({ prompt: job.prompt ?? '', ...abort });
  const executed = await occupied(policy, signal);
  const timings: { readonly kind: Kind; readonly samples: Timing[] }[] = [];
  let done = 0;
  for (const kind of kinds) {
    const samples: Timing[] = [];
    for (let repeat = 0; repeat <= repeats; repeat++) {
      onProgress?.(done, total);
      const executing = firstFrames(executed, job.used_action_channel_ids.length, frames, kind.frames);
      const steps = { videoSteps: VIDEO_STEPS, videoExecStep: -1, actionSteps: ACTION_STEPS, imagineSteps: IMAGINE_STEPS, guidance: kind.guidance };
      const obs = greyMoments(policy, MOMENTS_PER_FRAME * frames);
      const { timing } = await policy.predictNext({ obs, executed, executing, ...steps, ...abort });
      // The first of a kind meets cold memory.
      if (repeat > 0) samples.push(timing);
      done++;
    }
    timings.push({ kind, samples });
  }
  onProgress?.(total, total);
  return { costs: costsOf(policy, timings), cache: policy.cache, repeats };
}

/** Begins the episode, fills the cache, and gives a chunk of actions to execute. */
async function occupied(policy: Policy, signal: AbortSignal | undefined): Promise<Float32Array> {
  const abort = signal === undefined ? {} : { signal };
  const frames = policy.job.frame_chunk_size;
  const [obs] = greyMoments(policy, 1);
  const first = await policy.predict({ obs: obs ?? [], videoSteps: 1, videoExecStep: -1, actionSteps: 1, ...abort });
  await policy.commit({ obs: greyMoments(policy, MOMENTS_PER_FRAME * (frames - 1)), actions: first.actions });
  await policy.occupy();
  return first.actions;
}

function greyMoments({ job }: Policy, count: number): Frame[][] {
  const data = new Uint8Array(job.width * job.height * 3).fill(GREY);
  const moment = job.obs_cam_keys.map((camera): Frame => ({ camera, width: job.width, height: job.height, data, capturedAtNs: 0n }));
  return Array.from({ length: count }, () => moment);
}

/** The first frames of a chunk [channels, K, H]. */
function firstFrames(actions: Float32Array, channels: number, frames: number, count: number): Float32Array {
  const perChannel = actions.length / channels;
  const wanted = (perChannel / frames) * count;
  const result = new Float32Array(channels * wanted);
  for (let channel = 0; channel < channels; channel++) {
    result.set(actions.subarray(channel * perChannel, channel * perChannel + wanted), channel * wanted);
  }
  return result;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

function costsOf({ job }: Policy, timings: readonly { readonly kind: Kind; readonly samples: readonly Timing[] }[]): PassCosts {
  const frames = job.frame_chunk_size;
  const all = timings.flatMap(({ samples }) => samples);
  const [video, action]: [PassCost[], PassCost[]] = [[], []];
  for (const { kind, samples } of timings) {
    const guided = kind.guidance && job.guidance_scale > 1;
    const actionGuided = kind.guidance && job.action_guidance_scale > 1;
    const actionPassMs = median(samples.map(({ actionMs }) => actionMs / ACTION_STEPS));
    if (kind.frames === frames) {
      video.push({ frames, guided, passMs: median(samples.map(({ videoMs }) => videoMs / VIDEO_PASSES)) });
      if (!action.some((known) => known.guided === actionGuided)) action.push({ frames, guided: actionGuided, passMs: actionPassMs });
    } else {
      // What imagining takes beside its action passes, which cost at most what those of a whole chunk do.
      const passMs = ({ imagineMs }: Timing): number =>
        Math.max(
          (imagineMs - IMAGINE_ACTION_PASSES * actionPassMs) / IMAGINE_VIDEO_PASSES,
          imagineMs / (IMAGINE_VIDEO_PASSES + IMAGINE_ACTION_PASSES),
        );
      video.push({ frames: kind.frames, guided, passMs: median(samples.map(passMs)) });
    }
  }
  const rest = ({ totalMs, encodeMs, commitMs, imagineMs, videoMs, actionMs }: Timing): number =>
    Math.max(0, totalMs - encodeMs - commitMs - imagineMs - videoMs - actionMs);
  return {
    encodeMsPerMoment: median(all.map(({ encodeMs }) => encodeMs / (MOMENTS_PER_FRAME * frames))),
    commitMsPerFrame: median(all.map(({ commitMs }) => commitMs / frames)),
    video,
    action,
    otherMs: median(all.map(rest)),
  };
}
