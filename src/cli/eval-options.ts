/**
 * What `premotor eval` and its report share: the default checkpoint, and the options that mean the same in both. Owned by the command line.
 */
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { InvalidArgumentError } from 'commander';
import type { Subject } from '../evaluation/configuration.js';
import { readJob } from '../policy/job.js';
import { contractJob, readOnnxJob } from '../policy/onnx/job.js';
import { isOnnxFolder } from '../policy/onnx/open.js';
import { SIM_JOB } from '../sim/job.js';

export const WORKERS_MAX = 256;

/** Where the shipped checkpoint is, in the package. */
export const SHIPPED_CHECKPOINT = fileURLToPath(new URL('../../models/tabletop', import.meta.url));

export interface SubjectOptions {
  readonly checkpoint: string;
  /** Default: what the folder holds. */
  readonly backend?: 'engine' | 'onnx';
  readonly job?: string;
  readonly plan?: string;
}

/** The checkpoint and its job: the file given, else job.json in the checkpoint's folder, else the built-in job of the simulated arm. */
export async function subjectOf({ checkpoint, backend, job, plan }: SubjectOptions): Promise<Subject> {
  const folder = resolve(checkpoint);
  const beside = join(folder, 'job.json');
  if ((backend ?? (isOnnxFolder(folder) ? 'onnx' : 'engine')) === 'onnx') {
    const onnxJob = resolve(job ?? beside);
    return { checkpoint: folder, onnxJob, job: contractJob(await readOnnxJob(onnxJob)), ...(plan === undefined ? {} : { plan: resolve(plan) }) };
  }
  const parsed = await readJob(job ?? (existsSync(beside) ? beside : SIM_JOB));
  return { checkpoint: folder, job: parsed.job, ...(plan === undefined ? {} : { plan: resolve(plan) }) };
}

/** A share of a chunk's motion, as a percentage. */
export function delay(text: string): number {
  const found = /^(\d{1,4}(?:\.\d{1,3})?)%$/.exec(text.trim());
  if (!found || Number(found[1]) > 1000) throw new InvalidArgumentError("Expected a percentage of a chunk's motion up to 1000%, such as 50%.");
  return Number(found[1]) / 100;
}

/** Worker processes by default: one per core, but in real time one, because several would make each other late. */
export function workersFor(workers: number | undefined, realTime: boolean): number {
  return workers ?? (realTime ? 1 : availableParallelism());
}

/** Denoising steps of a configuration: 5/10, or 5 for video alone. */
export function steps(text: string): { video: number; action?: number } {
  const found = /^(\d{1,4})(?:\/(\d{1,4}))?$/.exec(text);
  const [video, action] = [Number(found?.[1]), found?.[2] === undefined ? undefined : Number(found[2])];
  if (!(video >= 1 && (action ?? 1) >= 1))
    throw new InvalidArgumentError('Expected VIDEO/ACTION denoising steps, such as 5/10, or 5 for video alone.');
  return { video, ...(action === undefined ? {} : { action }) };
}

/** Points of percent. */
export function points(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && value >= 0 && value <= 100) return value;
  throw new InvalidArgumentError('Expected points of percent, 0 .. 100.');
}
