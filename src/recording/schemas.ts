/**
 * What a flight recording says: its topics, and the type of every message. Foxglove's own types where there are some, so that its panels show them
 * without being told how; premotor's for the rest. Pure data and the encoding of one message; test/recording compares Foxglove's with its package.
 */
import { encodeDescriptors, type ProtoFile } from './descriptor.js';
import { encodeProto, type ProtoField, type ProtoMessage, type ProtoTypes } from './protobuf.js';

const TIMESTAMP = 'google.protobuf.Timestamp';
const TENSOR = 'premotor.Tensor';

const field = (name: string, number: number, type: ProtoField['type']): ProtoField => ({ name, number, type });
const list = (name: string, number: number, type: ProtoField['type'], typeName?: string): ProtoField => ({
  name,
  number,
  type,
  isRepeated: true,
  ...(typeName === undefined ? {} : { typeName }),
});
const maybe = (name: string, number: number, type: ProtoField['type']): ProtoField => ({ name, number, type, isOptional: true });
const part = (name: string, number: number, typeName: string): ProtoField => ({ name, number, type: 'message', typeName });
const timestamp = part('timestamp', 1, TIMESTAMP);

const foxglove: readonly [string, readonly ProtoField[]][] = [
  ['CompressedImage', [timestamp, field('frame_id', 4, 'string'), field('data', 2, 'bytes'), field('format', 3, 'string')]],
  [
    'Log',
    [
      timestamp,
      { name: 'level', number: 2, type: 'enum', typeName: 'foxglove.Log.Level' },
      field('message', 3, 'string'),
      field('name', 4, 'string'),
      field('file', 5, 'string'),
      field('line', 6, 'fixed32'),
    ],
  ],
  [
    'JointState',
    [
      field('name', 1, 'string'),
      maybe('position', 2, 'double'),
      maybe('velocity', 3, 'double'),
      maybe('acceleration', 4, 'double'),
      maybe('effort', 5, 'double'),
    ],
  ],
  ['JointStates', [timestamp, list('joints', 2, 'message', 'foxglove.JointState')]],
];

const timings = ['encode_ms', 'video_ms', 'action_ms', 'commit_ms', 'imagine_ms', 'total_ms'];

const premotor: readonly [string, readonly ProtoField[]][] = [
  ['Tensor', [list('shape', 1, 'uint32'), list('data', 2, 'float')]],
  // Every step of the motion. The first field has a fixed size, so that the whole message has one: src/recording/motion-buffer.ts.
  [
    'Motion',
    [
      field('robot_time_ns', 1, 'fixed64'),
      list('setpoint_rad', 2, 'double'),
      list('position_rad', 3, 'double'),
      list('velocity_rad_per_s', 4, 'double'),
    ],
  ],
  [
    'About',
    [
      field('id', 1, 'string'),
      field('version', 2, 'string'),
      field('robot', 3, 'string'),
      list('joints', 4, 'string'),
      list('cameras', 5, 'string'),
      field('task', 6, 'string'),
      field('instruction', 7, 'string'),
      field('seed', 8, 'double'),
      field('chunks_max', 9, 'uint32'),
      field('action_rate_hz', 10, 'double'),
      field('mode', 11, 'string'),
      field('checkpoint', 12, 'string'),
      field('checkpoint_hash', 13, 'string'),
      field('untrained', 14, 'bool'),
      field('configuration_json', 15, 'string'),
      field('job_json', 16, 'string'),
      field('policy_json', 17, 'string'),
      field('epoch_ns', 18, 'fixed64'),
      field('robot_time_ns', 19, 'fixed64'),
    ],
  ],
  ['State', [field('from', 1, 'string'), field('to', 2, 'string'), field('trigger', 3, 'string'), field('reason', 4, 'string')]],
  ['Fault', [field('code', 1, 'string'), field('message', 2, 'string'), field('state', 3, 'string')]],
  ['Count', [field('name', 1, 'string'), field('value', 2, 'double')]],
  [
    'Status',
    [
      field('state', 1, 'string'),
      field('stream', 2, 'string'),
      field('link', 3, 'string'),
      field('bridge', 4, 'string'),
      field('fault_code', 5, 'string'),
      field('fault_message', 6, 'string'),
      field('is_at_rest', 7, 'bool'),
      list('counts', 8, 'message', 'premotor.Count'),
      list('temperatures_c', 9, 'message', 'premotor.Count'),
    ],
  ],
  ['Event', [field('type', 1, 'string'), field('json', 2, 'string')]],
  [
    'Call',
    [
      field('number', 1, 'uint32'),
      field('method', 2, 'string'),
      field('error', 3, 'string'),
      maybe('frame_index', 4, 'uint32'),
      // Predictions: the chunk, [used, K, H]; commits: what was executed, [used, F, H].
      part('actions', 5, TENSOR),
      part('executed', 6, TENSOR),
      part('executing', 7, TENSOR),
      field('seed', 8, 'string'),
      maybe('video_steps', 9, 'uint32'),
      maybe('action_steps', 10, 'uint32'),
      field('moments', 11, 'uint32'),
      field('cache_checksum', 12, 'string'),
      field('cache_capacity', 13, 'uint32'),
      field('cache_valid', 14, 'uint32'),
      field('cache_committed', 15, 'uint32'),
      field('cache_predicted', 16, 'uint32'),
    ],
  ],
  ['Executed', [field('chunk', 1, 'uint32'), field('frame_index', 2, 'uint32'), part('actions', 3, TENSOR), field('clamped_knots', 4, 'uint32')]],
  // kind: predicted, assumed (imagined for what was being executed) or remembered (what the network saw).
  ['Latents', [field('kind', 1, 'string'), field('chunk', 2, 'uint32'), field('frame_index', 3, 'uint32'), part('latents', 4, TENSOR)]],
  [
    'ChunkTiming',
    [
      field('chunk', 1, 'uint32'),
      field('frame_index', 2, 'uint32'),
      field('knots', 3, 'uint32'),
      field('clamped_knots', 4, 'uint32'),
      field('delay_knots', 5, 'uint32'),
      field('assumed_frames', 6, 'uint32'),
      maybe('rung', 7, 'uint32'),
      field('frame_age_ms_max', 8, 'double'),
      field('frame_skew_ms_max', 9, 'double'),
      field('predict_ms', 10, 'double'),
      field('execute_ms', 11, 'double'),
      field('commit_wall_ms', 12, 'double'),
      ...timings.map((name, at) => field(name, 13 + at, 'double')),
      field('video_passes', 19, 'uint32'),
      field('action_passes', 20, 'uint32'),
    ],
  ],
  // A record of src/replay/record.ts: what premotor replay needs, pictures bit for bit.
  ['Replay', [field('number', 1, 'uint32'), field('kind', 2, 'uint32'), field('payload', 3, 'bytes')]],
  ['Recorder', [field('bytes_written', 1, 'uint64'), field('backlog_bytes_max', 2, 'uint64'), list('dropped', 3, 'message', 'premotor.Count')]],
];

