/**
 * The committed report of asynchronous control: from the cells of the grid to ASYNC.md and ASYNC.json. Compares every mode with the synchronous one
 * on the same seeds at the same delay. Pure text building.
 */
import { MODE_NAMES, type ModeName } from '../control/modes/mode.js';
import { TASK_NAMES, type TaskName } from '../sim/tasks/task.js';
import { type AsyncEntry, DELAYS } from './async-grid.js';
import type { CompactEvaluation, CompactRow } from './compact.js';
import { comparePaired, type Interval, medianInterval, type Paired, pairedInterval, percentile, wilson } from './statistics.js';

export interface AsyncCell {
  readonly name: string;
  readonly title: string;
  readonly group: AsyncEntry['group'];
  readonly mode: ModeName;
  readonly delayChunks: number;
  readonly task: TaskName;
  readonly episodes: number;
  readonly succeeded: number;
  readonly success: number;
  readonly interval: Interval;
  /** Medians over the episodes that succeeded, s of robot time. */
  readonly completionS: number | null;
  readonly movingS: number | null;
  readonly idleS: number | null;
  /** Wall-clock time of predict and commit together, median. */
  readonly chunkMs: number | null;
  readonly peakJerkRadPerS3: { readonly p50: number | null; readonly max: number | null };
  readonly errors: number;
  /** Frames that were assumed, and the root mean square of their error, and of taking the last known frame instead. */
  readonly assumed: { readonly frames: number; readonly errorRms: number; readonly stillErrorRms: number } | null;
  /** Against the base on the same seeds; null for the base. */
  readonly paired: (Paired & { readonly interval: Interval }) | null;
  /** The base's time over this one's, on seeds that both succeed at: whole, and from the first movement on. Medians and their 95 % intervals. */
  readonly speedup: { readonly whole: Ratio; readonly moving: Ratio } | null;
}

export interface Ratio extends Interval {
  readonly p50: number;
  readonly pairs: number;
}

export interface AsyncReport {
  readonly checkpoint: CompactEvaluation['checkpoint'];
  readonly steps: string;
  readonly firstSeed: number;
  readonly episodes: number;
  readonly machine: CompactEvaluation['machine'];
  readonly dates: readonly [string, string];
  readonly commits: readonly string[];
  readonly wallS: number;
  readonly cells: readonly AsyncCell[];
}

export interface AsyncResult {
  readonly entry: AsyncEntry;
  readonly evaluation: CompactEvaluation;
}

const succeededAt = (rows: readonly CompactRow[]): Map<string, boolean> =>
  new Map(rows.map(([seed, verdict]) => [String(seed), verdict === 'succeeded']));

function ratio(pairs: readonly number[]): Ratio | null {
  const p50 = percentile(pairs, 0.5);
  return p50 === null ? null : { p50, pairs: pairs.length, ...medianInterval(pairs) };
}

function speedup(base: readonly CompactRow[], own: readonly CompactRow[]): AsyncCell['speedup'] {
  const bySeed = new Map(base.map((row) => [row[0], row]));
  const [whole, moving]: [number[], number[]] = [[], []];
  for (const [seed, , completionS, firstMoveS] of own) {
    const other = bySeed.get(seed);
    if (completionS === null || firstMoveS === null || !other || other[2] === null || other[3] === null) continue;
    whole.push(other[2] / completionS);
    moving.push((other[2] - other[3]) / (completionS - firstMoveS));
  }
  const [all, part] = [ratio(whole), ratio(moving)];
  return all && part ? { whole: all, moving: part } : null;
}

function assumedOf(rows: readonly CompactRow[]): AsyncCell['assumed'] {
  const frames = rows.reduce((sum, row) => sum + row[7], 0);
  if (frames === 0) return null;
  const rms = (column: 8 | 9): number => Math.sqrt(rows.reduce((sum, row) => sum + row[7] * row[column] ** 2, 0) / frames);
  return { frames, errorRms: rms(8), stillErrorRms: rms(9) };
}

