/**
 * What a soak looks at from outside: the processes below one, by /proc, with memory, handles and threads; bytes below folders; the hottest thermal
 * zone.
 * Owned by bench/soak.ts; it changes nothing, and a process or file that is gone meanwhile is left out.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessSample } from './soak-judge.js';

const BYTES_PER_MIB = 2 ** 20;

function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** Parents by their children; a name may hold spaces and brackets, so fields count from the last one. */
function parentsIn(proc: string): ReadonlyMap<number, number> {
  const parents = new Map<number, number>();
  for (const name of namesIn(proc)) {
    const stat = /^\d+$/.test(name) ? textOf(join(proc, name, 'stat')) : undefined;
    if (stat !== undefined) parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]));
  }
  return parents;
}

/** What a process is, by its command line. */
export function roleOf(commandLine: string, isRoot: boolean): string {
  if (isRoot) return 'supervisor';
  if (commandLine.includes('engine-process')) return 'engine';
  if (commandLine.includes('premotor-stream')) return 'stream';
  if (commandLine.includes('premotor-bridge')) return 'bridge';
  return 'other';
}

/** A process and everything below it. */
export function sampleProcesses(root: number, proc = '/proc'): readonly ProcessSample[] {
  const parents = parentsIn(proc);
  const isBelow = (pid: number): boolean => {
    let at: number | undefined = pid;
    for (let steps = 0; at !== undefined && steps < parents.size; steps++) {
      if (at === root) return true;
      at = parents.get(at);
    }
    return false;
  };
  return [...parents.keys()].filter(isBelow).flatMap((pid) => {
    const status = textOf(join(proc, String(pid), 'status'));
    const [, rss] = /^VmRSS:\s+(\d+) kB$/m.exec(status ?? '') ?? [];
    const [, peak = rss] = /^VmHWM:\s+(\d+) kB$/m.exec(status ?? '') ?? [];
    const [, threads] = /^Threads:\s+(\d+)$/m.exec(status ?? '') ?? [];
    if (rss === undefined) return [];
    const commandLine = (textOf(join(proc, String(pid), 'cmdline')) ?? '').replaceAll('\0', ' ');
    const fds = namesIn(join(proc, String(pid), 'fd')).length;
    return [
      { role: roleOf(commandLine, pid === root), pid, rssMiB: Number(rss) / 1024, peakMiB: Number(peak) / 1024, fds, threads: Number(threads ?? 0) },
    ];
  });
}

/** MiB of all files below a folder. */
export function mibBelow(folder: string): number {
  let bytes = 0;
  for (const entry of entriesBelow(folder)) bytes += statSync(entry, { throwIfNoEntry: false })?.size ?? 0;
  return bytes / BYTES_PER_MIB;
}

function entriesBelow(folder: string): readonly string[] {
  try {
    const found = readdirSync(folder, { recursive: true, withFileTypes: true });
    return found.filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name));
  } catch {
    return [];
  }
}

/** The hottest thermal zone, where there is one. */
export function temperatureC(thermal = '/sys/class/thermal'): number | null {
  const found = namesIn(thermal)
    .filter((name) => name.startsWith('thermal_zone'))
    .map((name) => Number(textOf(join(thermal, name, 'temp')) ?? Number.NaN) / 1000)
    .filter(Number.isFinite);
  return found.length === 0 ? null : Math.max(...found);
}
