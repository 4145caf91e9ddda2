/**
 * Changes to a good capture, each with the assertions that must no longer hold: what a wrong edge node would have sent. Not a test itself.
 */
import { connectOf, type Message, messagesOf, type Session } from './capture.js';
import {
  afterRebirth,
  bdSeq,
  birth,
  data,
  deadly,
  death,
  disconnects,
  first,
  last,
  type Mutation,
  payload,
  plain,
  rebirth,
  remove,
  states,
  topics,
  will,
  without,
} from './mutating.js';

const TOPICS: readonly Mutation[] = [
  {
    name: 'an empty group',
    change: topics('NDATA', () => 'spBv1.0//NDATA/arm-07'),
    fails: ['intro-group-id-string', 'intro-group-id-chars', 'topic-structure-namespace-valid-group-id', 'topics-ndata-topic'],
  },
  {
    name: 'a node with a wildcard',
    change: topics('NDATA', () => 'spBv1.0/plant/NDATA/arm+07'),
    fails: ['intro-edge-node-id-chars', 'topic-structure-namespace-valid-edge-node-id'],
  },
  { name: 'a node with a NUL', change: topics('NDATA', () => 'spBv1.0/plant/NDATA/arm\u0000'), fails: ['intro-edge-node-id-string'] },
  {
    name: 'a device in a topic of the node',
    change: topics('NDATA', (topic) => `${topic}/gripper`),
    fails: ['topic-structure', 'topic-structure-namespace-device-id-non-associated-message-types'],
  },
  {
    name: 'another namespace',
    change: topics('NBIRTH', (topic) => topic.replace('spBv1.0', 'spAv1.0')),
    fails: ['topic-structure-namespace-a', 'topics-nbirth-topic', 'message-flow-edge-node-birth-publish-nbirth-topic'],
  },
  { name: 'an NDEATH of another node', change: topics('NDEATH', (topic) => topic.replace('arm-07', 'arm-08')), fails: ['topics-ndeath-topic'] },
  {
    name: 'names that differ in capitals alone',
    change: (capture) =>
      void payload(birth(capture)).metrics.push({ ...plain(payload(birth(capture))), name: 'joint/SHOULDER/position', alias: 999n }),
    fails: ['case-sensitivity-metric-names'],
  },
];

const CONNECTS: readonly Mutation[] = [
  {
    name: 'a session that is not clean',
    change: ({ sessions }) => void (connectOf(last(sessions)).clean = false),
    fails: ['principles-persistence-clean-session-311'],
  },
  {
    name: 'a session that lives on',
    version: 5,
    change: ({ sessions }) => void (connectOf(last(sessions)).sessionExpiryS = 60),
    fails: ['principles-persistence-clean-session-50'],
  },
  {
    name: 'a subscription with QoS 0',
    change: ({ sessions }) => {
      for (const { packet } of last(sessions).steps) if (packet.type === 'subscribe') for (const one of packet.filters) one.qos = 0;
    },
    fails: ['message-flow-edge-node-ncmd-subscribe', 'operational-behavior-primary-application-state-with-multiple-servers-state-subs'],
  },
  {
    name: 'a birth before the broker has answered',
    change: ({ sessions }) => {
      const { steps } = last(sessions);
      steps.push(
        ...steps.splice(
          steps.findIndex(({ packet }) => packet.type === 'connack'),
          1,
        ),
      );
    },
    fails: ['message-flow-edge-node-birth-publish-connect'],
  },
  {
    name: 'no will',
    change: (capture) => {
      delete connectOf(capture.sessions[0] as Session).will;
      delete capture.sessions[0]?.will;
    },
    fails: [
      'message-flow-edge-node-birth-publish-will-message',
      'message-flow-edge-node-birth-publish-will-message-payload',
      'payloads-ndeath-will-message',
    ],
  },
  {
    name: 'a will on another topic',
    change: (capture) => void (will(capture).topic = 'spBv1.0/plant/NBIRTH/arm-07'),
    fails: ['message-flow-edge-node-birth-publish-will-message-topic', 'payloads-ndeath-will-message'],
  },
  {
    name: 'a will with QoS 0',
    change: (capture) => void (will(capture).qos = 0),
    fails: ['message-flow-edge-node-birth-publish-will-message-qos', 'payloads-ndeath-will-message-qos'],
  },
  {
    name: 'a will that is retained',
    change: (capture) => void (will(capture).retain = true),
    fails: ['message-flow-edge-node-birth-publish-will-message-will-retained', 'payloads-ndeath-will-message-retain'],
  },
  {
    name: 'the same bdSeq in two CONNECTs',
    change: ({ sessions }) => void (bdSeq(sessions[1]?.will).value = 0n),
    fails: ['message-flow-edge-node-birth-publish-will-message-payload-bdSeq', 'topics-nbirth-bdseq-increment'],
  },
  {
    name: 'bdSeq as Int32',
    change: ({ sessions }) => void (bdSeq(sessions[1]?.will).datatype = 3n),
    fails: ['message-flow-edge-node-birth-publish-will-message-payload-bdSeq'],
  },
];

