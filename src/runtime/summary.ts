/**
 * The summary of an episode: what became of the task, how long things took, how fresh the pictures were, how often setpoints had to be clamped. Plain
 * values that JSON can hold. Owned by episode.ts; it measures nothing itself.
 */
import type { ChunkReport, CycleReport } from '../control/events.js';
import type { Transition } from '../control/lifecycle.js';
import type { Verdict } from '../sim/tasks/task.js';
import type { MotionSummary } from './rig.js';

/** Milliseconds over all chunks. */
export interface Latency {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export interface EpisodeSummary {
  readonly task: string;
  readonly seed: number;
  readonly instruction: string;
  readonly checkpoint: string;
  readonly untrained: boolean;
  readonly parameters: number;
  readonly backend: string;
  readonly precision: string;
  readonly kvCache: string;
  readonly threads: number;
  readonly outcome: CycleReport['outcome'];
  readonly verdict: Verdict;
  /** Null where nobody judges the task: of a robot in the real world. */
  readonly success: boolean | null;
  readonly stopReason: string | null;
  readonly error: { readonly code: string; readonly message: string } | null;
  /** Time on the robot's clock until the task was done; null when it was not. */
  readonly completionS: number | null;
  /** The whole episode on the robot's clock, coming to rest and holding included. */
  readonly robotS: number;
  readonly chunksMax: number;
  readonly chunks: readonly ChunkReport[];
  /** Wall-clock milliseconds per chunk; null when no chunk was completed. */
  readonly latencyMs: { readonly predict: Latency | null; readonly execute: Latency | null; readonly commit: Latency | null };
  readonly frameAgeMsMax: number | null;
  readonly frameSkewMsMax: number | null;
  readonly setpoints: number;
  readonly clampedSetpoints: number;
  readonly motion: MotionSummary;
  readonly transitions: readonly Transition[];
  /** The animated picture, when there is one. */
  readonly animation: string | null;
}

/** Percentiles by the nearest rank; null of nothing. */
export function latencyOf(values: readonly number[]): Latency | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const rank = (share: number): number => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0;
  return { p50: rank(0.5), p99: rank(0.99), max: rank(1) };
}

/** What a cycle's report says, in the summary's words. */
export function summaryOfReport(
  report: CycleReport,
): Pick<
  EpisodeSummary,
  'outcome' | 'stopReason' | 'error' | 'robotS' | 'chunks' | 'latencyMs' | 'frameAgeMsMax' | 'frameSkewMsMax' | 'setpoints' | 'clampedSetpoints'
> {
  const { chunks, error } = report;
  const most = (values: readonly number[]): number | null => (values.length === 0 ? null : Math.max(...values));
  return {
    outcome: report.outcome,
    stopReason: report.stopReason ?? null,
    error: error ? { code: error.code, message: error.message } : null,
    robotS: report.robotMs / 1000,
    chunks,
    latencyMs: {
      predict: latencyOf(chunks.map(({ predictMs }) => predictMs)),
      execute: latencyOf(chunks.map(({ executeMs }) => executeMs)),
      commit: latencyOf(chunks.map(({ commitMs }) => commitMs)),
    },
    frameAgeMsMax: most(chunks.map(({ frameAgeMsMax }) => frameAgeMsMax)),
    frameSkewMsMax: most(chunks.map(({ frameSkewMsMax }) => frameSkewMsMax)),
    setpoints: report.knots,
    clampedSetpoints: report.clampedKnots,
  };
}
