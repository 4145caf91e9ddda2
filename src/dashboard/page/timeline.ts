/** Chunks over the robot's clock: when each was computed, when it was executed, how late it came; and the newest of them in numbers. */
import type { ChunkText, RunText } from '../messages.js';
import { byId, fixed, make, ms, setText } from './dom.js';

const SVG = 'http://www.w3.org/2000/svg';
const LANES = ['computed', 'executing', 'late'] as const;
type Lane = (typeof LANES)[number];
const LANE_PX = 22;
const BAR_PX = 16;
const LEFT_PX = 70;
const RIGHT_PX = 8;
const AXIS_PX = 18;
/** A bar of no time at all (a clock that stands while the policy computes) is still seen. */
const BAR_PX_MIN = 2;
const NUMBER_PX_MIN = 18;
const WINDOW_CHUNKS = 16;
const WINDOW_S_MIN = 8;
const TICKS_MAX = 8;
const ROWS = 6;
/** Of the window, beyond the end of an episode. */
const END_SHARE = 0.02;

export class TimelinePanel {
  readonly #chart = byId('timeline-chart');
  readonly #note = byId('timeline-note');
  readonly #rows = byId('chunk-rows');
  #chunks: readonly ChunkText[] = [];
  #windowS = WINDOW_S_MIN;
  #drawn = '';

