/**
 * What happens in a run, as messages of a recording: which topic, and the values of its type (schemas.ts). Pure functions; they copy what they keep.
 */
import type { ChunkReport, CycleEvent } from '../control/events.js';
import type { PremotorError } from '../errors.js';
import type { Frame } from '../policy/contract.js';
import type { CallNote } from '../replay/recording-policy.js';
import type { RobotStatus, RunAbout } from '../tap/observer.js';
import { encode, LOG_LEVELS, TOPICS, type TopicName, timestampOf } from './schemas.js';

export interface Outgoing {
  readonly topic: TopicName;
  readonly data: Uint8Array;
}

const out = (topic: TopicName, value: Readonly<Record<string, unknown>>): Outgoing => ({ topic, data: encode(TOPICS[topic].schema, value) });

/** JSON of anything: big numbers as text, arrays of numbers as lists, pictures left out. */
export function plainJson(value: unknown): string {
  return (
    JSON.stringify(value, (_, item: unknown) => {
      if (typeof item === 'bigint') return item.toString();
      if (item instanceof Error) return { ...item, name: item.name, message: item.message };
      if (item instanceof Uint8Array) return `${item.length} bytes`;
      return item instanceof Float32Array || item instanceof Float64Array ? [...item] : item;
    }) ?? 'null'
  );
}

export const aboutMessage = (about: RunAbout): Outgoing =>
  out('about', {
    id: about.id,
    version: about.version,
    robot: about.robot,
    joints: about.joints.map(({ name }) => name),
    cameras: about.cameras.map(({ camera }) => camera),
    task: about.task,
    instruction: about.instruction,
    seed: about.seed,
    chunks_max: about.chunksMax,
    action_rate_hz: about.actionRateHz,
    mode: about.mode,
    checkpoint: about.checkpoint,
    checkpoint_hash: about.policy.checkpointHash,
    untrained: about.untrained,
    configuration_json: plainJson(about.configuration),
    job_json: plainJson(about.job),
    policy_json: plainJson(about.policy),
    epoch_ns: about.epochNs,
    robot_time_ns: about.timeNs,
  });

export const logMessage = (level: keyof typeof LOG_LEVELS, message: string, name: string, epochNs: bigint): Outgoing =>
  out('log', { timestamp: timestampOf(epochNs), level: LOG_LEVELS[level], message, name });

export const eventMessage = (type: string, value: unknown): Outgoing => out('events', { type, json: plainJson(value) });

export const faultMessage = (code: string, message: string, state: string): Outgoing => out('faults', { code, message, state });

export function statusMessage(status: RobotStatus): Outgoing {
  const { state, stream, link, bridge, faultCode, faultMessage: text, isAtRest, counts, temperaturesC } = status;
  return out('status', {
    state,
    stream,
    link,
    bridge,
    fault_code: faultCode,
    fault_message: text,
    is_at_rest: isAtRest,
    counts: countsOf(counts),
    temperatures_c: countsOf(temperaturesC),
  });
}

export const countsOf = (counts: Readonly<Record<string, number>>): { name: string; value: number }[] =>
  Object.entries(counts).map(([name, value]) => ({ name, value }));

export const jointStates = (names: readonly string[], values: Float64Array, epochNs: bigint): Outgoing =>
  out('jointStates', {
    timestamp: timestampOf(epochNs),
    joints: names.map((name, joint) => ({ name, position: values[names.length + joint] ?? 0, velocity: values[2 * names.length + joint] ?? 0 })),
  });

export const pictureMessage = (frame: Pick<Frame, 'camera'>, data: Uint8Array, epochNs: bigint): Uint8Array =>
  encode('foxglove.CompressedImage', { timestamp: timestampOf(epochNs), frame_id: frame.camera, data, format: 'jpeg' });

type Tensor = { readonly shape: readonly number[]; readonly data: Float32Array };
const tensor = (data: Float32Array | undefined, shape: readonly number[]): Tensor | undefined => data && { shape, data };

/** [used, F, H] of actions of any number of latent frames F. */
const actionShape = (data: Float32Array, used: number, perFrame: number): readonly number[] => [
  used,
  Math.floor(data.length / Math.max(1, used * perFrame)),
  perFrame,
];

