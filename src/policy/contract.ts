/**
 * The policy contract: what the rest of premotor, and third parties, call. One implementation runs in this process (local.ts), one in a child
 * process (isolated.ts); both behave alike. Types only: nothing here computes.
 */
import type { PremotorError } from '../errors.js';
import type { ModeName } from '../mode-names.js';

/** One camera picture. `data` is RGB, 8 bits, [height, width, 3] row by row. */
export interface Frame {
  readonly camera: string;
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
  /** Monotonic time of capture, nanoseconds. */
  readonly capturedAtNs: bigint;
}

/** A named array of a trace: the golden traces' names and shapes. Floats are always given as float32. */
export interface TraceTensor {
  readonly dtype: 'float32' | 'int32' | 'uint8';
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array | Uint8Array;
}
export type Trace = Map<string, TraceTensor>;

/** A Float32Array that also knows its shape; `data` is the array itself. */
export type Tensor = Float32Array & { readonly shape: readonly number[]; readonly dtype: 'float32'; readonly data: Float32Array };

export type Precision = 'f32' | 'bf16' | 'int8' | 'int4' | 'fp8';
/** What cached keys and values are held in; int8 with a scale per head and token. */
export type KvCache = 'f32' | 'bf16' | 'int8';
export type Device = 'cpu' | 'cuda' | 'auto';

/** Quantile normalisation of the 30 action channels. */
export interface NormStat {
  readonly q01: readonly number[];
  readonly q99: readonly number[];
}

/** What `premotor eval certify` found when it compared a rung with the first one, episode by episode. */
export interface LadderCertificate {
  /** ISO 8601, UTC. */
  readonly date: string;
  /** SHA-256 of the checkpoint. */
  readonly checkpoint: string;
  /** Version of premotor. */
  readonly tool: string;
  readonly tasks: readonly string[];
  /** Episodes per task, and the seed of the first. */
  readonly episodes: number;
  readonly seed: number;
  /** Shares of episodes that succeeded with this rung and with the first. */
  readonly success: number;
  readonly base_success: number;
  /** Success of this rung minus that of the first, points of percent, with a 95 % interval for paired outcomes. */
  readonly difference_points: number;
  readonly interval_points: readonly [number, number];
  /** The rung may be this much worse. */
  readonly margin_points: number;
  /** How predicting and moving were interleaved. */
  readonly mode: string;
  /** The steps that were run, of this rung and of the first: steps changed afterwards are not certified. */
  readonly rung: string;
  readonly base: string;
}

/** One way of denoising that the budget may choose. */
export interface LadderRung {
  readonly video_steps: number;
  /** As the job's; in a file it may be given by stop_sigma instead: the pass that brings the noise level to at most this. */
  readonly video_exec_step: number;
  readonly action_steps: number;
  /** false: without guidance. true: with the job's. */
  readonly guidance: boolean;
  readonly imagine_steps: number;
  readonly certificate?: LadderCertificate;
}

/** A job: how one robot uses a checkpoint. Field names are the reference's job configuration. */
export interface Job {
  readonly param_dtype: 'float32' | 'bfloat16';
  readonly patch_size: readonly [number, number, number];
  readonly infer_mode: 'server' | 'i2va';
  readonly env_type: 'none' | 'robotwin_tshape';
  readonly action_dim: number;
  readonly obs_cam_keys: readonly string[];
  readonly guidance_scale: number;
  readonly action_guidance_scale: number;
  readonly num_inference_steps: number;
  /** -1: all steps, then one pass at t = 0 that only writes the cache. n > 0: the first n passes, the last of which writes the cache. */
  readonly video_exec_step: number;
  readonly action_num_inference_steps: number;
  readonly snr_shift: number;
  readonly action_snr_shift: number;
  readonly used_action_channel_ids: readonly number[];
  readonly action_norm_method: 'quantiles';
  readonly norm_stat: NormStat;
  readonly attn_window: number;
  readonly height: number;
  readonly width: number;
  readonly frame_chunk_size: number;
  readonly action_per_frame: number;
  /** premotor's own: false keeps timesteps and action positions in float32 under precision 'bf16' (the reference without its FSDP wrapper). */
  readonly bf16_input_cast: boolean;
  /** Text rows that the network attends, padding included; default 512, as the reference's. */
  readonly max_sequence_length?: number;
  /** premotor's own: denoising passes that imagine the frames of the executing actions in predictNext. Default: num_inference_steps. */
  readonly imagine_steps?: number;
  /** premotor's own: rungs of denoising, best first, among which the budget chooses (docs/BUDGET.md). The first is the job's own steps. */
  readonly ladder?: readonly LadderRung[];
  /** premotor's own: the default instruction, used by the command line when none is given. */
  readonly prompt?: string;
}

