/**
 * The committed report of a checkpoint: from the evaluations of the grid to REPORT.md and REPORT.json. Compares every configuration with the base on
 * the same seeds. Pure text building.
 */
import { TASK_NAMES, type TaskName } from '../sim/tasks/task.js';
import { type Evaluation, type Latency, latency, type TaskSummary } from './evaluation.js';
import { BASE_NAME, type GridEntry } from './grid.js';
import { comparePaired, type Paired } from './statistics.js';

export interface ReportEntry extends GridEntry {
  readonly evaluation: Evaluation;
}

export interface ReportRow {
  readonly name: string;
  readonly title: string;
  readonly group: GridEntry['group'];
  readonly configuration: GridEntry['configuration'];
  /** Of a baseline: it is another one than the report's. */
  readonly checkpoint?: Evaluation['checkpoint'];
  readonly tasks: readonly (TaskSummary & { readonly againstBase: Paired | null })[];
  /** Over all tasks together. */
  readonly predictMs: Latency;
  readonly commitMs: Latency;
  readonly chunkMs: Latency;
  readonly date: string;
  readonly commit: string | null;
  readonly machine: Evaluation['machine'];
  readonly workers: number;
  readonly wallS: number;
}

export interface Report {
  readonly checkpoint: Evaluation['checkpoint'];
  readonly base: string;
  readonly firstSeed: number;
  readonly episodes: number;
  readonly rows: readonly ReportRow[];
}

function outcomes(evaluation: Evaluation, task: TaskName): Map<string, boolean> {
  return new Map(evaluation.episodes.filter((one) => one.task === task).map(({ seed, verdict }) => [String(seed), verdict === 'succeeded']));
}

function rowOf(entry: ReportEntry, base: Evaluation): ReportRow {
  const { evaluation, name, title, group, configuration } = entry;
  const { episodes, date, versions, machine, workers, wallS } = evaluation;
  return {
    name,
    title,
    group,
    configuration,
    ...(group === 'baseline' ? { checkpoint: evaluation.checkpoint } : {}),
    tasks: evaluation.tasks.map((summary) => ({
      ...summary,
      againstBase: name === BASE_NAME ? null : comparePaired(outcomes(base, summary.task), outcomes(evaluation, summary.task)),
    })),
    predictMs: latency(episodes.flatMap(({ predictMs }) => predictMs)),
    commitMs: latency(episodes.flatMap(({ commitMs }) => commitMs)),
    chunkMs: latency(episodes.flatMap(({ predictMs, commitMs }) => predictMs.map((ms, chunk) => ms + (commitMs[chunk] ?? 0)))),
    date,
    commit: versions.commit,
    machine,
    workers,
    wallS,
  };
}

/** The report of all evaluations; the base must be among them. */
export function buildReport(entries: readonly ReportEntry[]): Report {
  const base = entries.find(({ name }) => name === BASE_NAME)?.evaluation;
  if (!base) throw new RangeError(`a report needs the evaluation ${BASE_NAME}`);
  const seeds = base.episodes.map(({ seed }) => seed);
  return {
    checkpoint: base.checkpoint,
    base: BASE_NAME,
    firstSeed: Math.min(...seeds),
    episodes: Math.max(...base.tasks.map(({ episodes }) => episodes)),
    rows: entries.map((entry) => rowOf(entry, base)),
  };
}

