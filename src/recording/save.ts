/**
 * Keeping what was recorded when somebody asks for it: of the episode that runs, by a signal to its process, or of the one that ended last, out of
 * the window that it left. Owned by the recorder; the command line asks.
 */
import { chown, stat } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { PremotorError } from '../errors.js';
import { type RecordingFile, RecordingFolder } from './folder.js';
import { rescueWindow } from './storage.js';

/** Asks the process of an episode to keep its last seconds. */
export const SAVE_SIGNAL = 'SIGUSR2';
const CHECK_PERIOD_MS = 100;

let isOutlived = false;

/** From now on the signal never ends this process, which may be what moves a robot, even while nothing is recorded. */
export function outliveSaveSignal(): void {
  if (isOutlived) return;
  isOutlived = true;
  process.on(SAVE_SIGNAL, () => undefined);
}

/** For names of files: `20261130T101112Z`. */
export const stampOf = (time: Date): string => time.toISOString().replace(/[-:]|\.\d+/g, '');

export interface SavedRecording {
  readonly path: string;
  /** Of the episode that runs, or of one that has ended. */
  readonly of: 'running' | 'ended';
}

export interface SaveOptions {
  readonly wait_ms: number;
  readonly signal: AbortSignal;
}

/**
 * Makes a recording of the window in `dir`. Errors: RECORD_NOTHING where there is none, RECORD_SAVE when the process of the episode cannot be asked
 * or does not do it within `wait_ms`, RECORD_WRITE, RECORD_NO_ROOM.
 */
export async function saveRecording(
  dir: string,
  budgetBytes: number,
  { wait_ms, signal }: { wait_ms: number; signal: AbortSignal },
): Promise<SavedRecording> {
  const folder = await RecordingFolder.open(dir, budgetBytes);
  const [pid] = await folder.writers();
  if (pid !== undefined) return { path: await savedBy(pid, folder, wait_ms, signal), of: 'running' };
  for (const ended of await folder.endedWindows()) {
    const path = await rescueWindow(folder, ended, `saved-${stampOf(new Date())}`);
    if (path === undefined) continue;
    await giveTo(dir, path);
    return { path, of: 'ended' };
  }
  const [expected, found] = ['the window of an episode that runs, or of the one that ended last', 'none'];
  const why =
    'Another mode than window keeps none, a recording of a fault or of mode full is there already (premotor record info), and room may have run out.';
  throw new PremotorError('RECORD_NOTHING', `There is nothing to keep in ${dir}: expected ${expected}, found ${found}. ${why}`, {
    file: dir,
    expected,
    found,
  });
}

/** To whom the folder belongs: the recorder must be able to do with it what it does with its own. */
async function giveTo(dir: string, path: string): Promise<void> {
  if (process.getuid?.() !== 0) return;
  const { uid, gid } = await stat(dir);
  await chown(path, uid, gid);
}

async function savedBy(pid: number, folder: RecordingFolder, wait_ms: number, signal: AbortSignal): Promise<string> {
  const names = (files: readonly RecordingFile[]): string[] => files.map(({ path }) => path);
  const before = new Set(names(await folder.recordings()));
  const refused = (found: string, remedy: string): PremotorError => {
    const message = `The process of the episode does not keep its recording: expected process ${pid} to do it, found ${found}. ${remedy}`;
    return new PremotorError('RECORD_SAVE', message, { expected: `process ${pid} to do it`, found });
  };
  try {
    process.kill(pid, SAVE_SIGNAL);
  } catch (error) {
    throw refused((error as NodeJS.ErrnoException).code ?? String(error), 'Run this as root or as the user of that process.');
  }
  for (let waited_ms = 0; waited_ms < wait_ms && !signal.aborted; waited_ms += CHECK_PERIOD_MS) {
    const path = names(await folder.recordings()).find((one) => !before.has(one));
    if (path !== undefined) return path;
    await pause(CHECK_PERIOD_MS);
  }
  throw refused(`no recording after ${wait_ms / 1000} s`, 'Look at its output: the disk may be full.');
}
