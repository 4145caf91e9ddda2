/**
 * The edge node's part of the Sparkplug 3.0 specification as single assertions, by the ids of its compatibility kit, each judged on what was
 * captured of an edge node's connections. An assertion that found nothing to judge does not hold. Host applications, servers, devices, templates
 * and data sets are not an edge node of plain metrics, and have none here. Not a test itself.
 */
import { bdSeqOf, type Capture, connectOf, messagesOf, rebirthOf } from './capture.js';
import * as flow from './sparkplug-flow.js';
import {
  type Assertion,
  BIRTH,
  BOTH,
  bdSeq,
  births,
  DATA,
  datas,
  deaths,
  every,
  every_,
  FIELD_OF,
  follows,
  hasValue,
  incremented,
  isBdSeq,
  isPart,
  isRebirth,
  isRetainedQos,
  isSeq,
  isText,
  isUtc,
  metrics,
  of,
  properties,
  sessions,
  topicIs,
} from './sparkplug-items.js';

const IDENTIFIERS: readonly Assertion[] = [
  of(
    'intro-group-id-string',
    every_(({ parts }) => isText(parts[1] ?? '')),
  ),
  of(
    'intro-group-id-chars',
    every_(({ parts }) => isPart(parts[1])),
  ),
  of(
    'intro-edge-node-id-string',
    every_(({ parts }) => isText(parts[3] ?? '')),
  ),
  of(
    'intro-edge-node-id-chars',
    every_(({ parts }) => isPart(parts[3])),
  ),
  of(
    'topic-structure',
    every_(({ parts }) => parts.length === 4 && /^N(BIRTH|DATA|DEATH)$/.test(parts[2] ?? '')),
  ),
  of(
    'topic-structure-namespace-a',
    every_(({ parts }) => parts[0] === 'spBv1.0'),
  ),
  of(
    'topic-structure-namespace-valid-group-id',
    every_(({ parts }, { group }) => isPart(parts[1]) && parts[1] === group),
  ),
  of(
    'topic-structure-namespace-valid-edge-node-id',
    every_(({ parts }, { node }) => isPart(parts[3]) && parts[3] === node),
  ),
  of(
    'topic-structure-namespace-device-id-non-associated-message-types',
    every_(({ parts }) => parts.length === 4),
  ),
  of(
    'case-sensitivity-metric-names',
    births(({ step }) => {
      const names = (step.sp?.metrics ?? []).map(({ name }) => (name ?? '').toLowerCase());
      return names.length > 0 && new Set(names).size === names.length;
    }),
  ),
];

const CONNECTING: readonly Assertion[] = [
  of(
    'principles-persistence-clean-session-311',
    sessions((session) => connectOf(session).clean),
    4,
  ),
  of(
    'principles-persistence-clean-session-50',
    sessions((one) => connectOf(one).clean && (connectOf(one).sessionExpiryS ?? 0) === 0),
    5,
  ),
  of(
    'message-flow-edge-node-ncmd-subscribe',
    sessions((session, { group, node }) => flow.subscribes(session, `spBv1.0/${group}/NCMD/${node}`)),
  ),
  of(
    'message-flow-edge-node-birth-publish-connect',
    births(({ session, index }) => flow.isAccepted(session, index)),
  ),
  of(
    'message-flow-edge-node-birth-publish-will-message',
    sessions((session) => connectOf(session).will !== undefined),
  ),
  of(
    'message-flow-edge-node-birth-publish-will-message-topic',
    sessions((session, { group, node }) => connectOf(session).will?.topic === `spBv1.0/${group}/NDEATH/${node}`),
  ),
  of(
    'message-flow-edge-node-birth-publish-will-message-payload',
    sessions(({ will }) => will !== undefined && will.metrics.length > 0),
  ),
  of('message-flow-edge-node-birth-publish-will-message-payload-bdSeq', (capture) => {
    const types = sessions(({ will }) => isBdSeq(will))(capture);
    return { seen: types.seen, problems: [...types.problems, ...incremented(capture).problems] };
  }),
  of(
    'message-flow-edge-node-birth-publish-will-message-qos',
    sessions((session) => connectOf(session).will?.qos === 1),
  ),
  of(
    'message-flow-edge-node-birth-publish-will-message-will-retained',
    sessions((session) => connectOf(session).will?.retain === false),
  ),
  of(
    'payloads-ndeath-will-message',
    sessions((session, { group, node }) => connectOf(session).will?.topic === `spBv1.0/${group}/NDEATH/${node}`),
  ),
  of(
    'payloads-ndeath-will-message-qos',
    sessions((session) => connectOf(session).will?.qos === 1),
  ),
  of(
    'payloads-ndeath-will-message-retain',
    sessions((session) => connectOf(session).will?.retain === false),
  ),
];

