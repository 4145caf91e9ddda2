/**
 * Progress on standard error: a bar that redraws itself on a terminal, plain lines elsewhere. Fed by the Progress of the policy contract or by plain
 * counts. Owned by a command; it never writes to standard output and holds no timer.
 */
import type { Progress } from '../policy/contract.js';
import type { Sink } from './context.js';

const BAR_CELLS = 24;
/** A terminal is redrawn at most this often; every stage's end is drawn. */
const REDRAW_MS = 50;
/** Where there is no terminal, a long stage says so this often. */
const LINE_MS = 10_000;
const COLUMNS_DEFAULT = 80;

const stageTexts: Readonly<Record<Progress['stage'], string>> = {
  encode: 'encoding pictures',
  commit: 'committing',
  imagine: 'imagining frames',
  video: 'denoising video',
  action: 'denoising actions',
  decode: 'decoding video',
  recover: 'rebuilding the memory',
  journal: 'waiting for the disk',
  remote: 'waiting for the policy server',
};

export interface ProgressBarOptions {
  /** Now in milliseconds; tests give their own. */
  readonly now?: () => number;
  /** How `done` and `total` are shown. Default: the numbers themselves. */
  readonly show?: (value: number) => string;
}

export class ProgressBar {
  readonly #sink: Sink;
  readonly #now: () => number;
  readonly #show: (value: number) => string;
  #prefix = '';
  #drawn = false;
  #stage = '';
  #stageStart = 0;
  #last = -Infinity;

  constructor(sink: Sink, options: ProgressBarOptions = {}) {
    this.#sink = sink;
    this.#now = options.now ?? (() => performance.now());
    this.#show = options.show ?? String;
  }

  /** Text before the stage, such as "chunk 2/3". */
  prefix(text: string): void {
    this.#prefix = text;
  }

  /** For PredictOptions.onProgress and its like. */
  readonly report = ({ stage, done, total }: Progress): void => this.update(stageTexts[stage] ?? stage, done, total);

  update(stage: string, done: number, total: number): void {
    const now = this.#now();
    const key = `${this.#prefix} ${stage}`;
    if (key !== this.#stage) {
      this.#stage = key;
      this.#stageStart = now;
      // The first report of a stage is drawn on a terminal; elsewhere its lines start after a while.
      this.#last = this.#sink.isTTY === true ? -Infinity : now;
    }
    const finished = done >= total;
    if (!finished && now - this.#last < (this.#sink.isTTY === true ? REDRAW_MS : LINE_MS)) return;
    this.#last = now;
    const seconds = (now - this.#stageStart) / 1000;
    if (this.#sink.isTTY === true) this.#draw(stage, done, total, seconds);
    else this.#sink.write(`${this.#label(stage)} ${this.#show(done)}/${this.#show(total)} ${seconds.toFixed(1)} s\n`);
  }

  /** A line of its own, above the bar. */
  line(text: string): void {
    this.clear();
    this.#sink.write(`${text}\n`);
  }

  /** Removes the bar. Idempotent. */
  clear(): void {
    if (this.#drawn) this.#sink.write('\r\u001b[K');
    this.#drawn = false;
  }

  #label(stage: string): string {
    return this.#prefix === '' ? stage : `${this.#prefix}: ${stage}`;
  }

  #draw(stage: string, done: number, total: number, seconds: number): void {
    const share = total > 0 ? Math.min(1, Math.max(0, done / total)) : 0;
    const full = Math.round(share * BAR_CELLS);
    const bar = `[${'#'.repeat(full)}${'-'.repeat(BAR_CELLS - full)}]`;
    const left = done > 0 && done < total ? `, ${((seconds / done) * (total - done)).toFixed(0)} s left` : '';
    const text = `${this.#label(stage)} ${bar} ${this.#show(done)}/${this.#show(total)} ${seconds.toFixed(1)} s${left}`;
    // A line that wraps cannot be redrawn.
    this.#sink.write(`\r\u001b[K${text.slice(0, (this.#sink.columns ?? COLUMNS_DEFAULT) - 1)}`);
    this.#drawn = true;
  }
}