const BIRTHS: readonly Mutation[] = [
  {
    name: 'data before the birth',
    change: (capture) => remove(birth(capture)),
    fails: ['principles-birth-certificates-order', 'payloads-ndata-order'],
  },
  {
    name: 'a birth with QoS 1',
    change: (capture) => void (birth(capture).packet.qos = 1),
    fails: ['topics-nbirth-mqtt', 'message-flow-edge-node-birth-publish-nbirth-qos', 'payloads-nbirth-qos'],
  },
  {
    name: 'a retained birth',
    change: (capture) => void (birth(capture).packet.retain = true),
    fails: ['topics-nbirth-mqtt', 'message-flow-edge-node-birth-publish-nbirth-retained', 'payloads-nbirth-retain'],
  },
  { name: 'a birth that goes on counting', change: (capture) => void (payload(birth(capture)).seq = 7n), fails: ['topics-nbirth-seq-num'] },
  {
    name: 'a birth with number 256',
    change: (capture) => void (payload(birth(capture)).seq = 256n),
    fails: ['message-flow-edge-node-birth-publish-nbirth-payload-seq', 'payloads-sequence-num-zero-nbirth', 'payloads-nbirth-seq'],
  },
  {
    name: 'a birth without a number',
    change: (capture) => void delete payload(birth(capture)).seq,
    fails: ['payloads-sequence-num-always-included', 'payloads-nbirth-seq'],
  },
  {
    name: 'a birth without a time',
    change: (capture) => void delete payload(birth(capture)).timestamp,
    fails: ['topics-nbirth-timestamp', 'payloads-nbirth-timestamp', 'payloads-timestamp-in-UTC'],
  },
  {
    name: 'a birth that lacks what data tells',
    change: (capture) => {
      const sp = payload(birth(capture));
      sp.metrics = sp.metrics.filter(({ name }) => name !== 'Joint/shoulder/Position');
    },
    fails: ['topics-nbirth-metric-reqs', 'operational-behavior-data-publish-nbirth'],
  },
  {
    name: 'a metric without a value that is not null',
    change: (capture) => {
      delete plain(payload(birth(capture))).field;
    },
    fails: ['topics-nbirth-metrics', 'operational-behavior-data-publish-nbirth-values'],
  },
  {
    name: 'a birth without bdSeq',
    change: (capture) => {
      const sp = payload(birth(capture));
      sp.metrics = sp.metrics.filter(({ name }) => name !== 'bdSeq');
    },
    fails: [
      'topics-nbirth-bdseq-included',
      'payloads-nbirth-bdseq',
      'payloads-nbirth-bdseq-repeat',
      'message-flow-edge-node-birth-publish-nbirth-payload-bdSeq',
    ],
  },
  {
    name: "a birth with another bdSeq than its will's",
    change: (capture) => void (bdSeq(payload(birth(capture))).value = 77n),
    fails: ['topics-nbirth-bdseq-matching', 'payloads-nbirth-bdseq-repeat', 'payloads-ndeath-bdseq'],
  },
  {
    name: 'no rebirth metric',
    change: (capture) => {
      const sp = payload(birth(capture));
      sp.metrics = sp.metrics.filter(({ name }) => name !== 'Node Control/Rebirth');
    },
    fails: ['topics-nbirth-rebirth-metric', 'operational-behavior-data-commands-rebirth-name', 'payloads-nbirth-rebirth-req'],
  },
  {
    name: 'a rebirth metric with an alias',
    change: (capture) => void (rebirth(payload(birth(capture))).alias = 500n),
    fails: ['operational-behavior-data-commands-rebirth-name-aliases'],
  },
  {
    name: 'a rebirth metric that is a text',
    change: (capture) => void (rebirth(payload(birth(capture))).datatype = 12n),
    fails: ['operational-behavior-data-commands-rebirth-datatype'],
  },
  {
    name: 'a rebirth metric that is true',
    change: (capture) => void (rebirth(payload(birth(capture))).value = true),
    fails: ['operational-behavior-data-commands-rebirth-value', 'payloads-nbirth-rebirth-req'],
  },
  {
    name: 'a birth that is no payload',
    change: (capture) => void delete birth(capture).step.sp,
    fails: ['message-flow-edge-node-birth-publish-nbirth-payload'],
  },
];