const BIRTHS: readonly Assertion[] = [
  of('principles-birth-certificates-order', flow.birthsComeFirst),
  of(
    'topics-nbirth-topic',
    births((message, capture) => topicIs(message, 'NBIRTH', capture)),
  ),
  of(
    'topics-nbirth-mqtt',
    births((message) => isRetainedQos(message, 0)),
  ),
  of(
    'topics-nbirth-seq-num',
    births(({ step }) => step.sp?.seq === 0n),
  ),
  of(
    'topics-nbirth-timestamp',
    births(({ step }) => isUtc(step.sp?.timestamp)),
  ),
  of('topics-nbirth-metric-reqs', flow.dataIsBorn),
  of(
    'topics-nbirth-metrics',
    metrics(BIRTH, (metric) => metric.name !== undefined && metric.datatype !== undefined && hasValue(metric)),
  ),
  of(
    'topics-nbirth-bdseq-included',
    births(({ step }) => bdSeqOf(step.sp) !== undefined),
  ),
  of(
    'topics-nbirth-bdseq-matching',
    births(({ step, session }) => bdSeq(step.sp) === bdSeq(session.will)),
  ),
  of('topics-nbirth-bdseq-increment', incremented),
  of(
    'topics-nbirth-rebirth-metric',
    births(({ step }) => isRebirth(step.sp)),
  ),
  of(
    'message-flow-edge-node-birth-publish-nbirth-topic',
    births((message, capture) => topicIs(message, 'NBIRTH', capture)),
  ),
  of(
    'message-flow-edge-node-birth-publish-nbirth-payload',
    births(({ step }) => (step.sp?.metrics.length ?? 0) > 2),
  ),
  of(
    'message-flow-edge-node-birth-publish-nbirth-payload-bdSeq',
    births(({ step, session }) => isBdSeq(step.sp) && bdSeq(step.sp) === bdSeq(session.will)),
  ),
  of(
    'message-flow-edge-node-birth-publish-nbirth-qos',
    births(({ packet }) => packet.qos === 0),
  ),
  of(
    'message-flow-edge-node-birth-publish-nbirth-retained',
    births(({ packet }) => !packet.retain),
  ),
  of(
    'message-flow-edge-node-birth-publish-nbirth-payload-seq',
    births(({ step }) => isSeq(step.sp)),
  ),
  of('operational-behavior-data-publish-nbirth', flow.dataIsBorn),
  of('operational-behavior-data-publish-nbirth-values', metrics(BIRTH, hasValue)),
  of('operational-behavior-data-publish-nbirth-order', flow.timesRise),
  of(
    'operational-behavior-data-commands-rebirth-name',
    births(({ step }) => rebirthOf(step.sp) !== undefined),
  ),
  of(
    'operational-behavior-data-commands-rebirth-name-aliases',
    births(({ step }) => rebirthOf(step.sp) !== undefined && rebirthOf(step.sp)?.alias === undefined),
  ),
  of(
    'operational-behavior-data-commands-rebirth-datatype',
    births(({ step }) => rebirthOf(step.sp)?.datatype === 11n),
  ),
  of(
    'operational-behavior-data-commands-rebirth-value',
    births(({ step }) => rebirthOf(step.sp)?.value === false),
  ),
  of(
    'payloads-nbirth-timestamp',
    births(({ step }) => isUtc(step.sp?.timestamp)),
  ),
  of(
    'payloads-nbirth-seq',
    births(({ step }) => isSeq(step.sp)),
  ),
  of(
    'payloads-nbirth-bdseq',
    births(({ step }) => bdSeqOf(step.sp) !== undefined),
  ),
  of(
    'payloads-nbirth-bdseq-repeat',
    births(({ step, session }) => bdSeq(step.sp) !== undefined && bdSeq(step.sp) === bdSeq(session.will)),
  ),
  of(
    'payloads-nbirth-rebirth-req',
    births(({ step }) => isRebirth(step.sp)),
  ),
  of(
    'payloads-nbirth-qos',
    births(({ packet }) => packet.qos === 0),
  ),
  of(
    'payloads-nbirth-retain',
    births(({ packet }) => !packet.retain),
  ),
];

