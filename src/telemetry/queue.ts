/**
 * DiskQueue: records that wait for the broker, in files that only grow and are deleted whole. It survives power cuts, full disks and damaged tails:
 * what is readable is given out in order, at least once, until it is confirmed; what the bound costs is counted. Owned by the telemetry of one
 * process; it knows bytes and how many samples they are, no metrics and no broker.
 *
 * ```
 * slot-0/lock            process that uses the folder
 *        state           confirmed position and counters, replaced as a whole
 *        0000000017.seg  frames (src/journal/framing.ts): kind 1 the header, then kind 2: u16 samples, little-endian, and the record
 * ```
 */
import { readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { DurableLog, syncFolder, writeDurably } from '../journal/durable.js';
import { FRAME_BYTES, type Framed, frame, readFrames } from '../journal/framing.js';
import { type Lock, takeSlot } from './slot.js';

const HEADER = 1;
const RECORD = 2;
const COUNT_BYTES = 2;
const SEGMENT_BYTES_MAX = 2 ** 20;
/** A queue has so many segments at least, so that its bound costs no more than that part of it at once. */
const SEGMENTS_MIN = 8;
/** What cannot be written waits in memory up to this; then the oldest records go. */
const UNWRITTEN_BYTES_MAX = 4 * 2 ** 20;
const STATE = 'state';

export interface QueueOptions {
  readonly dir: string;
  readonly bytesMax: number;
  readonly onWarning: (error: PremotorError) => void;
}

/** What comes after a record: the place of the next one. */
export interface Position {
  readonly segment: number;
  /** Records of the segment before it. */
  readonly record: number;
}

export interface QueuedRecord {
  readonly header: Uint8Array;
  readonly bytes: Uint8Array;
  readonly samples: number;
  readonly after: Position;
}

interface Segment {
  readonly number: number;
  bytes: number;
  /** Samples of each record. */
  readonly samples: number[];
}

const stateSchema = z.object({
  segment: z.int().min(0),
  record: z.int().min(0),
  dropped: z.int().min(0),
  damagedBytes: z.int().min(0),
});

export class DiskQueue {
  readonly #options: QueueOptions;
  readonly #dir: string;
  readonly #lock: Lock;
  readonly #segmentBytesMax: number;
  #header: Uint8Array = new Uint8Array();
  /** Oldest first; the last may be the one that is written. */
  #segments: Segment[] = [];
  #log: DurableLog | undefined;
  /** Records that no file has yet. */
  #unwritten: { readonly bytes: Uint8Array; readonly samples: number }[] = [];
  #unwrittenBytes = 0;
  #confirmed: Position = { segment: 0, record: 0 };
  #read: Position = { segment: 0, record: 0 };
  /** Records of the segment that is read. */
  #loaded: { readonly segment: number; readonly header: Uint8Array; readonly frames: readonly Framed[] } | undefined;
  #dropped = 0;
  #damagedBytes = 0;
  #savedState = '';
  #isFailing = false;
  #isClosed = false;
  /** File operations, one after another. */
  #work: Promise<unknown> = Promise.resolve();

  private constructor(options: QueueOptions, dir: string, lock: Lock) {
    this.#options = options;
    this.#dir = dir;
    this.#lock = lock;
    this.#segmentBytesMax = Math.max(4096, Math.min(SEGMENT_BYTES_MAX, Math.floor(options.bytesMax / SEGMENTS_MIN)));
  }

  /** Finds what earlier processes left. Errors: TELEMETRY_QUEUE. */
  static async open(options: QueueOptions): Promise<DiskQueue> {
    const { dir, lock } = await takeSlot(options.dir);
    const queue = new DiskQueue(options, dir, lock);
    try {
      await queue.#find();
      return queue;
    } catch (cause) {
      await lock.release();
      const message = 'The queue of telemetry cannot be read. Check the rights of the folder, or name another telemetry.queue_dir.';
      throw new PremotorError('TELEMETRY_QUEUE', message, { file: dir, expected: 'a folder to read and write', found: String(cause), cause });
    }
  }

  /** Bytes that wait. */
  get bytes(): number {
    return this.#segments.reduce((sum, { bytes }) => sum + bytes, 0) + this.#unwrittenBytes;
  }

  /** Nothing waits to be given out or confirmed. */
  get isEmpty(): boolean {
    return this.#unwritten.length === 0 && this.#segments.every((segment) => this.#waiting(segment, this.#confirmed) === 0);
  }

  /** Samples lost to the bound since the queue was made. */
  get dropped(): number {
    return this.#dropped;
  }

  get damagedBytes(): number {
    return this.#damagedBytes;
  }

  /** Says what describes the records that come, for whoever reads them later; before the first of them. */
  describe(header: Uint8Array): void {
    this.#header = header;
  }

  /** Keeps a record; it is safe from power cuts after the next sync(). */
  append(bytes: Uint8Array, samples: number): void {
    this.#unwritten.push({ bytes, samples });
    this.#unwrittenBytes += bytes.length + FRAME_BYTES + COUNT_BYTES;
    while (this.#unwrittenBytes > UNWRITTEN_BYTES_MAX) this.#dropUnwritten();
  }

  /** Samples that were lost before they came here. */
  countDropped(samples: number): void {
    this.#dropped += samples;
  }

  /** Writes what is not written. What fails is a warning, once until it works again. */
  sync(): Promise<void> {
    return this.#ordered(async () => {
      try {
        await this.#write();
        await this.#saveState();
        this.#isFailing = false;
      } catch (cause) {
        this.#warn(cause);
      }
    });
  }

  /** The next records that were not given out yet, up to so many samples; empty when there are none. */
  next(samplesMax: number): Promise<readonly QueuedRecord[]> {
    return this.#ordered(async () => {
      try {
        if (this.#unwritten.length > 0) await this.#write();
        return await this.#take(samplesMax);
      } catch (cause) {
        this.#warn(cause);
        return [];
      }
    });
  }

  /** Gives out again what was not confirmed. */
  rewind(): void {
    this.#read = this.#confirmed;
  }

  /** Everything before a position has arrived. */
  confirm(position: Position): Promise<void> {
    return this.#ordered(async () => {
      if (!isBefore(this.#confirmed, position)) return;
      this.#confirmed = position;
      for (let first = this.#segments[0]; first && this.#waiting(first, position) === 0; first = this.#segments[0]) {
        // The file that is written is deleted only when it is full of confirmed records; next() closes the one that it reads.
        if (this.#log && this.#segments.length === 1) break;
        await this.#forgetFirst();
      }
    });
  }

  /** Idempotent. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    await this.sync();
    this.#isClosed = true;
    await this.#ordered(async () => {
      await this.#log?.close().catch(() => undefined);
      this.#log = undefined;
      await this.#lock.release();
    });
  }

  #ordered<T>(task: () => Promise<T>): Promise<T> {
    const done = this.#work.then(task);
    this.#work = done.catch(() => undefined);
    return done;
  }

  #warn(cause: unknown): void {
    if (this.#isFailing) return;
    this.#isFailing = true;
    const message = 'Samples that wait for the broker cannot be kept on disk; the newest stay in memory. Free the disk, or check its rights.';
    const found = cause instanceof Error ? cause.message : String(cause);
    this.#options.onWarning(
      new PremotorError('TELEMETRY_QUEUE_WRITE', message, { file: this.#dir, expected: 'a folder that can be written', found, cause }),
    );
  }

  #file(segment: number): string {
    return join(this.#dir, `${String(segment).padStart(10, '0')}.seg`);
  }

  async #find(): Promise<void> {
    await this.#readState();
    const names = (await readdir(this.#dir)).filter((name) => /^\d{10}\.seg$/.test(name)).sort();
    let damaged = 0;
    for (const name of names) {
      const bytes = await readFile(join(this.#dir, name));
      const { frames, broken } = readFrames(bytes);
      if (broken) damaged += bytes.length - broken.atByte;
      const number = Number(name.slice(0, 10));
      const records = recordsOf(frames);
      this.#segments.push({ number, bytes: bytes.length, samples: records.map(samplesOf) });
    }
    const [first] = this.#segments;
    if (first && (this.#confirmed.segment < first.number || this.#confirmed.segment > (this.#segments.at(-1)?.number ?? 0))) {
      this.#confirmed = { segment: first.number, record: 0 };
    }
    this.#read = this.#confirmed;
    for (let one = this.#segments[0]; one && this.#waiting(one, this.#confirmed) === 0; one = this.#segments[0]) await this.#forgetFirst();
    if (damaged > 0) {
      this.#damagedBytes += damaged;
      const message = 'A part of the queue of telemetry is damaged, as after a power cut. What was readable is sent; the rest is counted.';
      const details = { file: this.#dir, expected: 'whole records', found: `${damaged} bytes that are none` };
      this.#options.onWarning(new PremotorError('TELEMETRY_QUEUE_DAMAGED', message, details));
    }
    await this.#bound();
  }

  async #readState(): Promise<void> {
    try {
      const [one] = readFrames(await readFile(join(this.#dir, STATE))).frames;
      const state = stateSchema.parse(JSON.parse(Buffer.from(one?.payload ?? []).toString('utf8')));
      this.#confirmed = { segment: state.segment, record: state.record };
      this.#dropped = state.dropped;
      this.#damagedBytes = state.damagedBytes;
    } catch {
      // None yet, or damaged: then what is there is sent again.
    }
  }

  async #saveState(): Promise<void> {
    const state = JSON.stringify({ ...this.#confirmed, dropped: this.#dropped, damagedBytes: this.#damagedBytes });
    if (state === this.#savedState) return;
    const file = join(this.#dir, STATE);
    await writeDurably(`${file}.new`, frame(RECORD, 0, Buffer.from(state)));
    await rename(`${file}.new`, file);
    await syncFolder(this.#dir);
    this.#savedState = state;
  }

  async #write(): Promise<void> {
    if (this.#unwritten.length === 0) return;
    const records = this.#unwritten;
    this.#unwritten = [];
    const taken = this.#unwrittenBytes;
    this.#unwrittenBytes = 0;
    let from = 0;
    try {
      while (from < records.length) from = await this.#writeSome(records, from);
    } catch (error) {
      // The segment may end in half a record: what follows goes to a new one.
      await this.#log?.close().catch(() => undefined);
      this.#log = undefined;
      this.#unwritten = [...records.slice(from), ...this.#unwritten];
      this.#unwrittenBytes += taken - sizeOf(records.slice(0, from));
      throw error;
    }
    await this.#bound();
  }

  /** Fills the segment that is written; returns how far it came. */
  async #writeSome(records: readonly { readonly bytes: Uint8Array; readonly samples: number }[], from: number): Promise<number> {
    const { log, segment } = await this.#writable();
    const frames: Uint8Array[] = [];
    const samples: number[] = [];
    let size = segment.bytes;
    let to = from;
    for (; to < records.length && (size < this.#segmentBytesMax || to === from); to++) {
      const record = records[to] as (typeof records)[number];
      const payload = new Uint8Array(COUNT_BYTES + record.bytes.length);
      new DataView(payload.buffer).setUint16(0, record.samples, true);
      payload.set(record.bytes, COUNT_BYTES);
      const framed = frame(RECORD, 1 + segment.samples.length + frames.length, payload);
      frames.push(framed);
      samples.push(record.samples);
      size += framed.length;
    }
    await log.append(Buffer.concat(frames));
    segment.bytes = size;
    segment.samples.push(...samples);
    if (size >= this.#segmentBytesMax) await this.#rotate();
    return to;
  }

  async #writable(): Promise<{ log: DurableLog; segment: Segment }> {
    const last = this.#segments.at(-1);
    if (this.#log && last) return { log: this.#log, segment: last };
    const number = 1 + Math.max(last?.number ?? 0, this.#confirmed.segment, this.#read.segment);
    const log = await DurableLog.create(this.#file(number));
    const header = frame(HEADER, 0, this.#header);
    const segment: Segment = { number, bytes: header.length, samples: [] };
    this.#segments.push(segment);
    this.#log = log;
    await log.append(header, false);
    return { log, segment };
  }

  async #rotate(): Promise<void> {
    const log = this.#log;
    this.#log = undefined;
    await log?.close();
  }

  /** Deletes the oldest segments until the queue is within its bound. */
  async #bound(): Promise<void> {
    while (this.bytes > this.#options.bytesMax && this.#segments.length > (this.#log ? 1 : 0)) {
      const first = this.#segments[0] as Segment;
      this.#dropped += this.#waiting(first, this.#confirmed);
      await this.#forgetFirst();
    }
  }

  async #forgetFirst(): Promise<void> {
    const first = this.#segments.shift();
    if (!first) return;
    if (this.#loaded?.segment === first.number) this.#loaded = undefined;
    const next = { segment: first.number + 1, record: 0 };
    if (isBefore(this.#confirmed, next)) this.#confirmed = next;
    if (isBefore(this.#read, next)) this.#read = next;
    await rm(this.#file(first.number), { force: true });
  }

  /** Samples of a segment from a position on. */
  #waiting(segment: Segment, { segment: number, record }: Position): number {
    if (segment.number < number) return 0;
    const from = segment.number === number ? record : 0;
    let sum = 0;
    for (let index = from; index < segment.samples.length; index++) sum += segment.samples[index] ?? 0;
    return sum;
  }

  async #take(samplesMax: number): Promise<readonly QueuedRecord[]> {
    const segment = this.#segments.find((one) => this.#waiting(one, this.#read) > 0);
    if (!segment) return [];
    // Whoever reads wants a file that no longer grows.
    if (segment === this.#segments.at(-1)) await this.#rotate();
    const from = segment.number === this.#read.segment ? this.#read.record : 0;
    const { header, frames } = await this.#load(segment);
    const taken: QueuedRecord[] = [];
    let samples = 0;
    // Half a batch that failed and was written again elsewhere may stand behind what counts.
    const whole = Math.min(frames.length, segment.samples.length);
    for (let record = from; record < whole && samples < samplesMax; record++) {
      const one = frames[record] as Framed;
      samples += samplesOf(one);
      const after = { segment: segment.number, record: record + 1 };
      taken.push({ header, bytes: one.payload.subarray(COUNT_BYTES), samples: samplesOf(one), after });
    }
    const last = taken.at(-1)?.after;
    if (!last) {
      // The file has shrunk since it was found: nothing more is to be had from it.
      this.#dropped += this.#waiting(segment, this.#read);
      segment.samples.length = from;
    }
    this.#read = last ?? { segment: segment.number, record: from };
    return taken;
  }

  async #load(segment: Segment): Promise<{ readonly header: Uint8Array; readonly frames: readonly Framed[] }> {
    if (this.#loaded?.segment === segment.number) return this.#loaded;
    const { frames } = readFrames(await readFile(this.#file(segment.number)));
    const header = frames[0]?.kind === HEADER ? frames[0].payload : new Uint8Array();
    this.#loaded = { segment: segment.number, header, frames: recordsOf(frames) };
    return this.#loaded;
  }

  #dropUnwritten(): void {
    const oldest = this.#unwritten.shift();
    if (!oldest) return;
    this.#unwrittenBytes -= oldest.bytes.length + FRAME_BYTES + COUNT_BYTES;
    this.#dropped += oldest.samples;
  }
}

const isBefore = (a: Position, b: Position): boolean => a.segment < b.segment || (a.segment === b.segment && a.record < b.record);
const sizeOf = (records: readonly { readonly bytes: Uint8Array }[]): number =>
  records.reduce((sum, { bytes }) => sum + bytes.length + FRAME_BYTES + COUNT_BYTES, 0);

const recordsOf = (frames: readonly Framed[]): readonly Framed[] =>
  frames.filter(({ kind, payload }) => kind === RECORD && payload.length >= COUNT_BYTES);
const samplesOf = ({ payload }: Framed): number => new DataView(payload.buffer, payload.byteOffset, COUNT_BYTES).getUint16(0, true);