const DATAS: readonly Mutation[] = [
  {
    name: 'the same message again',
    change: (capture) => {
      const { session, step, index } = data(capture);
      session.steps.splice(index + 1, 0, structuredClone(step));
    },
    fails: [
      'principles-rbe-recommended',
      'operational-behavior-data-publish-nbirth-change',
      'topics-ndata-seq-num',
      'payloads-ndata-seq-inc',
      'payloads-sequence-num-incrementing',
    ],
  },
  {
    name: 'a message is missing',
    change: (capture) => remove(data(capture)),
    fails: ['topics-ndata-seq-num', 'payloads-ndata-seq-inc', 'payloads-sequence-num-incrementing'],
  },
  { name: 'data with QoS 1', change: (capture) => void (data(capture).packet.qos = 1), fails: ['topics-ndata-mqtt', 'payloads-ndata-qos'] },
  { name: 'retained data', change: (capture) => void (data(capture).packet.retain = true), fails: ['topics-ndata-mqtt', 'payloads-ndata-retain'] },
  {
    name: 'data with its time in seconds',
    change: (capture) => void (payload(data(capture)).timestamp = 1_796_000_000n),
    fails: ['topics-ndata-timestamp', 'payloads-ndata-timestamp', 'payloads-timestamp-in-UTC'],
  },
  {
    name: 'data without a number',
    change: (capture) => void delete payload(data(capture)).seq,
    fails: ['payloads-ndata-seq', 'payloads-sequence-num-always-included'],
  },
  { name: 'data without metrics', change: (capture) => void (payload(data(capture)).metrics = []), fails: ['topics-ndata-payload'] },
  {
    name: 'metrics against the order of time',
    change: (capture) => {
      const sp = payload(data(capture));
      sp.metrics = [...sp.metrics, { ...first(sp), timestamp: (first(sp).timestamp ?? 0n) - 1000n }];
    },
    fails: ['operational-behavior-data-publish-nbirth-order'],
  },
];