const DATAS: readonly Assertion[] = [
  of('principles-rbe-recommended', flow.valuesChange),
  of(
    'topics-ndata-topic',
    datas((message, capture) => topicIs(message, 'NDATA', capture)),
  ),
  of(
    'topics-ndata-mqtt',
    datas((message) => isRetainedQos(message, 0)),
  ),
  of('topics-ndata-seq-num', datas(follows)),
  of(
    'topics-ndata-timestamp',
    datas(({ step }) => isUtc(step.sp?.timestamp)),
  ),
  of(
    'topics-ndata-payload',
    datas(({ step }) => (step.sp?.metrics.length ?? 0) > 0),
  ),
  of('operational-behavior-data-publish-nbirth-change', flow.messagesTellNews),
  of(
    'payloads-ndata-timestamp',
    datas(({ step }) => isUtc(step.sp?.timestamp)),
  ),
  of(
    'payloads-ndata-seq',
    datas(({ step }) => step.sp?.seq !== undefined),
  ),
  of(
    'payloads-ndata-seq-inc',
    datas((message) => follows(message) && isSeq(message.step.sp)),
  ),
  of(
    'payloads-ndata-order',
    datas(({ session, index }) => messagesOf(session).some((one) => one.verb === 'NBIRTH' && one.index < index)),
  ),
  of(
    'payloads-ndata-qos',
    datas(({ packet }) => packet.qos === 0),
  ),
  of(
    'payloads-ndata-retain',
    datas(({ packet }) => !packet.retain),
  ),
];

const PAYLOADS: readonly Assertion[] = [
  of(
    'payloads-timestamp-in-UTC',
    every_(({ step }) => isUtc(step.sp?.timestamp)),
  ),
  of(
    'payloads-sequence-num-always-included',
    every_(({ verb, step }) => verb === 'NDEATH' || step.sp?.seq !== undefined),
  ),
  of(
    'payloads-sequence-num-zero-nbirth',
    births(({ step }) => isSeq(step.sp)),
  ),
  of('payloads-sequence-num-incrementing', flow.sequenceWraps),
  of(
    'payloads-name-requirement',
    metrics([...BOTH, 'NDEATH'], ({ name, alias }) => name !== undefined || alias !== undefined),
  ),
  of(
    'payloads-alias-uniqueness',
    births(({ step }) => {
      const aliases = (step.sp?.metrics ?? []).flatMap(({ alias }) => (alias === undefined ? [] : [alias]));
      return aliases.length > 0 && new Set(aliases).size === aliases.length;
    }),
  ),
  of(
    'payloads-alias-birth-requirement',
    metrics(BIRTH, ({ name, alias }) => name !== undefined && (alias !== undefined || name === 'Node Control/Rebirth')),
  ),
  of(
    'payloads-alias-data-cmd-requirement',
    metrics(DATA, ({ name, alias }) => name === undefined && alias !== undefined),
  ),
  of(
    'payloads-name-birth-data-requirement',
    metrics(BOTH, ({ timestamp }) => timestamp !== undefined),
  ),
  of(
    'payloads-metric-timestamp-in-UTC',
    metrics(BOTH, ({ timestamp }) => isUtc(timestamp)),
  ),
  of(
    'payloads-metric-datatype-value-type',
    metrics(BIRTH, ({ datatype }) => datatype !== undefined && datatype < 2n ** 32n),
  ),
  of(
    'payloads-metric-datatype-value',
    metrics(BIRTH, ({ datatype, field }) => {
      const expected = FIELD_OF[String(datatype)];
      return expected !== undefined && (field === undefined || field === expected);
    }),
  ),
  of(
    'payloads-metric-datatype-req',
    metrics(BIRTH, ({ datatype }) => datatype !== undefined),
  ),
  of(
    'payloads-metric-datatype-not-req',
    metrics(DATA, ({ datatype }) => datatype === undefined),
  ),
  of(
    'payloads-propertyset-keys-array-size',
    properties(({ keys, values }) => keys.length > 0 && keys.length === values.length),
  ),
  of(
    'payloads-propertyset-values-array-size',
    properties(({ keys, values }) => values.length > 0 && values.length === keys.length),
  ),
  of(
    'payloads-metric-propertyvalue-type-type',
    properties(({ values }) => values.every(({ type }) => type !== undefined && type < 2n ** 32n)),
  ),
  of(
    'payloads-metric-propertyvalue-type-value',
    properties(({ values }) => values.every(({ type, field }) => FIELD_OF[String(type)] === (field ?? 0) + 7)),
  ),
  of(
    'payloads-metric-propertyvalue-type-req',
    properties(({ values }) => values.every(({ type }) => type !== undefined)),
  ),
];

