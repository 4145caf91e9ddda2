/**
 * The flight recorder: an observer that writes down what a robot does, always the last seconds, or everything. Motion samples go into memory that
 * is there already; encoding, compressing and writing happen later, behind queues with bounds, and what does not fit is dropped and counted. It reads
 * copies, asks the robot for nothing, and a disk that refuses ends the recording with a warning, never the episode.
 */
import { basename, join } from 'node:path';
import sharp from 'sharp';
import type { RobotConfig } from '../config/schema.js';
import type { CycleReport } from '../control/events.js';
import { PremotorError } from '../errors.js';
import type { Frame } from '../policy/contract.js';
import { compressedEnd, compressedHeader, KINDS } from '../replay/record.js';
import type { CallNote } from '../replay/recording-policy.js';
import type { MotionSample, Observer, ObserverParts, RunAbout, RunControl, RunEvent } from '../tap/observer.js';
import { RecordingFolder } from './folder.js';
import type { ChannelAbout, OpenFile } from './mcap-writer.js';
import { unwritable } from './merge.js';
import { MotionBuffer } from './motion-buffer.js';
import * as messages from './recorder-messages.js';
import { outliveSaveSignal, SAVE_SIGNAL, stampOf } from './save.js';
import { CAMERA_TOPIC, descriptorOf, encode, TOPICS, type TopicName } from './schemas.js';
import { FullStorage, rescueWindow, type Storage, WindowStorage } from './storage.js';

/** A chunk goes to the disk after this long, and when it is this large: what a power cut can take. */
const FLUSH_PERIOD_MS = 1000;
const CHUNK_BYTES_MAX = 512 * 1024;
/** Bytes on their way to the disk; beyond it pictures are dropped first, then everything. */
const BACKLOG_BYTES_MAX = 64 * 2 ** 20;
/** Bytes of pictures that wait to be compressed. */
const PICTURE_BYTES_MAX = 64 * 2 ** 20;
/** One call of the policy, compressed. */
const CALL_BYTES_MAX = 64 * 2 ** 20;
/** What is told before the beginning. */
const EARLY_MAX = 64;
const JOINT_STATES_PERIOD_NS = 20_000_000n;
const STATUS_PERIOD_NS = 1_000_000_000n;

type RecorderConfig = RobotConfig['recording']['recorder'];

export interface RecorderParts extends ObserverParts {
  /** Tests give a disk that is full. */
  readonly openFile?: OpenFile;
}

/** The folder of a configuration's recordings. */
export const recordingsDir = ({ recording }: Pick<RobotConfig, 'recording'>): string => recording.recorder.dir ?? join(recording.out_dir, 'flight');

/** The recorder that a configuration asks for. A folder that cannot be written is a warning: the robot goes on without a recording. */
export async function openRecorder(config: RobotConfig, parts: RecorderParts): Promise<Observer | undefined> {
  const { recorder } = config.recording;
  outliveSaveSignal();
  if (recorder.mode === 'off') return undefined;
  const dir = recordingsDir(config);
  try {
    const folder = await RecordingFolder.open(dir, recorder.disk_max_mib * 2 ** 20);
    for (const left of await folder.leftWindows()) await rescue(folder, left, parts);
    return new Recorder(recorder, folder, config.policy.seed ?? config.task.seed, parts);
  } catch (cause) {
    parts.onWarning(cause instanceof PremotorError ? cause : unwritable(dir, cause));
    return undefined;
  }
}

async function rescue(folder: RecordingFolder, left: string, { onNotice, onWarning }: ObserverParts): Promise<void> {
  try {
    const path = await rescueWindow(folder, left, `rescued-${basename(left).slice('window-'.length)}`);
    if (path) onNotice(`Flight recorder: the last seconds of a run that was killed are in ${path}`);
  } catch (cause) {
    onWarning(cause instanceof PremotorError ? cause : unwritable(left, cause));
  }
}

interface Run {
  readonly about: RunAbout;
  readonly control: RunControl;
  readonly storage: Storage;
  readonly buffer: MotionBuffer;
  readonly names: readonly string[];
  readonly cameras: ReadonlyMap<string, number>;
}

const NAMES = Object.keys(TOPICS) as TopicName[];
const NUMBERS = Object.fromEntries(NAMES.map((name, number) => [name, number])) as Record<TopicName, number>;