export interface LoadPolicyOptions {
  /** Folder in the released layout: transformer/ vae/ text_encoder/ tokenizer/. With backend 'onnx': one with model.onnx. */
  readonly checkpoint: string;
  /** 'onnx': an exported policy (docs/ONNX.md), with a job of its own form. Default: 'engine'. */
  readonly backend?: 'engine' | 'onnx';
  /** The job, or the path of its JSON file. */
  readonly job: Partial<Job> | Record<string, unknown> | string;
  readonly device?: Device;
  readonly precision?: Precision;
  /** Number type of the KV cache. Default: 'f32' with precision 'f32', else 'bf16'. Another needs a certificate (docs/PRECISION.md). */
  readonly kvCache?: KvCache;
  /** CPU threads; default: all cores but one, at least one. */
  readonly threads?: number;
  /** Run the engine in a child process behind the same interface. */
  readonly isolate?: boolean;
  /** Go on with a quantised precision (int8, int4) or KV cache that has no certificate for this checkpoint (docs/PRECISION.md). Default: false. */
  readonly allowUncertified?: boolean;
  /** A plan file of this checkpoint, precision and device, written by `premotor build` (docs/PLAN.md). */
  readonly plan?: string;
  /** Where prompt embeddings are cached; default: $XDG_CACHE_HOME/premotor/prompts. false: no cache. */
  readonly promptCache?: string | false;
}

export interface Noise {
  /** [1, in_channels, K, h, w], exactly what the generator returned. */
  readonly video?: Float32Array;
  /** [1, action_dim, K, H, 1]. */
  readonly action?: Float32Array;
  /** predictNext only: noise of the imagined frames, [1, in_channels, E, h, w] for E executing frames. */
  readonly imagined?: Float32Array;
}

/**
 * Inpainting of actions that will be executed whatever comes out: while the chunk is denoised, it is drawn towards `actions` where `weights` is
 * not 0. The method is that of "Real-Time Execution of Action Chunking Flow Policies" (arXiv 2506.07339) with the identity for the Jacobian; the
 * formula stands in docs/ENGINE.md.
 */
export interface Inpaint {
  /** [used, K, H] in physical units, aligned with the chunk that is predicted. */
  readonly actions: Float32Array;
  /** [K * H], 0 .. 1: how firmly each action is held. */
  readonly weights: Float32Array;
  /** Largest factor of the correction. Default: 5. */
  readonly betaMax?: number;
}

export interface PredictOptions {
  /** One frame per camera; needed by the first prediction of an episode, ignored once the episode's frame index has moved on. */
  readonly obs?: readonly Frame[];
  /** Seed of the noise, an integer of 0 .. 2^53 - 1 or a bigint below 2^64. Default: 0. Equal seeds give equal noise at equal frame indices. */
  readonly seed?: number | bigint;
  readonly noise?: Noise;
  /** Overrides the job's num_inference_steps / action_num_inference_steps for this prediction. */
  readonly videoSteps?: number;
  readonly actionSteps?: number;
  /** Overrides the job's video_exec_step: -1, or 1 .. videoSteps + 1. */
  readonly videoExecStep?: number;
  /** false: this prediction denoises without guidance. true is the job's guidance. Default: true. */
  readonly guidance?: boolean;
  readonly inpaint?: Inpaint;
  /** Measured joint positions now, radians, in the robot's order: for policies whose info.usesState is true. Others ignore it. */
  readonly state?: Float64Array;
  readonly trace?: boolean;
  readonly signal?: AbortSignal;
  /** Called from the event loop as passes finish. */
  readonly onProgress?: (progress: Progress) => void;
}

