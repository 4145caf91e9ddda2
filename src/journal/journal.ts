/**
 * The journal of an episode on disk: what was committed, so that the episode outlives the death of the engine process and of the supervisor. Owned by
 * the recovering policy, or by a resume. It writes in the background, one commit at a time, and is bounded: a full journal ends and says so. It never
 * decides whether to recover, and never gives a record that it did not write.
 */
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PremotorError } from '../errors.js';
import { DurableLog, syncFolder, writeDurably } from './durable.js';
import {
  commitRecord,
  damaged,
  endRecord,
  headerRecord,
  JOURNAL_VERSION,
  type JournalCommit,
  type JournalEnd,
  type JournalHeader,
  type ReadLog,
  readLog,
  readState,
  stateFile,
} from './format.js';

const LOG = 'log';
/** Room that is kept for the record that says why a journal ended. */
const END_BYTES_MAX = 1024;

export interface JournalLimits {
  /** Largest log. Default: 256 MiB. */
  readonly maxBytes?: number;
  /** Most commits. Default: 10 000. */
  readonly maxRecords?: number;
}
const MAX_BYTES = 256 * 2 ** 20;
const MAX_RECORDS = 10_000;
/** Journals that stay in a folder; older ones go when a new one is begun. */
const JOURNALS_KEPT = 4;

/** What is written at a commit: the record, and the states that belong to it. */
export interface JournalEntry {
  readonly commit: JournalCommit;
  /** EncoderState.data after it. */
  readonly encoder: Uint8Array;
  /** What the supervisor needs to go on from here; opaque. */
  readonly supervisor?: Uint8Array;
}

/** Everything up to the newest commit whose states are whole. */
export interface Past {
  readonly header: JournalHeader;
  readonly commits: readonly JournalCommit[];
  /** Undefined before the first commit. */
  readonly encoder?: Uint8Array;
  readonly supervisor?: Uint8Array;
  /** Commits in the log whose states are gone: they count as not made. */
  readonly dropped: number;
}

/** 'full': its bounds are reached; 'failed': the disk refused; 'ended': the episode is over. In none of them is anything recorded. */
export type JournalState = 'recording' | 'full' | 'failed' | 'ended';

export class Journal {
  readonly dir: string;
  readonly header: JournalHeader;
  readonly #log: DurableLog;
  readonly #maxBytes: number;
  readonly #maxRecords: number;
  readonly #warn: (error: PremotorError) => void;
  #commits: number;
  #state: JournalState = 'recording';
  #writing: Promise<void> = Promise.resolve();
  #isClosed = false;

  private constructor(dir: string, header: JournalHeader, log: DurableLog, commits: number, options: JournalLimits & JournalWarning) {
    this.dir = dir;
    this.header = header;
    this.#log = log;
    this.#commits = commits;
    this.#maxBytes = options.maxBytes ?? MAX_BYTES;
    this.#maxRecords = options.maxRecords ?? MAX_RECORDS;
    this.#warn = options.onWarning ?? ((): void => undefined);
  }

  /** A new journal in a folder of its own inside `parent`. Older ones beyond the newest few are deleted. Errors: JOURNAL_WRITE. */
  static async create(
    parent: string,
    about: Omit<JournalHeader, 'version' | 'created'>,
    options: JournalLimits & JournalWarning = {},
  ): Promise<Journal> {
    const header = { ...about, version: JOURNAL_VERSION, created: new Date().toISOString() };
    const dir = join(parent, await freeName(parent, header.created));
    try {
      await mkdir(dir, { recursive: true, mode: 0o700 });
      await syncFolder(parent);
      const log = await DurableLog.create(join(dir, LOG));
      await log.append(headerRecord(header));
      await prune(parent);
      return new Journal(dir, header, log, 0, options);
    } catch (cause) {
      throw unwritable(dir, cause);
    }
  }

  /**
   * Opens a journal to go on with it: what is torn at its end is cut off. Errors: RESUME_NOTHING, RESUME_FINISHED, JOURNAL_FULL, JOURNAL_DAMAGED,
   * JOURNAL_FOREIGN, JOURNAL_WRITE.
   */
  static async resume(dir: string, options: JournalLimits & JournalWarning = {}): Promise<{ readonly journal: Journal; readonly past: Past }> {
    const log = await logIn(dir);
    if (log.end) throw ended(dir, log.end);
    const past = await pastOf(dir, log);
    if (past.commits.length === 0) throw nothing(dir, 'one without a commit');
    try {
      const end = log.ends[past.commits.length] ?? 0;
      const handle = await DurableLog.reopen(join(dir, LOG), end);
      return { journal: new Journal(dir, past.header, handle, past.commits.length, options), past };
    } catch (cause) {
      throw unwritable(dir, cause);
    }
  }

