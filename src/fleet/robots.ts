/**
 * Robots: what is known of a fleet from its Sparkplug messages, robot by robot. Fed by an observer with every message it receives; it asks nobody,
 * keeps nothing on disk and takes no message for more than what one robot says of itself.
 */
import type { DataType, MetricValue, ReceivedMetric } from '../telemetry/payload.js';
import { DATA_TYPES, decodePayload, valueAs } from '../telemetry/payload.js';

/**
 * What an observer can say of a robot's link: it speaks and everything it said is known; it speaks, but what it said first was missed; a message is
 * missing, it is silent for too long, or the observer itself lost the broker; the broker or the robot said that it is gone.
 */
export type RobotLink = 'online' | 'unborn' | 'stale' | 'offline';

export interface RobotRow {
  readonly group: string;
  readonly node: string;
  readonly link: RobotLink;
  /** When it became so, by the clock of whoever observes. */
  readonly sinceMs: number;
  readonly why: string;
  /** When anything was last heard of it. */
  readonly heardMs: number;
  /** By the names of metrics; of a robot that is offline what it said last. */
  readonly values: Readonly<Record<string, string | number | boolean | null>>;
}

/** More robots than this are counted, not kept. */
export const ROBOTS_MAX = 10_000;
/** A robot says how long its computer runs once a minute, so that three minutes of silence are too many. */
export const SILENCE_MS_MAX = 180_000;
const SEQ_COUNT = 256n;
const METRICS_MAX = 1024;
const TEXT_CHARACTERS_MAX = 500;
const TOPIC = /^spBv1\.0\/([^/+#\s]{1,128})\/(NBIRTH|NDATA|NDEATH)\/([^/+#\s]{1,128})$/;
const TYPE_NAMES = new Map<number, DataType>(Object.entries(DATA_TYPES).map(([name, number]) => [number, name as DataType]));

interface Known {
  link: RobotLink;
  sinceMs: number;
  why: string;
  heardMs: number;
  bdSeq: bigint | undefined;
  seq: bigint | undefined;
  readonly byAlias: Map<bigint, { readonly name: string; readonly type: DataType }>;
  readonly values: Map<string, string | number | boolean | null>;
}

/** Texts are cut and stripped of what moves a terminal's cursor; whole numbers of 64 bits become numbers. */
function plain(value: MetricValue): string | number | boolean | null {
  if (typeof value === 'bigint') return Number(value);
  if (typeof value !== 'string') return value;
  return value.slice(0, TEXT_CHARACTERS_MAX).replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, ' ');
}

export class Robots {
  readonly #known = new Map<string, Known>();
  #ignored = 0;

  /** Messages that say nothing: of other topics, without a payload, from more robots than are kept. */
  get ignored(): number {
    return this.#ignored;
  }

  /** Takes over what was known before; everything in it is stale until it is heard again. */
  remember(rows: readonly RobotRow[], nowMs: number): void {
    for (const { group, node, link, sinceMs, why, heardMs, values } of rows) {
      const one = this.#of(`${group}/${node}`, nowMs);
      if (!one) continue;
      Object.assign(one, link === 'offline' ? { link, sinceMs, why } : { link: 'stale', sinceMs: heardMs, why: 'not heard of in this session' });
      one.heardMs = heardMs;
      for (const [name, value] of Object.entries(values)) one.values.set(name, value);
    }
  }

  /** Returns whether anything changed. Never throws. */
  accept(topic: string, bytes: Uint8Array, nowMs: number): boolean {
    const [, group = '', verb = '', node = ''] = TOPIC.exec(topic) ?? [];
    const payload = verb === '' ? undefined : decodePayload(bytes);
    const isNew = !this.#known.has(`${group}/${node}`);
    const one = payload && this.#of(`${group}/${node}`, nowMs);
    if (!payload || !one) {
      this.#ignored++;
      return false;
    }
    one.heardMs = nowMs;
    if (verb === 'NBIRTH') return birth(one, payload.metrics, payload.seq, nowMs);
    if (verb === 'NDEATH') return death(one, payload.metrics, nowMs);
    return data(one, payload.metrics, payload.seq, nowMs) || isNew;
  }

  /** The observer has no session with the broker: nothing of what it knows is sure. */
  lost(why: string, nowMs: number): void {
    for (const one of this.#known.values()) if (one.link !== 'offline') go(one, 'stale', why, nowMs);
  }

  /** Whether a birth would help: the first message of a robot was missed, or a later one. */
  needsBirth(group: string, node: string): boolean {
    const link = this.#known.get(`${group}/${node}`)?.link;
    return link === 'unborn' || link === 'stale';
  }

  /** In the order of groups and names. `nowMs` 0: without looking at silences. */
  rows(nowMs: number): readonly RobotRow[] {
    return [...this.#known]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, { link, sinceMs, why, heardMs, values }]) => {
        const [group = '', node = ''] = key.split('/');
        const isSilent = nowMs - heardMs > SILENCE_MS_MAX && (link === 'online' || link === 'unborn');
        const state = isSilent ? { link: 'stale' as const, sinceMs: heardMs, why: 'silent' } : { link, sinceMs, why };
        return { group, node, ...state, heardMs, values: Object.fromEntries(values) };
      });
  }

  #of(key: string, nowMs: number): Known | undefined {
    const known = this.#known.get(key);
    if (known) return known;
    if (this.#known.size >= ROBOTS_MAX) return undefined;
    const made: Known = {
      link: 'unborn',
      sinceMs: nowMs,
      why: 'its birth was not heard',
      heardMs: nowMs,
      bdSeq: undefined,
      seq: undefined,
      byAlias: new Map(),
      values: new Map(),
    };
    this.#known.set(key, made);
    return made;
  }
}

function go(one: Known, link: RobotLink, why: string, nowMs: number): boolean {
  if (one.link === link && one.why === why) return false;
  Object.assign(one, { link, why, sinceMs: nowMs });
  return true;
}

const bdSeqOf = (metrics: readonly ReceivedMetric[]): bigint | undefined => metrics.find(({ name }) => name === 'bdSeq')?.long_value;

function birth(one: Known, metrics: readonly ReceivedMetric[], seq: bigint | undefined, nowMs: number): boolean {
  const isReborn = one.link === 'online' && one.bdSeq !== undefined && one.bdSeq === bdSeqOf(metrics);
  one.byAlias.clear();
  one.values.clear();
  one.bdSeq = bdSeqOf(metrics);
  one.seq = seq;
  for (const metric of metrics.slice(0, METRICS_MAX)) {
    const { name, alias, datatype } = metric;
    const type = TYPE_NAMES.get(datatype ?? -1);
    if (name === undefined || type === undefined) continue;
    if (alias !== undefined) one.byAlias.set(alias, { name, type });
    const value = valueAs(metric, type);
    if (value !== undefined) one.values.set(name, plain(value));
  }
  if (!isReborn) go(one, 'online', '', nowMs);
  return true;
}

function data(one: Known, metrics: readonly ReceivedMetric[], seq: bigint | undefined, nowMs: number): boolean {
  // What follows a death without a birth, or was never born, cannot be read: data has aliases alone.
  if (one.link === 'offline' || one.byAlias.size === 0) return go(one, 'unborn', 'its birth was not heard', nowMs);
  if (one.link === 'stale') return false;
  const expected = one.seq === undefined ? undefined : (one.seq + 1n) % SEQ_COUNT;
  if (expected === undefined || seq !== expected) return go(one, 'stale', 'a message is missing', nowMs);
  one.seq = seq;
  let isChanged = false;
  for (const metric of metrics) {
    const known = metric.alias === undefined || metric.is_historical === true ? undefined : one.byAlias.get(metric.alias);
    const value = known && valueAs(metric, known.type);
    if (!known || value === undefined) continue;
    isChanged ||= one.values.get(known.name) !== plain(value);
    one.values.set(known.name, plain(value));
  }
  return isChanged;
}

/** The will of an earlier session says nothing about this one. */
function death(one: Known, metrics: readonly ReceivedMetric[], nowMs: number): boolean {
  const bdSeq = bdSeqOf(metrics);
  if (one.bdSeq !== undefined && bdSeq !== one.bdSeq) return false;
  return go(one, 'offline', 'the broker or the robot said so', nowMs);
}
