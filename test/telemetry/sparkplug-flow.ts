/**
 * The assertions of sparkplug-checker.ts that are about the order of things: what comes before what, what changes, who waits for whom. Pure
 * functions of a capture; not a test itself.
 */
import { bdSeqOf, type Capture, connectOf, type Message, messagesOf, rebirthOf, type Session, type Step, withVerb } from './capture.js';
import type { Verdict } from './sparkplug-items.js';
import { readPayload, type SpPayload } from './wire.js';

const verdict = (seen: number, problems: readonly string[]): Verdict => ({ seen, problems });

export function subscribes(session: Session, topic: string): boolean {
  return session.steps.some(({ from, packet }) => {
    if (from !== 'node' || packet.type !== 'subscribe') return false;
    return packet.filters.some(({ filter, qos }) => filter === topic && qos === 1);
  });
}

/** The broker's CONNACK stands before a step. */
export function isAccepted(session: Session, index: number): boolean {
  return session.steps.slice(0, index).some(({ from, packet }) => from === 'broker' && packet.type === 'connack' && packet.code === 0);
}

export function birthsComeFirst(capture: Capture): Verdict {
  const firsts = capture.sessions.flatMap((session) => messagesOf(session).slice(0, 1));
  return verdict(
    firsts.length,
    firsts.filter(({ verb }) => verb !== 'NBIRTH').map(({ verb }) => `${verb} comes first`),
  );
}

/** The newest birth before a message. */
function birthBefore(message: Message): Message | undefined {
  return messagesOf(message.session)
    .filter(({ verb, index }) => verb === 'NBIRTH' && index < message.index)
    .at(-1);
}

export function dataIsBorn(capture: Capture): Verdict {
  let seen = 0;
  const problems: string[] = [];
  for (const message of withVerb(capture, 'NDATA')) {
    const born = new Set(birthBefore(message)?.step.sp?.metrics.map(({ alias }) => alias));
    for (const { alias } of message.step.sp?.metrics ?? []) {
      seen++;
      if (!born.has(alias)) problems.push(`alias ${alias} was not born`);
    }
  }
  return verdict(seen, problems);
}

/** In one message, metrics that are not historical stand in the order of time. */
export function timesRise(capture: Capture): Verdict {
  const all = [...withVerb(capture, 'NBIRTH'), ...withVerb(capture, 'NDATA')];
  const problems = all.flatMap(({ step }) => {
    const times = (step.sp?.metrics ?? []).filter(({ isHistorical }) => isHistorical !== true).map(({ timestamp }) => timestamp ?? 0n);
    return times.every((time, index) => index === 0 || time >= (times[index - 1] ?? 0n)) ? [] : [`seq ${step.sp?.seq}`];
  });
  return verdict(all.length, problems);
}

/** For every live value of data: is it another than the one told before? */
function* newsOf(session: Session): IterableIterator<{ readonly message: Message; readonly alias: bigint | undefined; readonly isNews: boolean }> {
  const told = new Map<bigint | undefined, unknown>();
  for (const message of messagesOf(session)) {
    for (const { alias, value, isHistorical } of message.step.sp?.metrics ?? []) {
      if (isHistorical === true) continue;
      if (message.verb === 'NDATA') yield { message, alias, isNews: !Object.is(told.get(alias), value) };
      told.set(alias, value);
    }
  }
}

export function valuesChange(capture: Capture): Verdict {
  const all = capture.sessions.flatMap((session) => [...newsOf(session)]);
  return verdict(
    all.length,
    all.filter(({ isNews }) => !isNews).map(({ alias, message }) => `alias ${alias} again in seq ${message.step.sp?.seq}`),
  );
}

