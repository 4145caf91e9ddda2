/**
 * Puts a model or a configuration into use: unpacked beside the current one, checked, pointed at in one step, on trial until the service is well with
 * it, else taken back. Owned by the command line; it writes only below the data partition's folder of its kind and the record.
 */
import { statfs } from 'node:fs/promises';
import { PremotorError } from '../errors.js';
import { verifyDetached } from './authority.js';
import { type Disk, realDisk } from './disk.js';
import { type Health, unwell } from './health.js';
import { withLock } from './lock.js';
import type { Places } from './places.js';
import { changeRecord, checkNotOlder, type ReleaseKind, raiseHighWater, readRecord, tell, type UpdateRecord } from './records.js';
import { manifestBytes, type ReleaseManifest, unpackRelease } from './release-file.js';
import { Releases } from './releases.js';
import { keepStill, type Quiet, serviceStatus } from './service.js';

/** Stays free for recordings, the queue and the journal. */
const FREE_BYTES_MIN = 64 << 20;
export const RELEASES_KEPT = 3;

/** What an installation needs from outside. */
export interface ReleaseParts {
  readonly places: Places;
  readonly disk?: Disk;
  /** Judges unpacked content. Rejects with what is wrong. */
  readonly check: (kind: ReleaseKind, folder: string) => Promise<void>;
  /** Starts the service again, so that it reads what is current now. */
  readonly restart: () => Promise<void>;
  readonly health: () => Promise<Health>;
  readonly keep: number;
  readonly onBytes?: (done: number, total: number) => void;
  readonly freeBytes?: (folder: string) => Promise<number>;
  readonly verify?: typeof verifyDetached;
}

/** How it ended well: `trial` where no service ran that could say. */
export interface Installed {
  readonly version: string;
  readonly state: 'committed' | 'trial' | 'unchanged';
  readonly previous: string | undefined;
  readonly remarks: readonly string[];
  readonly removed: readonly string[];
}

/** Installs a release file. Errors: UPDATE_*, DISK_FULL, and those of `check`. */
export function installRelease(kind: ReleaseKind, file: string, parts: ReleaseParts): Promise<Installed> {
  const { places, disk = realDisk } = parts;
  return withLock(places.updateDir, async () => {
    const record = await settleTrial(kind, places, disk);
    const releases = new Releases(places, kind, disk);
    const quiet = await keepStill(places);
    try {
      const manifest = await stage(kind, file, parts, { record, releases });
      if (manifest === undefined) return unchanged((await releases.current()) ?? '', record[kind].previous, quiet);
      // A version that was never good is no way back: on top of a trial, the one before it stays the way back.
      const from = record[kind].trial?.from ?? (await releases.current());
      return await tryOut(kind, { to: manifest.version, from }, parts, quiet);
    } finally {
      await quiet.release();
    }
  });
}

const unchanged = (version: string, previous: string | undefined, { remark }: Quiet): Installed => ({
  version,
  state: 'unchanged',
  previous,
  remarks: remark === undefined ? [] : [remark],
  removed: [],
});

/** Unpacks, checks and names a release. Undefined when it is the current one already. */
async function stage(
  kind: ReleaseKind,
  file: string,
  { places, disk = realDisk, check, onBytes, freeBytes = freeBytesOf, verify = verifyDetached }: ReleaseParts,
  { record, releases }: { readonly record: UpdateRecord; readonly releases: Releases },
): Promise<ReleaseManifest | undefined> {
  const current = await releases.current();
  const into = await releases.incoming();
  let same = false;
  const admit = async (manifest: ReleaseManifest): Promise<void> => {
    if (manifest.kind !== kind) throw wrongKind(file, kind, manifest.kind);
    checkNotOlder(record, kind, manifest.version);
    same = manifest.version === current;
    if (same) throw new SameRelease();
    const [needed, free] = [manifestBytes(manifest) + FREE_BYTES_MIN, await freeBytes(into)];
    if (free < needed) throw diskFull(into, needed, free);
  };
  try {
    const progress = onBytes === undefined ? {} : { onBytes };
    const manifest = await unpackRelease({ file, keyring: places.keyring, disk, into, admit, verify, ...progress });
    await check(kind, into);
    await releases.adopt(manifest.version);
    return manifest;
  } catch (error) {
    await releases.discard();
    if (error instanceof SameRelease) return undefined;
    throw error;
  }
}

/** Ends unpacking early: what the file holds is current. */
class SameRelease extends Error {}

interface Change {
  readonly to: string | undefined;
  readonly from: string | undefined;
}

/** Points at a release that is there, and waits for the service's word. Errors: UPDATE_UNHEALTHY. */
async function tryOut(kind: ReleaseKind, { to, from }: Change & { readonly to: string }, parts: ReleaseParts, quiet: Quiet): Promise<Installed> {
  const { places, disk = realDisk, restart, health, keep } = parts;
  const releases = new Releases(places, kind, disk);
  // The record comes first: what is current without being on trial has been found good.
  const trial = { to, since: new Date().toISOString(), ...(from === undefined ? {} : { from }) };
  await changeRecord(places.updateDir, (record) => void (record[kind].trial = trial), disk);
  await releases.point(to);
  if ((await serviceStatus(places)) === undefined) {
    const how = 'It is on trial until premotor update confirm finds the service well with it.';
    return { version: to, state: 'trial', previous: from, remarks: [quiet.remark ?? 'The service ended meanwhile.', how], removed: [] };
  }
  const found = await restart().then(
    health,
    (error: Error): Health => ({
      ok: false,
      findings: [{ check: 'service', ok: false, found: error.message }],
    }),
  );
  if (!found.ok) {
    await takeBack(kind, unwell(found), parts);
    throw unhealthy(kind, to, from, unwell(found));
  }
  return commitRelease(kind, places, keep, disk);
}

