/** What an evaluation leaves: the kept document, the contact sheet, the report and its chart. */
import sharp from 'sharp';
import t from 'tap';
import { chartSvg, drawChart } from '../../src/evaluation/chart.js';
import type { EpisodeResult } from '../../src/evaluation/configuration.js';
import { composeSheet, SHEET_ROWS_MAX, sheetRows } from '../../src/evaluation/contact-sheet.js';
import { type Evaluation, formatEvaluation, jobHash, machine, summarise } from '../../src/evaluation/evaluation.js';
import { baselineEntry, reportGrid } from '../../src/evaluation/grid.js';
import { buildReport, type ReportEntry, reportMarkdown } from '../../src/evaluation/report.js';
import { hasFonts } from '../../src/recording/animation.js';
import { SIM_JOB } from '../../src/sim/job.js';

function episode(task: EpisodeResult['task'], seed: number, isDone: boolean): EpisodeResult {
  return {
    task,
    seed,
    instruction: `do <${task}>`,
    verdict: isDone ? 'succeeded' : 'timeout',
    why: isDone ? '' : 'pressed nothing & left',
    completionS: isDone ? seed : null,
    robotS: 4,
    firstMoveS: 0.1,
    idleS: 0.2,
    presses: [],
    peakJerkRadPerS3: 100 * seed,
    knots: 10,
    clampedKnots: 1,
    nudgedAtS: null,
    predictMs: [10, 20],
    commitMs: [1, 2],
  };
}

const grid = reportGrid(SIM_JOB);

/** Ten seeds; a configuration succeeds at the first so many, and only later when it is asked to. */
function evaluationOf(entry: (typeof grid)[number], succeeded: number, from = 0): Evaluation {
  const episodes = entry.tasks.flatMap((task) =>
    Array.from({ length: 10 }, (_, seed) => episode(task, seed, seed >= from && seed < from + succeeded)),
  );
  return {
    configuration: entry.configuration,
    mode: 'sync',
    checkpoint: { name: 'sample', hash: 'abc', parameters: 1_500_000, backend: 'cpu' },
    job: { videoSteps: 5, actionSteps: 10, videoExecStep: -1, hash: jobHash(SIM_JOB) },
    tasks: entry.tasks.map((task) => summarise(task, episodes)),
    episodes,
    workers: 2,
    wallS: 36,
    date: '2026-01-02T03:04:05.000Z',
    versions: { premotor: '0.1.0', commit: 'c0ffee' },
    machine: machine(),
  };
}

const entries: ReportEntry[] = grid.map((entry) => ({ ...entry, evaluation: evaluationOf(entry, entry.name === 'memory-off' ? 2 : 8) }));

t.test('a summary', async (t) => {
  const summary = summarise(
    'touch',
    [1, 2, 3, 4].map((seed) => episode('touch', seed, seed !== 4)),
  );
  t.match(summary, { episodes: 4, succeeded: 3, success: 0.75, errors: 0, clampedShare: 0.1, completionS: { p50: 2 }, chunkMs: { p50: 16.5 } });
  t.match(summary.peakJerkRadPerS3, { p50: 250, max: 400 });
  t.match(summarise('push', []), { episodes: 0, success: 0, interval: { low: 0, high: 1 }, completionS: { p50: null } });
});

t.test('the kept document is JSON, one episode a line', async (t) => {
  const evaluation = evaluationOf(grid[0] as (typeof grid)[number], 8);
  const text = formatEvaluation(evaluation);
  t.same(JSON.parse(text), JSON.parse(JSON.stringify(evaluation)));
  t.equal(text.split('\n').filter((line) => line.includes('"seed"')).length, 40);
});

t.test("a job's hash does not depend on the order of its fields", async (t) => {
  t.equal(jobHash(Object.fromEntries(Object.entries(SIM_JOB).reverse()) as unknown as typeof SIM_JOB), jobHash(SIM_JOB));
  t.not(jobHash({ ...SIM_JOB, snr_shift: 4 }), jobHash(SIM_JOB));
});

