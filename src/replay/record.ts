/**
 * A replay record: everything that a policy was asked in an episode, and what it answered, in one file that grows as the episode goes. Owned by the
 * recording policy while it is written, read whole by the player. Bounded: a full record ends and says so. It is no journal: nothing waits for the
 * disk, and it is never needed to go on.
 */
import { mkdir, readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { constants, deflate, inflateSync } from 'node:zlib';
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { DurableLog } from '../journal/durable.js';
import { type Break, type Framed, frame, readFrames } from '../journal/framing.js';
import { pack, unpack } from '../journal/pack.js';
import { KV_CACHES } from '../precision-names.js';

const deflated = promisify<Uint8Array, { level: number }, Buffer>(deflate);

export const RECORD_VERSION = 1;
/** What a record of the file is. */
export const KINDS = { header: 0x11, call: 0x12, end: 0x13 } as const;
/** Largest file. An hour of two cameras at 96 pixels takes about a tenth of it. */
export const RECORD_BYTES_MAX = 512 * 2 ** 20;
/** One call may not unpack to more: a damaged or made-up file must not take the memory. */
const CALL_BYTES_MAX = 2 ** 30;
const END_BYTES_MAX = 256;

const headerSchema = z.object({
  version: z.int(),
  created: z.string(),
  prompt: z.string(),
  seed: z.int(),
  checkpoint: z.string(),
  checkpointHash: z.string(),
  job: z.record(z.string(), z.unknown()),
  precision: z.enum(['f32', 'bf16', 'int8', 'int4', 'fp8']),
  /** Absent in records of earlier versions: the precision's default. */
  kvCache: z.enum(KV_CACHES).optional(),
  device: z.enum(['cpu', 'cuda']),
  backend: z.string(),
  threads: z.int(),
  /** The robot's configuration, for people. */
  configuration: z.unknown(),
});
export type RecordHeader = Readonly<z.output<typeof headerSchema>>;

/** One call and what came of it. */
export interface RecordedCall {
  readonly method: 'reset' | 'restore' | 'predict' | 'commit' | 'predictNext' | 'occupy';
  readonly options: Readonly<Record<string, unknown>>;
  /** What it answered; absent when it failed. */
  readonly actions?: Float32Array | undefined;
  readonly shape?: readonly number[] | undefined;
  readonly frameIndex?: number | undefined;
  /** CRC-32 of the latents' bytes. */
  readonly latents?: number | undefined;
  /** The code that it failed with. */
  readonly error?: string | undefined;
  /** CacheState.checksum afterwards. */
  readonly checksum: string;
}

const callSchema: z.ZodType<RecordedCall> = z.object({
  method: z.enum(['reset', 'restore', 'predict', 'commit', 'predictNext', 'occupy']),
  options: z.record(z.string(), z.unknown()),
  actions: z.instanceof(Float32Array).optional(),
  shape: z.array(z.int()).optional(),
  frameIndex: z.int().optional(),
  latents: z.int().optional(),
  error: z.string().optional(),
  checksum: z.string(),
});

export type RecordEnd = 'closed' | 'full' | 'cut';

export interface ReplayRecord {
  readonly header: RecordHeader;
  readonly calls: readonly RecordedCall[];
  /** 'closed': the whole episode; 'full': the file's bound came first; 'cut': the writer ended first, or the file is damaged. */
  readonly end: RecordEnd;
  readonly broken?: Break;
}

/** A record's bytes as they are kept. What the value holds is taken now; compressing goes on behind, at the fastest level: pictures shrink anyhow. */
const compressed = (value: object): Promise<Uint8Array> => deflated(pack(value), { level: constants.Z_BEST_SPEED });

export const compressedCall = (call: RecordedCall): Promise<Uint8Array> => compressed(call);
export const compressedHeader = (about: Omit<RecordHeader, 'version' | 'created'>): Promise<Uint8Array> =>
  compressed({ ...about, version: RECORD_VERSION, created: new Date().toISOString() });
export const compressedEnd = (reason: RecordEnd): Promise<Uint8Array> => compressed({ reason });

/** Writes a record, one call after another. */
export class RecordWriter {
  readonly file: string;
  readonly #log: DurableLog;
  readonly #maxBytes: number;
  readonly #warn: (error: PremotorError) => void;
  #writing: Promise<void> = Promise.resolve();
  #number = 0;
  #isOpen = true;
  #isClosed = false;

  private constructor(file: string, log: DurableLog, maxBytes: number, warn: (error: PremotorError) => void) {
    this.file = file;
    this.#log = log;
    this.#maxBytes = maxBytes;
    this.#warn = warn;
  }

  /** Replaces the file. Errors: REPLAY_WRITE. */
  static async create(
    file: string,
    about: Omit<RecordHeader, 'version' | 'created'>,
    options: { readonly maxBytes?: number; readonly onWarning?: (error: PremotorError) => void } = {},
  ): Promise<RecordWriter> {
    try {
      await mkdir(dirname(file), { recursive: true });
      const log = await DurableLog.replace(file);
      const writer = new RecordWriter(file, log, options.maxBytes ?? RECORD_BYTES_MAX, options.onWarning ?? ((): void => undefined));
      writer.#add(KINDS.header, compressedHeader(about));
      await writer.settled();
      return writer;
    } catch (cause) {
      throw unwritable(file, cause);
    }
  }

  /** Takes what the call holds now; compressing and writing go on behind. The one before must be settled. `bytes`: where it is compressed already. */
  add(call: RecordedCall, bytes: Promise<Uint8Array> = compressedCall(call)): void {
    this.#add(KINDS.call, bytes);
  }

  /** Resolves when everything given so far is written, or could not be. Never rejects. */
  settled(): Promise<void> {
    return this.#writing;
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.#writing;
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#isOpen) this.#add(KINDS.end, compressedEnd('closed'));
    this.#isOpen = false;
    await this.#writing;
    await this.#log.close();
  }

  #add(kind: number, bytes: Promise<Uint8Array>): void {
    if (!this.#isOpen) return;
    this.#writing = this.#write(kind, bytes).catch((cause: unknown) => {
      this.#isOpen = false;
      this.#warn(unwritable(this.file, cause));
    });
  }

  async #write(kind: number, bytes: Promise<Uint8Array>): Promise<void> {
    const record = frame(kind, this.#number, await bytes);
    const isFull = kind === KINDS.call && this.#log.bytes + record.length + END_BYTES_MAX > this.#maxBytes;
    if (isFull) {
      this.#isOpen = false;
      this.#warn(tooLong(this.file, this.#maxBytes));
    }
    const end = isFull ? frame(KINDS.end, this.#number, await compressedEnd('full')) : record;
    this.#number++;
    await this.#log.append(end, false);
  }
}