  get state(): JournalState {
    return this.#state;
  }

  /** Commits that were given, written or about to be. */
  get commits(): number {
    return this.#commits;
  }

  /**
   * Begins to write a commit; `settled` says when it is safe. The one before must be settled. A journal that does not record any more does nothing.
   */
  append(entry: JournalEntry): void {
    if (this.#state !== 'recording') return;
    const number = this.#commits + 1;
    const record = commitRecord(entry.commit, number);
    if (number > this.#maxRecords || this.#log.bytes + record.length + END_BYTES_MAX > this.#maxBytes) {
      const limit = number > this.#maxRecords ? `${this.#maxRecords} commits` : `${this.#maxBytes} bytes`;
      this.#state = 'full';
      this.#warn(full(this.dir, limit));
      this.#writing = this.#guard(() => this.#log.append(endRecord({ reason: 'full', detail: limit }, number)));
      return;
    }
    this.#commits = number;
    this.#writing = this.#guard(() => this.#write(entry, record, number));
  }

  /** Resolves when everything given so far is on the disk, or could not be written. Never rejects. */
  settled(): Promise<void> {
    return this.#writing;
  }

  /** What the disk has, read back. Errors: JOURNAL_DAMAGED, JOURNAL_FULL, JOURNAL_WRITE when it stopped recording. */
  async read(): Promise<Past> {
    await this.#writing;
    const log = await logIn(this.dir);
    if (log.end?.reason === 'full') throw ended(this.dir, log.end);
    return pastOf(this.dir, log);
  }

  /** The episode is over: nothing is left to resume. */
  async end(detail: string): Promise<void> {
    await this.#writing;
    if (this.#state !== 'recording') return;
    this.#state = 'ended';
    this.#writing = this.#guard(() => this.#log.append(endRecord({ reason: 'done', detail }, this.#commits + 1)));
    await this.#writing;
  }

  /** Idempotent. The journal stays where it is and can be resumed, unless it was ended. */
  async close(): Promise<void> {
    await this.#writing;
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#state === 'recording') this.#state = 'ended';
    await this.#log.close();
  }

  /** States first: a commit in the log always finds its own, and the other file keeps those of the commit before. */
  async #write({ encoder, supervisor }: JournalEntry, record: Uint8Array, number: number): Promise<void> {
    const place = number % 2;
    await Promise.all([
      writeDurably(join(this.dir, `encoder-${place}`), stateFile(encoder, number)),
      ...(supervisor === undefined ? [] : [writeDurably(join(this.dir, `supervisor-${place}`), stateFile(supervisor, number))]),
    ]);
    // The names of new files must last as long as the record that relies on them.
    if (number <= 2) await syncFolder(this.dir);
    await this.#log.append(record);
  }

  /** A disk that refuses ends the journal, never the episode. A log that lags behind the world must not be taken for the whole story. */
  async #guard(write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (cause) {
      this.#state = 'failed';
      await rm(join(this.dir, LOG), { force: true }).catch(() => undefined);
      this.#warn(unwritable(this.dir, cause));
    }
  }
}

export interface JournalWarning {
  /** Told once, when the journal stops recording before the episode does. */
  readonly onWarning?: (error: PremotorError) => void;
}

/** Journals inside a folder, newest first. Names begin with the time of their creation. */
export async function journalsIn(parent: string): Promise<string[]> {
  const names = await readdir(parent).catch((): string[] => []);
  return names
    .filter((name) => /^\d{8}T\d{6}-\d{2}$/.test(name))
    .sort((a, b) => (a < b ? 1 : -1))
    .map((name) => join(parent, name));
}