t.test('contact sheet', async (t) => {
  const picture = (value: number) => ({ timeS: value / 100, width: 8, height: 6, data: new Uint8Array(8 * 6 * 3).fill(value) });
  const results = [episode('touch', 0, true), episode('touch', 1, false), episode('push', 1, false)];
  const failures = [
    { task: 'push', seed: 1, pictures: [picture(200)] },
    { task: 'touch', seed: 1, pictures: [picture(100), picture(150)] },
  ] as const;
  const rows = sheetRows(results, failures);
  t.same(
    rows.map(({ label }) => label),
    ['seed 1  do <touch>  timeout: pressed nothing & left', 'seed 1  do <push>  timeout: pressed nothing & left'],
  );
  const sheet = await composeSheet(rows);
  t.match(sheet, { width: 2 * 12 + 4, height: 2 * (18 + 6 + 14 + 4) + 4 });
  const at = (x: number, y: number): number | undefined => sheet?.data[(y * (sheet.width ?? 0) + x) * 3];
  t.same([at(5, 23), at(17, 23), at(5, 65), at(17, 65)], [100, 150, 200, 24], 'a row per failure, time to the right');
  t.equal(await composeSheet([]), undefined);
  const many = Array.from({ length: SHEET_ROWS_MAX + 5 }, () => ({ label: 'x', pictures: [picture(1)] }));
  t.equal((await composeSheet(many))?.height, SHEET_ROWS_MAX * 42 + 4);
});

t.test('the report compares with the base on the same seeds', async (t) => {
  const report = buildReport(entries);
  t.match(report, { base: 'full-5-f32', firstSeed: 0, episodes: 10 });
  t.equal(report.rows[0]?.tasks[0]?.againstBase, null);
  t.match(report.rows.find(({ name }) => name === 'memory-off')?.tasks[1]?.againstBase, { pairs: 10, onlyFirst: 6, onlySecond: 0, difference: -0.6 });
  const moved = entries.map((entry) => (entry.name === 'nudge' ? { ...entry, evaluation: evaluationOf(entry, 8, 2) } : entry));
  t.match(buildReport(moved).rows.at(-1)?.tasks[0]?.againstBase, { onlyFirst: 2, onlySecond: 2, p: 1 }, 'equal shares are not equal outcomes');
  t.throws(() => buildReport(entries.slice(1)), RangeError);
});

t.test('the report as a page', async (t) => {
  const page = reportMarkdown(buildReport(entries), 'evaluation/success.png');
  t.match(page, /^# Evaluation of sample\n/);
  t.match(page, '| full, 5 steps, f32 | 80 (49 .. 94) | 80 (49 .. 94) | 80 (49 .. 94) | 80 (49 .. 94) |');
  t.match(page, '| memory off | -60 (+0 -6, p 0.031) |');
  t.match(page, '| block nudged, 0.25 m/s |  |  | 80 (49 .. 94) |  |');
  t.match(page, '- commit: c0ffee\n- date: 2026-01-02\n- cost: 0.1 hours with 2 workers');
  for (const heading of ['Memory', 'Disturbances', 'Chunk latency']) t.match(page, `\n## ${heading}\n`);
  t.ok(page.endsWith('|\n') && !page.includes('undefined') && !page.includes('NaN'));
});

t.test('the report with a baseline: another policy, on the tasks that it was made for', async (t) => {
  const entry = baselineEntry('small', ['touch']);
  t.equal(entry.name, 'baseline-small');
  const evaluation = { ...evaluationOf(entry, 9), checkpoint: { name: 'small', hash: 'def', parameters: 240_000, backend: 'onnxruntime 1' } };
  const report = buildReport([...entries, { ...entry, evaluation }]);
  t.match(report.checkpoint, { name: 'sample' });
  t.match(report.rows.at(-1), { checkpoint: { name: 'small' }, tasks: [{ task: 'touch', againstBase: { pairs: 10, onlyFirst: 0, onlySecond: 1 } }] });
  t.equal(report.rows[0]?.checkpoint, undefined);
  const page = reportMarkdown(report, 'evaluation/success.png');
  const section = page.slice(page.indexOf('## Baseline'), page.indexOf('## Robot time'));
  t.match(section, '- small: 0.24 M parameters, onnxruntime 1, SHA-256 of model and mapping def\n');
  t.match(section, '| full, 5 steps, f32 | 80 (49 .. 94) |');
  t.match(section, '| small | 90 (60 .. 98) |  |  |  |');
  t.match(section, '| small | +10 (+1 -0, p 1.000) |  |  |  |');
  t.equal(chartSvg(report, true), chartSvg(buildReport(entries), true), 'the chart is of the report');
  t.notMatch(reportMarkdown(buildReport(entries), 'x.png'), 'Baseline');
});

t.test('the chart', async (t) => {
  const report = buildReport(entries);
  const svg = chartSvg(report, true);
  t.equal(svg.match(/<rect [^>]*width="20"/g)?.length, 4 * 9, 'eight configurations and memory off for each task');
  t.notMatch(chartSvg(report, false), '<text');
  const picture = await drawChart(report);
  t.equal(picture.data.length, picture.width * picture.height * 3);
  t.ok(await sharp(Buffer.from(svg)).metadata());
  t.type(await hasFonts(), 'boolean');
});
