/**
 * What of premotor runs on this machine for this user: one small file per process, so that `premotor stop` finds them. Owned by the processes
 * themselves; a file whose process is gone is swept away by whoever looks. It stops nothing itself.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';

const entrySchema = z.object({
  pid: z.int().positive(),
  /** The kernel's start time of the process, so that a number that was given again is not taken for it. */
  started: z.string(),
  kind: z.enum(['run', 'service', 'stream']),
  /** What a person would call it: the configuration's path, the robot's bus. */
  about: z.string(),
});

export type RunningProcess = Readonly<z.output<typeof entrySchema>>;

/** The folder of the files, for this user alone. */
export function registryFolder(): string {
  const set = process.env['PREMOTOR_RUNTIME_DIR'] ?? process.env['XDG_RUNTIME_DIR'];
  return set === undefined ? join(tmpdir(), `premotor-${process.getuid?.() ?? 0}`) : join(set, 'premotor');
}

/**
 * Field 22 of /proc/PID/stat; undefined when there is no such process. A name may hold spaces and brackets, so fields count from the last bracket.
 */
export function startOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

export function isRunning({ pid, started }: Pick<RunningProcess, 'pid' | 'started'>): boolean {
  return startOf(pid) === started;
}

/** Makes a process known; returns what makes it unknown again. One that cannot write the folder runs all the same, unknown. */
export function register(kind: RunningProcess['kind'], about: string, pid = process.pid): () => void {
  const folder = registryFolder();
  const file = join(folder, `${kind}-${pid}.json`);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    writeFileSync(file, JSON.stringify({ pid, started: startOf(pid) ?? '', kind, about }), { mode: 0o600 });
  } catch {
    return () => undefined;
  }
  return () => rmSync(file, { force: true });
}

/** Everything that runs, supervisors before stream processes; of another user when `folder` is that user's. */
export function running(folder = registryFolder()): RunningProcess[] {
  const found: RunningProcess[] = [];
  for (const name of listing(folder)) {
    const file = join(folder, name);
    const entry = parse(file);
    if (entry && isRunning(entry)) found.push(entry);
    else rmSync(file, { force: true });
  }
  return found.sort((a, b) => a.kind.localeCompare(b.kind) || a.pid - b.pid);
}

function listing(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => /^(run|service|stream)-\d+\.json$/.test(name));
  } catch {
    return [];
  }
}

function parse(file: string): RunningProcess | undefined {
  try {
    return entrySchema.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch {
    return undefined;
  }
}