function cellOf({ entry, evaluation }: AsyncResult, task: TaskName, base: readonly CompactRow[] | undefined): AsyncCell {
  const rows = evaluation.rows[task] ?? [];
  const done = rows.filter(([, verdict]) => verdict === 'succeeded');
  const jerks = rows.map((row) => row[5]);
  const paired = base && comparePaired(succeededAt(base), succeededAt(rows));
  const median = (value: (row: CompactRow) => number | null): number | null =>
    percentile(
      done.flatMap((row) => value(row) ?? []),
      0.5,
    );
  return {
    name: entry.name,
    title: entry.title,
    group: entry.group,
    mode: entry.configuration.mode ?? 'sync',
    delayChunks: entry.configuration.delayChunks ?? 0,
    task,
    episodes: rows.length,
    succeeded: done.length,
    success: rows.length === 0 ? 0 : done.length / rows.length,
    interval: wilson(done.length, rows.length),
    completionS: median((row) => row[2]),
    movingS: median((row) => (row[2] === null || row[3] === null ? null : row[2] - row[3])),
    idleS: median((row) => row[4]),
    chunkMs: evaluation.tasks.find((one) => one.task === task)?.chunkMs.p50 ?? null,
    peakJerkRadPerS3: { p50: percentile(jerks, 0.5), max: percentile(jerks, 1) },
    errors: rows.filter(([, verdict]) => verdict === 'error').length,
    assumed: assumedOf(rows),
    paired: paired ? { ...paired, interval: pairedInterval(paired.onlyFirst, paired.onlySecond, paired.pairs) } : null,
    speedup: base ? speedup(base, rows) : null,
  };
}

/** The report of the cells there are; a cell whose base is missing is compared with nothing. */
export function buildAsyncReport(results: readonly AsyncResult[], firstSeed: number, episodes: number, steps: string): AsyncReport {
  const [first] = results;
  if (!first) throw new RangeError('a report needs at least one cell');
  const byName = new Map(results.map((result) => [result.entry.name, result]));
  const cells = results.flatMap((result) => {
    const { base, name } = result.entry;
    const other = base === name ? undefined : byName.get(base)?.evaluation;
    return result.entry.tasks.map((task) => cellOf(result, task, other?.rows[task]));
  });
  const dates = results.map(({ evaluation }) => evaluation.date).sort();
  return {
    checkpoint: first.evaluation.checkpoint,
    steps,
    firstSeed,
    episodes,
    machine: first.evaluation.machine,
    dates: [dates[0] ?? '', dates.at(-1) ?? ''],
    commits: [...new Set(results.flatMap(({ evaluation }) => evaluation.versions.commit ?? []))],
    wallS: results.reduce((sum, { evaluation }) => sum + evaluation.wallS, 0),
    cells,
  };
}

