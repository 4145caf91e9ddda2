/**
 * The folder of the flight recorder: which files in it are recordings, which of them goes when the disk budget is spent, and what a process that died
 * has left there. Owned by the recorder. It removes recordings that are complete, the oldest first, and never a file that is not the recorder's.
 */
import { readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { PART } from './merge.js';

/** Names of whole recordings, and of files of which the rest was never written. */
const RECORDING = /^(full|fault|saved|rescued)-[A-Za-z0-9_.-]+\.mcap$/;
const WINDOW = /^window-[A-Za-z0-9_.-]+$/;
/** The window of the episode that ended last, until another ends or its room is needed. */
const ENDED = /^ended-[A-Za-z0-9_.-]+$/;
const OWNER_FILE = 'owner.json';

const ownerSchema = z.object({ pid: z.int().positive(), started: z.string(), boot: z.string() });

/** A chunk with its index, and a share of budgets that are smaller than that. */
const RESERVE_BYTES = 1024 * 1024;
const RESERVE_SHARE = 1 / 32;

export interface RecordingFile {
  readonly path: string;
  readonly bytes: number;
  readonly changedMs: number;
}

export class RecordingFolder {
  readonly dir: string;
  readonly bytesMax: number;
  readonly #writing = new Set<string>();

  private constructor(dir: string, bytesMax: number) {
    this.dir = dir;
    this.bytesMax = bytesMax;
  }

  /** Errors: those of the file system. */
  static async open(dir: string, bytesMax: number): Promise<RecordingFolder> {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    return new RecordingFolder(dir, bytesMax);
  }

  /** A free name for a recording. */
  async freePath(stem: string): Promise<string> {
    const taken = new Set(await readdir(this.dir));
    for (let number = 1; ; number++) {
      const name = `${stem}${number === 1 ? '' : `-${number}`}.mcap`;
      if (!taken.has(name) && !taken.has(`${name}${PART}`)) return join(this.dir, name);
    }
  }

  /** A file that must not be removed: it is being written, or read. Returns what ends that. */
  hold(path: string): () => void {
    this.#writing.add(path);
    return () => void this.#writing.delete(path);
  }

  /** Whole recordings, oldest first. */
  async recordings(): Promise<RecordingFile[]> {
    const found: RecordingFile[] = [];
    for (const name of await readdir(this.dir)) {
      if (!RECORDING.test(name)) continue;
      const path = join(this.dir, name);
      const about = await stat(path).catch(() => undefined);
      if (about?.isFile()) found.push({ path, bytes: about.size, changedMs: about.mtimeMs });
    }
    return found.sort((a, b) => a.changedMs - b.changedMs || a.path.localeCompare(b.path));
  }

  /** Everything of the recorder's in the folder, windows included. */
  async bytesUsed(): Promise<number> {
    let bytes = 0;
    for (const name of await readdir(this.dir)) {
      const path = join(this.dir, name);
      if (RECORDING.test(name) || RECORDING.test(name.replace(/\.part$/, ''))) bytes += (await stat(path).catch(() => undefined))?.size ?? 0;
      if (WINDOW.test(name) || ENDED.test(name)) bytes += await this.bytesIn(path);
    }
    return bytes;
  }

  /** The files of a window together. */
  async bytesIn(window: string): Promise<number> {
    let bytes = 0;
    for (const name of await readdir(window).catch(() => [])) bytes += (await stat(join(window, name)).catch(() => undefined))?.size ?? 0;
    return bytes;
  }

  /** What is kept free for the next chunk, which is written before anybody looks again. */
  get reserveBytes(): number {
    return Math.min(RESERVE_BYTES, this.bytesMax * RESERVE_SHARE);
  }

  /** Removes what nobody asked to keep, then the oldest recordings, until so many more bytes fit. False: they do not, even so. */
  async makeRoom(bytes: number): Promise<boolean> {
    let used = await this.bytesUsed();
    if (used + bytes <= this.bytesMax) return true;
    for (const ended of await this.endedWindows()) {
      used -= await this.bytesIn(ended);
      await rm(ended, { recursive: true, force: true });
      if (used + bytes <= this.bytesMax) return true;
    }
    for (const { path, bytes: size } of await this.recordings()) {
      if (this.#writing.has(path)) continue;
      await rm(path, { force: true });
      used -= size;
      if (used + bytes <= this.bytesMax) return true;
    }
    return false;
  }

  /** A new folder for the window of a run, which says whose it is. */
  async newWindow(id: string): Promise<string> {
    const dir = join(this.dir, `window-${id}-${process.pid}`);
    await rm(dir, { recursive: true, force: true });
    await mkdir(dir, { mode: 0o700 });
    await own(dir);
    return dir;
  }

  /** Windows of episodes that have ended. */
  async endedWindows(): Promise<string[]> {
    return (await readdir(this.dir)).filter((name) => ENDED.test(name)).map((name) => join(this.dir, name));
  }

  /** Keeps the window of an episode that has ended, in the place of the one before. */
  async keepEnded(window: string): Promise<void> {
    const before = await this.endedWindows();
    await rename(window, join(this.dir, basename(window).replace('window-', 'ended-')));
    await this.dropEnded(before);
  }

  /** Another episode has ended since. */
  async dropEnded(ended?: readonly string[]): Promise<void> {
    for (const window of ended ?? (await this.endedWindows())) await rm(window, { recursive: true, force: true });
  }

  /** The processes that write a window now. */
  async writers(): Promise<number[]> {
    const pids: number[] = [];
    for (const name of await readdir(this.dir)) {
      if (!WINDOW.test(name)) continue;
      const pid = await ownerOf(join(this.dir, name));
      if (pid !== undefined && pid !== process.pid) pids.push(pid);
    }
    return pids;
  }

  /** Makes a window of a dead process, or of an episode that has ended, this one's; undefined when another process was faster. */
  async claim(window: string): Promise<string | undefined> {
    const dir = join(this.dir, `${basename(window).replace('ended-', 'window-')}-${process.pid}`);
    try {
      await rename(window, dir);
      await own(dir);
      return dir;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  }

  /** Windows whose process is gone: it was killed, or the power was cut. */
  async leftWindows(): Promise<string[]> {
    const left: string[] = [];
    for (const name of (await readdir(this.dir)).sort()) {
      const path = join(this.dir, name);
      if (WINDOW.test(name) && (await ownerOf(path)) === undefined) left.push(path);
    }
    return left;
  }
}

/** The files of a window in the order in which they were written. */
export async function windowFiles(dir: string): Promise<string[]> {
  return (await readdir(dir))
    .filter((name) => /^\d{6}\.mcap$/.test(name))
    .sort()
    .map((name) => join(dir, name));
}

const own = (dir: string): Promise<void> =>
  writeFile(join(dir, OWNER_FILE), JSON.stringify({ pid: process.pid, started: startOf(process.pid), boot: bootId() }));

/** The process that writes a window; undefined when it is gone. */
async function ownerOf(dir: string): Promise<number | undefined> {
  const text = await readFile(join(dir, OWNER_FILE), 'utf8').catch(() => '{}');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const owner = ownerSchema.safeParse(value);
  return owner.success && owner.data.boot === bootId() && startOf(owner.data.pid) === owner.data.started ? owner.data.pid : undefined;
}

/** When the kernel started a process, so that a number that was given again is not taken for it; empty when there is none. */
function startOf(pid: number): string {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  } catch {
    return '';
  }
}

function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return '';
  }
}