export function messagesTellNews(capture: Capture): Verdict {
  const news = new Set(capture.sessions.flatMap((session) => [...newsOf(session)].filter(({ isNews }) => isNews).map(({ message }) => message.step)));
  const live = withVerb(capture, 'NDATA').filter(({ step }) => step.sp?.metrics.some(({ isHistorical }) => isHistorical !== true));
  return verdict(
    live.length,
    live.filter(({ step }) => !news.has(step)).map(({ step }) => `seq ${step.sp?.seq} tells nothing`),
  );
}

/** Numbers rise by one, and the capture is long enough to see them wrap. */
export function sequenceWraps(capture: Capture): Verdict {
  const datas = withVerb(capture, 'NDATA');
  const problems = datas
    .filter(({ step, before }) => before?.step.sp?.seq === undefined || step.sp?.seq !== (before.step.sp.seq + 1n) % 256n)
    .map(({ step }) => `seq ${step.sp?.seq}`);
  const wraps = datas.some(({ step, before }) => step.sp?.seq === 0n && before?.step.sp?.seq === 255n);
  return verdict(datas.length, wraps ? problems : [...problems, 'no wrap was seen']);
}

/** Wills and NDEATHs. */
export function deathPayloads(capture: Capture): readonly SpPayload[] {
  const wills = capture.sessions.flatMap(({ will }) => (will ? [will] : []));
  return [...wills, ...withVerb(capture, 'NDEATH').flatMap(({ step }) => (step.sp ? [step.sp] : []))];
}

export function deathsMatchBirths(capture: Capture): Verdict {
  const problems: string[] = [];
  let seen = 0;
  for (const session of capture.sessions) {
    const born = messagesOf(session).filter(({ verb }) => verb === 'NBIRTH');
    const deaths = messagesOf(session).filter(({ verb }) => verb === 'NDEATH');
    for (const value of [session.will, ...deaths.map(({ step }) => step.sp)].map((sp) => bdSeqOf(sp)?.value)) {
      for (const birth of born) {
        seen++;
        if (value === undefined || value !== bdSeqOf(birth.step.sp)?.value) problems.push(`a death of ${value}`);
      }
    }
  }
  return verdict(seen, problems);
}

/** Sessions that the node ended with DISCONNECT. */
const ended = (capture: Capture): Session[] =>
  capture.sessions.filter(({ steps }) => steps.some(({ from, packet }) => from === 'node' && packet.type === 'disconnect'));

export function goodbyesAreSaid(capture: Capture): Verdict {
  const all = ended(capture);
  const isSaid = ({ steps }: Session): boolean => {
    const last = steps.filter(({ from, packet }) => from === 'node' && (packet.type === 'publish' || packet.type === 'disconnect')).slice(-2);
    return last[0]?.packet.type === 'publish' && / ?NDEATH/.test(last[0].packet.topic) && last[1]?.packet.type === 'disconnect';
  };
  return verdict(
    all.length,
    all.filter((session) => !isSaid(session)).map(({ openedMs }) => `the session of ${openedMs}`),
  );
}

/** A node that says that it dies leaves. */
export function disconnectFollowsDeath(capture: Capture): Verdict {
  const deaths = withVerb(capture, 'NDEATH');
  const isLast = ({ session, index }: Message): boolean =>
    session.steps.slice(index + 1).every(({ from, packet }) => from === 'broker' || packet.type === 'disconnect' || packet.type === 'other');
  return verdict(
    deaths.length,
    deaths.filter((death) => !isLast(death)).map(({ session }) => `the session of ${session.openedMs}`),
  );
}

export function disconnectsWithWill(capture: Capture): Verdict {
  const all = capture.sessions.flatMap(({ steps }) => steps.filter(({ from, packet }) => from === 'node' && packet.type === 'disconnect'));
  const isRight = ({ packet }: Step): boolean => packet.type === 'disconnect' && packet.reason === 0x04;
  return verdict(
    all.length,
    all.filter((step) => !isRight(step)).map(() => 'another reason code'),
  );
}

interface Rebirth {
  readonly session: Session;
  readonly index: number;
}

