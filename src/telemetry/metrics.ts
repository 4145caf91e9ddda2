/**
 * The table of metrics: every value that a robot reports, with its type, unit, deadband and name for Prometheus. Pure data; docs/TELEMETRY.md is
 * compared with it by a test. It measures nothing and sends nothing.
 */
import type { DataType } from './payload.js';

/** What Prometheus makes of it: a value that goes up and down, one that only rises, a text as a label. */
export type PrometheusKind = 'gauge' | 'counter' | 'state';

export interface MetricSpec {
  /** Folders are separated by slashes. */
  readonly name: string;
  /** Stands for the name in data. */
  readonly alias: number;
  readonly type: DataType;
  readonly unit: string;
  /** A number that moved no further than this since it was last reported is not reported again; 0: every change is. */
  readonly deadband: number;
  /** Every change is kept until it is reported, with its own time; of others only the newest value is. */
  readonly isEvent: boolean;
  /** A command may write it. */
  readonly isWritable: boolean;
  readonly meaning: string;
  readonly prometheus: { readonly name: string; readonly kind: PrometheusKind; readonly labels: Readonly<Record<string, string>> };
}

/** What a robot has of the things that are named in metrics. */
export interface MetricNames {
  readonly joints: readonly string[];
  /** Counters of stream, bridge and bus. */
  readonly counts: readonly string[];
  /** Temperature sensors of the robot and of the computer. */
  readonly sensors: readonly string[];
  readonly hostSensors: readonly string[];
  /** A service reports, not a single run. */
  readonly isService?: boolean;
}

export const REBIRTH = 'Node Control/Rebirth';
export const STOP = 'Robot/Stop';
export const RATE = 'Telemetry/Rate Max';

/** Of bdSeq; the table's metrics follow. */
export const BDSEQ_ALIAS = 1;

type Row = readonly [
  name: string,
  type: DataType,
  unit: string,
  deadband: number | 'event',
  prometheus: string,
  kind: PrometheusKind,
  meaning: string,
];

const ROBOT: readonly Row[] = [
  [STOP, 'Boolean', '', 0, '', 'gauge', 'always false; a command that writes true is a controlled stop'],
  ['Robot/State', 'String', '', 'event', 'robot_state', 'state', 'of the control cycle: disarmed, armed, running, stopping, holding, fault'],
  ['Robot/Fault Code', 'String', '', 'event', 'robot_fault', 'state', 'latched by stream, link or bridge, or what ended the episode; empty without'],
  ['Robot/Fault Message', 'String', '', 'event', '', 'state', 'the same in words'],
  ['Robot/At Rest', 'Boolean', '', 0, 'robot_at_rest', 'gauge', 'no joint moves'],
  ['Robot/Stream', 'String', '', 0, 'stream_state', 'state', 'state of the setpoint stream'],
  ['Robot/Link', 'String', '', 0, 'link_state', 'state', "state of the stream's link to the bridge"],
  ['Robot/Bridge', 'String', '', 0, 'bridge_state', 'state', 'state of the bridge'],
  ['Run/Id', 'String', '', 0, 'run', 'state', 'of this run, unique on the machine'],
  ['Run/Version', 'String', '', 0, 'version', 'state', "premotor's"],
  ['Run/Task', 'String', '', 0, 'run_task', 'state', 'the task'],
  ['Run/Instruction', 'String', '', 0, '', 'state', 'what the policy is told'],
  ['Run/Mode', 'String', '', 0, 'run_mode', 'state', 'how predicting and moving are interleaved'],
  ['Run/Outcome', 'String', '', 'event', 'run_outcome', 'state', 'how the episode ended: finished, reached, stopped, failed; null before'],
  ['Run/Stop Reason', 'String', '', 'event', '', 'state', 'why it was stopped; null otherwise'],
  ['Run/Chunks Max', 'Int32', '', 0, 'run_chunks_max', 'gauge', 'chunks that the episode may have'],
  ['Run/Warnings', 'Int64', '', 0, 'warnings', 'counter', 'things that the run goes on without'],
  ['Run/Warning', 'String', '', 'event', '', 'state', 'code of the newest'],
  ['Engine/Recoveries', 'Int64', '', 0, 'engine_recoveries', 'counter', 'engine processes that died and were replaced'],
  ['Engine/State', 'String', '', 'event', 'engine_state', 'state', 'ready, died, restarted'],
];

/** Who runs what: read by `premotor fleet` (docs/FLEET.md). */
const PROPERTIES: readonly Row[] = [
  ['Properties/Checkpoint', 'String', '', 0, 'checkpoint', 'state', 'the folder of the model, or the address of the policy server'],
  ['Properties/Checkpoint Hash', 'String', '', 0, '', 'state', 'of its content, 16 digits; empty where it is not known'],
  ['Properties/Precision', 'String', '', 0, '', 'state', 'that it is computed in'],
  ['Properties/Backend', 'String', '', 0, '', 'state', 'that computes it'],
  ['Properties/Plan', 'String', '', 0, '', 'state', 'the file of its plan; empty without'],
  ['Properties/Configuration Hash', 'String', '', 0, 'configuration', 'state', 'of the checked configuration with its defaults, 16 digits'],
  ['Properties/Firmware', 'String', '', 'event', 'firmware', 'state', "the bridge's firmware, where it says so; null otherwise"],
];