/** The newest journal in a folder that was written for a configuration. Errors: RESUME_NOTHING. */
export async function newestJournal(parent: string, configuration: string): Promise<string> {
  const dirs = await journalsIn(parent);
  for (const dir of dirs) {
    const header = await logIn(dir).then(
      (log) => log.header,
      () => undefined,
    );
    // One that cannot be read is for whoever resumes it to complain about: an older one would go back in time unasked.
    if (header === undefined || header.configuration === configuration) return dir;
  }
  const found = dirs.length === 0 ? 'none' : `${dirs.length} of other configurations`;
  throw nothing(parent, found);
}

/** Compares a journal with the policy that is to go on with it. Errors: JOURNAL_FOREIGN. */
export function checkOwner(dir: string, header: JournalHeader, mine: Partial<JournalHeader>): void {
  for (const field of ['checkpoint', 'job', 'precision', 'configuration'] as const) {
    const [expected, found] = [mine[field], header[field]];
    if (expected === undefined || expected === found) continue;
    const message = `The journal ${dir} belongs to another ${field}: expected ${expected}, found ${found}. Resume with what it was recorded with.`;
    throw new PremotorError('JOURNAL_FOREIGN', message, { file: dir, field, expected, found });
  }
}

async function logIn(dir: string): Promise<ReadLog> {
  const file = join(dir, LOG);
  const bytes = await readFile(file).catch((): undefined => undefined);
  if (bytes === undefined) throw nothing(dir, 'no log');
  return readLog(bytes, file);
}

async function pastOf(dir: string, { header, commits, broken }: ReadLog): Promise<Past> {
  if (commits.length === 0) return { header, commits, dropped: 0 };
  const read = async (name: string) => readState(await readFile(join(dir, name)).catch((): undefined => undefined));
  for (let count = commits.length; count > 0; count--) {
    const [encoder, supervisor] = await Promise.all([read(`encoder-${count % 2}`), read(`supervisor-${count % 2}`)]);
    if (encoder?.commits !== count || (header.hasSupervisor && supervisor?.commits !== count)) continue;
    return {
      header,
      commits: commits.slice(0, count),
      encoder: encoder.data,
      ...(supervisor?.commits === count ? { supervisor: supervisor.data } : {}),
      dropped: commits.length - count,
    };
  }
  throw damaged(dir, broken ?? { atByte: 0, expected: `the states after commit ${commits.length}, or the one before`, found: 'neither whole' });
}

/** Sorts by time; a number tells those of one second apart. */
async function freeName(parent: string, created: string): Promise<string> {
  const stem = `${created.slice(0, 19).replace(/[-:]/g, '')}`;
  const taken = (await journalsIn(parent)).map((dir) => dir.slice(-18)).filter((name) => name.startsWith(stem));
  return `${stem}-${String(taken.length === 0 ? 0 : Math.max(...taken.map((name) => Number(name.slice(-2)))) + 1).padStart(2, '0')}`;
}

async function prune(parent: string): Promise<void> {
  for (const dir of (await journalsIn(parent)).slice(JOURNALS_KEPT)) await rm(dir, { recursive: true, force: true });
}

function nothing(where: string, found: string): PremotorError {
  const remedy = 'Run the episode without --resume.';
  const message = `There is nothing to resume in ${where}: expected a journal of this configuration, found ${found}. ${remedy}`;
  return new PremotorError('RESUME_NOTHING', message, { file: where, expected: 'a journal', found });
}

function ended(dir: string, { reason, detail }: JournalEnd): PremotorError {
  if (reason === 'full') return full(dir, detail);
  const message = `The episode of ${dir} is over: expected one that was interrupted, found it ${detail}. Run a new one, without --resume.`;
  return new PremotorError('RESUME_FINISHED', message, { file: dir, expected: 'an interrupted episode', found: detail });
}

function full(dir: string, limit: string): PremotorError {
  const remedy = 'The episode goes on, but cannot be resumed. Make episodes shorter.';
  const message = `The journal ${dir} is full: expected an episode of at most ${limit}, found a longer one. ${remedy}`;
  return new PremotorError('JOURNAL_FULL', message, { file: dir, expected: `at most ${limit}`, found: 'more' });
}

function unwritable(dir: string, cause: unknown): PremotorError {
  const found = (cause as Error).message;
  const remedy = 'The episode goes on, but cannot be resumed. Free the disk, or name another recording.journal_dir.';
  const message = `The journal ${dir} cannot be written: expected a writable folder, found ${found}. ${remedy}`;
  return new PremotorError('JOURNAL_WRITE', message, { file: dir, expected: 'a writable folder', found, cause });
}
