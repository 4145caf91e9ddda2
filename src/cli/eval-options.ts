/**
 * What `premotor eval` and its report share: the default checkpoint, and the options that mean the same in both. Owned by the command line.
 */
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Subject } from '../evaluation/configuration.js';
import { readJob } from '../policy/job.js';
import { SIM_JOB } from '../sim/job.js';

export const WORKERS_MAX = 256;

/** Where the shipped checkpoint is, in the package. */
export const SHIPPED_CHECKPOINT = fileURLToPath(new URL('../../models/tabletop', import.meta.url));

export interface SubjectOptions {
  readonly checkpoint: string;
  readonly job?: string;
}

/** The checkpoint and its job: the file given, else job.json in the checkpoint's folder, else the built-in job of the simulated arm. */
export async function subjectOf({ checkpoint, job }: SubjectOptions): Promise<Subject> {
  const folder = resolve(checkpoint);
  const beside = join(folder, 'job.json');
  const parsed = await readJob(job ?? (existsSync(beside) ? beside : SIM_JOB));
  return { checkpoint: folder, job: parsed.job };
}

/** Worker processes by default: one per core, but in real time one, because several would make each other late. */
export function workersFor(workers: number | undefined, realTime: boolean): number {
  return workers ?? (realTime ? 1 : availableParallelism());
}