/** A cycle's event. `used` channels and `perFrame` actions say what shape actions have. */
export function cycleMessages(event: CycleEvent, epochNs: bigint, used: number, perFrame: number): Outgoing[] {
  switch (event.type) {
    case 'state': {
      const { from, to, trigger, reason } = event.transition;
      const messages = [
        out('state', { from, to, trigger, reason }),
        logMessage(to === 'fault' ? 'error' : 'info', `${from} -> ${to}: ${reason}`, 'state', epochNs),
      ];
      return to === 'fault' ? [...messages, faultMessage(codeIn(reason), reason, from)] : messages;
    }
    case 'started': {
      const { prompt, chunks, positionsRad } = event;
      return [eventMessage('started', { prompt, chunks, positionsRad }), logMessage('info', `started: ${prompt}`, 'cycle', epochNs)];
    }
    case 'predicted': {
      const { chunk, frameIndex, latents, assumed } = event;
      const about = { chunk, frame_index: frameIndex };
      const predicted = out('latents', { kind: 'predicted', ...about, latents: tensor(latents.data, latents.shape) });
      if (!assumed) return [predicted];
      const before = frameIndex - (assumed.shape[2] ?? 0);
      return [predicted, out('latents', { kind: 'assumed', chunk, frame_index: Math.max(0, before), latents: tensor(assumed.data, assumed.shape) })];
    }
    case 'executed': {
      const { chunk, frameIndex, actions, clampedKnots } = event;
      return [
        out('executed', {
          chunk,
          frame_index: frameIndex,
          actions: tensor(actions, actionShape(actions, used, perFrame)),
          clamped_knots: clampedKnots,
        }),
      ];
    }
    case 'remembered':
      return [out('latents', { kind: 'remembered', frame_index: event.frameIndex, latents: tensor(event.latents.data, event.latents.shape) })];
    case 'committed':
      return [timingMessage(event.report)];
    case 'holding':
      return [eventMessage('holding', { why: event.why }), logMessage('info', `holding: ${event.why}`, 'cycle', epochNs)];
    case 'ended': {
      const { chunks, ...report } = event.report;
      return [eventMessage('ended', { ...report, chunks: chunks.length }), logMessage('info', `ended: ${report.outcome}`, 'cycle', epochNs)];
    }
    default:
      // Progress is for whoever waits.
      return [];
  }
}

/** "ENGINE_DIED: The engine ..." begins with its code. */
export const codeIn = (reason: string): string => /^([A-Z][A-Z0-9_]+):/.exec(reason)?.[1] ?? 'UNKNOWN';

function timingMessage(report: ChunkReport): Outgoing {
  const { timing, rung } = report;
  return out('timing', {
    chunk: report.chunk,
    frame_index: report.frameIndex,
    knots: report.knots,
    clamped_knots: report.clampedKnots,
    delay_knots: report.delayKnots,
    assumed_frames: report.assumedFrames,
    rung: rung?.index,
    frame_age_ms_max: report.frameAgeMsMax,
    frame_skew_ms_max: report.frameSkewMsMax,
    predict_ms: report.predictMs,
    execute_ms: report.executeMs,
    commit_wall_ms: report.commitMs,
    encode_ms: timing.encodeMs,
    video_ms: timing.videoMs,
    action_ms: timing.actionMs,
    commit_ms: timing.commitMs,
    imagine_ms: timing.imagineMs,
    total_ms: timing.totalMs,
    video_passes: timing.videoPasses,
    action_passes: timing.actionPasses,
  });
}

export function callMessage(number: number, { call, cache }: CallNote, used: number, perFrame: number): Outgoing {
  const { method, options, actions, shape = [], error, frameIndex, checksum } = call;
  const given = (name: string): Float32Array | undefined => (options[name] instanceof Float32Array ? options[name] : undefined);
  const executed = given(method === 'commit' ? 'actions' : 'executed');
  const executing = given('executing');
  const { obs, seed, videoSteps, actionSteps } = options;
  return out('calls', {
    number,
    method,
    error: error ?? '',
    frame_index: frameIndex,
    actions: tensor(actions, shape),
    executed: executed && tensor(executed, actionShape(executed, used, perFrame)),
    executing: executing && tensor(executing, actionShape(executing, used, perFrame)),
    seed: seed === undefined ? '' : String(seed),
    video_steps: videoSteps,
    action_steps: actionSteps,
    moments: Array.isArray(obs) ? obs.length : 0,
    cache_checksum: checksum,
    cache_capacity: cache.capacity,
    cache_valid: cache.valid,
    cache_committed: cache.committed,
    cache_predicted: cache.predicted,
  });
}

export const warningMessages = ({ code, message }: PremotorError, epochNs: bigint): Outgoing[] => [
  eventMessage('warning', { code, message }),
  logMessage('warning', `${code}: ${message}`, 'warning', epochNs),
];