function rebirthRequests({ group, node, sessions }: Capture): Rebirth[] {
  return sessions.flatMap((session) =>
    session.steps.flatMap(({ from, packet }, index) => {
      if (from !== 'broker' || packet.type !== 'publish' || packet.topic !== `spBv1.0/${group}/NCMD/${node}`) return [];
      return rebirthOf(readPayload(packet.payload))?.value === true ? [{ session, index }] : [];
    }),
  );
}

const after = ({ session, index }: Rebirth): Message | undefined => messagesOf(session).find((message) => message.index > index);

export function rebirthStopsData(capture: Capture): Verdict {
  const requests = rebirthRequests(capture);
  return verdict(
    requests.length,
    requests.filter((request) => after(request)?.verb !== 'NBIRTH').map(({ index }) => `after step ${index}`),
  );
}

/** The whole list again, from number 0. */
export function rebirthIsComplete(capture: Capture): Verdict {
  const requests = rebirthRequests(capture);
  const names = (message: Message | undefined): string => (message?.step.sp?.metrics ?? []).map(({ name }) => name).join();
  const isComplete = (request: Rebirth): boolean => {
    const birth = after(request);
    return birth?.verb === 'NBIRTH' && birth.step.sp?.seq === 0n && names(birth) === names(birthBefore(birth));
  };
  return verdict(
    requests.length,
    requests.filter((request) => !isComplete(request)).map(({ index }) => `after step ${index}`),
  );
}

export function rebirthKeepsBdSeq(capture: Capture): Verdict {
  const requests = rebirthRequests(capture);
  const keeps = (request: Rebirth): boolean => {
    const value = bdSeqOf(after(request)?.step.sp)?.value;
    return value !== undefined && value === bdSeqOf(request.session.will)?.value;
  };
  return verdict(
    requests.length,
    requests.filter((request) => !keeps(request)).map(({ index }) => `after step ${index}`),
  );
}

interface Heard {
  readonly session: Session;
  readonly index: number;
  readonly topic: string;
  readonly online: unknown;
  readonly timestamp: number;
  /** Of the newest online message before it, in any session. */
  readonly onlineBefore: number | undefined;
  readonly newestBefore: number | undefined;
  readonly wasBorn: boolean;
}

/** What the node heard of hosts, in order. */
function statesHeard({ sessions }: Capture): Heard[] {
  const heard: Heard[] = [];
  for (const session of sessions) {
    session.steps.forEach(({ from, packet, state }, index) => {
      if (from !== 'broker' || packet.type !== 'publish' || !state) return;
      const timestamp = Number(state.timestamp);
      const times = heard.map((one) => one.timestamp);
      const accepted = heard.filter(({ online }) => online === true).map((one) => one.timestamp);
      heard.push({
        session,
        index,
        topic: packet.topic,
        online: state.online,
        timestamp,
        onlineBefore: accepted.length === 0 ? undefined : Math.max(...accepted),
        newestBefore: times.length === 0 ? undefined : Math.max(...times),
        wasBorn: messagesOf(session).some((message) => message.verb === 'NBIRTH' && message.index < index),
      });
    });
  }
  return heard;
}

/** First births of sessions, with what was heard of the host before each. */
function firstBirths(capture: Capture): { readonly birth: Message; readonly heard: Heard[] }[] {
  const all = statesHeard(capture);
  return capture.sessions.flatMap((session) => {
    const birth = messagesOf(session).find(({ verb }) => verb === 'NBIRTH');
    return birth ? [{ birth, heard: all.filter((one) => one.session === session && one.index < birth.index) }] : [];
  });
}

const waits = (capture: Capture, holds: (heard: readonly Heard[]) => boolean): Verdict => {
  const all = firstBirths(capture);
  return verdict(
    all.length,
    all.filter(({ heard }) => !holds(heard)).map(({ birth }) => `the birth in the session of ${birth.session.openedMs}`),
  );
};

