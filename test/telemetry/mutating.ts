/**
 * What mutations.ts is made of: places in a capture that a wrong edge node would have filled otherwise. Not a test itself.
 */
import { bdSeqOf, type Capture, connectOf, type Message, messagesOf, rebirthOf, type Session, withVerb } from './capture.js';
import type { SpMetric, SpPayload } from './wire.js';

export interface Mutation {
  readonly name: string;
  /** Of the capture that is changed. Default: 4. */
  readonly version?: 4 | 5;
  readonly change: (capture: Capture) => void;
  /** Ids without `tck-id-`. */
  readonly fails: readonly string[];
}

export const last = <T>(all: readonly T[]): T => {
  const one = all.at(-1);
  if (one === undefined) throw new Error('the capture has none of these');
  return one;
};
export const payload = ({ step }: Message): SpPayload => {
  if (!step.sp) throw new Error('no payload');
  return step.sp;
};
export const birth = (capture: Capture): Message => last(withVerb(capture, 'NBIRTH'));
export const death = (capture: Capture): Message => last(withVerb(capture, 'NDEATH'));
/** Live data, far from births. */
export const data = (capture: Capture): Message => {
  const live = withVerb(capture, 'NDATA').filter(({ step }) => step.sp?.metrics.every(({ isHistorical }) => isHistorical !== true));
  return live[Math.floor(live.length / 2)] as Message;
};
export const first = (sp: SpPayload): SpMetric => sp.metrics[0] as SpMetric;
export const bdSeq = (sp: SpPayload | undefined): SpMetric => bdSeqOf(sp) as SpMetric;
export const rebirth = (sp: SpPayload): SpMetric => rebirthOf(sp) as SpMetric;
export const plain = (sp: SpPayload): SpMetric => sp.metrics.find(({ name, field }) => name?.startsWith('Joint/') && field !== undefined) as SpMetric;
export const will = (capture: Capture): NonNullable<ReturnType<typeof connectOf>['will']> => {
  const found = connectOf(capture.sessions[0] as Session).will;
  if (!found) throw new Error('no will');
  return found;
};
export const remove = (message: Message): void => void message.session.steps.splice(message.session.steps.indexOf(message.step), 1);
export const topics = (verb: string, change: (topic: string) => string) => (capture: Capture) => {
  const { packet } = last(withVerb(capture, verb));
  packet.topic = change(packet.topic);
};
export const without = (capture: Capture, is: (topic: string) => boolean): void => {
  for (const session of capture.sessions) {
    session.steps = session.steps.filter(({ from, packet }) => from === 'node' || packet.type !== 'publish' || !is(packet.topic));
  }
};
export const states = (capture: Capture): { session: Session; index: number; state: { online?: unknown; timestamp?: unknown } }[] =>
  capture.sessions.flatMap((session) => session.steps.flatMap(({ state }, index) => (state ? [{ session, index, state }] : [])));
/** The STATE that killed a session: an offline message, with nothing but the death after it. */
export const deadly = (capture: Capture): { session: Session; index: number } => {
  const found = states(capture).find(({ session, index, state }) => {
    const isBorn = messagesOf(session).some((message) => message.verb === 'NBIRTH' && message.index < index);
    return isBorn && state.online === false && messagesOf(session).some(({ verb }) => verb === 'NDEATH') && state.timestamp === 2500;
  });
  if (!found) throw new Error('no deadly STATE');
  return found;
};
export const afterRebirth = (capture: Capture): Message => {
  for (const session of capture.sessions) {
    const births = messagesOf(session).filter(({ verb }) => verb === 'NBIRTH');
    if (births[1]) return births[1];
  }
  throw new Error('no rebirth');
};
export const disconnects = (capture: Capture): Session =>
  last(capture.sessions.filter(({ steps }) => steps.some(({ packet }) => packet.type === 'disconnect')));
