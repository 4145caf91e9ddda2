/**
 * One evaluation: a configuration on the seeds of one or more tasks, as a document that can be kept, compared and printed. Collects what the workers
 * measured; computes no control.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { basename } from 'node:path';
import { promisify } from 'node:util';
import type { ModeName } from '../control/modes/mode.js';
import type { Job, PolicyInfo } from '../policy/contract.js';
import type { TaskName } from '../sim/tasks/task.js';
import type { Configuration, EpisodePictures, EpisodeResult, Subject } from './configuration.js';
import { type Interval, percentile, wilson } from './statistics.js';
import type { EpisodeName, RunOptions, WorkerPool } from './workers.js';

export interface Latency {
  readonly p50: number | null;
  readonly p99: number | null;
}

export interface TaskSummary {
  readonly task: TaskName;
  readonly episodes: number;
  readonly succeeded: number;
  readonly success: number;
  /** Wilson, 95 %. */
  readonly interval: Interval;
  /** Robot time of the episodes that succeeded. */
  readonly completionS: { readonly p50: number | null; readonly p99: number | null };
  /** Robot time, of the episodes that succeeded: the same from the arm's first movement on, and how long it stood still after that. */
  readonly movingS: { readonly p50: number | null };
  readonly idleS: { readonly p50: number | null };
  /** Wall-clock time of predict and commit together, per chunk. */
  readonly chunkMs: Latency;
  readonly predictMs: Latency;
  readonly commitMs: Latency;
  readonly peakJerkRadPerS3: { readonly p50: number | null; readonly max: number | null };
  readonly clampedShare: number;
  readonly errors: number;
}

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly node: string;
  readonly platform: string;
}

export interface Evaluation {
  readonly configuration: Configuration;
  readonly mode: ModeName;
  /** The folder's name, not its place: documents are kept and shared. */
  readonly checkpoint: { readonly name: string; readonly hash: string; readonly parameters: number; readonly backend: string };
  /** Steps and passes that were run, and the SHA-256 of the whole job. */
  readonly job: { readonly videoSteps: number; readonly actionSteps: number; readonly videoExecStep: number; readonly hash: string };
  readonly tasks: readonly TaskSummary[];
  readonly episodes: readonly EpisodeResult[];
  readonly workers: number;
  readonly wallS: number;
  readonly date: string;
  readonly versions: { readonly premotor: string; readonly commit: string | null };
  readonly machine: Machine;
}

export function machine(): Machine {
  const [first] = cpus();
  return { cpu: first?.model.trim() ?? 'unknown', cores: cpus().length, node: process.version, platform: `${process.platform} ${process.arch}` };
}

/** The package's version and, in a checkout, its commit. */
export async function versions(): Promise<Evaluation['versions']> {
  const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };
  const cwd = new URL('../..', import.meta.url);
  const commit = await promisify(execFile)('git', ['rev-parse', 'HEAD'], { cwd }).then(
    ({ stdout }) => stdout.trim(),
    () => null,
  );
  return { premotor: manifest.version, commit };
}

/** The document as text, one episode a line, so that many can be kept and compared. */
export function formatEvaluation({ episodes, ...rest }: Evaluation): string {
  const lines = episodes.map((episode) => `    ${JSON.stringify(episode)}`).join(',\n');
  return `${JSON.stringify({ ...rest, episodes: [] }, null, 2).replace(/"episodes": \[\]\n\}$/, '')}"episodes": [\n${lines}\n  ]\n}\n`;
}

export const latency = (values: readonly number[]): Latency => ({ p50: percentile(values, 0.5), p99: percentile(values, 0.99) });

