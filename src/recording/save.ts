/**
 * Keeping what was recorded when somebody asks for it: of the episode that runs, by a signal to its process, or of the one that ended last, out of
 * the window that it left. Owned by the recorder; the command line asks.
 */
import { stat } from 'node:fs/promises';
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
export async function saveRecording(dir: string, budgetBytes: number, options: SaveOptions): Promise<SavedRecording> {
  const [expected, found] = ['the window of an episode that runs, or of the one that ended last', 'none'];
  const why = 'Another mode than window keeps none; a fault and mode full have left their recording already; room may have run out.';
  const message = `There is nothing to keep in ${dir}: expected ${expected}, found ${found}. ${why}`;
  const nothing = new PremotorError('RECORD_NOTHING', message, { file: dir, expected, found });
  // A folder that is made here would not be the recorder's.
  const about = await stat(dir).catch(() => undefined);
  if (about === undefined) throw nothing;
  const saved = await as(about, async () => savedIn(await RecordingFolder.open(dir, budgetBytes), options));
  if (saved === undefined) throw nothing;
  return saved;
}

/** Works as the folder's owner where root asks: the recorder must be able to do with what is made what it does with its own. */
async function as<T>({ uid, gid }: { readonly uid: number; readonly gid: number }, work: () => Promise<T>): Promise<T> {
  const { geteuid, setegid, seteuid } = process;
  if (geteuid?.() !== 0 || uid === 0 || setegid === undefined || seteuid === undefined) return work();
  setegid(gid);
  seteuid(uid);
  try {
    return await work();
  } finally {
    seteuid(0);
    setegid(0);
  }
}

async function savedIn(folder: RecordingFolder, options: SaveOptions): Promise<SavedRecording | undefined> {
  const [pid] = await folder.writers();
  if (pid !== undefined) return { path: await savedBy(pid, folder, options), of: 'running' };
  for (const ended of await folder.endedWindows()) {
    const path = await rescueWindow(folder, ended, `saved-${stampOf(new Date())}`);
    if (path !== undefined) return { path, of: 'ended' };
  }
  return undefined;
}

async function savedBy(pid: number, folder: RecordingFolder, { wait_ms, signal }: SaveOptions): Promise<string> {
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
  for (let waited_ms = 0; waited_ms < wait_ms; waited_ms += CHECK_PERIOD_MS) {
    if (signal.aborted) throw new PremotorError('ABORTED', 'Waiting was interrupted. The recording is kept all the same where its process can.');
    const path = names(await folder.recordings()).find((one) => !before.has(one));
    if (path !== undefined) return path;
    await pause(CHECK_PERIOD_MS);
  }
  throw refused(`no recording after ${wait_ms / 1000} s`, 'Look at its output: the disk may be full.');
}