const percent = (share: number): string => (100 * share).toFixed(0);
const orDash = (value: number | null | undefined, digits: number): string => (value === null || value === undefined ? '-' : value.toFixed(digits));
const table = (header: readonly string[], rows: readonly (readonly string[])[]): string =>
  [header, header.map((_, column) => (column === 0 ? '---' : '---:')), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');

const successOf = ({ success, interval }: AsyncCell): string => `${percent(success)} (${percent(interval.low)} .. ${percent(interval.high)})`;

function pairedOf({ paired }: AsyncCell): string {
  if (!paired) return 'base';
  const { difference, interval, onlyFirst, onlySecond, p } = paired;
  const points = `${difference > 0 ? '+' : ''}${(100 * difference).toFixed(1)}`;
  return `${points} (${percent(interval.low)} .. ${percent(interval.high)}; +${onlySecond} -${onlyFirst}, p ${p < 0.001 ? '< 0.001' : p.toFixed(3)})`;
}

const ratioOf = (one: Ratio | undefined): string => (one ? `${one.p50.toFixed(2)} (${one.low.toFixed(2)} .. ${one.high.toFixed(2)})` : '-');

/** Modes down, delays across. */
function byDelay(report: AsyncReport, task: TaskName, show: (cell: AsyncCell) => string): string {
  const rows = MODE_NAMES.flatMap((mode) => {
    const cells = DELAYS.map((delay) =>
      report.cells.find((cell) => cell.group === 'delay' && cell.mode === mode && cell.task === task && cell.delayChunks === delay),
    );
    const episodes = cells.find((cell) => cell)?.episodes;
    return episodes === undefined ? [] : [[`${mode} (${episodes})`, ...cells.map((cell) => (cell ? show(cell) : '-'))]];
  });
  return table(['mode (episodes)', ...DELAYS.map((delay) => `${100 * delay} %`)], rows);
}

function taskSection(report: AsyncReport, task: TaskName): string {
  return [
    `## ${task}`,
    '',
    'Success, percent (Wilson 95 % interval), by the delay of a prediction:',
    '',
    byDelay(report, task, successOf),
    '',
    'Paired difference from `sync` at the same delay, points of percent (Tango 95 % interval; seeds won and lost; McNemar p):',
    '',
    byDelay(report, task, pairedOf),
    '',
    'Robot time until done, median of successes, s:',
    '',
    byDelay(report, task, (cell) => orDash(cell.completionS, 2)),
    '',
    'Times as fast as `sync`, from the first movement on, and in brackets the whole episode (medians over seeds that both succeed at):',
    '',
    byDelay(report, task, (cell) => (cell.speedup ? `${cell.speedup.moving.p50.toFixed(2)} (${cell.speedup.whole.p50.toFixed(2)})` : 'base')),
    '',
    'Standing still after the first movement, median of successes, s:',
    '',
    byDelay(report, task, (cell) => orDash(cell.idleS, 2)),
    '',
    'Peak jerk, median (largest), 1000 rad/s^3:',
    '',
    byDelay(
      report,
      task,
      ({ peakJerkRadPerS3: { p50, max } }) => `${orDash(p50 === null ? null : p50 / 1000, 1)} (${orDash(max === null ? null : max / 1000, 1)})`,
    ),
  ].join('\n');
}

/** Titles down, tasks across; a dash where there is nothing. */
function byTitle(cells: readonly AsyncCell[], header: string, show: (cell: AsyncCell) => string): string {
  const titles = [...new Set(cells.map(({ title }) => title))];
  const shown = (title: string, task: TaskName): string => {
    const found = cells.find((one) => one.title === title && one.task === task);
    return found ? show(found) : '-';
  };
  return table(
    [header, ...TASK_NAMES],
    titles.map((title) => [title, ...TASK_NAMES.map((task) => shown(title, task))]),
  );
}

function comparison(report: AsyncReport, group: AsyncEntry['group']): string {
  const cells = report.cells.filter((cell) => cell.group === group);
  return [byTitle(cells, 'success, percent', successOf), '', byTitle(cells, 'paired difference, points', pairedOf)].join('\n');
}

function assumptions(report: AsyncReport): string {
  const cells = report.cells.filter(({ assumed, group, delayChunks }) => assumed && group !== 'commit' && delayChunks >= 0.5);
  return byTitle(cells, 'error of assumed frames', ({ assumed }) =>
    assumed ? `${assumed.errorRms.toFixed(2)} (${assumed.stillErrorRms.toFixed(2)})` : '-',
  );
}

/** What a forecast from before cannot know. */
function moved(report: AsyncReport): string {
  const cells = report.cells.filter(({ group }) => group === 'moved');
  return [
    '## A board that is knocked',
    '',
    `The buttons slide along the table together, once, 0.6 to 2 s after the start; delay 100 %, ${cells[0]?.episodes ?? 0} scenes of each task. ` +
      'Differences are from `async-naive` here.',
    '',
    comparison(report, 'moved'),
  ].join('\n');
}

/** The world goes on while the policy thinks; a prediction takes what it takes. */
function realTime(report: AsyncReport): string {
  const cells = report.cells.filter(({ group }) => group === 'real');
  const latencies = cells.flatMap(({ chunkMs }) => chunkMs ?? []);
  return [
    '## Real time',
    '',
    `${cells[0]?.episodes ?? 0} scenes of each task, one worker; a prediction with its commit takes what it takes on this machine: medians of ` +
      `${orDash(Math.min(...latencies), 0)} to ${orDash(Math.max(...latencies), 0)} ms.`,
    '',
    byTitle(cells, 'success, percent', successOf),
    '',
    byTitle(cells, 'time until done, s', (cell) => orDash(cell.completionS, 2)),
    '',
    byTitle(cells, 'standing still, s', (cell) => orDash(cell.idleS, 2)),
  ].join('\n');
}

/** What the report found against what was hoped for, in numbers; the sentences about it are in docs/ASYNC.md. */
function verdicts(report: AsyncReport): string {
  const at = (mode: ModeName, task: TaskName): AsyncCell | undefined =>
    report.cells.find((cell) => cell.group === 'delay' && cell.mode === mode && cell.task === task && cell.delayChunks === 1);
  const rows = TASK_NAMES.map((task) => {
    const [sync, grounded, naive] = [at('sync', task), at('async-grounded', task), at('async-naive', task)];
    const share = sync && grounded && sync.success > 0 ? (grounded.success / sync.success).toFixed(3) : '-';
    return [
      task,
      share,
      ratioOf(grounded?.speedup?.moving),
      ratioOf(grounded?.speedup?.whole),
      naive ? pairedOf(naive) : '-',
      grounded ? pairedOf(grounded) : '-',
    ];
  });
  return table(
    ['delay 100 %', "grounded: share of sync's success", 'times as fast, moving', 'times as fast, whole', 'naive, points', 'grounded, points'],
    rows,
  );
}

export interface ReportPictures {
  readonly chart: string;
  readonly imagined: string | undefined;
}

export function asyncMarkdown(report: AsyncReport, { chart, imagined }: ReportPictures): string {
  const { checkpoint, machine, dates, commits, wallS, episodes, firstSeed, steps } = report;
  return `${[
    `# Asynchronous control of ${checkpoint.name}`,
    '',
    'Made by `premotor eval async`; docs/ASYNC.md says what the modes do and what was learnt, docs/EVAL.md what is measured.',
    '',
    `- checkpoint: ${checkpoint.name}, SHA-256 ${checkpoint.hash}`,
    `- ${steps}; backend ${checkpoint.backend}`,
    `- episodes: ${episodes} per task and cell unless it says otherwise, seeds from ${firstSeed}, the same for all; ` +
      'virtual time, every prediction takes the delay',
    `- machine: ${machine.cpu}, ${machine.cores} cores, Node ${machine.node}, ${machine.platform}`,
    `- commits: ${commits.join(', ') || 'unknown'}`,
    `- dates: ${dates.join(' to ')}; ${(wallS / 3600).toFixed(1)} hours of running`,
    '',
    `![Success and time by delay](${chart})`,
    '',
    '## When the delay is one chunk',
    '',
    verdicts(report),
    '',
    ...TASK_NAMES.flatMap((task) => [taskSection(report, task), '']),
    '## A robot slower than its demonstrations',
    '',
    'The joints may move at a share of their speed, so what is executed is not what was predicted, and a forecast made before is wrong; delay 100 %.',
    '',
    comparison(report, 'slow'),
    '',
    ...(report.cells.some(({ group }) => group === 'moved') ? [moved(report), ''] : []),
    '## What was assumed',
    '',
    'Root mean square error of the frames that predictions went on from, against what was then seen, in normalised latents; in brackets that of ' +
      'assuming that nothing moves.',
    '',
    assumptions(report),
    '',
    ...(imagined === undefined
      ? []
      : [
          `![Seen, imagined and foreseen frames](${imagined})`,
          '',
          'Columns are moments of one episode; the middle row was imagined while the actions were being executed.',
          '',
        ]),
    ...(report.cells.some(({ group }) => group === 'real') ? [realTime(report), ''] : []),
    '## What is committed',
    '',
    'Mode `sync` at no delay: the commit is told what the stream put out, what the policy had predicted, or where the joints were measured.',
    '',
    comparison(report, 'commit'),
  ].join('\n')}\n`;
}