const percent = (share: number): string => (100 * share).toFixed(0);
const numberOr = (value: number | null, digits: number): string => (value === null ? '-' : value.toFixed(digits));
const table = (header: readonly string[], rows: readonly (readonly string[])[]): string =>
  [header, header.map((_, column) => (column === 0 ? '---' : '---:')), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');

type TaskCell = (task: ReportRow['tasks'][number]) => string;

function byTask(rows: readonly ReportRow[], cell: TaskCell): string {
  return table(
    ['configuration', ...TASK_NAMES],
    rows.map((row) => [
      row.title,
      ...TASK_NAMES.map((name) => {
        const found = row.tasks.find(({ task }) => task === name);
        return found ? cell(found) : '';
      }),
    ]),
  );
}

const success: TaskCell = ({ success: share, interval }) => `${percent(share)} (${percent(interval.low)} .. ${percent(interval.high)})`;

/** Points of difference, how many seeds each side won alone, and the probability. */
const difference: TaskCell = ({ againstBase }) => {
  if (!againstBase) return 'base';
  const { difference: points, onlyFirst, onlySecond, p } = againstBase;
  return `${points > 0 ? '+' : ''}${percent(points)} (+${onlySecond} -${onlyFirst}, p ${p < 0.001 ? '< 0.001' : p.toFixed(3)})`;
};

function latencyTable(rows: readonly ReportRow[]): string {
  const pair = ({ p50, p99 }: Latency): string => `${numberOr(p50, 0)} / ${numberOr(p99, 0)}`;
  return table(
    ['configuration', 'predict p50 / p99, ms', 'commit p50 / p99, ms', 'chunk p50 / p99, ms'],
    rows.map(({ title, predictMs, commitMs, chunkMs }) => [title, pair(predictMs), pair(commitMs), pair(chunkMs)]),
  );
}

function provenance(report: Report): string[] {
  const { checkpoint, rows } = report;
  const distinct = (values: readonly string[]): string => [...new Set(values)].join('; ');
  const dates = rows.map(({ date }) => date.slice(0, 10)).sort();
  const hours = rows.reduce((sum, { wallS }) => sum + wallS, 0) / 3600;
  return [
    `- checkpoint: ${checkpoint.name}, SHA-256 ${checkpoint.hash}`,
    `- ${(checkpoint.parameters / 1e6).toFixed(2)} M parameters, backend ${checkpoint.backend}`,
    `- episodes: ${report.episodes} per task and configuration, seeds from ${report.firstSeed}, the same for all; virtual time`,
    `- machine: ${distinct(rows.map(({ machine }) => `${machine.cpu}, ${machine.cores} cores, Node ${machine.node}, ${machine.platform}`))}`,
    `- commit: ${distinct(rows.map(({ commit }) => commit ?? 'unknown'))}`,
    `- date: ${distinct([dates[0] ?? '', dates.at(-1) ?? '']).replace('; ', ' .. ')}`,
    `- cost: ${hours.toFixed(1)} hours with ${distinct(rows.map(({ workers }) => `${workers}`))} workers`,
  ];
}

/** Other policies on the same seeds, only on the tasks that they were made for. */
function baselineSection(base: readonly ReportRow[], rows: readonly ReportRow[]): string[] {
  if (rows.length === 0) return [];
  const named = rows.map(({ title, checkpoint }) => {
    const { parameters = 0, backend = '', hash = '' } = checkpoint ?? {};
    return `- ${title}: ${(parameters / 1e6).toFixed(2)} M parameters, ${backend}, SHA-256 of model and mapping ${hash}`;
  });
  return [[...named, '', 'Empty cells: tasks that it was not made for.'].join('\n'), byTask([...base, ...rows], success), byTask(rows, difference)];
}

/** REPORT.md. `chart` is the picture's path from there. */
export function reportMarkdown(report: Report, chart: string): string {
  const rows = (...groups: readonly GridEntry['group'][]): ReportRow[] => report.rows.filter(({ group }) => groups.includes(group));
  const base = report.rows.filter(({ name }) => name === report.base);
  const section = (title: string, ...parts: readonly string[]): string[] => [`## ${title}`, '', ...parts.flatMap((part) => [part, ''])];
  return `${[
    `# Evaluation of ${report.checkpoint.name}`,
    '',
    'Made by `premotor eval report`; docs/EVAL.md says what is measured and how.',
    '',
    ...provenance(report),
    '',
    `![Success by task and configuration](${chart})`,
    '',
    ...section('Success, percent (Wilson 95 % interval)', byTask(rows('denoising'), success)),
    ...section(
      'Paired difference from the base, points of percent',
      [
        `The base is "${base[0]?.title}". In brackets: seeds that succeed only here, seeds that succeed only in the base, and McNemar's exact p,`,
        'not corrected for the number of comparisons.',
      ].join('\n'),
      byTask(rows('denoising'), difference),
    ),
    ...section('Memory', byTask([...base, ...rows('memory')], success), byTask(rows('memory'), difference)),
    // A report of some configurations only says nothing of the others.
    ...(rows('disturbances').length === 0
      ? []
      : section('Disturbances', byTask([...base, ...rows('disturbances')], success), byTask(rows('disturbances'), difference))),
    ...(rows('baseline').length === 0 ? [] : section('Baseline: exported policies', ...baselineSection(base, rows('baseline')))),
    ...section(
      'Robot time until done, median seconds',
      byTask(report.rows, ({ completionS }) => numberOr(completionS.p50, 2)),
    ),
    ...section(
      'Peak jerk of the setpoints, median rad/s^3',
      byTask(report.rows, ({ peakJerkRadPerS3 }) => numberOr(peakJerkRadPerS3.p50, 0)),
    ),
    ...section('Chunk latency', 'Wall clock, one thread per policy, workers side by side on the cores named above.', latencyTable(report.rows)),
  ]
    .join('\n')
    .trimEnd()}\n`;
}