/** Of a robot with two system slots (docs/FLEET.md); null where there are none. */
const UPDATE: readonly Row[] = [
  ['Update/Slot', 'String', '', 0, 'update_slot', 'state', 'the system slot that runs'],
  ['Update/Version', 'String', '', 0, 'update_version', 'state', 'of the system that runs'],
  ['Update/State', 'String', '', 'event', 'update_state', 'state', 'of the newest update of the system: writing, trial, committed, or how it failed'],
  ['Update/Newest', 'String', '', 0, '', 'state', "that update's version"],
];

const CHUNK: readonly Row[] = [
  ['Chunk/Done', 'Int64', '', 0, 'chunks_done', 'counter', 'chunks predicted, executed and committed in this episode'],
  ['Chunk/Predict Time', 'Double', 'ms', 0, 'chunk_predict_milliseconds', 'gauge', 'of the newest chunk: predicting'],
  ['Chunk/Execute Time', 'Double', 'ms', 0, 'chunk_execute_milliseconds', 'gauge', 'executing'],
  ['Chunk/Commit Time', 'Double', 'ms', 0, 'chunk_commit_milliseconds', 'gauge', 'committing'],
  ['Chunk/Encode Time', 'Double', 'ms', 0, 'chunk_encode_milliseconds', 'gauge', 'of predicting: encoding pictures'],
  ['Chunk/Video Time', 'Double', 'ms', 0, 'chunk_video_milliseconds', 'gauge', 'of predicting: denoising video'],
  ['Chunk/Action Time', 'Double', 'ms', 0, 'chunk_action_milliseconds', 'gauge', 'of predicting: denoising actions'],
  ['Chunk/Delay', 'Int32', 'knots', 0, 'chunk_delay_knots', 'gauge', 'setpoint knots that were consumed while it was predicted'],
  ['Chunk/Knots', 'Int32', 'knots', 0, 'chunk_knots', 'gauge', 'setpoint knots executed'],
  ['Chunk/Knots Clamped', 'Int32', 'knots', 0, 'chunk_clamped_knots', 'gauge', 'of these, clamped to the limits'],
  ['Chunk/Assumed Frames', 'Int32', 'frames', 0, 'chunk_assumed_frames', 'gauge', 'latent frames that were imagined or forecast, not seen'],
  ['Chunk/Frame Age Max', 'Double', 'ms', 0.5, 'chunk_frame_age_milliseconds', 'gauge', 'the oldest picture when it was used'],
  ['Chunk/Frame Skew Max', 'Double', 'ms', 0.5, 'chunk_frame_skew_milliseconds', 'gauge', "the largest time between the cameras' pictures"],
  ['Budget/Rung', 'Int32', '', 0, 'budget_rung', 'gauge', "the ladder's rung that was chosen; null without a budget"],
  ['Budget/Fits', 'Boolean', '', 0, 'budget_fits', 'gauge', 'it was expected to land in time; null without a budget'],
  ['Cache/Capacity', 'Int64', 'entries', 0, 'cache_capacity_entries', 'gauge', 'KV cache: entries that it can hold'],
  ['Cache/Valid', 'Int64', 'entries', 0, 'cache_valid_entries', 'gauge', 'in use'],
  ['Cache/Committed', 'Int64', 'entries', 0, 'cache_committed_entries', 'gauge', 'of what really happened'],
  ['Cache/Predicted', 'Int64', 'entries', 0, 'cache_predicted_entries', 'gauge', 'of what is only imagined'],
  ['Cache/Fill', 'Double', '%', 0.1, 'cache_fill_percent', 'gauge', 'valid of capacity'],
];

const JOINT: readonly Row[] = [
  ['Position', 'Double', 'rad', 0.001, 'joint_position_radians', 'gauge', 'measured'],
  [
    'Setpoint Error Max',
    'Double',
    'rad',
    0.001,
    'joint_setpoint_error_radians',
    'gauge',
    'largest distance from the setpoint since the last message',
  ],
  ['Velocity Max', 'Double', 'rad/s', 0.01, 'joint_velocity_radians_per_second', 'gauge', 'largest speed since the last message'],
];

const HOST: readonly Row[] = [
  ['Host/Load', 'Double', '', 0.1, 'host_load', 'gauge', 'processes that run or wait to, average of one minute'],
  ['Host/Memory Total', 'Int64', 'B', 0, 'host_memory_bytes', 'gauge', 'memory of the computer'],
  ['Host/Memory Free', 'Int64', 'B', 16 * 2 ** 20, 'host_memory_free_bytes', 'gauge', 'of it, available without swapping'],
  ['Host/Disk Free', 'Int64', 'B', 16 * 2 ** 20, 'host_disk_free_bytes', 'gauge', 'on the disk that holds the queue'],
  ['Host/Uptime', 'Int64', 's', 59, 'host_uptime_seconds', 'gauge', 'since the computer was started'],
  ['Host/Process Memory', 'Int64', 'B', 8 * 2 ** 20, 'process_resident_memory_bytes', 'gauge', 'of the supervisor process'],
];

