/**
 * Where messages go: the one file of a full recording, in parts that the disk budget can remove, or the ring of a window, which is saved as a whole
 * when something happens. Owned by the recorder; both keep what they wrote within the budget, and a disk that refuses ends them with an error that
 * they name and never throw.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PremotorError } from '../errors.js';
import { type RecordingFolder, windowFiles } from './folder.js';
import { McapReader } from './mcap-reader.js';
import { type ChannelAbout, McapWriter, type OpenFile } from './mcap-writer.js';
import { mergeRecordings, unwritable } from './merge.js';

/** Shares of the disk budget: parts of a full recording, the ring, and what is kept of a run from its beginning. */
const PART_SHARE = 1 / 8;
const RING_SHARE = 3 / 8;
const HEAD_SHARE = 1 / 8;
/** Pieces of a window: the oldest goes as a whole. */
const PIECES = 12;
const PIECE_S_MIN = 1;
/** What is being put together, inside the window's folder: it goes with it when the process dies. */
const MERGING = 'merging';

export interface StorageOptions {
  readonly folder: RecordingFolder;
  readonly id: string;
  /** The same in every file: a channel's number is its place. */
  readonly channels: readonly ChannelAbout[];
  readonly metadata: Readonly<Record<string, string>>;
  /** The first message of every recording: what the run is. */
  readonly opening: { readonly channel: number; readonly logTimeNs: bigint; readonly data: Uint8Array };
  readonly openFile?: OpenFile;
}

/** What was saved, and the time that it covers. */
export interface Saved {
  readonly path: string;
  readonly seconds: number;
  readonly messages: bigint;
}

export interface Storage {
  /** Bytes that wait for a chunk to be cut, and for the disk. */
  readonly pendingBytes: number;
  readonly backlogBytes: number;
  readonly bytesWritten: number;
  /** Why nothing is recorded any more. */
  readonly error: PremotorError | undefined;
  add(channel: number, logTimeNs: bigint, data: Uint8Array): void;
  /** The same for what a recording needs from the beginning of the run. False: there is no room for more of it. */
  addHead(channel: number, logTimeNs: bigint, data: Uint8Array): boolean;
  /** Cuts a chunk and waits until the disk has it. Never rejects. */
  flush(): Promise<void>;
  /** Keeps what there is under a name; undefined where everything is kept anyhow. Errors: RECORD_WRITE, RECORD_NO_ROOM. */
  save(stem: string): Promise<Saved | undefined>;
  /** Idempotent, never rejects. Gives the files that stay. `isEpisode`: it has been one, which takes the place of the one that ended before. */
  close(isEpisode?: boolean): Promise<readonly string[]>;
}

/** `openingNs`: when the opening message is logged, where there is one. */
async function newFile(path: string, { channels, metadata, opening, openFile }: StorageOptions, openingNs?: bigint): Promise<McapWriter> {
  const writer = await McapWriter.create(path, openFile);
  for (const channel of channels) writer.channel(channel);
  writer.metadata('premotor', metadata);
  if (openingNs !== undefined) writer.add(opening.channel, openingNs, opening.data, opening.logTimeNs);
  return writer;
}

/** Everything, in files of one after another. */
export class FullStorage implements Storage {
  readonly #options: StorageOptions;
  readonly #parts: string[] = [];
  #writer: McapWriter;
  #release: () => void;
  #writtenBefore = 0;
  #error: PremotorError | undefined;
  #flushing: Promise<void> = Promise.resolve();

  private constructor(options: StorageOptions, writer: McapWriter) {
    this.#options = options;
    this.#writer = writer;
    this.#parts.push(writer.path);
    this.#release = options.folder.hold(writer.path);
  }

  /** Errors: RECORD_WRITE. */
  static async open(options: StorageOptions): Promise<FullStorage> {
    const path = partPath(options, 1);
    try {
      return new FullStorage(options, await newFile(path, options, options.opening.logTimeNs));
    } catch (cause) {
      throw unwritable(path, cause);
    }
  }

  get pendingBytes(): number {
    return this.#writer.pendingBytes;
  }
  get backlogBytes(): number {
    return this.#writer.backlogBytes;
  }
  get bytesWritten(): number {
    return this.#writtenBefore + this.#writer.bytesWritten;
  }
  get error(): PremotorError | undefined {
    return this.#error;
  }

