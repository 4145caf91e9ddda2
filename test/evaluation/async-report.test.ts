/** The asynchronous report: its grid, what is kept of an evaluation, paired comparison with the synchronous cells, text and pictures. */
import t from 'tap';
import { asyncChartSvg } from '../../src/evaluation/async-chart.js';
import { asyncGrid, DELAYS, inRunningOrder } from '../../src/evaluation/async-grid.js';
import { type AsyncResult, asyncMarkdown, buildAsyncReport } from '../../src/evaluation/async-report.js';
import { type CompactEvaluation, compacted, formatCompact } from '../../src/evaluation/compact.js';
import type { EpisodeResult } from '../../src/evaluation/configuration.js';
import { type Evaluation, machine, summarise } from '../../src/evaluation/evaluation.js';
import { medianInterval } from '../../src/evaluation/statistics.js';
import { TASK_NAMES } from '../../src/sim/tasks/task.js';

const OPTIONS = { precision: 'f32', videoSteps: 1, actionSteps: 5, imagineSteps: 5 } as const;
const grid = asyncGrid(OPTIONS);

/** Twenty seeds; those from `from` on succeed, in `timeS` after a first movement at 1 s. */
function evaluationOf(entry: (typeof grid)[number], from: number, timeS: number): Evaluation {
  const episodes = TASK_NAMES.flatMap((task) =>
    Array.from({ length: 20 }, (_, seed): EpisodeResult => {
      const isDone = seed >= from;
      return {
        task,
        seed,
        instruction: 'do it',
        verdict: isDone ? 'succeeded' : 'failed',
        why: isDone ? '' : 'not done',
        completionS: isDone ? timeS : null,
        robotS: timeS,
        firstMoveS: 1,
        idleS: 0.12345,
        presses: [],
        peakJerkRadPerS3: 1000.4,
        knots: 100,
        clampedKnots: 3,
        nudgedAtS: null,
        predictMs: [1],
        commitMs: [1],
        ...(entry.configuration.mode === undefined ? {} : { assumed: { frames: 4, errorRms: 0.5, stillErrorRms: 1 } }),
      };
    }),
  );
  return {
    configuration: entry.configuration,
    mode: entry.configuration.mode ?? 'sync',
    checkpoint: { name: 'c', hash: 'h', parameters: 1, backend: 'b' },
    job: { videoSteps: 1, actionSteps: 5, videoExecStep: -1, hash: 'j' },
    tasks: TASK_NAMES.map((task) => summarise(task, episodes)),
    episodes,
    workers: 2,
    wallS: 10,
    date: '2026-01-02T03:04:05.000Z',
    versions: { premotor: '0', commit: 'abc' },
    machine: machine(),
  };
}

const result = (name: string, from: number, timeS: number): AsyncResult => {
  const entry = grid.find((one) => one.name === name);
  if (!entry) throw new Error(name);
  return { entry, evaluation: compacted(evaluationOf(entry, from, timeS)) };
};

t.test('the grid has every mode at every delay once, compared with sync at the same delay; the decisive delay runs first', (t) => {
  t.equal(new Set(grid.map(({ name }) => name)).size, grid.length);
  for (const delay of DELAYS) {
    const own = grid.filter(({ group, configuration }) => group === 'delay' && configuration.delayChunks === delay);
    t.same(own.map(({ configuration }) => configuration.mode ?? 'sync').sort(), ['async-grounded', 'async-naive', 'ensemble', 'rtc', 'sync']);
    t.same([...new Set(own.map(({ base }) => base))], [`sync-${100 * delay}`]);
  }
  t.same(asyncGrid({ ...OPTIONS, out: 'x', only: ['y'] } as typeof OPTIONS), grid, 'what else the command was given is no configuration');
  t.ok(grid.every(({ base }) => grid.some(({ name }) => name === base)));
  t.same(
    inRunningOrder(grid)
      .slice(0, 3)
      .map(({ name }) => name),
    ['sync-100', 'async-naive-100', 'async-grounded-100'],
  );
  t.equal(inRunningOrder(grid).length, grid.length);
  t.end();
});