const named = (packageName: string, types: readonly [string, readonly ProtoField[]][]): [string, ProtoMessage][] =>
  types.map(([name, fields]) => [`${packageName}.${name}`, { fields }]);

/** Every type of a recording. */
export const TYPES: ProtoTypes = {
  messages: new Map([
    [TIMESTAMP, { fields: [field('seconds', 1, 'int64'), field('nanos', 2, 'int32')] }],
    ...named('foxglove', foxglove),
    ...named('premotor', premotor),
  ]),
  enums: new Map([['foxglove.Log.Level', { UNKNOWN: 0, DEBUG: 1, INFO: 2, WARNING: 3, ERROR: 4, FATAL: 5 }]]),
};

const TIMESTAMP_FILE: ProtoFile = { name: 'google/protobuf/timestamp.proto', packageName: 'google.protobuf', imports: [], messages: ['Timestamp'] };

/** The file that declares a type, after those that it needs. */
function filesOf(typeName: string): ProtoFile[] {
  const needs = new Set<string>();
  const visit = (name: string): void => {
    for (const { type, typeName: part } of TYPES.messages.get(name)?.fields ?? []) {
      if (type !== 'message' || part === undefined || needs.has(part)) continue;
      visit(part);
      needs.add(part);
    }
  };
  visit(typeName);
  const all = [...needs, typeName];
  const files = all
    .filter((name) => name !== TIMESTAMP)
    .map((name): ProtoFile => {
      const [packageName = '', one = ''] = name.split('.');
      const imports = [
        ...new Set(
          (TYPES.messages.get(name)?.fields ?? []).flatMap(({ type, typeName: part }) => (type === 'message' ? [fileName(part ?? '')] : [])),
        ),
      ];
      return { name: fileName(name), packageName, imports, messages: [one] };
    });
  return all.includes(TIMESTAMP) ? [TIMESTAMP_FILE, ...files] : files;
}

const fileName = (typeName: string): string => (typeName === TIMESTAMP ? TIMESTAMP_FILE.name : `${typeName.replace('.', '/')}.proto`);

/** A type as a FileDescriptorSet with all that it needs. */
export const descriptorOf = (typeName: string): Uint8Array => encodeDescriptors(TYPES, filesOf(typeName));

/** Where each message goes. Pictures have a topic per camera, `CAMERA_TOPIC` and its key. */
export const TOPICS = {
  about: { topic: '/about', schema: 'premotor.About' },
  motion: { topic: '/motion', schema: 'premotor.Motion' },
  jointStates: { topic: '/joint_states', schema: 'foxglove.JointStates' },
  state: { topic: '/state', schema: 'premotor.State' },
  faults: { topic: '/faults', schema: 'premotor.Fault' },
  status: { topic: '/status', schema: 'premotor.Status' },
  events: { topic: '/events', schema: 'premotor.Event' },
  log: { topic: '/log', schema: 'foxglove.Log' },
  calls: { topic: '/policy/calls', schema: 'premotor.Call' },
  executed: { topic: '/policy/executed', schema: 'premotor.Executed' },
  latents: { topic: '/policy/latents', schema: 'premotor.Latents' },
  timing: { topic: '/policy/timing', schema: 'premotor.ChunkTiming' },
  replay: { topic: '/policy/replay', schema: 'premotor.Replay' },
  imagined: { topic: '/imagined', schema: 'foxglove.CompressedImage' },
  recorder: { topic: '/recorder', schema: 'premotor.Recorder' },
} as const;
export type TopicName = keyof typeof TOPICS;
export const CAMERA_TOPIC = '/camera/';

export const LOG_LEVELS = { info: 2, warning: 3, error: 4 } as const;

/** A message of a recording as bytes. */
export const encode = (schema: string, value: Readonly<Record<string, unknown>>): Uint8Array => encodeProto(TYPES, schema, value);

export const timestampOf = (epochNs: bigint): { readonly seconds: bigint; readonly nanos: number } => ({
  seconds: epochNs / 1_000_000_000n,
  nanos: Number(epochNs % 1_000_000_000n),
});