class Recorder implements Observer {
  readonly name = 'recorder';
  readonly #config: RecorderConfig;
  readonly #folder: RecordingFolder;
  readonly #seed: number;
  readonly #parts: RecorderParts;
  #run: Run | undefined;
  #early: [RunEvent, bigint][] = [];
  #timer: NodeJS.Timeout | undefined;
  #isDraining = false;
  #nextJointsNs = 0n;
  #nextStatusNs = 0n;
  /** What is being compressed: pictures per camera, calls. */
  readonly #pictures = new Map<string, Promise<void>>();
  #pictureBytes = 0;
  #calls: Promise<void> = Promise.resolve();
  #callCount = 0;
  #replayOpen = true;
  #backlogMax = 0;
  readonly #dropped = new Map<string, number>();
  #fault: string | undefined;
  #hasWarned = false;
  #hasEnded = false;
  #isClosed = false;

  constructor(config: RecorderConfig, folder: RecordingFolder, seed: number, parts: RecorderParts) {
    this.#config = config;
    this.#folder = folder;
    this.#seed = seed;
    this.#parts = parts;
  }

  async begin(about: RunAbout, control: RunControl): Promise<void> {
    const keys = [...about.cameras.map(({ camera }) => camera)];
    const channels: ChannelAbout[] = [
      ...NAMES.map((name) => ({ ...TOPICS[name], schemaData: descriptorOf(TOPICS[name].schema) })),
      ...keys.map((key) => ({
        topic: `${CAMERA_TOPIC}${key}`,
        schema: 'foxglove.CompressedImage',
        schemaData: descriptorOf('foxglove.CompressedImage'),
      })),
    ];
    const { openFile } = this.#parts;
    const metadata = { id: about.id, version: about.version, robot: about.robot, task: about.task, instruction: about.instruction };
    const opening = { channel: NUMBERS.about, logTimeNs: about.epochNs, data: messages.aboutMessage(about).data };
    const options = { folder: this.#folder, id: about.id, channels, metadata, opening, ...(openFile ? { openFile } : {}) };
    try {
      const isFull = this.#config.mode === 'full';
      const storage = isFull ? await FullStorage.open(options) : await WindowStorage.open({ ...options, windowS: this.#config.window_s });
      const cameras = new Map(keys.map((key, at) => [key, NAMES.length + at]));
      const names = about.joints.map(({ name }) => name);
      this.#run = { about, control, storage, buffer: new MotionBuffer(names.length), names, cameras };
    } catch (error) {
      this.#warn(error as PremotorError);
      return;
    }
    await this.#beginReplay(this.#run);
    for (const [event, timeNs] of this.#early.splice(0)) this.event(event, timeNs);
    this.#timer = setInterval(() => this.#tick(), FLUSH_PERIOD_MS);
    this.#timer.unref();
    process.on(SAVE_SIGNAL, this.#onSignal);
    // What a recording needs to be read is safe before anything moves.
    await this.#run.storage.flush();
  }

  motion(sample: MotionSample): void {
    if (this.#run?.buffer.push(sample) === true) this.#drainSoon(this.#run);
  }

  event(event: RunEvent, timeNs: bigint): void {
    if (this.#run === undefined) {
      if (this.#early.length < EARLY_MAX && !this.#hasWarned) this.#early.push([event, timeNs]);
      return;
    }
    const epochNs = this.#epochNs(timeNs);
    if (event.type === 'frames') for (const frame of event.frames) this.#picture(this.#run, frame, frame.capturedAtNs);
    else if (event.type === 'imagined') this.#picture(this.#run, event.frame, event.timeNs, TOPICS.imagined.topic);
    else if (event.type === 'call') this.#call(this.#run, event.note, timeNs);
    else if (event.type === 'warning') this.#putAll(messages.warningMessages(event.error, epochNs), timeNs);
    else if (event.type === 'recovery') this.#recovery(event.recovery, timeNs);
    else {
      const { event: cycle } = event;
      if (cycle.type === 'state' && cycle.transition.to === 'fault') this.#fault ??= messages.codeIn(cycle.transition.reason);
      this.#putAll(messages.cycleMessages(cycle, epochNs, ...this.#actionSize()), timeNs);
    }
  }

  async end(report: CycleReport | undefined): Promise<void> {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    if (report?.outcome === 'failed') this.#fault = report.error?.code ?? this.#fault ?? 'UNKNOWN';
    await this.#finish();
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // An episode that failed before it began has no end.
    if (!this.#hasEnded) await this.#finish();
    clearInterval(this.#timer);
    process.off(SAVE_SIGNAL, this.#onSignal);
    const run = this.#run;
    if (run === undefined) return;
    const files = await run.storage.close(this.#callCount > 0);
    if (run.storage.error) this.#warn(run.storage.error);
    if (files.length > 0) this.#parts.onNotice(`Flight recorder: ${files.length === 1 ? files[0] : `${files.length} parts, ${files.join(', ')}`}`);
  }

  /** Resolves when the disk has what came so far, or refused it. */
  async settled(): Promise<void> {
    this.#tick();
    await Promise.all([...this.#pictures.values(), this.#calls]);
    await this.#run?.storage.flush();
  }

  readonly #onSignal = (): void => {
    const { mode } = this.#config;
    if (mode === 'full') this.#parts.onNotice('Flight recorder: everything is being recorded already');
    else void this.#save('saved');
  };

  /** The rest of what waits, and the recording of a fault. */
  async #finish(): Promise<void> {
    const run = this.#run;
    if (run === undefined) return;
    run.buffer.drain((timeNs, message, values) => this.#sample(run, timeNs, message, values));
    await Promise.all([...this.#pictures.values(), this.#calls]);
    if (this.#replayOpen) await this.#endReplay(run, 'closed');
    this.#note(run);
    await run.storage.flush();
    if (run.storage.error) this.#warn(run.storage.error);
    else if (this.#fault !== undefined) await this.#save('fault', this.#fault);
  }

  /** Keeps the window under a name, and says so. */
  async #save(kind: 'fault' | 'saved', code?: string): Promise<void> {
    const run = this.#run;
    if (run === undefined) return;
    const stamp = stampOf(new Date());
    this.#fault = undefined;
    try {
      await this.settled();
      const saved = await run.storage.save([kind, stamp, ...(code === undefined ? [] : [code])].join('-'));
      if (saved) this.#parts.onNotice(`Flight recorder: the last ${saved.seconds.toFixed(1)} s are in ${saved.path}`);
    } catch (error) {
      this.#parts.onWarning(error as PremotorError);
    }
  }

  #tick(): void {
    const run = this.#run;
    if (run === undefined) return;
    run.buffer.drain((timeNs, message, values) => this.#sample(run, timeNs, message, values));
    this.#note(run);
    void run.storage.flush();
    if (run.storage.error) this.#warn(run.storage.error);
  }

  /** What the recorder itself has done so far. */
  #note(run: Run): void {
    const { storage, buffer, control } = run;
    if (buffer.dropped > 0) this.#dropped.set(TOPICS.motion.topic, buffer.dropped);
    const value = {
      bytes_written: storage.bytesWritten,
      backlog_bytes_max: this.#backlogMax,
      dropped: messages.countsOf(Object.fromEntries(this.#dropped)),
    };
    this.#put({ topic: 'recorder', data: encode(TOPICS.recorder.schema, value) }, control.status().timeNs);
  }

  /** A block at a time, so that whatever else waits for the event loop comes in between. */
  #drainSoon(run: Run): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    setImmediate(() => {
      this.#isDraining = false;
      if (run.buffer.drainBlock((timeNs, message, values) => this.#sample(run, timeNs, message, values))) this.#drainSoon(run);
    });
  }

  #sample(run: Run, timeNs: bigint, message: Uint8Array, values: Float64Array): void {
    const epochNs = this.#epochNs(timeNs);
    this.#write(run, NUMBERS.motion, TOPICS.motion.topic, epochNs, message);
    if (timeNs >= this.#nextJointsNs) {
      this.#nextJointsNs = timeNs + JOINT_STATES_PERIOD_NS;
      this.#put(messages.jointStates(run.names, values, epochNs), timeNs);
    }
    if (timeNs >= this.#nextStatusNs) {
      this.#nextStatusNs = timeNs + STATUS_PERIOD_NS;
      const status = run.control.status();
      this.#put(messages.statusMessage(status), status.timeNs);
    }
  }

  #picture(run: Run, frame: Frame, timeNs: bigint, topic = `${CAMERA_TOPIC}${frame.camera}`): void {
    const channel = topic === TOPICS.imagined.topic ? NUMBERS.imagined : run.cameras.get(frame.camera);
    if (channel === undefined || this.#pictureBytes + frame.data.length > PICTURE_BYTES_MAX) {
      this.#drop(topic);
      return;
    }
    this.#pictureBytes += frame.data.length;
    const { width, height, data } = frame;
    const epochNs = this.#epochNs(timeNs);
    const compress = async (): Promise<void> => {
      try {
        const raw = { width, height, channels: 3 } as const;
        const jpeg = await sharp(data, { raw }).jpeg({ quality: this.#config.jpeg_quality }).toBuffer();
        this.#write(run, channel, topic, epochNs, messages.pictureMessage(frame, jpeg, epochNs), true);
      } catch {
        this.#drop(topic);
      } finally {
        this.#pictureBytes -= data.length;
      }
    };
    // One after another per camera, so that they stay in order.
    this.#pictures.set(topic, (this.#pictures.get(topic) ?? Promise.resolve()).then(compress));
  }

  #recovery(recovery: Extract<RunEvent, { type: 'recovery' }>['recovery'], timeNs: bigint): void {
    const { phase, elapsedMs, commits } = recovery;
    const text = `engine ${phase} after ${elapsedMs.toFixed(0)} ms, ${commits} commits`;
    this.#put(messages.eventMessage('recovery', recovery), timeNs);
    this.#put(messages.logMessage('warning', text, 'engine', this.#epochNs(timeNs)), timeNs);
    if (phase === 'died') this.#put(messages.faultMessage('ENGINE_DIED', text, 'running'), timeNs);
    // The episode goes on, and its window would be gone by its end.
    if (phase === 'rebuilt') void this.#save('fault', 'ENGINE_DIED');
  }

  #call(run: Run, note: CallNote, timeNs: bigint): void {
    const number = ++this.#callCount;
    this.#put(messages.callMessage(number, note, ...this.#actionSize()), timeNs);
    this.#calls = this.#calls.then(async () => {
      if (!this.#replayOpen) return;
      const payload = await note.bytes.catch(() => undefined);
      const fits = payload !== undefined && payload.length <= CALL_BYTES_MAX && this.#putReplay(run, number, KINDS.call, payload, timeNs);
      // A record with a gap could not be replayed: it ends where it is whole.
      if (!fits) await this.#endReplay(run, 'full', number);
    });
  }

  async #beginReplay(run: Run): Promise<void> {
    const { about } = run;
    const { checkpointHash, precision, kvCache, device, backend, threads } = about.policy;
    const engine = { checkpointHash, precision, kvCache, device, backend, threads };
    const header = {
      prompt: about.instruction,
      seed: this.#seed,
      checkpoint: about.checkpoint,
      job: { ...about.job },
      configuration: about.configuration,
    };
    this.#putReplay(run, 0, KINDS.header, await compressedHeader({ ...header, ...engine }), about.timeNs);
  }

  async #endReplay(run: Run, reason: 'closed' | 'full', number = this.#callCount + 1): Promise<void> {
    this.#replayOpen = false;
    if (reason === 'full') this.#drop(TOPICS.replay.topic);
    const data = encode(TOPICS.replay.schema, { number, kind: KINDS.end, payload: await compressedEnd(reason) });
    run.storage.addHead(NUMBERS.replay, this.#epochNs(run.control.status().timeNs), data);
  }

  #putReplay(run: Run, number: number, kind: number, payload: Uint8Array, timeNs: bigint): boolean {
    if (run.storage.backlogBytes > BACKLOG_BYTES_MAX) return false;
    const isIn = run.storage.addHead(NUMBERS.replay, this.#epochNs(timeNs), encode(TOPICS.replay.schema, { number, kind, payload }));
    this.#cut(run);
    return isIn;
  }

  #putAll(all: readonly messages.Outgoing[], timeNs: bigint): void {
    for (const one of all) this.#put(one, timeNs);
  }

  #put({ topic, data }: messages.Outgoing, timeNs: bigint): void {
    if (this.#run) this.#write(this.#run, NUMBERS[topic], TOPICS[topic].topic, this.#epochNs(timeNs), data);
  }

  #write(run: Run, channel: number, topic: string, epochNs: bigint, data: Uint8Array, isPicture = false): void {
    const { storage } = run;
    const backlog = storage.backlogBytes;
    if (backlog > this.#backlogMax) this.#backlogMax = backlog;
    if (backlog > (isPicture ? BACKLOG_BYTES_MAX / 2 : BACKLOG_BYTES_MAX)) this.#drop(topic);
    else {
      storage.add(channel, epochNs, data);
      this.#cut(run);
    }
  }

  #cut({ storage }: Run): void {
    if (storage.pendingBytes >= CHUNK_BYTES_MAX) void storage.flush();
  }

  #drop(topic: string): void {
    this.#dropped.set(topic, (this.#dropped.get(topic) ?? 0) + 1);
  }

  /** The disk refuses: said once. */
  #warn(error: PremotorError): void {
    if (this.#hasWarned) return;
    this.#hasWarned = true;
    this.#early = [];
    this.#parts.onWarning(error);
  }

  /** Channels and actions per latent frame. */
  #actionSize(): [number, number] {
    const { job } = this.#run?.about ?? {};
    return [job?.used_action_channel_ids.length ?? 1, job?.action_per_frame ?? 1];
  }

  /** The robot's clock as the wall clock's. */
  #epochNs(timeNs: bigint): bigint {
    const about = this.#run?.about;
    return about === undefined ? timeNs : about.epochNs + (timeNs - about.timeNs);
  }
}