export interface Progress {
  /** 'remote': a policy server computes, and nothing is known of its passes. 'journal': what was committed before is not on the disk yet. */
  readonly stage: 'encode' | 'commit' | 'imagine' | 'video' | 'action' | 'decode' | 'recover' | 'journal' | 'remote';
  /** Passes done and passes in this stage; pictures in 'encode'. */
  readonly done: number;
  readonly total: number;
}

/** Milliseconds spent in the engine. */
export interface Timing {
  readonly encodeMs: number;
  readonly videoMs: number;
  readonly actionMs: number;
  readonly commitMs: number;
  readonly imagineMs: number;
  readonly totalMs: number;
  readonly videoPasses: number;
  readonly actionPasses: number;
}

export interface Chunk {
  /** [used, K, H] in physical units, order of used_action_channel_ids. */
  readonly actions: Float32Array;
  readonly shape: readonly [number, number, number];
  /** [1, C, K, h, w], normalised. */
  readonly latents: Tensor;
  readonly timing: Timing;
  /** Index of the chunk's first latent frame in the episode. */
  readonly frameIndex: number;
  /** The episode that it belongs to: resets of this policy so far, from 1. A chunk of another generation is stale. */
  readonly generation: number;
  /** predictNext only: the frames that it imagined for the executing actions, [1, C, E, h, w]; absent when E is 0 or a forecast was given. */
  readonly imagined?: Tensor;
  /** predictNext only: what it committed, as CommitResult's; absent when nothing was. */
  readonly committed?: { readonly frameIndex: number; readonly latents: Tensor };
  readonly trace?: Trace;
}

export interface CommitOptions {
  /** What was seen: one Frame[] (a frame per camera) per moment. 4 (F-1) moments on the first commit, 4 F later; usually F = K. */
  readonly obs: readonly (readonly Frame[])[];
  /** What was executed: [used, F, H] in physical units. */
  readonly actions: Float32Array;
  readonly trace?: boolean;
  readonly onProgress?: (progress: Progress) => void;
}

export interface CommitResult {
  /** Index of the next chunk's first latent frame. */
  readonly frameIndex: number;
  readonly generation: number;
  /** The committed frames as the network saw them, [1, C, F, h, w]; on an episode's first commit with its first frame. */
  readonly latents: Tensor;
  readonly timing: Timing;
  readonly trace?: Trace;
}

/**
 * One asynchronous step. Commits what was seen and executed since the last commit (when `obs` is given); then, on a marked cache, appends the actions
 * that are being executed with the frames that they will cause, predicts the chunk after them, and rolls back.
 */
export interface PredictNextOptions extends Omit<PredictOptions, 'obs'> {
  /** What was seen while `executed` ran, as for commit. Neither is given: nothing is committed. The first commit of an episode may have 0 moments. */
  readonly obs?: readonly (readonly Frame[])[];
  readonly executed?: Float32Array;
  /** The actions being executed now, [used, E, H] in physical units; E of 0 .. K latent frames. */
  readonly executing: Float32Array;
  /** Their frames, [1, C, E, h, w], when they are not to be imagined: the stale forecast of naive asynchronous control. */
  readonly forecast?: Float32Array | Tensor;
  /** Denoising passes that imagine them. Default: the job's imagine_steps. */
  readonly imagineSteps?: number;
}

export interface ResetOptions {
  readonly prompt: string;
  readonly trace?: boolean;
  readonly signal?: AbortSignal;
}

export interface ResetResult {
  /** Where the embeddings came from. */
  readonly source: 'encoder' | 'cache' | 'checkpoint';
  readonly cleanedPrompt: string;
  readonly tokens: number;
  /** Resets of this policy so far, this one included. */
  readonly generation: number;
  /** Things worth knowing about the prompt, such as characters that look wrongly decoded. */
  readonly warnings: readonly string[];
  readonly trace?: Trace;
}

