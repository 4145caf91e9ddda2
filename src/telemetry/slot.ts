/**
 * Which process uses which folder of a queue: the first that no living process holds. Owned by DiskQueue; it looks at lock files and at /proc, and
 * never takes a folder from a process that lives.
 */
import { link, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { PremotorError } from '../errors.js';

const SLOTS_MAX = 16;
const LOCK = 'lock';
const ownerSchema = z.object({ pid: z.int().positive(), started: z.string() });

export interface Lock {
  release(): Promise<void>;
}

/** The kernel's start time of a process, so that a number that was given again is not taken for it; undefined: it is gone. */
async function startOf(pid: number): Promise<string | undefined> {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

/** Folders that this process holds: two queues of one process are two, too. */
const held = new Set<string>();

/** By another process that lives. */
async function isTaken(file: string): Promise<boolean> {
  try {
    const { pid, started } = ownerSchema.parse(JSON.parse(await readFile(file, 'utf8')));
    return pid !== process.pid && (await startOf(pid)) === started;
  } catch {
    // None, or nonsense: a lock appears whole or not at all.
    return false;
  }
}

async function take(dir: string): Promise<Lock | undefined> {
  const file = join(dir, LOCK);
  if (held.has(file)) return undefined;
  held.add(file);
  const own = `${file}.${process.pid}`;
  try {
    if (!(await isTaken(file))) {
      await rm(file, { force: true });
      await writeFile(own, JSON.stringify({ pid: process.pid, started: (await startOf(process.pid)) ?? '' }));
      await link(own, file);
      await rm(own);
      return { release: () => release(file) };
    }
    held.delete(file);
    return undefined;
  } catch (error) {
    held.delete(file);
    await rm(own, { force: true });
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return undefined;
    throw error;
  }
}

async function release(file: string): Promise<void> {
  await rm(file, { force: true });
  held.delete(file);
}

/** Errors: TELEMETRY_QUEUE. */
export async function takeSlot(folder: string): Promise<{ readonly dir: string; readonly lock: Lock }> {
  let found = `${SLOTS_MAX} processes that use it`;
  let cause: unknown;
  try {
    for (let slot = 0; slot < SLOTS_MAX; slot++) {
      const dir = join(folder, `slot-${slot}`);
      await mkdir(dir, { recursive: true });
      const lock = await take(dir);
      if (lock) return { dir, lock };
    }
  } catch (error) {
    cause = error;
    found = (error as Error).message;
  }
  const message = 'The folder for samples that wait for the broker cannot be used. Check its rights, or name another telemetry.queue_dir.';
  throw new PremotorError('TELEMETRY_QUEUE', message, { file: folder, expected: 'a folder to write', found, ...(cause ? { cause } : {}) });
}
