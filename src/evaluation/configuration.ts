/**
 * What is evaluated and what comes out: one configuration of a policy, the result of one episode, the summary of many. Types and the arithmetic that
 * turns a configuration into a job and an episode's length; src/evaluation/episode.ts runs it.
 */
import type { ModeName } from '../control/modes/mode.js';
import type { Commits } from '../control/run.js';
import type { Job } from '../policy/contract.js';
import { type CpuPrecision, type KvCache, pairName, precisionPair } from '../policy/precision.js';
import { type Disturbances, formatDisturbances } from '../sim/disturbances.js';
import { ACTION_RATE_HZ } from '../sim/job.js';
import type { ButtonColour } from '../sim/scene.js';
import type { Task, TaskName } from '../sim/tasks/task.js';

/** How a checkpoint is run. Two configurations are compared on the same seeds. */
export interface Configuration {
  readonly precision: CpuPrecision;
  /** Default: the precision's. */
  readonly kvCache?: KvCache;
  /** Default: the job's. */
  readonly videoSteps?: number;
  readonly actionSteps?: number;
  readonly videoExecStep?: number;
  /** false: without guidance, whatever the job's scales say. Default: the job's. */
  readonly guidance?: boolean;
  readonly imagineSteps?: number;
  /** 'chunk': the memory is cleared before every chunk (docs/EVAL.md). */
  readonly memory: 'episode' | 'chunk';
  readonly disturbances: Disturbances;
  readonly pace: 'virtual' | 'real';
  /** Default: 'sync'. */
  readonly mode?: ModeName;
  /** In virtual time: how long a prediction takes with its commit, in chunks of robot time. Default: 0 for 'sync', DELAY_CHUNKS otherwise. */
  readonly delayChunks?: number;
  /** What is committed as executed. Default: 'executed'. */
  readonly commits?: Commits;
  /** The joints' speed limits are this share of the arm's. Default: 1. */
  readonly speedShare?: number;
}

/** The delay that asynchronous modes are evaluated with in virtual time unless one is given. */
export const DELAY_CHUNKS = 0.5;

/** Robot time that every prediction takes in virtual time, in milliseconds; undefined in real time. */
export function thinkingMsOf({ pace, mode = 'sync', delayChunks }: Configuration, job: Job): number | undefined {
  if (pace === 'real') return undefined;
  const chunks = delayChunks ?? (mode === 'sync' ? 0 : DELAY_CHUNKS);
  return (chunks * job.frame_chunk_size * job.action_per_frame * 1000) / ACTION_RATE_HZ;
}

/** One checkpoint and its job. */
export interface Subject {
  readonly checkpoint: string;
  /** An exported policy: the file of its mapping, from which the job follows. */
  readonly onnxJob?: string;
  /** A plan of it, at the configuration's precision. */
  readonly plan?: string;
  readonly job: Job;
}

/** 'timeout': neither succeeded nor failed when the time was over. 'error': the control cycle ended the episode. */
export type EpisodeVerdict = 'succeeded' | 'failed' | 'timeout' | 'error';

export interface EpisodeResult {
  readonly task: TaskName;
  readonly seed: number;
  readonly instruction: string;
  readonly verdict: EpisodeVerdict;
  /** What went wrong, for people; empty after a success. */
  readonly why: string;
  /** Robot time until the task was done; null when it was not. */
  readonly completionS: number | null;
  /** Robot time of the whole episode. */
  readonly robotS: number;
  /** Robot time until the arm first moved, and the time that it stood still after that and before the task was done (or the episode ended). */
  readonly firstMoveS: number | null;
  readonly idleS: number;
  readonly presses: readonly { readonly colour: ButtonColour; readonly timeS: number }[];
  /** Largest third derivative of any joint's setpoint at the physics rate. */
  readonly peakJerkRadPerS3: number;
  readonly knots: number;
  readonly clampedKnots: number;
  /** When the block was knocked aside; null when it was not. */
  readonly nudgedAtS: number | null;
  /** Wall-clock time of each chunk's two calls to the policy: the only numbers that differ from run to run. */
  readonly predictMs: readonly number[];
  readonly commitMs: readonly number[];
  /** Only where frames were assumed: how far they were from what was then seen. */
  readonly assumed?: AssumedFrames;
}

