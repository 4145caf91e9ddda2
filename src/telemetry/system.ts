/**
 * The system that a robot runs: its slot, its version and the state of the newest update, from the kernel's command line, os-release and the file
 * that updates leave. Owned by the telemetry of a run; a computer without slots has none of them, and nothing is ever written.
 */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import type { MetricValue } from './payload.js';

export interface SystemFilesOfSlots {
  readonly commandLine: string;
  readonly release: string;
  /** What updates leave behind: docs/UPDATE.md. */
  readonly record: string;
}

const FILES: SystemFilesOfSlots = {
  commandLine: '/proc/cmdline',
  release: '/etc/os-release',
  record: '/var/lib/premotor/update/record.json',
};
const CHARACTERS_MAX = 65_536;
const word = z.string().min(1).max(128);
/** As much of the record of updates as is told. */
const recordSchema = z.object({
  goodSlots: z.record(word, word).default({}),
  systemTrial: z.object({ phase: word, version: word }).optional(),
  outcomes: z.array(z.object({ kind: word, outcome: word, version: word })).default([]),
});
type UpdateRecord = z.output<typeof recordSchema>;

async function contentOf(file: string): Promise<string> {
  try {
    return (await readFile(file, 'utf8')).slice(0, CHARACTERS_MAX);
  } catch {
    return '';
  }
}

function recordOf(text: string): UpdateRecord {
  try {
    return recordSchema.parse(JSON.parse(text));
  } catch {
    return { goodSlots: {}, outcomes: [] };
  }
}

/** The newest update of the system: one that is on its way or on trial, else how the last one ended. */
function newestOf({ systemTrial, outcomes }: UpdateRecord): { readonly state: string; readonly version: string } | undefined {
  if (systemTrial) return { state: systemTrial.phase === 'activated' ? 'trial' : systemTrial.phase, version: systemTrial.version };
  const last = outcomes.findLast(({ kind }) => kind === 'system');
  return last && { state: last.outcome, version: last.version };
}

/** Values by the names of metrics; null: this computer does not say. */
export async function readSystem(files: SystemFilesOfSlots = FILES): Promise<ReadonlyMap<string, MetricValue>> {
  const [commandLine, release, text] = await Promise.all([contentOf(files.commandLine), contentOf(files.release), contentOf(files.record)]);
  const record = recordOf(text);
  const newest = newestOf(record);
  const slot = /(?:^|\s)rauc\.slot=([A-Za-z0-9._-]{1,128})(?:\s|$)/.exec(commandLine)?.[1];
  const version = /^IMAGE_VERSION="?([^"\n]{1,128})"?$/m.exec(release)?.[1];
  const good = slot === undefined ? undefined : record.goodSlots[slot];
  return new Map<string, MetricValue>([
    ['Update/Slot', slot ?? null],
    ['Update/Version', version ?? good ?? null],
    ['Update/State', newest?.state ?? null],
    ['Update/Newest', newest?.version ?? null],
  ]);
}