t.test('what is kept: a row per episode, rounded, that reads back', (t) => {
  const { evaluation } = result('async-grounded-100', 5, 3);
  const read = JSON.parse(formatCompact(evaluation)) as CompactEvaluation;
  t.same(read, JSON.parse(JSON.stringify(evaluation)));
  t.same(read.rows.touch?.[0], [0, 'failed', null, 1, 0.123, 1000, 0.03, 4, 0.5, 1]);
  t.equal(read.rows.touch?.length, 20);
  t.end();
});

t.test('cells are compared seed by seed, and times on the seeds that both succeed at', (t) => {
  const report = buildAsyncReport([result('sync-100', 4, 9), result('async-grounded-100', 2, 5), result('async-naive-100', 12, 5)], 0, 20, 'steps');
  const cell = (name: string) => report.cells.find((one) => one.name === name && one.task === 'push');
  t.equal(cell('sync-100')?.paired, null);
  t.match(cell('async-grounded-100')?.paired, { pairs: 20, onlyFirst: 0, onlySecond: 2, difference: 0.1 });
  t.match(cell('async-naive-100')?.paired, { onlyFirst: 8, onlySecond: 0 });
  t.same(cell('async-grounded-100')?.speedup, {
    whole: { p50: 1.8, pairs: 16, low: 1.8, high: 1.8 },
    moving: { p50: 2, pairs: 16, low: 2, high: 2 },
  });
  t.same(cell('async-grounded-100')?.assumed, { frames: 80, errorRms: 0.5, stillErrorRms: 1 });
  const text = asyncMarkdown(report, { chart: 'a.png', imagined: 'b.png' });
  t.match(text, /\| touch \| 1\.125 \| 2\.00 \(2\.00 \.\. 2\.00\) \| 1\.80/);
  t.match(text, /-40\.0 \(.*\+0 -8, p 0\.008\)/);
  t.match(text, /async-grounded \(20\) \| - \| - \| - \| - \| 90 \(/);
  t.notMatch(text, /undefined|NaN|Real time/);
  const real = buildAsyncReport([result('real-sync', 4, 9), result('real-async-naive', 4, 5)], 0, 20, 'steps');
  const { chart, imagined } = { chart: 'a.png', imagined: undefined };
  t.match(asyncMarkdown(real, { chart, imagined }), /## Real time[\s\S]*medians of 2 to 2 ms\.[\s\S]*\| async-naive, real time \| 5\.00 \|/);
  const board = buildAsyncReport([result('moved-async-naive', 12, 5), result('moved-async-grounded', 2, 5)], 0, 20, 'steps');
  t.same(new Set(board.cells.map(({ task }) => task)), new Set(['press-n', 'sequence']), 'the long tasks with buttons');
  t.match(asyncMarkdown(board, { chart, imagined }), /## A board that is knocked[\s\S]*\| async-grounded, board moved 5 cm \| - \| \+50\.0 \(/);
  const svg = asyncChartSvg(report, true);
  t.equal(svg.match(/<circle/g)?.length, 3 * 2 * TASK_NAMES.length, 'a dot per cell and quantity');
  t.notMatch(svg, /undefined|NaN/);
  t.notMatch(asyncChartSvg(report, false), /<text/);
  t.end();
});

t.test('the interval of a median', (t) => {
  const values = Array.from({ length: 100 }, (_, index) => index + 1);
  // Binomial(100, 1/2): the ranks 40 and 61 (Hahn and Meeker, Statistical Intervals, table A.15).
  t.same(medianInterval(values), { low: 40, high: 61 });
  t.same(medianInterval([7]), { low: 7, high: 7 });
  t.ok(Number.isNaN(medianInterval([]).low));
  t.end();
});