/** The summary of one task's episodes. An episode that an error ended counts as one that did not succeed. */
export function summarise(task: TaskName, episodes: readonly EpisodeResult[]): TaskSummary {
  const own = episodes.filter((episode) => episode.task === task);
  const succeeded = own.filter(({ verdict }) => verdict === 'succeeded').length;
  const knots = own.reduce((sum, episode) => sum + episode.knots, 0);
  const jerks = own.map(({ peakJerkRadPerS3 }) => peakJerkRadPerS3);
  return {
    task,
    episodes: own.length,
    succeeded,
    success: own.length === 0 ? 0 : succeeded / own.length,
    interval: wilson(succeeded, own.length),
    completionS: latency(own.flatMap(({ completionS }) => completionS ?? [])),
    movingS: {
      p50: percentile(
        own.flatMap(({ completionS, firstMoveS }) => (completionS === null || firstMoveS === null ? [] : completionS - firstMoveS)),
        0.5,
      ),
    },
    idleS: {
      p50: percentile(
        own.flatMap(({ completionS, idleS }) => (completionS === null ? [] : idleS)),
        0.5,
      ),
    },
    chunkMs: latency(own.flatMap(({ predictMs, commitMs }) => predictMs.map((ms, chunk) => ms + (commitMs[chunk] ?? 0)))),
    predictMs: latency(own.flatMap(({ predictMs }) => predictMs)),
    commitMs: latency(own.flatMap(({ commitMs }) => commitMs)),
    peakJerkRadPerS3: { p50: percentile(jerks, 0.5), max: percentile(jerks, 1) },
    clampedShare: knots === 0 ? 0 : own.reduce((sum, episode) => sum + episode.clampedKnots, 0) / knots,
    errors: own.filter(({ verdict }) => verdict === 'error').length,
  };
}

/** The seeds of every task, tasks interleaved, so that an interrupted evaluation has some of each. */
export function episodesOf(tasks: readonly TaskName[], firstSeed: number, count: number): EpisodeName[] {
  return Array.from({ length: count }, (_, index) => tasks.map((task) => ({ task, seed: firstSeed + index }))).flat();
}

export interface EvaluateOptions extends RunOptions {
  readonly pool: WorkerPool;
  readonly workers: number;
  readonly subject: Subject;
  readonly configuration: Configuration;
  readonly tasks: readonly TaskName[];
  readonly firstSeed: number;
  readonly episodes: number;
}

/** Runs a configuration. Errors: those of WorkerPool.run. */
export async function evaluate(
  options: EvaluateOptions,
): Promise<{ readonly evaluation: Evaluation; readonly failures: readonly EpisodePictures[] }> {
  const { pool, subject, configuration, tasks } = options;
  const begun = performance.now();
  const names = episodesOf(tasks, options.firstSeed, options.episodes);
  const { info, outcomes } = await pool.run(subject, configuration, names, options);
  const rank = new Map(tasks.map((task, index) => [task, index]));
  const episodes = outcomes.map(({ result }) => result).sort((a, b) => (rank.get(a.task) ?? 0) - (rank.get(b.task) ?? 0) || a.seed - b.seed);
  const evaluation: Evaluation = {
    configuration,
    mode: configuration.mode ?? 'sync',
    checkpoint: checkpointOf(subject, info),
    job: stepsOf(subject, configuration),
    tasks: tasks.map((task) => summarise(task, episodes)),
    episodes,
    workers: options.workers,
    wallS: (performance.now() - begun) / 1000,
    date: new Date().toISOString(),
    versions: await versions(),
    machine: machine(),
  };
  return { evaluation, failures: outcomes.flatMap(({ pictures }) => pictures ?? []) };
}

/** SHA-256 of a job without its ladder, which no configuration runs: tells whether a kept document was made with another job. */
export function jobHash({ ladder: _, ...job }: Job): string {
  const sorted = Object.fromEntries(Object.entries(job).sort(([a], [b]) => (a < b ? -1 : 1)));
  return createHash('sha256').update(JSON.stringify(sorted)).digest('hex');
}

function checkpointOf({ checkpoint }: Subject, { checkpointHash, parameters, backend }: PolicyInfo): Evaluation['checkpoint'] {
  return { name: basename(checkpoint), hash: checkpointHash, parameters, backend };
}

function stepsOf({ job }: Subject, configuration: Configuration): Evaluation['job'] {
  return {
    videoSteps: configuration.videoSteps ?? job.num_inference_steps,
    actionSteps: configuration.actionSteps ?? job.action_num_inference_steps,
    videoExecStep: configuration.videoExecStep ?? job.video_exec_step,
    hash: jobHash(job),
  };
}
