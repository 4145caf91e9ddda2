/**
 * What was captured of an edge node's connections, as the sessions and messages that a checker asks about. A capture is plain data, so that a test
 * can change one thing in a copy of it. Not a test itself.
 */
import { type Packet, readPayload, type SpMetric, type SpPayload } from './wire.js';

export type Captured =
  | { readonly connection: number; readonly from: 'proxy'; readonly kind: 'open'; readonly atMs: number }
  | { readonly connection: number; readonly from: 'node' | 'broker'; readonly kind: 'packet'; readonly packet: Packet; readonly atMs: number }
  | { readonly connection: number; readonly from: 'node'; readonly kind: 'close'; readonly atMs: number };

/** One thing that happened in a session. `sp`: the payload, where it is one. */
export interface Step {
  from: 'node' | 'broker';
  atMs: number;
  packet: Packet;
  sp?: SpPayload;
  /** What a STATE message says. */
  state?: { online?: unknown; timestamp?: unknown };
}

export interface Session {
  openedMs: number;
  closedMs: number;
  steps: Step[];
  /** The will's payload. */
  will?: SpPayload;
}

export interface Capture {
  group: string;
  node: string;
  /** The primary host that the node was configured with. */
  host: string;
  sessions: Session[];
}

function payloadOf(bytes: Uint8Array): SpPayload | undefined {
  try {
    return readPayload(bytes);
  } catch {
    return undefined;
  }
}

export function captureOf(captured: readonly Captured[], ids: { readonly group: string; readonly node: string; readonly host: string }): Capture {
  const sessions: Session[] = [];
  for (const one of captured) {
    if (one.kind === 'open') sessions[one.connection] = { openedMs: one.atMs, closedMs: Number.POSITIVE_INFINITY, steps: [] };
    const session = sessions[one.connection];
    if (!session) throw new Error('a packet before its connection');
    if (one.kind === 'close') session.closedMs = one.atMs;
    if (one.kind !== 'packet') continue;
    const step: Step = { from: one.from, atMs: one.atMs, packet: structuredClone(one.packet) };
    if (one.packet.type === 'publish' && one.packet.topic.startsWith('spBv1.0/STATE/')) {
      step.state = JSON.parse(Buffer.from(one.packet.payload).toString('utf8'));
    } else if (one.packet.type === 'publish') {
      const sp = payloadOf(one.packet.payload);
      if (sp) step.sp = sp;
    }
    if (one.packet.type === 'connect' && one.packet.will) {
      const will = payloadOf(one.packet.will.payload);
      if (will) session.will = will;
    }
    session.steps.push(step);
  }
  return { ...ids, sessions: sessions.filter(({ steps }) => steps.some(({ packet }) => packet.type === 'connect')) };
}

/** A message that the node published, with what stands around it. */
export interface Message {
  readonly verb: string;
  readonly parts: readonly string[];
  readonly packet: Extract<Packet, { type: 'publish' }>;
  readonly step: Step;
  readonly session: Session;
  /** Place among the steps of its session. */
  readonly index: number;
  /** The node's message before it in the session. */
  readonly before: Message | undefined;
}

export type Connect = Extract<Packet, { type: 'connect' }>;

export const connectOf = (session: Session): Connect => {
  const found = session.steps.find(({ packet }) => packet.type === 'connect')?.packet;
  if (found?.type !== 'connect') throw new Error('a session without CONNECT');
  return found;
};

export function messagesOf(session: Session): Message[] {
  const messages: Message[] = [];
  session.steps.forEach((step, index) => {
    if (step.from !== 'node' || step.packet.type !== 'publish') return;
    const parts = step.packet.topic.split('/');
    messages.push({ verb: parts[2] ?? '', parts, packet: step.packet, step, session, index, before: messages.at(-1) });
  });
  return messages;
}

export const allMessages = (capture: Capture): Message[] => capture.sessions.flatMap(messagesOf);
export const withVerb = (capture: Capture, verb: string): Message[] => allMessages(capture).filter((message) => message.verb === verb);

export const bdSeqOf = (sp: SpPayload | undefined): SpMetric | undefined => sp?.metrics.find(({ name }) => name === 'bdSeq');
export const rebirthOf = (sp: SpPayload | undefined): SpMetric | undefined => sp?.metrics.find(({ name }) => name === 'Node Control/Rebirth');
