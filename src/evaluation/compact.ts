/**
 * An evaluation without what a report of many cells does not need: one short row per episode, no latencies. Pure conversion; small enough to be
 * committed for every cell.
 */
import type { TaskName } from '../sim/tasks/task.js';
import type { EpisodeResult, EpisodeVerdict } from './configuration.js';
import type { Evaluation } from './evaluation.js';

/** Seed, verdict, time until done, until the first movement, of standing still (s), peak jerk (rad/s^3), assumed frames and their two errors. */
export type CompactRow = readonly [
  seed: number,
  verdict: EpisodeVerdict,
  completionS: number | null,
  firstMoveS: number | null,
  idleS: number,
  peakJerk: number,
  clampedShare: number,
  assumed: number,
  errorRms: number,
  stillErrorRms: number,
];

export interface CompactEvaluation extends Omit<Evaluation, 'episodes'> {
  readonly rows: Readonly<Partial<Record<TaskName, readonly CompactRow[]>>>;
}

const rounded = (value: number, digits: number): number => Number(value.toFixed(digits));

function rowOf({ seed, verdict, completionS, firstMoveS, idleS, peakJerkRadPerS3, knots, clampedKnots, assumed }: EpisodeResult): CompactRow {
  return [
    seed,
    verdict,
    completionS,
    firstMoveS,
    rounded(idleS, 3),
    Math.round(peakJerkRadPerS3),
    knots === 0 ? 0 : rounded(clampedKnots / knots, 4),
    assumed?.frames ?? 0,
    rounded(assumed?.errorRms ?? 0, 4),
    rounded(assumed?.stillErrorRms ?? 0, 4),
  ];
}

export function compacted({ episodes, ...rest }: Evaluation): CompactEvaluation {
  const rows: Partial<Record<TaskName, CompactRow[]>> = {};
  for (const episode of episodes) {
    rows[episode.task] ??= [];
    rows[episode.task]?.push(rowOf(episode));
  }
  return { ...rest, rows };
}

/** The document as text, one episode a line. */
export function formatCompact({ rows, ...rest }: CompactEvaluation): string {
  const head = JSON.stringify({ ...rest, rows: {} }, null, 2).replace(/"rows": \{\}\n\}$/, '"rows": {\n');
  const tasks = Object.entries(rows).map(
    ([task, list]) => `    "${task}": [\n${list.map((row) => `      ${JSON.stringify(row)}`).join(',\n')}\n    ]`,
  );
  return `${head}${tasks.join(',\n')}\n  }\n}\n`;
}
