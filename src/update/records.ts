/**
 * What updates leave on the data partition: the newest version that was ever good (the high-water mark, below which nothing is installed), what is on
 * trial, and how each update ended. Small files, each replaced as a whole. Owned by the update commands; the service reads them for its status.
 */
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { type Disk, realDisk, replaceFile, textIn } from './disk.js';
import { compareVersions, isVersion } from './versions.js';

/** What is updated, each with versions of its own. */
export const UPDATE_KINDS = ['system', 'model', 'config'] as const;
export type UpdateKind = (typeof UPDATE_KINDS)[number];
/** Kinds that are folders on the data partition. */
export type ReleaseKind = Exclude<UpdateKind, 'system'>;

const version = z.string().refine(isVersion);

const systemTrial = z.object({
  /** A new system, or a deliberate way back. */
  way: z.enum(['install', 'rollback']),
  /** `writing` until the slot was activated. */
  phase: z.enum(['writing', 'activated']),
  version,
  slot: z.string(),
  fromSlot: z.string(),
  fromVersion: version.optional(),
  since: z.string(),
});
export type SystemTrial = Readonly<z.output<typeof systemTrial>>;

const releaseTrial = z.object({ to: version, from: version.optional(), since: z.string() });
export type ReleaseTrial = Readonly<z.output<typeof releaseTrial>>;

/** How an update ended. */
export const OUTCOMES = ['committed', 'unhealthy', 'fell-back', 'interrupted', 'refused', 'rolled-back'] as const;

const outcome = z.object({
  kind: z.enum(UPDATE_KINDS),
  outcome: z.enum(OUTCOMES),
  version,
  at: z.string(),
  /** Why, in words. */
  reasons: z.array(z.string()),
});
export type Outcome = Readonly<z.output<typeof outcome>>;

const recordSchema = z.object({
  highWater: z.object({ system: version.optional(), model: version.optional(), config: version.optional() }),
  /** Versions that were committed, by slot: where a rollback may go. */
  goodSlots: z.record(z.string(), version),
  systemTrial: systemTrial.optional(),
  model: z.object({ previous: version.optional(), committed: version.optional(), trial: releaseTrial.optional() }),
  config: z.object({ previous: version.optional(), committed: version.optional(), trial: releaseTrial.optional() }),
  /** The newest last. */
  outcomes: z.array(outcome),
});
export type UpdateRecord = z.output<typeof recordSchema>;

const FILE = 'record.json';
const OUTCOMES_MAX = 50;

const empty = (): UpdateRecord => ({ highWater: {}, goodSlots: {}, model: {}, config: {}, outcomes: [] });

/** Errors: UPDATE_RECORD. */
export async function readRecord(updateDir: string): Promise<UpdateRecord> {
  const file = join(updateDir, FILE);
  const text = await textIn(file);
  if (text === undefined) return empty();
  try {
    return recordSchema.parse(JSON.parse(text));
  } catch (cause) {
    const expected = 'a record that premotor update wrote';
    // Going on as if there were no mark would open the way back to every old version.
    const message = `${file} cannot be read: expected ${expected}. Nothing is installed. Restore it, or remove it to forget the high-water mark.`;
    throw new PremotorError('UPDATE_RECORD', message, { file, expected, found: (cause as Error).message.slice(0, 200), cause });
  }
}

/** Reads, changes, replaces. One process at a time: its caller holds the lock, or is a handler of the one that does. */
export async function changeRecord(updateDir: string, change: (record: UpdateRecord) => void, disk: Disk = realDisk): Promise<UpdateRecord> {
  const record = await readRecord(updateDir);
  change(record);
  record.outcomes = record.outcomes.slice(-OUTCOMES_MAX);
  await disk.folder(updateDir);
  await disk.sync(dirname(updateDir));
  await replaceFile(disk, join(updateDir, FILE), Buffer.from(`${JSON.stringify(record, null, 1)}\n`));
  return record;
}

/** Raises the mark of a kind; it never sinks. */
export function raiseHighWater(record: UpdateRecord, kind: UpdateKind, to: string): void {
  const mark = record.highWater[kind];
  if (mark === undefined || compareVersions(to, mark) > 0) record.highWater[kind] = to;
}

/** Errors: UPDATE_VERSION, UPDATE_OLDER. */
export function checkNotOlder(record: UpdateRecord, kind: UpdateKind, found: string): void {
  const mark = record.highWater[kind];
  if (mark === undefined || compareVersions(found, mark) >= 0) return;
  const expected = `${mark} or newer`;
  const message =
    `Version ${found} is older than ${mark}, which was good on this robot: expected ${expected}. ` +
    'Nothing was written. Give the fix a higher version, or go back to the one kept with the rollback command.';
  throw new PremotorError('UPDATE_OLDER', message, { field: kind, expected, found });
}

/** Appends how an update ended. */
export function tell(record: UpdateRecord, kind: UpdateKind, how: Outcome['outcome'], of: string, reasons: readonly string[] = []): void {
  record.outcomes.push({ kind, outcome: how, version: of, at: new Date().toISOString(), reasons: [...reasons] });
}
