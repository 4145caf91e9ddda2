/** The page's numbers: budget of thinking, KV cache, the states between plan and motor, and what is run. */
import type { BudgetText, RunText, StateText } from '../messages.js';
import { byId, fixed, make, ms, type Pair, setPairs, setText } from './dom.js';

const COUNT_NAMES: Readonly<Record<string, string>> = {
  cycles: 'setpoint cycles',
  missed: 'missed cycles',
  chunks: 'plans taken',
  chunks_refused: 'plans refused',
  expired: 'plans that ran out',
  sets_followed: 'sets followed',
  values_clamped: 'values clamped in firmware',
  frames_ignored: 'frames ignored',
};
/** Counters that should stay at 0. */
const BAD_COUNTS: ReadonlySet<string> = new Set(['missed', 'chunks_refused', 'values_clamped']);
const BAD_STATES: readonly string[] = ['fault', 'silent'];

export class BudgetPanel {
  readonly #body = byId('budget-body');
  readonly #verdict = make('p', 'verdict');
  readonly #bar = make('div', 'bar');
  readonly #took = make('i', 'took');
  readonly #chunk = make('i', 'mark');
  readonly #pairs = make('dl', 'pairs');

  constructor() {
    this.#bar.append(this.#took, this.#chunk);
  }

  update(budget: BudgetText | null, run: RunText): void {
    if (!budget) {
      this.#body.replaceChildren(make('p', 'note', 'No chunk was computed yet.'));
      return;
    }
    if (this.#body.firstChild !== this.#verdict) this.#body.replaceChildren(this.#verdict, this.#bar, this.#pairs);
    const { rung, predictMs } = budget;
    const motionMs = 1000 * run.chunkS;
    setText(this.#verdict, rung ? (rung.fits ? 'fits' : 'does not fit: the arm slows to a hold') : 'no budget: the arm rests while it computes');
    this.#verdict.className = rung ? `verdict ${rung.fits ? 'good' : 'bad'}` : 'verdict';
    const scale = Math.max(motionMs, predictMs, rung?.expectedMs ?? 0) * 1.05;
    this.#took.style.width = `${(100 * predictMs) / scale}%`;
    this.#took.className = rung && predictMs > motionMs ? 'took bad' : 'took';
    this.#chunk.style.left = `${(100 * motionMs) / scale}%`;
    this.#bar.title = 'bar: what the newest prediction took; mark: the motion of one chunk';
    setPairs(this.#pairs, budgetPairs(budget, run));
  }
}

function budgetPairs({ rung, predictMs, parts, p50Ms, p99Ms, maxMs }: BudgetText, run: RunText): Pair[] {
  const steps = rung ? (run.rungs[rung.index] ?? "the job's own steps") : '-';
  return [
    { name: 'rung chosen', value: rung ? `${rung.index}${run.rungs.length > 0 ? ` of 0..${run.rungs.length - 1}` : ''}: ${steps}` : '-' },
    { name: 'predicted time', value: rung ? (rung.expectedMs === null ? 'nothing measured yet' : `${ms(rung.expectedMs)} ms`) : '-' },
    { name: 'it took', value: `${ms(predictMs)} ms` },
    { name: "a chunk's motion (mark)", value: `${ms(1000 * run.chunkS)} ms` },
    { name: 'encode', value: `${ms(parts.encode)} ms`, rule: true },
    { name: 'commit', value: `${ms(parts.commit)} ms` },
    { name: 'imagine', value: `${ms(parts.imagine)} ms` },
    { name: 'video', value: `${ms(parts.video)} ms` },
    { name: 'actions', value: `${ms(parts.action)} ms` },
    { name: 'p50 / p99 / longest', value: `${ms(p50Ms)} / ${ms(p99Ms)} / ${ms(maxMs)} ms`, rule: true },
  ];
}

export class CachePanel {
  readonly #bar = make('div', 'bar');
  readonly #committed = make('i', 'committed');
  readonly #predicted = make('i', 'predicted');
  readonly #pairs = make('dl', 'pairs');

  constructor() {
    this.#bar.setAttribute('role', 'img');
    this.#bar.append(this.#committed, this.#predicted);
    byId('cache-body').append(this.#bar, this.#pairs);
  }

  update({ capacity, valid, committed, predicted }: StateText['cache']): void {
    const share = (entries: number): string => `${capacity > 0 ? Math.min(100, (100 * entries) / capacity) : 0}%`;
    this.#committed.style.width = share(committed);
    this.#predicted.style.width = share(predicted);
    const percent = capacity > 0 ? ` (${fixed((100 * valid) / capacity, 0)} %)` : '';
    this.#bar.setAttribute('aria-label', `${committed} committed and ${predicted} predicted of ${capacity} entries`);
    setPairs(this.#pairs, [
      { name: 'capacity', value: `${capacity} entries` },
      { name: 'valid', value: `${valid}${percent}` },
      { name: 'committed (solid)', value: String(committed) },
      { name: 'predicted (striped)', value: String(predicted) },
    ]);
  }
}

export class PathPanel {
  readonly #list = byId('path-body');

  update({ stream, link, bridge, isAtRest, faultCode, counts, temperaturesC, knots, clampedKnots }: StateText): void {
    const named = (name: string, value: string): Pair => ({ name, value, ...(BAD_STATES.includes(value) ? { mood: 'bad' as const } : {}) });
    const counters = Object.entries(counts).map(([key, value], index): Pair => {
      const isBad = BAD_COUNTS.has(key) && value > 0;
      return { name: COUNT_NAMES[key] ?? key, value: String(value), rule: index === 0, ...(isBad ? { mood: 'bad' as const } : {}) };
    });
    const temperatures = Object.entries(temperaturesC).map(
      ([name, value], index): Pair => ({ name, value: `${fixed(value, 1)} \u00b0C`, rule: index === 0 }),
    );
    setPairs(this.#list, [
      named('setpoint stream', stream),
      named('link', link),
      named('bridge', bridge),
      { name: 'motion', value: isAtRest ? 'at rest' : 'moving' },
      { name: 'latched fault', value: faultCode === '' ? 'none' : faultCode, ...(faultCode === '' ? {} : { mood: 'bad' as const }) },
      { name: 'actions held back', value: `${clampedKnots} of ${knots}` },
      ...counters,
      ...temperatures,
    ]);
  }
}

export function showRun(run: RunText, viewers: string): void {
  setPairs(byId('run-body'), [
    { name: 'robot', value: run.robot },
    { name: 'task', value: `${run.task}, seed ${run.seed}` },
    { name: 'instruction', value: run.instruction },
    { name: 'mode', value: run.mode },
    { name: 'pace', value: run.pace === 'virtual' ? 'virtual time' : 'real time' },
    { name: 'engine', value: run.policy },
    { name: 'checkpoint', value: run.untrained ? 'UNTRAINED (random weights)' : run.checkpoint, ...(run.untrained ? { mood: 'bad' as const } : {}) },
    { name: 'run', value: run.id, rule: true },
    { name: 'premotor', value: run.version },
    { name: 'viewers', value: viewers },
  ]);
}
