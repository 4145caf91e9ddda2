/** Types of what the addon exports for plans (cpp/addon/plan_object). Types only: native.ts loads the addon. */
import type { NativeJob, NativeProgress } from './native.js';

/** A native task that can be stopped; `done` then rejects with ABORTED. */
export interface NativeStoppable<T> {
  readonly done: Promise<T>;
  cancel(): void;
}

export interface NativePlanBuild {
  readonly checkpoint: string;
  readonly job: NativeJob;
  readonly precision: 'f32' | 'bf16' | 'int8' | 'int4';
  readonly kvCache: 'f32' | 'bf16' | 'int8'; // decides what the passes say about their cache
  readonly threads: number;
  readonly file: string;
  readonly tool: string; // the version of premotor
  readonly checkpointHash: string;
  readonly videoSteps: number[]; // beside the job's: those of its ladder
  readonly actionSteps: number[];
  readonly tune: boolean; // measure what `tactics` does not know
  readonly tactics: string; // text of a cache of tactics (docs/PLAN.md), empty without one
  readonly tacticsFile: string; // its name, for errors
  readonly onProgress?: NativeProgress; // stages 'pack' (weights), 'tune' (products) and 'tables' (timesteps)
}

export interface NativePlanBuilt {
  readonly bytes: number;
  readonly tensors: number;
  readonly tables: number;
}

/** 0 where the processor has no such instructions. */
export interface NativeCeilings {
  readonly gigabytesPerSecond: number;
  readonly f32: number; // 1e9 operations a second, a multiplication and an addition being two
  readonly bf16Dot: number;
  readonly int8Dot: number;
}

export interface NativePlanModule {
  buildPlan(options: NativePlanBuild): NativeStoppable<NativePlanBuilt>;
  /** Reads and checks every byte. */
  verifyPlan(file: string, onProgress?: NativeProgress): NativeStoppable<void>;
  /** What a plan says about itself, as JSON text (docs/PLAN.md), and the file's size. The payload is not read. */
  planDirectory(file: string): Promise<{ json: string; bytes: number }>;
  /**
   * The passes of a checkpoint, as a plan's directory has them, out of its config.json files alone. `stored`: what its tensors are, or would be.
   * Errors: CHECKPOINT_*, JOB_INVALID.
   */
  outlineCheckpoint(
    options: Pick<NativePlanBuild, 'checkpoint' | 'job' | 'precision' | 'kvCache'> & { readonly stored: 'f32' | 'bf16' },
  ): Promise<string>;
  /** What tactics are for: this processor, and how many of so many threads a policy would use here. */
  tunedFor(threads: number): { processor: string; threads: number };
  /** Measures this machine: `bytes` of each of three arrays, `seconds` for each of some loops. */
  ceilings(options: { threads: number; seconds: number; bytes: number }): Promise<NativeCeilings>;
}
