/**
 * One update at a time: a file with the process that updates, which counts only while that process lives. Owned by the update commands; released
 * in any
 * case, and after a power cut by nobody's being there.
 */
import { link, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PremotorError } from '../errors.js';
import { isRunning, startOf } from '../runtime/registry.js';
import { textIn } from './disk.js';

const FILE = 'lock.json';

interface Holder {
  readonly pid: number;
  readonly started: string;
}

/** Errors: UPDATE_BUSY, and what `work` rejects with. */
export async function withLock<T>(updateDir: string, work: () => Promise<T>): Promise<T> {
  const file = join(updateDir, FILE);
  await mkdir(updateDir, { recursive: true });
  await take(file, true);
  try {
    return await work();
  } finally {
    await rm(file, { force: true });
  }
}

/** The file appears with its content, so that nobody finds an unfinished one. */
async function take(file: string, again: boolean): Promise<void> {
  const mine = `${file}.${process.pid}`;
  try {
    await writeFile(mine, JSON.stringify({ pid: process.pid, started: startOf(process.pid) ?? '' } satisfies Holder), { mode: 0o600 });
    await link(mine, file);
    return;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    await rm(mine, { force: true });
  }
  const holder = parse(await textIn(file));
  if (!again || (holder !== undefined && isRunning(holder))) throw busy(holder?.pid ?? 0);
  // Left by a process that is no more.
  await rm(file, { force: true });
  await take(file, false);
}

function parse(text: string | undefined): Holder | undefined {
  try {
    const value = JSON.parse(text ?? '') as Partial<Holder>;
    return typeof value.pid === 'number' && typeof value.started === 'string' ? { pid: value.pid, started: value.started } : undefined;
  } catch {
    return undefined;
  }
}

function busy(pid: number): PremotorError {
  const found = `process ${pid} is updating`;
  return new PremotorError('UPDATE_BUSY', `Another update is at work: expected none, found ${found}. Wait for it to end.`, {
    expected: 'none',
    found,
  });
}
