/**
 * The asynchronous report's picture: success and time until done against the delay, one column per task and one line per mode, with intervals. Draws
 * an SVG; nothing else knows its layout.
 */
import sharp from 'sharp';
import { MODE_NAMES, type ModeName } from '../control/modes/mode.js';
import { hasFonts, type Picture } from '../recording/animation.js';
import { TASK_NAMES, type TaskName } from '../sim/tasks/task.js';
import { DELAYS } from './async-grid.js';
import type { AsyncCell, AsyncReport } from './async-report.js';

const COLOURS: Readonly<Record<ModeName, string>> = {
  sync: '#444444',
  'async-naive': '#d1495b',
  'async-grounded': '#1f5fa8',
  rtc: '#3a9d5d',
  ensemble: '#e08a1e',
};
const WIDTH = 250;
const HEIGHT = 180;
const LEFT = 60;
const TOP = 70;
const GAP_X = 40;
const GAP_Y = 50;
const BOTTOM = 40;
const INK = '#222222';
/** Modes stand beside each other, so that their intervals can be told apart. */
const SHIFT = 3;

interface Panel {
  readonly x: number;
  readonly y: number;
  readonly max: number;
}

const acrossOf = (panel: Panel, delay: number): number => panel.x + 10 + delay * (WIDTH - 20);
const upOf = (panel: Panel, value: number): number => panel.y + HEIGHT * (1 - Math.min(value, panel.max) / panel.max);

function linesOf(cells: readonly AsyncCell[], panel: Panel, measure: (cell: AsyncCell) => number | null, withInterval: boolean): string {
  return MODE_NAMES.map((mode, index) => {
    const own = cells.filter((cell) => cell.mode === mode).sort((a, b) => a.delayChunks - b.delayChunks);
    const shift = (index - 2) * SHIFT;
    const points = own.flatMap((cell) => {
      const value = measure(cell);
      return value === null ? [] : [{ x: acrossOf(panel, cell.delayChunks) + shift, y: upOf(panel, value), cell }];
    });
    const path = points.map(({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`).join(' ');
    const bars = withInterval
      ? points.map(({ x, cell }) => {
          const [low, high] = [upOf(panel, cell.interval.low), upOf(panel, cell.interval.high)];
          return `<line x1="${x}" x2="${x}" y1="${low}" y2="${high}" stroke="${COLOURS[mode]}" stroke-width="1"/>`;
        })
      : [];
    const dots = points.map(({ x, y }) => `<circle cx="${x}" cy="${y}" r="2.5" fill="${COLOURS[mode]}"/>`);
    return `<polyline points="${path}" fill="none" stroke="${COLOURS[mode]}" stroke-width="1.5"/>${bars.join('')}${dots.join('')}`;
  }).join('');
}

/** The plot's SVG. Texts are left out on a system without fonts. */
export function asyncChartSvg(report: AsyncReport, hasText: boolean): string {
  const shapes: string[] = [];
  const label = (x: number, y: number, content: string, options = ''): void => {
    if (hasText) shapes.push(`<text x="${x}" y="${y}" fill="${INK}" font-size="11" ${options}>${content}</text>`);
  };
  const panelOf = (column: number, row: number, max: number): Panel => ({ x: LEFT + column * (WIDTH + GAP_X), y: TOP + row * (HEIGHT + GAP_Y), max });
  const frame = (panel: Panel, ticks: readonly number[], show: (value: number) => string): void => {
    for (const tick of ticks) {
      const y = upOf(panel, tick);
      shapes.push(`<line x1="${panel.x}" x2="${panel.x + WIDTH}" y1="${y}" y2="${y}" stroke="#d0d0d0" stroke-width="0.5"/>`);
      label(panel.x - 4, y + 4, show(tick), 'text-anchor="end"');
    }
    for (const delay of DELAYS) label(acrossOf(panel, delay), panel.y + HEIGHT + 14, `${100 * delay} %`, 'text-anchor="middle"');
    shapes.push(`<rect x="${panel.x}" y="${panel.y}" width="${WIDTH}" height="${HEIGHT}" fill="none" stroke="#888888" stroke-width="0.8"/>`);
  };
  TASK_NAMES.forEach((task: TaskName, column) => {
    const cells = report.cells.filter((cell) => cell.group === 'delay' && cell.task === task);
    const success = panelOf(column, 0, 1);
    frame(success, [0, 0.25, 0.5, 0.75, 1], (value) => `${100 * value} %`);
    shapes.push(linesOf(cells, success, ({ success: share }) => share, true));
    label(success.x + WIDTH / 2, success.y - 8, `${task}: success`, 'text-anchor="middle" font-weight="bold"');
    const most = Math.ceil(Math.max(1, ...cells.map(({ completionS }) => completionS ?? 0)));
    const time = panelOf(column, 1, most);
    frame(time, [0, most / 2, most], (value) => `${value} s`);
    shapes.push(linesOf(cells, time, ({ completionS }) => completionS, false));
    label(time.x + WIDTH / 2, time.y - 8, `${task}: time until done`, 'text-anchor="middle" font-weight="bold"');
  });
  label(
    LEFT,
    20,
    `${report.checkpoint.name}: success (Wilson 95 %) and median robot time until done, by the delay of a prediction in percent of a chunk`,
  );
  MODE_NAMES.forEach((mode, index) => {
    shapes.push(`<rect x="${LEFT + index * 130}" y="30" width="12" height="12" fill="${COLOURS[mode]}"/>`);
    label(LEFT + 18 + index * 130, 40, mode);
  });
  const size = `width="${LEFT + TASK_NAMES.length * (WIDTH + GAP_X)}" height="${TOP + 2 * (HEIGHT + GAP_Y) + BOTTOM - GAP_Y}"`;
  const style = 'font-family="DejaVu Sans, Liberation Sans, Arial, sans-serif"';
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size}><rect ${size} fill="#ffffff"/><g ${style}>${shapes.join('')}</g></svg>`;
}

export async function drawAsyncChart(report: AsyncReport): Promise<Picture> {
  const { data, info } = await sharp(Buffer.from(asyncChartSvg(report, await hasFonts())))
    .removeAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, data: new Uint8Array(data) };
}