const METRICS: readonly Mutation[] = [
  {
    name: 'a metric without name and alias',
    change: (capture) => {
      delete first(payload(data(capture))).alias;
    },
    fails: ['payloads-name-requirement', 'payloads-alias-data-cmd-requirement'],
  },
  {
    name: 'two metrics with one alias',
    change: (capture) => void (plain(payload(birth(capture))).alias = 2n),
    fails: ['payloads-alias-uniqueness'],
  },
  {
    name: 'a birth that names no alias',
    change: (capture) => void delete plain(payload(birth(capture))).alias,
    fails: ['payloads-alias-birth-requirement'],
  },
  {
    name: 'data with names',
    change: (capture) => void (first(payload(data(capture))).name = 'Joint/shoulder/Position'),
    fails: ['payloads-alias-data-cmd-requirement'],
  },
  {
    name: 'a metric without a time',
    change: (capture) => void delete first(payload(data(capture))).timestamp,
    fails: ['payloads-name-birth-data-requirement', 'payloads-metric-timestamp-in-UTC'],
  },
  {
    name: 'a datatype that is none',
    change: (capture) => void (plain(payload(birth(capture))).datatype = 99n),
    fails: ['payloads-metric-datatype-value'],
  },
  {
    name: 'a double that says that it is an integer',
    change: (capture) => void (plain(payload(birth(capture))).datatype = 3n),
    fails: ['payloads-metric-datatype-value'],
  },
  {
    name: 'no datatype in a birth',
    change: (capture) => void delete plain(payload(birth(capture))).datatype,
    fails: ['payloads-metric-datatype-req', 'payloads-metric-datatype-value-type', 'topics-nbirth-metrics'],
  },
  {
    name: 'a datatype in data',
    change: (capture) => void (first(payload(data(capture))).datatype = 10n),
    fails: ['payloads-metric-datatype-not-req'],
  },
  {
    name: 'a property without its value',
    change: (capture) => void plain(payload(birth(capture))).properties?.values.pop(),
    fails: ['payloads-propertyset-keys-array-size', 'payloads-propertyset-values-array-size'],
  },
  {
    name: 'a property without a type',
    change: (capture) => void delete plain(payload(birth(capture))).properties?.values[0]?.type,
    fails: ['payloads-metric-propertyvalue-type-req', 'payloads-metric-propertyvalue-type-type'],
  },
  {
    name: 'a property of another type than its value',
    change: (capture) => {
      const [property] = plain(payload(birth(capture))).properties?.values ?? [];
      if (property) property.type = 10n;
    },
    fails: ['payloads-metric-propertyvalue-type-value'],
  },
];

const DEATHS: readonly Mutation[] = [
  {
    name: 'an NDEATH with a number',
    change: (capture) => void (payload(death(capture)).seq = 3n),
    fails: ['topics-ndeath-seq', 'payloads-ndeath-seq'],
  },
  {
    name: 'an NDEATH with more than bdSeq',
    change: (capture) => void payload(death(capture)).metrics.push({ name: 'why', datatype: 12n, field: 15, value: 'tired' }),
    fails: ['topics-ndeath-payload'],
  },
  {
    name: 'an NDEATH of another session',
    change: (capture) => void (bdSeq(payload(death(capture))).value = 200n),
    fails: ['payloads-ndeath-bdseq'],
  },
  {
    name: 'a DISCONNECT without an NDEATH',
    change: (capture) => remove(last(messagesOf(disconnects(capture)))),
    fails: [
      'payloads-ndeath-will-message-publisher',
      'payloads-ndeath-will-message-publisher-disconnect-mqtt311',
      'operational-behavior-edge-node-intentional-disconnect-ndeath',
    ],
  },
  {
    name: 'data after the NDEATH',
    change: (capture) => void death(capture).session.steps.push(structuredClone(data(capture).step)),
    fails: ['operational-behavior-edge-node-intentional-disconnect-packet'],
  },
  {
    name: 'an ordinary DISCONNECT in MQTT 5',
    version: 5,
    change: (capture) => {
      for (const { packet } of disconnects(capture).steps) if (packet.type === 'disconnect') packet.reason = 0;
    },
    fails: ['payloads-ndeath-will-message-publisher-disconnect-mqtt50'],
  },
];