  begin({ mode, pace, chunkS }: RunText): void {
    this.#windowS = Math.max(WINDOW_S_MIN, WINDOW_CHUNKS * chunkS);
    this.#chunks = [];
    this.#rows.replaceChildren();
    this.#drawn = '';
    const still =
      pace === 'virtual' ? " Virtual time: the robot's clock stands while the policy computes, unless thinking is made to take time." : '';
    const sync = 'Mode sync: the arm rests while a chunk is computed, so no chunk is late.';
    setText(this.#note, `${mode === 'sync' ? sync : 'Late: the plan before was over when the chunk came; the arm had slowed to a hold.'}${still}`);
  }

  update(chunks: readonly ChunkText[]): void {
    this.#chunks = chunks;
    this.#rows.replaceChildren(...[...chunks].reverse().slice(0, ROWS).map(row));
    this.#drawn = '';
  }

  /** `isOver`: the episode has ended, and the chart stays with it. */
  draw(clockS: number, isOver: boolean): void {
    const nowS = isOver ? this.#endS(clockS) : clockS;
    const width = this.#chart.clientWidth;
    const key = `${nowS} ${width}`;
    if (key === this.#drawn || width === 0) return;
    this.#drawn = key;
    // A run that is younger than the window begins at the left.
    const fromS = Math.max(nowS - this.#windowS, this.#chunks[0]?.chunk === 0 ? (this.#chunks[0].computeFromS ?? 0) : Number.NEGATIVE_INFINITY);
    const toS = fromS + this.#windowS;
    const scale = (width - LEFT_PX - RIGHT_PX) / this.#windowS;
    const xOf = (timeS: number): number => LEFT_PX + (Math.max(timeS, fromS) - fromS) * scale;
    const x = (timeS: number): number => xOf(Math.min(timeS, nowS));
    const height = LANES.length * LANE_PX + AXIS_PX;
    const svg = shape('svg', { viewBox: `0 0 ${width} ${height}`, height, role: 'img', 'aria-label': this.#words() });
    svg.append(...axis(fromS, toS, this.#windowS, xOf));
    LANES.forEach((lane, index) => {
      svg.append(words(lane, { x: 0, y: index * LANE_PX + BAR_PX - 1, class: 'lane' }));
      svg.append(shape('line', { x1: LEFT_PX, x2: width - RIGHT_PX, y1: (index + 1) * LANE_PX, y2: (index + 1) * LANE_PX, class: 'rule' }));
    });
    for (const chunk of this.#chunks) svg.append(...LANES.flatMap((lane, index) => bar(chunk, lane, index, { fromS, nowS, x })));
    svg.append(shape('line', { x1: x(nowS), x2: x(nowS), y1: 0, y2: LANES.length * LANE_PX, class: 'now' }));
    this.#chart.replaceChildren(svg);
  }

  #endS(clockS: number): number {
    const ends = this.#chunks.flatMap(({ computeToS, executeToS }) => [computeToS ?? 0, executeToS ?? 0]);
    return ends.length === 0 ? clockS : Math.max(...ends) + this.#windowS * END_SHARE;
  }

  #words(): string {
    const last = this.#chunks.at(-1);
    const late = this.#chunks.filter(({ lateS }) => lateS > 0).length;
    return last ? `Timeline of chunks. Newest: chunk ${last.chunk + 1}. Late among those shown: ${late}.` : 'Timeline of chunks: none yet.';
  }
}

interface View {
  readonly fromS: number;
  readonly nowS: number;
  readonly x: (timeS: number) => number;
}

function spanOf(chunk: ChunkText, lane: Lane, nowS: number): { fromS: number; toS: number; isOpen: boolean } | undefined {
  const { computeFromS, computeToS, executeFromS, executeToS, lateS } = chunk;
  if (lane === 'computed')
    return computeFromS === undefined ? undefined : { fromS: computeFromS, toS: computeToS ?? nowS, isOpen: computeToS === undefined };
  if (executeFromS === undefined) return undefined;
  if (lane === 'late') return lateS > 0 ? { fromS: executeFromS - lateS, toS: executeFromS, isOpen: false } : undefined;
  if (executeFromS > nowS) return undefined;
  return { fromS: executeFromS, toS: executeToS ?? nowS, isOpen: executeToS === undefined || executeToS > nowS };
}

function bar(chunk: ChunkText, lane: Lane, index: number, { fromS, nowS, x }: View): SVGElement[] {
  const span = spanOf(chunk, lane, nowS);
  if (!span || span.toS < fromS) return [];
  const [left, right] = [x(span.fromS), x(span.toS)];
  const width = Math.max(BAR_PX_MIN, right - left - 1);
  const y = index * LANE_PX + 2;
  const rect = shape('rect', { x: left, y, width, height: BAR_PX, class: span.isOpen ? `${lane} open` : lane });
  const title = shape('title', {});
  title.textContent = `chunk ${chunk.chunk + 1} ${lane}: ${fixed(span.fromS, 3)} to ${span.isOpen ? 'now' : `${fixed(span.toS, 3)} s`}`;
  rect.append(title);
  if (width < NUMBER_PX_MIN) return [rect];
  return [rect, words(String(chunk.chunk + 1), { x: left + width / 2, y: y + BAR_PX - 4, class: 'number' })];
}

function axis(fromS: number, toS: number, windowS: number, x: (timeS: number) => number): SVGElement[] {
  const step = [0.5, 1, 2, 5, 10, 20, 50, 100].find((one) => windowS / one <= TICKS_MAX) ?? 200;
  const first = Math.max(0, Math.ceil(fromS / step));
  const count = Math.max(0, Math.floor(toS / step) - first + 1);
  return Array.from({ length: count }, (_, index) => (first + index) * step).flatMap((timeS) => [
    shape('line', { x1: x(timeS), x2: x(timeS), y1: 0, y2: LANES.length * LANE_PX, class: 'rule' }),
    words(`${timeS} s`, { x: x(timeS), y: LANES.length * LANE_PX + 13, 'text-anchor': x(timeS) > x(toS) - NUMBER_PX_MIN ? 'end' : 'middle' }),
  ]);
}

function shape(tag: string, attributes: Readonly<Record<string, string | number>>): SVGElement {
  const element = document.createElementNS(SVG, tag) as SVGElement;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}

function words(text: string, attributes: Readonly<Record<string, string | number>>): SVGElement {
  const element = shape('text', attributes);
  element.textContent = text;
  return element;
}

function row(chunk: ChunkText): HTMLElement {
  const { predictMs, executeMs, commitMs, lateS, rung, fits, clampedKnots, knots } = chunk;
  const rungText = rung === undefined ? '-' : `${rung}${fits ? '' : ' (does not fit)'}`;
  const cells: readonly (readonly [text: string, isBad: boolean, className?: string])[] = [
    [String(chunk.chunk + 1), false],
    [rungText, fits === false],
    [ms(predictMs), false],
    [ms(executeMs), false],
    [ms(commitMs), false, 'wide'],
    [lateS > 0 ? ms(1000 * lateS) : '0', lateS > 0],
    [knots === undefined ? '-' : `${clampedKnots ?? 0} of ${knots}`, (clampedKnots ?? 0) > 0],
  ];
  const element = make('tr');
  element.append(...cells.map(([text, isBad, className = '']) => make('td', isBad ? 'bad' : className, text)));
  return element;
}