export const waitsForHost = (capture: Capture): Verdict => waits(capture, (heard) => heard.length > 0);
export const waitsForItsHost = (capture: Capture): Verdict => waits(capture, (heard) => heard.at(-1)?.topic === `spBv1.0/STATE/${capture.host}`);
export const waitsForOnline = (capture: Capture): Verdict => waits(capture, (heard) => heard.at(-1)?.online === true);

/** A birth follows no online message that is older than one that was heard before; the capture must have such a one. */
export function ignoresOldOnline(capture: Capture): Verdict {
  const old = statesHeard(capture).filter(({ online, timestamp, newestBefore }) => online === true && timestamp < (newestBefore ?? 0));
  const births = waits(capture, (heard) => (heard.at(-1)?.timestamp ?? -1) >= (heard.at(-1)?.newestBefore ?? 0));
  return old.length === 0 ? verdict(0, []) : births;
}

const isValidOffline = ({ online, timestamp, onlineBefore, wasBorn }: Heard): boolean =>
  wasBorn && online === false && timestamp >= (onlineBefore ?? 0);

const published = ({ session, index }: Heard): Step[] =>
  session.steps.slice(index + 1).filter(({ from, packet }) => from === 'node' && packet.type !== 'other');

export function diesWithHost(capture: Capture): Verdict {
  const offline = statesHeard(capture).filter(isValidOffline);
  const isDead = (heard: Heard): boolean => {
    const [death, goodbye] = published(heard);
    const isDeath = death?.packet.type === 'publish' && death.packet.topic.includes('/NDEATH/');
    return isDeath && bdSeqOf(death.sp)?.value === bdSeqOf(heard.session.will)?.value && goodbye?.packet.type === 'disconnect';
  };
  return verdict(
    offline.length,
    offline.filter((heard) => !isDead(heard)).map(({ timestamp }) => `offline since ${timestamp}`),
  );
}

export function leavesWithHost(capture: Capture): Verdict {
  const offline = statesHeard(capture).filter(isValidOffline);
  const isGone = (heard: Heard): boolean => published(heard).at(-1)?.packet.type === 'disconnect' && Number.isFinite(heard.session.closedMs);
  return verdict(
    offline.length,
    offline.filter((heard) => !isGone(heard)).map(({ timestamp }) => `offline since ${timestamp}`),
  );
}

export function comesBack(capture: Capture): Verdict {
  const offline = statesHeard(capture).filter(isValidOffline);
  const isBack = ({ session }: Heard): boolean => capture.sessions.indexOf(session) < capture.sessions.length - 1;
  return verdict(
    offline.length,
    offline.filter((heard) => !isBack(heard)).map(({ timestamp }) => `offline since ${timestamp}`),
  );
}

/** An offline message from before the newest online one changes nothing: data goes on in the session. */
export function ignoresOldOffline(capture: Capture): Verdict {
  const old = statesHeard(capture).filter(
    ({ online, timestamp, onlineBefore, wasBorn }) => wasBorn && online === false && timestamp < (onlineBefore ?? 0),
  );
  const goesOn = (heard: Heard): boolean =>
    published(heard)[0]?.packet.type === 'publish' && !JSON.stringify(published(heard)[0]?.packet).includes('NDEATH');
  return verdict(
    old.length,
    old.filter((heard) => !goesOn(heard)).map(({ timestamp }) => `offline of ${timestamp}`),
  );
}

export function subscribesToState(capture: Capture): Verdict {
  const problems = capture.sessions.filter((session) => !subscribes(session, `spBv1.0/STATE/${capture.host}`)).map(({ openedMs }) => `${openedMs}`);
  return verdict(capture.sessions.length, problems);
}

export function oneServerAtATime({ sessions }: Capture): Verdict {
  const problems = sessions.filter((session, index) => index > 0 && session.openedMs < (sessions[index - 1]?.closedMs ?? 0));
  return verdict(
    sessions.length,
    problems.map((session) => connectOf(session).clientId),
  );
}