/** Reads a record as far as it is whole. Errors: REPLAY_MISSING, REPLAY_DAMAGED. */
export async function readRecord(file: string): Promise<ReplayRecord> {
  const bytes = await readFile(file).catch((cause: unknown) => {
    const message = `The replay record ${file} cannot be read: expected a file of premotor run, found ${(cause as Error).message}. Check the path.`;
    throw new PremotorError('REPLAY_MISSING', message, { file, expected: 'a replay record', found: 'nothing readable', cause });
  });
  const { frames, broken } = readFrames(bytes);
  return recordOf(file, frames, broken);
}

/** A record from what it was kept as, header first; `file` is its name in messages. Errors: REPLAY_DAMAGED. */
export function recordOf(file: string, frames: readonly Framed[], broken?: Break): ReplayRecord {
  const [first, ...rest] = frames;
  const header = headerSchema.safeParse(first?.kind === KINDS.header ? opened(first.payload, file) : undefined);
  if (!header.success || header.data.version !== RECORD_VERSION) {
    const found = header.success ? `version ${header.data.version}` : (broken?.found ?? 'another file');
    throw damagedRecord(file, `a replay record of version ${RECORD_VERSION}`, found);
  }
  const last = rest.at(-1);
  const isEnded = last?.kind === KINDS.end;
  const calls = (isEnded ? rest.slice(0, -1) : rest).map(({ kind, payload }, index) => {
    const call = callSchema.safeParse(kind === KINDS.call ? opened(payload, file) : undefined);
    if (!call.success) throw damagedRecord(file, `a call as record ${index + 1}`, `kind ${kind}`);
    return call.data;
  });
  const reason = isEnded && last ? (opened(last.payload, file) as { reason?: unknown }).reason : 'cut';
  const end = reason === 'closed' || reason === 'full' ? reason : 'cut';
  return { header: header.data, calls, end, ...(broken ? { broken } : {}) };
}

function opened(payload: Uint8Array, file: string): unknown {
  try {
    return unpack(inflateSync(payload, { maxOutputLength: CALL_BYTES_MAX }));
  } catch (cause) {
    throw damagedRecord(file, 'packed data', (cause as Error).message);
  }
}

function damagedRecord(file: string, expected: string, found: string): PremotorError {
  const message = `The replay record ${file} is damaged: expected ${expected}, found ${found}. Use an intact copy, or record the episode again.`;
  return new PremotorError('REPLAY_DAMAGED', message, { file, expected, found });
}

function unwritable(file: string, cause: unknown): PremotorError {
  const found = (cause as Error).message;
  const message = `The replay record ${file} cannot be written: expected a writable file, found ${found}. The episode goes on without it.`;
  return new PremotorError('REPLAY_WRITE', message, { file, expected: 'a writable file', found, cause });
}

function tooLong(file: string, maxBytes: number): PremotorError {
  const [expected, found] = [`at most ${maxBytes} bytes`, 'more'];
  const message = `The replay record ${file} is full: expected ${expected}, found ${found}. It ends here; the episode goes on.`;
  return new PremotorError('REPLAY_FULL', message, { file, expected, found });
}