/** What is on trial is good. Idempotent. */
export async function commitRelease(kind: ReleaseKind, places: Places, keep: number, disk: Disk = realDisk): Promise<Installed> {
  const record = await changeRecord(
    places.updateDir,
    (record) => {
      const { trial, committed, previous } = record[kind];
      if (trial === undefined) return;
      raiseHighWater(record, kind, trial.to);
      tell(record, kind, 'committed', trial.to);
      // What was never found good is no way back.
      const isWayBack = trial.from !== undefined && trial.from !== trial.to && [committed, previous].includes(trial.from);
      record[kind] = { committed: trial.to, ...(isWayBack ? { previous: trial.from } : {}) };
    },
    disk,
  );
  const { committed, previous } = record[kind];
  const removed = await new Releases(places, kind, disk).prune(keep, [committed, previous]);
  return { version: committed ?? '', state: 'committed', previous, remarks: [], removed };
}

/** What was on trial is not good: the one before is current again, and the service starts with it. */
export async function takeBack(
  kind: ReleaseKind,
  reasons: readonly string[],
  parts: Pick<ReleaseParts, 'places' | 'disk' | 'restart'>,
): Promise<void> {
  const { places, disk = realDisk, restart } = parts;
  const { trial } = (await readRecord(places.updateDir))[kind];
  if (trial === undefined) return;
  await new Releases(places, kind, disk).point(trial.from);
  await changeRecord(
    places.updateDir,
    (record) => {
      delete record[kind].trial;
      tell(record, kind, 'unhealthy', trial.to, reasons);
    },
    disk,
  );
  // A service that cannot start with the old one either says so itself.
  await restart().catch(() => undefined);
}

/** A power cut between the record and the step leaves a trial of what is not current: that update never happened. */
export async function settleTrial(kind: ReleaseKind, places: Places, disk: Disk = realDisk): Promise<UpdateRecord> {
  const record = await readRecord(places.updateDir);
  const { trial } = record[kind];
  if (trial === undefined || (await new Releases(places, kind).current()) === trial.to) return record;
  return changeRecord(
    places.updateDir,
    (record) => {
      delete record[kind].trial;
      tell(record, kind, 'interrupted', trial.to);
    },
    disk,
  );
}

/** Goes back to the release before. Errors: UPDATE_NOTHING, UPDATE_ROBOT_ACTIVE, UPDATE_SERVICE_UNREACHABLE, UPDATE_UNHEALTHY. */
export function rollBackRelease(kind: ReleaseKind, parts: ReleaseParts): Promise<Installed> {
  const { places, disk = realDisk } = parts;
  return withLock(places.updateDir, async () => {
    const record = await settleTrial(kind, places, disk);
    const releases = new Releases(places, kind, disk);
    const current = await releases.current();
    const to = record[kind].trial?.from ?? record[kind].previous;
    if (to === undefined || to === current || !(await releases.has(to))) throw nothing(kind, current);
    const quiet = await keepStill(places);
    try {
      const done = await tryOut(kind, { to, from: current }, parts, quiet);
      await changeRecord(places.updateDir, (now) => tell(now, kind, 'rolled-back', current ?? to, [`back to ${to}`]), disk);
      return done;
    } finally {
      await quiet.release();
    }
  });
}

async function freeBytesOf(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize;
}

export function diskFull(file: string, needed: number, free: number): PremotorError {
  const [expected, found] = [`${needed} bytes free`, `${free}`];
  const message =
    `There is too little room for the update at ${file}: expected ${expected}, found ${found}. Nothing was changed. Remove ` +
    `recordings and try again.`;
  return new PremotorError('DISK_FULL', message, { file, expected, found });
}

function wrongKind(file: string, expected: string, found: string): PremotorError {
  const message = `${file} is of another kind: expected a ${expected}, found a ${found}. Nothing was written. Use premotor update ${found} install.`;
  return new PremotorError('UPDATE_KIND', message, { file, expected, found });
}

export function nothing(kind: string, current: string | undefined): PremotorError {
  const [expected, found] = ['one that was good before', current === undefined ? 'none' : `only ${current}`];
  const message = `There is no ${kind} to go back to: expected ${expected}, found ${found}. Install a version instead.`;
  return new PremotorError('UPDATE_NOTHING', message, { expected, found });
}

function unhealthy(kind: ReleaseKind, to: string, from: string | undefined, reasons: readonly string[]): PremotorError {
  const [expected, found] = ['the service to get ready', reasons.join('; ')];
  const now = from === undefined ? 'there is none now, as before' : `${from} is current again`;
  const message = `The ${kind} ${to} was tried and taken back: expected ${expected}, found ${found}. ${now[0]?.toUpperCase()}${now.slice(1)}.`;
  return new PremotorError('UPDATE_UNHEALTHY', message, { field: kind, expected, found });
}
