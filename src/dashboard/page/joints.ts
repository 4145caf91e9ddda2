/** Every joint's setpoint and measured position over the last half minute of the robot's clock, one chart each, with the newest values as numbers. */
import type uPlot from 'uplot';
import type { MotionText, RunText } from '../messages.js';
import { byId, fixed, make, setText } from './dom.js';
import { colour, onTheme } from './theme.js';

/** Stretches that are kept: half a minute of 50 ms each, as the server keeps. */
const POINTS_MAX = 600;
const CHART_PX = 112;
/** A joint that rests is no full-scale noise. */
const SPAN_RAD_MIN = 0.05;
const VALUES = 6;
/** uPlot's script stands before ours in index.html. */
const Chart = (globalThis as unknown as { readonly uPlot: typeof uPlot }).uPlot;

interface JointView {
  readonly place: HTMLElement;
  readonly values: readonly HTMLElement[];
  /** Times, then the six columns of messages.ts. */
  readonly data: (number | null)[][];
  chart: uPlot | undefined;
}

export class JointPanel {
  readonly #list = byId('joint-list');
  #views: readonly JointView[] = [];

  constructor() {
    onTheme(() => this.#redraw());
    addEventListener('resize', () => this.#resize());
  }

  begin(run: RunText): void {
    for (const { chart } of this.#views) chart?.destroy();
    this.#list.replaceChildren();
    this.#views = run.joints.map(({ name, lowerRad, upperRad }) => {
      const head = make('div', 'joint-head');
      const numbers = make('div', 'values');
      const values = ['setpoint', 'measured', 'error'].map((one) => make('span', one, '-'));
      numbers.append(...values);
      const title = make('h3', '', name);
      title.title = `limits ${fixed(lowerRad, 3)} to ${fixed(upperRad, 3)} rad`;
      head.append(title, numbers);
      const place = make('div', 'chart');
      place.setAttribute('role', 'img');
      place.setAttribute(
        'aria-label',
        `${name}: setpoint and measured position of the last 30 s; limits ${fixed(lowerRad, 2)} to ${fixed(upperRad, 2)} rad`,
      );
      const joint = make('div', 'joint');
      joint.append(head, place);
      this.#list.append(joint);
      return { place, values, data: Array.from({ length: VALUES + 1 }, () => []), chart: undefined };
    });
    this.#redraw();
  }

  add({ timesS, joints }: MotionText): void {
    this.#views.forEach((view, index) => {
      const columns = [timesS, ...(joints[index] ?? [])];
      view.data.forEach((kept, column) => {
        kept.push(...(columns[column] ?? []));
        kept.splice(0, Math.max(0, kept.length - POINTS_MAX));
      });
      view.chart?.setData(view.data as uPlot.AlignedData);
      const [setpoint, measured] = [view.data[1]?.at(-1), view.data[4]?.at(-1)];
      const known = typeof setpoint === 'number' && typeof measured === 'number';
      const texts = [signed(setpoint), signed(measured), known ? `\u0394 ${signed(setpoint - measured)}` : '\u0394 -'];
      for (const [value, element] of view.values.entries()) setText(element, texts[value] ?? '');
    });
  }

  #redraw(): void {
    for (const view of this.#views) {
      view.chart?.destroy();
      view.chart = new Chart(optionsOf(view.place.clientWidth), view.data as uPlot.AlignedData, view.place);
    }
  }

  #resize(): void {
    for (const { chart, place } of this.#views) chart?.setSize({ width: place.clientWidth, height: CHART_PX });
  }
}

function signed(value: number | null | undefined): string {
  return typeof value === 'number' ? `${value < 0 ? '\u2212' : '+'}${Math.abs(value).toFixed(4)}` : '-';
}

function optionsOf(width: number): uPlot.Options {
  const line = (name: string): uPlot.Series => ({ stroke: colour(name), width: 1.5, points: { show: false } });
  const edge: uPlot.Series = { stroke: 'transparent', width: 0, points: { show: false } };
  const axis: uPlot.Axis = {
    stroke: colour('muted'),
    font: '11px system-ui, sans-serif',
    grid: { stroke: colour('grid'), width: 1 },
    ticks: { show: false },
  };
  return {
    width: Math.max(width, 100),
    height: CHART_PX,
    legend: { show: false },
    cursor: { show: false },
    padding: [6, 6, 0, 0],
    scales: { x: { time: false }, y: { range: (_, least, most) => spread(least, most) } },
    axes: [
      { ...axis, size: 20, gap: 2 },
      { ...axis, size: 42, gap: 4, space: 24 },
    ],
    series: [{}, line('setpoint'), edge, edge, line('measured'), edge, edge],
    bands: [
      { series: [3, 2], fill: colour('setpoint-band') },
      { series: [6, 5], fill: colour('measured-band') },
    ],
  };
}

function spread(least: number | null, most: number | null): [number, number] {
  const [low, high] = [least ?? 0, most ?? 0];
  const room = Math.max((high - low) * 0.08, (SPAN_RAD_MIN - (high - low)) / 2);
  return [low - room, high + room];
}
