/**
 * The report's picture: success by task and rung of denoising as bars with Wilson intervals, one colour per precision and one for the run without
 * memory. Draws an SVG; nothing else knows its layout.
 */
import sharp from 'sharp';
import { hasFonts, type Picture } from '../recording/animation.js';
import { TASK_NAMES, type TaskName } from '../sim/tasks/task.js';
import type { TaskSummary } from './evaluation.js';
import type { Report, ReportRow } from './report.js';

const COLOURS = { f32: '#1f5fa8', bf16: '#e08a1e', int8: '#3a8f4d', int4: '#8a4fa0', 'memory off': '#7a7a7a' } as const;
type Series = keyof typeof COLOURS;

const BAR = 20;
const GAP = 10;
const PLOT_HEIGHT = 260;
const TOP = 60;
const LEFT = 50;
const BOTTOM = 70;
const TASK_GAP = 34;
const INK = '#222222';

interface Bar {
  readonly series: Series;
  readonly label: string;
  readonly summary: TaskSummary;
}

/** Bars of one task: rungs side by side, the precisions of a rung together, at the end the run without memory. */
function barsOf(rows: readonly ReportRow[], task: TaskName): Bar[][] {
  const bar = (row: ReportRow, series: Series, label: string): Bar[] => {
    const summary = row.tasks.find((one) => one.task === task);
    return summary ? [{ series, label, summary }] : [];
  };
  const rungs = new Map<string, Bar[]>();
  for (const row of rows.filter(({ group }) => group === 'denoising')) {
    const { precision, videoSteps, videoExecStep } = row.configuration;
    const label = `${videoExecStep === -1 ? 'full' : 'partial'} ${videoSteps}`;
    rungs.set(label, [...(rungs.get(label) ?? []), ...bar(row, precision, label)]);
  }
  const memory = rows.filter(({ group }) => group === 'memory').flatMap((row) => bar(row, 'memory off', 'no memory'));
  return [...rungs.values(), memory].filter((bars) => bars.length > 0);
}

const text = (x: number, y: number, content: string, options = ''): string => `<text x="${x}" y="${y}" fill="${INK}" ${options}>${content}</text>`;
const line = (x1: number, y1: number, x2: number, y2: number, width: number, colour = INK): string =>
  `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="${colour}" stroke-width="${width}"/>`;
const heightOf = (share: number): number => TOP + PLOT_HEIGHT * (1 - share);

function drawBar({ series, summary }: Bar, x: number): string {
  const { success, interval } = summary;
  const middle = x + BAR / 2;
  const [low, high] = [heightOf(interval.low), heightOf(interval.high)];
  return [
    `<rect x="${x}" y="${heightOf(success)}" width="${BAR}" height="${PLOT_HEIGHT * success}" fill="${COLOURS[series]}"/>`,
    line(middle, low, middle, high, 1.5),
    line(middle - 4, low, middle + 4, low, 1.5),
    line(middle - 4, high, middle + 4, high, 1.5),
  ].join('');
}

/** The plot's SVG. Texts are left out on a system without fonts. */
export function chartSvg(report: Report, hasText: boolean): string {
  const shapes: string[] = [];
  const label = (...args: Parameters<typeof text>): void => void (hasText && shapes.push(text(...args)));
  let x = LEFT + GAP;
  for (const task of TASK_NAMES) {
    const start = x;
    for (const bars of barsOf(report.rows, task)) {
      const middle = x + (bars.length * BAR) / 2;
      for (const bar of bars) {
        shapes.push(drawBar(bar, x));
        x += BAR;
      }
      label(
        middle,
        TOP + PLOT_HEIGHT + 12,
        bars[0]?.label ?? '',
        `font-size="10" text-anchor="end" transform="rotate(-40 ${middle} ${TOP + PLOT_HEIGHT + 12})"`,
      );
      x += GAP;
    }
    label((start + x - GAP) / 2, TOP + PLOT_HEIGHT + BOTTOM - 8, task, 'font-size="14" text-anchor="middle" font-weight="bold"');
    x += TASK_GAP;
  }
  const width = x;
  const grid = [0, 0.25, 0.5, 0.75, 1].map((share) => {
    label(LEFT - 6, heightOf(share) + 4, `${100 * share} %`, 'font-size="11" text-anchor="end"');
    return line(LEFT, heightOf(share), width - GAP, heightOf(share), share === 0 ? 1.5 : 0.5, share === 0 ? INK : '#c0c0c0');
  });
  label(
    LEFT,
    22,
    `Success of ${report.checkpoint.name}, ${report.episodes} episodes each, Wilson 95 % intervals; bars: video denoising steps`,
    'font-size="13"',
  );
  Object.entries(COLOURS).forEach(([name, colour], index) => {
    shapes.push(`<rect x="${LEFT + index * 110}" y="34" width="12" height="12" fill="${colour}"/>`);
    label(LEFT + 18 + index * 110, 44, name, 'font-size="12"');
  });
  const style = 'font-family="DejaVu Sans, Liberation Sans, Arial, sans-serif"';
  const size = `width="${width}" height="${TOP + PLOT_HEIGHT + BOTTOM}"`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size}><rect ${size} fill="#ffffff"/><g ${style}>${grid.join('')}${shapes.join('')}</g></svg>`;
}

export async function drawChart(report: Report): Promise<Picture> {
  const { data, info } = await sharp(Buffer.from(chartSvg(report, await hasFonts())))
    .removeAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, data: new Uint8Array(data) };
}