  add(channel: number, logTimeNs: bigint, data: Uint8Array): void {
    if (this.#error === undefined) this.#writer.add(channel, logTimeNs, data);
  }

  addHead(channel: number, logTimeNs: bigint, data: Uint8Array): boolean {
    this.add(channel, logTimeNs, data);
    return true;
  }

  flush(): Promise<void> {
    // The chunk is cut now; what follows on the disk is done one after another.
    const writing = this.#error === undefined ? this.#writer.flush() : Promise.resolve();
    this.#flushing = this.#flushing.then(() => writing).then(() => this.#afterFlush());
    return this.#flushing;
  }

  async save(): Promise<undefined> {
    await this.flush();
    return undefined;
  }

  async close(isEpisode = false): Promise<readonly string[]> {
    await this.#flushing;
    await this.#writer.close();
    this.#release();
    if (isEpisode) await this.#options.folder.dropEnded().catch(() => undefined);
    if (this.#writer.error) this.#error ??= unwritable(this.#writer.path, this.#writer.error);
    return this.#parts;
  }

  async #afterFlush(): Promise<void> {
    if (this.#error !== undefined) return;
    const { folder } = this.#options;
    try {
      if (this.#writer.error) throw this.#writer.error;
      // A part that is complete is the oldest recording one day.
      if (this.#writer.bytes >= folder.bytesMax * PART_SHARE) await this.#nextPart();
      await folder.makeRoom(folder.reserveBytes);
    } catch (cause) {
      this.#error = unwritable(this.#writer.path, cause);
    }
  }

  async #nextPart(): Promise<void> {
    const next = await newFile(partPath(this.#options, this.#parts.length + 1), this.#options, this.#writer.timesNs.end);
    const before = this.#writer;
    this.#release();
    this.#release = this.#options.folder.hold(next.path);
    this.#parts.push(next.path);
    this.#writer = next;
    await before.close();
    this.#writtenBefore += before.bytesWritten;
    if (before.error) throw before.error;
  }
}

const partPath = ({ folder, id }: StorageOptions, part: number): string => join(folder.dir, `full-${id}-${String(part).padStart(3, '0')}.mcap`);

interface Piece {
  readonly path: string;
  readonly bytes: number;
  readonly startNs: bigint;
  readonly endNs: bigint;
}

export interface WindowOptions extends StorageOptions {
  readonly windowS: number;
}

/** The last seconds, in short files of which the oldest is removed; and a file that begins with the run and is kept. */
export class WindowStorage implements Storage {
  readonly #options: WindowOptions;
  readonly #dir: string;
  readonly #head: McapWriter;
  #writer: McapWriter;
  #pieces: Piece[] = [];
  #count = 1;
  #newestNs = 0n;
  #savedNs = 0n;
  #writtenBefore = 0;
  #error: PremotorError | undefined;
  #work: Promise<void> = Promise.resolve();
  #isClosed = false;

  private constructor(options: WindowOptions, dir: string, head: McapWriter, writer: McapWriter) {
    this.#options = options;
    this.#dir = dir;
    this.#head = head;
    this.#writer = writer;
  }

  /** Errors: RECORD_WRITE. */
  static async open(options: WindowOptions): Promise<WindowStorage> {
    try {
      const dir = await options.folder.newWindow(options.id);
      const head = await newFile(join(dir, pieceName(0)), options, options.opening.logTimeNs);
      return new WindowStorage(options, dir, head, await newFile(join(dir, pieceName(1)), options));
    } catch (cause) {
      throw unwritable(options.folder.dir, cause);
    }
  }

  get pendingBytes(): number {
    return this.#writer.pendingBytes + this.#head.pendingBytes;
  }
  get backlogBytes(): number {
    return this.#writer.backlogBytes + this.#head.backlogBytes;
  }
  get bytesWritten(): number {
    return this.#writtenBefore + this.#writer.bytesWritten + this.#head.bytesWritten;
  }
  get error(): PremotorError | undefined {
    return this.#error;
  }

  add(channel: number, logTimeNs: bigint, data: Uint8Array): void {
    if (this.#error !== undefined) return;
    this.#writer.add(channel, logTimeNs, data);
    if (logTimeNs > this.#newestNs) this.#newestNs = logTimeNs;
  }

  addHead(channel: number, logTimeNs: bigint, data: Uint8Array): boolean {
    if (this.#head.bytes + data.length > this.#options.folder.bytesMax * HEAD_SHARE) return false;
    if (this.#error === undefined) this.#head.add(channel, logTimeNs, data);
    return true;
  }

  flush(): Promise<void> {
    const writing = this.#error === undefined ? Promise.all([this.#head.flush(), this.#writer.flush()]) : Promise.resolve();
    return this.#then(async () => {
      await writing;
      if (this.#error !== undefined || this.#isClosed) return;
      const error = this.#head.error ?? this.#writer.error;
      if (error) throw error;
      await this.#turn(false);
    });
  }

  async save(stem: string): Promise<Saved | undefined> {
    await this.flush();
    let saved: Saved | undefined;
    let failure: unknown;
    await this.#then(async () => {
      if (this.#error !== undefined) return;
      await this.#turn(true);
      saved = await this.#merge(stem).catch((error: unknown) => {
        failure = error;
        return undefined;
      });
      if (saved !== undefined) this.#savedNs = this.#newestNs;
    });
    if (failure !== undefined) throw failure;
    return saved;
  }

  async close(isEpisode = false): Promise<readonly string[]> {
    if (this.#isClosed) return [];
    this.#isClosed = true;
    await this.#work;
    await this.#head.close();
    await this.#writer.close();
    // What a fault has saved is there already; of an episode that went well somebody may still want to see what it thought.
    const isUnsaved = this.#error === undefined && this.#newestNs !== this.#savedNs;
    const { folder } = this.#options;
    if (isEpisode && isUnsaved) await folder.keepEnded(this.#dir).catch(() => undefined);
    else if (isEpisode) await folder.dropEnded().catch(() => undefined);
    await rm(this.#dir, { recursive: true, force: true }).catch(() => undefined);
    return [];
  }

  /** One after another; the first that fails ends the recording. */
  #then(work: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(work).catch((cause: unknown) => {
      this.#error ??= unwritable(this.#writer.path, cause);
    });
    return this.#work;
  }

  /** Goes on with another piece when this one is long enough, or at once, and removes what has left the window. */
  async #turn(now: boolean): Promise<void> {
    const { folder, windowS } = this.#options;
    const { start, end } = this.#writer.timesNs;
    const pieceS = Math.max(PIECE_S_MIN, windowS / PIECES);
    const ringBytes = folder.bytesMax * RING_SHARE;
    const isLong = end - start >= seconds(pieceS) || this.#writer.bytes >= ringBytes / PIECES;
    if (this.#writer.messageCount > 0n && (now || isLong)) await this.#nextPiece();
    const oldestNs = this.#newestNs - seconds(windowS);
    const total = (): number => this.#pieces.reduce((sum, { bytes }) => sum + bytes, this.#writer.bytes);
    for (let first = this.#pieces[0]; first && (first.endNs < oldestNs || total() > ringBytes); first = this.#pieces[0]) {
      this.#pieces.shift();
      await rm(first.path, { force: true });
    }
    await folder.makeRoom(folder.reserveBytes);
  }

  async #nextPiece(): Promise<void> {
    const before = this.#writer;
    this.#writer = await newFile(join(this.#dir, pieceName(++this.#count)), this.#options);
    await before.close();
    this.#writtenBefore += before.bytesWritten;
    if (before.error) throw before.error;
    const { start: startNs, end: endNs } = before.timesNs;
    this.#pieces.push({ path: before.path, bytes: before.bytes, startNs, endNs });
  }

  async #merge(stem: string): Promise<Saved | undefined> {
    const { folder, windowS, openFile } = this.#options;
    const first = this.#pieces[0];
    if (first === undefined) return undefined;
    const windowNs = this.#newestNs - seconds(windowS);
    const sinceNs = first.startNs > windowNs ? first.startNs : windowNs;
    const bytes = this.#pieces.reduce((sum, piece) => sum + piece.bytes, this.#head.bytes);
    if (!(await folder.makeRoom(bytes))) throw noRoom(folder, bytes);
    const files = [{ file: this.#head.path, notBeforeNs: sinceNs }, ...this.#pieces.map(({ path }) => ({ file: path, sinceNs }))];
    const path = await folder.freePath(stem);
    const { messages } = await mergeRecordings(files, path, { part: join(this.#dir, MERGING), ...(openFile ? { openFile } : {}) });
    return { path, messages, seconds: Number(this.#newestNs - sinceNs) / 1e9 };
  }
}

/**
 * What a process that died had recorded, or the window of an episode that has ended, becomes a recording; undefined when there was nothing in it, or
 * when another process was faster. Errors: RECORD_WRITE, RECORD_NO_ROOM; nothing is lost then.
 */
export async function rescueWindow(folder: RecordingFolder, left: string, stem: string): Promise<string | undefined> {
  const dir = await folder.claim(left);
  // Another process was faster.
  if (dir === undefined) return undefined;
  const files = await windowFiles(dir);
  const bytes = await folder.bytesIn(dir);
  const startNs = await firstTime(files.slice(1));
  let path: string | undefined;
  if (startNs !== undefined) {
    if (!(await folder.makeRoom(bytes))) throw noRoom(folder, bytes);
    path = await folder.freePath(stem);
    const sources = files.map((file, at) => ({ file, ...(at === 0 ? { notBeforeNs: startNs } : {}) }));
    await mergeRecordings(sources, path, { part: join(dir, MERGING), skipsUnreadable: true });
  }
  await rm(dir, { recursive: true, force: true });
  return path;
}

/** Of the first message that can be read. */
async function firstTime(files: readonly string[]): Promise<bigint | undefined> {
  for (const file of files) {
    const reader = await McapReader.open(file).catch(() => undefined);
    try {
      for await (const { logTimeNs } of reader?.messages() ?? []) return logTimeNs;
    } finally {
      await reader?.close();
    }
  }
  return undefined;
}

function noRoom({ dir, bytesMax }: RecordingFolder, bytes: number): PremotorError {
  const mib = (value: number): string => `${(value / 2 ** 20).toFixed(1)} MiB`;
  const [expected, found] = [
    `room for ${mib(bytes)} within the ${mib(bytesMax)} of recorder.disk_max_mib`,
    'less, with every older recording removed',
  ];
  const message = `The recording cannot be saved in ${dir}: expected ${expected}, found ${found}. Raise the budget, or shorten window_s.`;
  return new PremotorError('RECORD_NO_ROOM', message, { file: dir, expected, found });
}

const seconds = (value: number): bigint => BigInt(Math.round(value * 1e9));
/** Piece 0 is what is kept from the beginning of the run. */
const pieceName = (number: number): string => `${String(number).padStart(6, '0')}.mcap`;