const TELEMETRY: readonly Row[] = [
  [RATE, 'Double', 'Hz', 0, 'telemetry_rate_max_hertz', 'gauge', 'messages of changed values per second; a command may write 0.1 .. 10'],
  ['Telemetry/Connections', 'Int64', '', 0, 'telemetry_connections', 'counter', 'sessions with the broker that began'],
  ['Telemetry/Samples Dropped', 'Int64', '', 0, 'telemetry_samples_dropped', 'counter', 'samples that the bound of the queue cost, over all runs'],
  [
    'Telemetry/Bytes Damaged',
    'Int64',
    'B',
    0,
    'telemetry_damaged_bytes',
    'counter',
    'of the queue, unreadable after a power cut or a fault of the disk',
  ],
  ['Telemetry/Queue Size', 'Int64', 'B', 65_536, 'telemetry_queue_bytes', 'gauge', 'on disk, waiting for the broker'],
  ['Telemetry/Commands', 'Int64', '', 0, 'telemetry_commands', 'counter', 'commands that were followed'],
  ['Telemetry/Commands Refused', 'Int64', '', 0, 'telemetry_commands_refused', 'counter', 'messages and metrics of commands that were ignored'],
  ['Telemetry/Clock Steps', 'Int64', '', 0, 'telemetry_clock_steps', 'counter', 'steps of the wall clock that were noticed'],
];

const SERVICE: readonly Row[] = [
  ['Service/State', 'String', '', 'event', 'service_state', 'state', 'of the long-running service: starting, waiting, ready, arming, holding, ...'],
  ['Service/Reasons', 'String', '', 'event', '', 'state', 'why it is not further: codes and words, separated by semicolons; empty without'],
  ['Service/Autonomy', 'String', '', 0, 'service_autonomy', 'state', 'local-arm or arm-on-boot'],
  ['Service/Armed', 'Boolean', '', 'event', 'service_armed', 'gauge', 'the motors have power'],
  ['Service/Maintenance', 'Boolean', '', 'event', 'service_maintenance', 'gauge', 'locked for an update: it does not arm'],
  ['Service/Clock Steps', 'Int64', '', 0, 'service_clock_steps', 'counter', 'steps of the wall clock by more than 50 ms since the service started'],
  ['Service/Last Clock Step', 'Int64', 'ms', 0, 'service_clock_step_milliseconds', 'gauge', 'the last one; forwards is positive, 0 without one'],
];

const counterWords = (count: string): string => count.replaceAll('_', ' ').replace(/(^|[ /])([a-z])/g, (found) => found.toUpperCase());

/** `cycles` is reported every second of a 1 kHz stream, what should not happen at once. */
const COUNT_DEADBANDS: Readonly<Record<string, number>> = { cycles: 999, sets_followed: 999 };

/** Every metric of a robot, in the order of births. Names are unique, in small letters, too. */
export function metricTable({ joints, counts, sensors, hostSensors, isService = false }: MetricNames): readonly MetricSpec[] {
  const specs: MetricSpec[] = [];
  const add = ([name, type, unit, deadband, prometheus, kind, meaning]: Row, labels: Readonly<Record<string, string>> = {}): void => {
    specs.push({
      name,
      alias: BDSEQ_ALIAS + 1 + specs.length,
      type,
      unit,
      deadband: deadband === 'event' ? 0 : deadband,
      isEvent: deadband === 'event',
      isWritable: name === STOP || name === RATE,
      meaning,
      prometheus: { name: prometheus === '' ? '' : `premotor_${prometheus}`, kind, labels },
    });
  };
  for (const row of [...ROBOT, ...PROPERTIES, ...CHUNK]) add(row);
  for (const joint of joints) for (const [name, ...rest] of JOINT) add([`Joint/${joint}/${name}`, ...rest], { joint });
  for (const count of counts) {
    const row = [`Motion/${counterWords(count)}`, 'Int64', '', COUNT_DEADBANDS[count] ?? 0, 'motion_events', 'counter'] as const;
    add([...row, 'counted by stream, bridge and bus since the robot was opened'], { event: count });
  }
  for (const [folder, names, meaning] of [
    ['Robot', sensors, 'of a part of the robot'],
    ['Host', hostSensors, 'of a part of the computer'],
  ] as const) {
    for (const sensor of names) {
      add([`${folder}/Temperature/${sensor}`, 'Double', 'degC', 0.5, `${folder.toLowerCase()}_temperature_celsius`, 'gauge', meaning], { sensor });
    }
  }
  for (const row of [...HOST, ...UPDATE, ...TELEMETRY, ...(isService ? SERVICE : [])]) add(row);
  return unique(specs);
}

/** Sensors of one computer may have one name; Sparkplug wants names that differ in more than capitals. */
function unique(specs: readonly MetricSpec[]): readonly MetricSpec[] {
  const seen = new Set<string>();
  return specs.filter(({ name }) => {
    const isNew = !seen.has(name.toLowerCase());
    seen.add(name.toLowerCase());
    return isNew;
  });
}
