/**
 * Report by exception: holds the present value of every metric and gives out what has changed by more than its deadband since it was last given out.
 * Every change of an event is given out, each with its time. Owned by the telemetry of a run; it knows no clock, no broker and no disk.
 */
import type { MetricSpec } from './metrics.js';
import type { MetricValue } from './payload.js';

/** A value of a metric at a time, to be told once. */
export interface Sample {
  readonly spec: MetricSpec;
  readonly timestampMs: number;
  readonly value: MetricValue;
}

/** Changes of events that wait for the next message; older ones make room, and are counted. */
const EVENTS_MAX = 256;

interface Held {
  readonly spec: MetricSpec;
  value: MetricValue;
  /** What was given out last. */
  reported: MetricValue;
  /** When, so that no two samples of a metric have one time. */
  reportedMs: number;
}

export class Reporter {
  readonly #held = new Map<string, Held>();
  #events: Sample[] = [];
  #dropped = 0;

  constructor(specs: readonly MetricSpec[]) {
    for (const spec of specs) this.#held.set(spec.name, { spec, value: null, reported: null, reportedMs: 0 });
  }

  /** Metrics that this robot does not have are ignored: what a robot reports is settled when it is born. */
  set(name: string, value: MetricValue | undefined, nowMs: number): void {
    const held = this.#held.get(name);
    if (!held) return;
    const found = presentable(value);
    if (held.spec.isEvent && found !== held.value) this.#keep(held, found, nowMs);
    held.value = found;
  }

  /** The present values. */
  *values(): IterableIterator<Pick<Sample, 'spec' | 'value'>> {
    for (const { spec, value } of this.#held.values()) yield { spec, value };
  }

  /** What was given out last, of every metric: what a birth says. */
  *reported(): IterableIterator<Pick<Sample, 'spec' | 'value'>> {
    for (const { spec, reported } of this.#held.values()) yield { spec, value: reported };
  }

  /** Samples that no message had room for, since this was asked last. */
  takeDropped(): number {
    const dropped = this.#dropped;
    this.#dropped = 0;
    return dropped;
  }

  /** What has changed, events first, in the order of time. */
  take(nowMs: number): readonly Sample[] {
    const samples = this.#events;
    this.#events = [];
    for (const held of this.#held.values()) {
      const { spec, value, reported } = held;
      if (spec.isEvent || !isNews(value, reported, spec.deadband)) continue;
      samples.push(this.#sample(held, value, nowMs));
    }
    return samples.sort((a, b) => a.timestampMs - b.timestampMs);
  }

  #keep(held: Held, value: MetricValue, nowMs: number): void {
    if (this.#events.length === EVENTS_MAX) {
      this.#events.shift();
      this.#dropped++;
    }
    this.#events.push(this.#sample(held, value, nowMs));
  }

  #sample(held: Held, value: MetricValue, nowMs: number): Sample {
    // A clock that was stepped back begins anew; within a step times only rise.
    const isStepped = nowMs < held.reportedMs - STEP_BACK_MS;
    held.reportedMs = isStepped ? nowMs : Math.max(nowMs, held.reportedMs + 1);
    held.reported = value;
    return { spec: held.spec, timestampMs: held.reportedMs, value };
  }
}

/** Further back than this the clock was stepped. */
const STEP_BACK_MS = 1500;

const TEXT_LENGTH_MAX = 1000;

/** What is no number is no value; a text that is too long is cut. */
function presentable(value: MetricValue | undefined): MetricValue {
  if (value === undefined || (typeof value === 'number' && !Number.isFinite(value))) return null;
  return typeof value === 'string' && value.length > TEXT_LENGTH_MAX ? `${value.slice(0, TEXT_LENGTH_MAX - 3)}...` : value;
}

function isNews(value: MetricValue, reported: MetricValue, deadband: number): boolean {
  if (typeof value === 'number' && typeof reported === 'number') return Math.abs(value - reported) > deadband;
  return value !== reported;
}