const DEATHS: readonly Assertion[] = [
  of(
    'topics-ndeath-topic',
    deaths((message, capture) => topicIs(message, 'NDEATH', capture)),
  ),
  of('topics-ndeath-payload', (capture) =>
    every(
      flow.deathPayloads(capture),
      (sp) => sp.metrics.length === 1 && bdSeqOf(sp) !== undefined,
      () => 'an NDEATH',
    ),
  ),
  of('topics-ndeath-seq', (capture) =>
    every(
      flow.deathPayloads(capture),
      ({ seq }) => seq === undefined,
      ({ seq }) => `seq ${seq}`,
    ),
  ),
  of('payloads-ndeath-seq', (capture) =>
    every(
      flow.deathPayloads(capture),
      ({ seq }) => seq === undefined,
      ({ seq }) => `seq ${seq}`,
    ),
  ),
  of('payloads-ndeath-bdseq', flow.deathsMatchBirths),
  of('payloads-ndeath-will-message-publisher', flow.goodbyesAreSaid),
  of('payloads-ndeath-will-message-publisher-disconnect-mqtt311', flow.goodbyesAreSaid, 4),
  of('payloads-ndeath-will-message-publisher-disconnect-mqtt50', flow.disconnectsWithWill, 5),
  of('operational-behavior-edge-node-intentional-disconnect-ndeath', flow.goodbyesAreSaid),
  of('operational-behavior-edge-node-intentional-disconnect-packet', flow.disconnectFollowsDeath),
];

const COMMANDS: readonly Assertion[] = [
  of('operational-behavior-data-commands-rebirth-action-1', flow.rebirthStopsData),
  of('operational-behavior-data-commands-rebirth-action-2', flow.rebirthIsComplete),
  of('operational-behavior-data-commands-rebirth-action-3', flow.rebirthKeepsBdSeq),
];

const PRIMARY_HOST: readonly Assertion[] = [
  of('message-flow-edge-node-birth-publish-phid-wait', flow.waitsForHost, 4),
  of('message-flow-edge-node-birth-publish-phid-wait-id', flow.waitsForItsHost, 4),
  of('message-flow-edge-node-birth-publish-phid-wait-online', flow.waitsForOnline, 4),
  of('message-flow-edge-node-birth-publish-phid-wait-timestamp', flow.ignoresOldOnline, 4),
  of('message-flow-edge-node-birth-publish-phid-offline', flow.diesWithHost, 4),
  of('operational-behavior-edge-node-birth-sequence-wait', flow.waitsForOnline, 4),
  of('operational-behavior-edge-node-termination-host-offline', flow.leavesWithHost, 4),
  of('operational-behavior-edge-node-termination-host-offline-reconnect', flow.comesBack, 4),
  of('operational-behavior-edge-node-termination-host-offline-timestamp', flow.ignoresOldOffline, 4),
  of('operational-behavior-primary-application-state-with-multiple-servers-state-subs', flow.subscribesToState, 4),
  of('operational-behavior-primary-application-state-with-multiple-servers-single-server', flow.oneServerAtATime, 4),
  of('operational-behavior-primary-application-state-with-multiple-servers-walk', flow.leavesWithHost, 4),
];

export const ASSERTIONS: readonly Assertion[] = [
  ...IDENTIFIERS,
  ...CONNECTING,
  ...BIRTHS,
  ...DATAS,
  ...PAYLOADS,
  ...DEATHS,
  ...COMMANDS,
  ...PRIMARY_HOST,
];

/** Ids of the assertions that do not hold, with what was wrong. */
export function failuresOf(capture: Capture, version: 4 | 5): ReadonlyMap<string, string> {
  const failed = new Map<string, string>();
  for (const { id, judge, version: only } of ASSERTIONS) {
    if (only !== undefined && only !== version) continue;
    const { seen, problems } = judge(capture);
    if (seen === 0) failed.set(id, 'nothing to judge');
    else if (problems.length > 0) failed.set(id, problems.slice(0, 3).join('; '));
  }
  return failed;
}