export interface CacheState {
  readonly capacity: number;
  readonly valid: number;
  readonly committed: number;
  readonly predicted: number;
  /** Hash of the committed entries' slots and ids and of the frame index, 16 hexadecimal digits: equal for equal histories. */
  readonly checksum: string;
}

/** The video encoder's state after a commit: what the causal convolutions remember. Opaque; of one checkpoint, job, precision and KV cache. */
export interface EncoderState {
  readonly data: Uint8Array;
}

/** One commit of the past: what it wrote. */
export interface PastCommit {
  /** [1, C, F, h, w], as CommitResult.latents. */
  readonly latents: Float32Array;
  /** [used, F, H] in physical units. */
  readonly actions: Float32Array;
  /** A predict came before it: on a full cache that evicts entries which the commit no longer sees. Default: false. */
  readonly predicted?: boolean;
}

/** Rebuilds an episode from what was committed, without pictures: the cache becomes the one that these commits left, bit for bit. */
export interface RestoreOptions {
  readonly prompt: string;
  /** From the episode's first, in order. */
  readonly commits: readonly PastCommit[];
  /** As encoderState() gave it after the last of them. */
  readonly encoder: EncoderState;
  /** Checked at the end. Errors: RESTORE_MISMATCH. */
  readonly checksum?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
}

/** Decoded video: one Frame per picture (cameras joined as the model sees them); `video` holds the same as float32 [frames, H, W, 3] in [0, 1]. */
export type DecodedVideo = Frame[] & { readonly video: Tensor };

export interface PolicyInfo {
  readonly checkpointHash: string;
  readonly device: 'cpu' | 'cuda';
  readonly backend: string;
  readonly precision: Precision;
  readonly kvCache: KvCache;
  readonly threads: number;
  readonly weightBytes: number;
  readonly cacheBytes: number;
  readonly unusedTensors: readonly string[];
  /** Latent chunk [C, K, h, w] and actions [used, K, H]. C = 0: it imagines no pictures, its latents are empty and decode is refused. */
  readonly latentShape: readonly [number, number, number, number];
  readonly actionShape: readonly [number, number, number];
  readonly parameters: number;
  /** Every prediction needs the measured joints (PredictOptions.state). Default: false. */
  readonly usesState?: boolean;
  /** The execution modes that this policy can serve. Default: all. */
  readonly modes?: readonly ModeName[];
  /** Suspicious but legal things: misspelt keys of the job with the name that was probably meant, a precision without its certificate. */
  readonly warnings: readonly string[];
}

/** What decode accepts beside a Tensor: an array and its shape. */
export interface ShapedArray {
  readonly data: Float32Array;
  readonly shape: readonly number[];
}

export interface DecodeOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
}

/** The process of an engine that has one of its own. */
export interface EngineLife {
  /** Why it ended without having been asked to; undefined while it runs. */
  readonly death: PremotorError | undefined;
  /** Resolves with that, once it is so. */
  readonly died: Promise<PremotorError>;
}

export interface Policy {
  readonly job: Job;
  readonly info: PolicyInfo;
  readonly cache: CacheState;
  /** Absent for an engine in this process, and for a policy server. */
  readonly life?: EngineLife;
  reset(options: ResetOptions): Promise<ResetResult>;
  predict(options?: PredictOptions): Promise<Chunk>;
  commit(options: CommitOptions): Promise<CommitResult>;
  predictNext(options: PredictNextOptions): Promise<Chunk>;
  /** What the video encoder remembers after the last commit. Errors: NO_EPISODE, OBS_REQUIRED before the first commit. */
  encoderState(): Promise<EncoderState>;
  /** Begins an episode that has a past. Errors: those of reset and commit, RESTORE_MISMATCH; after an error no episode runs. */
  restore(options: RestoreOptions): Promise<ResetResult>;
  /** For measuring: fills the cache with committed entries of no meaning, as after a long episode. The episode is spoilt until the next reset. */
  occupy(): Promise<CacheState>;
  /** latents: [1, C, F, h, w] (or the plain array of that many values). */
  decode(latents: Float32Array | Tensor | ShapedArray, options?: DecodeOptions): Promise<DecodedVideo>;
  close(): Promise<void>;
}
