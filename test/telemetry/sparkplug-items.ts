/**
 * What the assertions of sparkplug-checker.ts are made of: the messages, sessions and metrics of a capture, and small questions about one of them.
 * Pure functions; not a test itself.
 */
import { allMessages, bdSeqOf, type Capture, type Message, rebirthOf, type Session, withVerb } from './capture.js';
import type { SpMetric, SpPayload } from './wire.js';

export interface Assertion {
  readonly id: string;
  /** Judged on captures of this version alone; both without. */
  readonly version?: 4 | 5;
  readonly judge: (capture: Capture) => Verdict;
}

export interface Verdict {
  /** How many things were looked at. */
  readonly seen: number;
  readonly problems: readonly string[];
}

/** Every item must hold. */
export function every<T>(items: readonly T[], holds: (item: T) => boolean, say: (item: T) => string): Verdict {
  return { seen: items.length, problems: items.filter((item) => !holds(item)).map(say) };
}

export const about = ({ parts, step }: Message): string => `${parts.join('/')} seq ${step.sp?.seq}`;
export const messages =
  (verb: string, holds: (message: Message, capture: Capture) => boolean) =>
  (capture: Capture): Verdict =>
    every(withVerb(capture, verb), (message) => holds(message, capture), about);
export const births = (holds: (message: Message, capture: Capture) => boolean) => messages('NBIRTH', holds);
export const datas = (holds: (message: Message, capture: Capture) => boolean) => messages('NDATA', holds);
/** NDEATHs that the node published itself. */
export const deaths = (holds: (message: Message, capture: Capture) => boolean) => messages('NDEATH', holds);
export const sessions =
  (holds: (session: Session, capture: Capture) => boolean) =>
  (capture: Capture): Verdict =>
    every(
      capture.sessions,
      (session) => holds(session, capture),
      ({ openedMs }) => `the session of ${openedMs}`,
    );
export const every_ =
  (holds: (message: Message, capture: Capture) => boolean) =>
  (capture: Capture): Verdict =>
    every(allMessages(capture), (message) => holds(message, capture), about);

export interface In {
  readonly metric: SpMetric;
  readonly message: Message;
}
export const metricsOf = (all: readonly Message[]): In[] =>
  all.flatMap((message) => (message.step.sp?.metrics ?? []).map((metric) => ({ metric, message })));
export const metrics =
  (verbs: readonly string[], holds: (metric: SpMetric, message: Message) => boolean) =>
  (capture: Capture): Verdict =>
    every(
      metricsOf(allMessages(capture).filter(({ verb }) => verbs.includes(verb))),
      ({ metric, message }) => holds(metric, message),
      ({ metric, message }) => `${metric.name ?? metric.alias} in ${about(message)}`,
    );
export const BIRTH = ['NBIRTH'];
export const DATA = ['NDATA'];
export const BOTH = ['NBIRTH', 'NDATA'];

export const isText = (text: string): boolean =>
  text.length > 0 && Buffer.from(text, 'utf8').toString('utf8') === text && !/[\u0000\ufffd]/.test(text);
export const isPart = (text: string | undefined): boolean => text !== undefined && /^[^+/#\u0000]+$/u.test(text);
export const topicIs = ({ parts }: Message, verb: string, { group, node }: Capture): boolean =>
  parts.join('/') === `spBv1.0/${group}/${verb}/${node}`;
/** A day of 2020 .. 2100 in milliseconds: seconds, nanoseconds or local counters are none. */
export const isUtc = (timestamp: bigint | undefined): boolean =>
  timestamp !== undefined && timestamp > 1_577_836_800_000n && timestamp < 4_102_444_800_000n;
export const isSeq = (sp: SpPayload | undefined): boolean => sp?.seq !== undefined && sp.seq >= 0n && sp.seq <= 255n;
export const follows = ({ step, before }: Message): boolean =>
  before?.step.sp?.seq !== undefined && step.sp?.seq === (before.step.sp.seq + 1n) % 256n;
export const bdSeq = (sp: SpPayload | undefined): unknown => bdSeqOf(sp)?.value;
/** Int64 is 4 among the data types. */
export const isBdSeq = (sp: SpPayload | undefined): boolean => bdSeqOf(sp)?.datatype === 4n && bdSeqOf(sp)?.field === 11;
export const isRebirth = (sp: SpPayload | undefined): boolean => {
  const metric = rebirthOf(sp);
  return metric?.datatype === 11n && metric.value === false;
};
export const incremented = (capture: Capture): Verdict => {
  const values = capture.sessions.map(({ will }) => bdSeq(will));
  const holds = (_: unknown, index: number): boolean => values[index] === (index === 0 ? 0n : (BigInt(String(values[index - 1] ?? -1)) + 1n) % 256n);
  return { seen: values.length, problems: values.flatMap((value, index) => (holds(value, index) ? [] : [`CONNECT ${index}: bdSeq ${value}`])) };
};
export const isRetainedQos = ({ packet }: Message, qos: number): boolean => packet.qos === qos && !packet.retain;
/** Values by their data types: the field that carries each. */
export const FIELD_OF: Readonly<Record<string, number>> = {
  1: 10,
  2: 10,
  3: 10,
  4: 11,
  5: 10,
  6: 10,
  7: 10,
  8: 11,
  9: 12,
  10: 13,
  11: 14,
  12: 15,
  13: 11,
};
export const hasValue = ({ isNull, field }: SpMetric): boolean => (isNull === true) !== (field !== undefined);
export const properties =
  (holds: (set: NonNullable<SpMetric['properties']>) => boolean) =>
  (capture: Capture): Verdict =>
    every(
      metricsOf(allMessages(capture)).filter(({ metric }) => metric.properties !== undefined),
      ({ metric }) => metric.properties !== undefined && holds(metric.properties),
      ({ metric }) => String(metric.name),
    );

export const of = (id: string, judge: Assertion['judge'], version?: 4 | 5): Assertion => ({
  id: `tck-id-${id}`,
  judge,
  ...(version ? { version } : {}),
});