const COMMANDS: readonly Mutation[] = [
  {
    name: 'data between the request of a rebirth and the rebirth',
    change: (capture) => {
      const { session, step } = afterRebirth(capture);
      session.steps.splice(session.steps.indexOf(step), 0, structuredClone(data(capture).step));
    },
    fails: ['operational-behavior-data-commands-rebirth-action-1'],
  },
  {
    name: 'a rebirth with less than the birth',
    change: (capture) => void payload(afterRebirth(capture)).metrics.pop(),
    fails: ['operational-behavior-data-commands-rebirth-action-2'],
  },
  {
    name: 'a rebirth with a bdSeq of its own',
    change: (capture) => void (bdSeq(payload(afterRebirth(capture))).value = 9n),
    fails: ['operational-behavior-data-commands-rebirth-action-3'],
  },
];

const HOSTS: readonly Mutation[] = [
  {
    name: 'a birth although nothing was heard of the host',
    change: (capture) => without(capture, (topic) => topic.includes('/STATE/')),
    fails: ['message-flow-edge-node-birth-publish-phid-wait'],
  },
  {
    name: 'a birth for another host',
    change: (capture) => {
      for (const { session, index } of states(capture)) {
        const packet = session.steps[index]?.packet;
        if (packet?.type === 'publish') packet.topic = 'spBv1.0/STATE/another-host';
      }
    },
    fails: ['message-flow-edge-node-birth-publish-phid-wait-id'],
  },
  {
    name: 'a birth although the host is offline',
    change: (capture) => {
      for (const { state } of states(capture)) state.online = false;
    },
    fails: ['message-flow-edge-node-birth-publish-phid-wait-online', 'operational-behavior-edge-node-birth-sequence-wait'],
  },
  {
    name: 'a birth for a late online message',
    change: (capture) => {
      const births = capture.sessions.flatMap((session) => messagesOf(session).filter(({ verb, before }) => verb === 'NBIRTH' && !before));
      const { session, index } = births[1] as Message;
      const heard = states(capture).filter((one) => one.session === session && one.index < index);
      last(heard).state.timestamp = 2400;
    },
    fails: ['message-flow-edge-node-birth-publish-phid-wait-timestamp'],
  },
  {
    name: 'no NDEATH when the host goes',
    change: (capture) => {
      const { session } = deadly(capture);
      remove(last(messagesOf(session)));
    },
    fails: ['message-flow-edge-node-birth-publish-phid-offline'],
  },
  {
    name: 'a node that stays although its host goes',
    change: (capture) => {
      const { session } = deadly(capture);
      session.steps = session.steps.filter(({ packet }) => packet.type !== 'disconnect');
    },
    fails: [
      'message-flow-edge-node-birth-publish-phid-offline',
      'operational-behavior-edge-node-termination-host-offline',
      'operational-behavior-primary-application-state-with-multiple-servers-walk',
    ],
  },
  {
    name: 'a node that does not come back',
    change: (capture) => void capture.sessions.splice(capture.sessions.indexOf(deadly(capture).session) + 1),
    fails: ['operational-behavior-edge-node-termination-host-offline-reconnect'],
  },
  {
    name: 'a node that leaves because of a late offline message',
    change: (capture) => {
      const { session, index, state } = states(capture).find((one) => one.state.timestamp === 1500) as ReturnType<typeof states>[number];
      const next = messagesOf(session).find((message) => message.index > index);
      if (next) next.packet.topic = next.packet.topic.replace('NDATA', 'NDEATH');
      if (state.online !== false) throw new Error('no late offline message');
    },
    fails: ['operational-behavior-edge-node-termination-host-offline-timestamp'],
  },
  {
    name: 'two connections at once',
    change: ({ sessions }) => void ((sessions[0] as Session).closedMs = Number.POSITIVE_INFINITY),
    fails: ['operational-behavior-primary-application-state-with-multiple-servers-single-server'],
  },
];

export const MUTATIONS: readonly Mutation[] = [...TOPICS, ...CONNECTS, ...BIRTHS, ...DATAS, ...METRICS, ...DEATHS, ...COMMANDS, ...HOSTS];