/** Latent frames that a prediction went on from before they were seen. */
export interface AssumedFrames {
  readonly frames: number;
  /** Root mean square over normalised latents: of what was assumed minus what was seen, and of the last frame that was known minus that. */
  readonly errorRms: number;
  readonly stillErrorRms: number;
}

/** Pictures of a failed episode, evenly through time. */
export interface EpisodePictures {
  readonly task: TaskName;
  readonly seed: number;
  readonly pictures: readonly { readonly timeS: number; readonly width: number; readonly height: number; readonly data: Uint8Array }[];
}

/**
 * The job with what a configuration changes in it. Steps are given with each prediction, as a robot's budget would. Without guidance only the
 * prompt's row is read, and scales of 1 compute that row alone. Without its ladder a job with other steps is still a job.
 */
export function configuredJob({ ladder: _, ...job }: Job, { videoExecStep, guidance, imagineSteps }: Configuration): Job {
  return {
    ...job,
    ...(videoExecStep === undefined ? {} : { video_exec_step: videoExecStep }),
    ...(imagineSteps === undefined ? {} : { imagine_steps: imagineSteps }),
    ...(guidance === false ? { guidance_scale: Math.min(1, job.guidance_scale), action_guidance_scale: Math.min(1, job.action_guidance_scale) } : {}),
  };
}

/** Task.chunksMax counts chunks of so many latent frames of so many actions. */
const REFERENCE_FRAMES = 2;
const REFERENCE_ACTIONS = 8;

/** Chunks of an episode: as many as give the robot the task's time, whatever a chunk's length and what is padding in it. */
export function chunksOf(task: Task, job: Job, memory: Configuration['memory']): number {
  const actions = (REFERENCE_FRAMES * task.chunksMax - 1) * REFERENCE_ACTIONS;
  const frames = actions / job.action_per_frame;
  const perChunk = job.frame_chunk_size;
  return Math.ceil(memory === 'chunk' ? frames / (perChunk - 1) : (frames + 1) / perChunk);
}

/** The configuration in few words, the same for the same configuration: a name for files and tables. */
export function describeConfiguration(configuration: Configuration): string {
  const { precision, kvCache, videoSteps, actionSteps, videoExecStep, guidance, imagineSteps, memory, disturbances, pace } = configuration;
  const { mode = 'sync', delayChunks, commits = 'executed', speedShare = 1 } = configuration;
  const steps = videoSteps === undefined ? 'job steps' : `${videoSteps} video steps`;
  const delay = delayChunks ?? (mode === 'sync' || pace === 'real' ? 0 : DELAY_CHUNKS);
  const parts = [
    ...(mode === 'sync' ? [] : [mode]),
    ...(delay === 0 ? [] : [`delay ${100 * delay} %`]),
    steps,
    ...(actionSteps === undefined ? [] : [`${actionSteps} action steps`]),
    ...(videoExecStep === undefined || videoExecStep === -1 ? [] : [`first ${videoExecStep} passes`]),
    ...(guidance === false ? ['unguided'] : []),
    ...(imagineSteps === undefined ? [] : [`${imagineSteps} imagine steps`]),
    pairName(precisionPair(precision, kvCache)),
    ...(memory === 'chunk' ? ['memory off'] : []),
    ...(formatDisturbances(disturbances) === '' ? [] : [formatDisturbances(disturbances)]),
    ...(commits === 'executed' ? [] : [`commits what was ${commits}`]),
    ...(speedShare === 1 ? [] : [`${100 * speedShare} % of the speed`]),
    ...(pace === 'real' ? ['real time'] : []),
  ];
  return parts.join(', ');
}
