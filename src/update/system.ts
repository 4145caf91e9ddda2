/**
 * Updates of the whole system through RAUC: everything is checked before a byte is written, the new slot is on trial until `confirm` finds the robot
 * well in it, and the way back is another trial. Owned by the command line and by RAUC's handlers; it never writes a slot itself.
 */
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PremotorError } from '../errors.js';
import { manifestVersion } from './bundle.js';
import { type Health, unwell } from './health.js';
import { withLock } from './lock.js';
import type { Places } from './places.js';
import { type BundleInfo, bundleInfo, mark, type RaucStatus, raucInstall, raucStatus, type Slot } from './rauc.js';
import { changeRecord, checkNotOlder, raiseHighWater, readRecord, type SystemTrial, tell } from './records.js';
import { nothing } from './release-install.js';
import { keepStill, letGo } from './service.js';
import { checkVersion, isVersion } from './versions.js';

export interface SystemInstalled {
  readonly version: string;
  readonly slot: string;
  readonly remarks: readonly string[];
}

/**
 * Errors: UPDATE_NO_RAUC, UPDATE_SIGNATURE, UPDATE_COMPATIBLE, UPDATE_OLDER, UPDATE_SLOT, UPDATE_ROBOT_ACTIVE, UPDATE_DAMAGED,
 * UPDATE_INSTALL, ...
 */
export function installSystem(places: Places, file: string, onPercent: (percent: number, what: string) => void): Promise<SystemInstalled> {
  return withLock(places.updateDir, async () => {
    const status = await raucStatus(places);
    const info = await bundleInfo(places, file);
    checkCompatible(file, status.compatible, info);
    checkVersion(info.version, `${file}, version`);
    checkNotOlder(await readRecord(places.updateDir), 'system', info.version);
    const { booted, other } = slotsOf(status);
    await checkFits(other, info);
    const quiet = await keepStill(places);
    try {
      await beginTrial(places, { way: 'install', phase: 'writing', version: info.version, slot: other.name, ...fromOf(booted) });
      await raucInstall(places, file, onPercent);
      await activated(places);
    } catch (error) {
      // Where RAUC has said nothing the trial stays: should the slot start after all, it is judged.
      if (!(error instanceof PremotorError && error.code === 'UPDATE_TOOL_FAILED')) await abandonTrial(places, [(error as Error).message]);
      throw error;
    } finally {
      await quiet.release();
    }
    return { version: info.version, slot: other.name, remarks: quiet.remark === undefined ? [] : [quiet.remark] };
  });
}

const fromOf = ({ name, version }: Slot): Pick<SystemTrial, 'fromSlot' | 'fromVersion'> => ({
  fromSlot: name,
  ...(version === undefined ? {} : { fromVersion: version }),
});

/** Written before the slot may start: a slot that starts without a trial counts as good. */
async function beginTrial(places: Places, trial: Omit<SystemTrial, 'since'>): Promise<void> {
  await changeRecord(places.updateDir, (record) => {
    record.systemTrial = { ...trial, since: new Date().toISOString() };
    // What this slot held is being overwritten.
    if (trial.way === 'install') delete record.goodSlots[trial.slot];
  });
}

async function activated(places: Places): Promise<void> {
  await changeRecord(places.updateDir, ({ systemTrial }) => {
    if (systemTrial !== undefined) systemTrial.phase = 'activated';
  });
}

async function abandonTrial(places: Places, reasons: readonly string[]): Promise<void> {
  await changeRecord(places.updateDir, (record) => {
    if (record.systemTrial === undefined) return;
    tell(record, 'system', 'refused', record.systemTrial.version, reasons);
    delete record.systemTrial;
  });
}

function checkCompatible(file: string, expected: string, { compatible: found }: BundleInfo): void {
  if (found === expected) return;
  const message =
    `${file} is for another kind of robot: expected compatible ${expected}, found ${found}. Nothing was written. Build it for ` +
    `this architecture.`;
  throw new PremotorError('UPDATE_COMPATIBLE', message, { file, expected, found });
}

/** The slot that runs and the one that does not. Errors: UPDATE_SLOT. */
export function slotsOf({ slots }: RaucStatus): { booted: Slot; other: Slot } {
  const booted = slots.find(({ isBooted }) => isBooted);
  const other = slots.find(({ isBooted, bootname }) => !isBooted && bootname !== '');
  if (booted !== undefined && other !== undefined) return { booted, other };
  const found = booted === undefined ? 'no slot that is known to run' : 'no other slot';
  throw slotError('one slot that runs and one that does not', found, 'Nothing was written. Start the robot from its disk image.');
}

function slotError(expected: string, found: string, remedy: string): PremotorError {
  const message = `No slot can be written: expected ${expected}, found ${found}. ${remedy}`;
  return new PremotorError('UPDATE_SLOT', message, { expected, found });
}

/** An image too large for its slot. Errors: UPDATE_SLOT. */
async function checkFits(slot: Slot, { images }: BundleInfo): Promise<void> {
  const bytes = images.find(({ slotClass }) => slotClass === 'rootfs')?.bytes;
  const room = await sizeOf(slot.device);
  if (bytes !== undefined && bytes <= room) return;
  const found = bytes === undefined ? 'none' : `${bytes} bytes`;
  throw slotError(`one root file system of at most ${room} bytes, the size of ${slot.name}`, found, 'Nothing was written. Make a smaller image.');
}

/** Of a file or a block device, whose end is its size. */
async function sizeOf(device: string): Promise<number> {
  const handle = await open(device, 'r').catch(() => undefined);
  if (handle === undefined) return 0;
  try {
    const { size } = await handle.stat();
    return size > 0 ? size : await endOf(handle);
  } finally {
    await handle.close();
  }
}

/** A block device's stat has no size; reading finds its end in some 50 probes. */
async function endOf(handle: Awaited<ReturnType<typeof open>>): Promise<number> {
  const byte = Buffer.alloc(1);
  const hasByteAt = async (at: number): Promise<boolean> => (await handle.read(byte, 0, 1, at).catch(() => ({ bytesRead: 0 }))).bytesRead === 1;
  if (!(await hasByteAt(0))) return 0;
  let [low, high] = [0, 1];
  while (await hasByteAt(high)) [low, high] = [high, high * 2];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (await hasByteAt(middle)) low = middle;
    else high = middle;
  }
  return high;
}

/** What RAUC tells its handler. RAUC itself cannot be asked while it installs. */
export interface Admission {
  /** The mounted bundle. */
  readonly source: string;
  /** The slot that will be written, and the one that runs. */
  readonly slot: string;
  readonly runs: string;
}

/** RAUC's pre-install handler: the same rules for whoever calls RAUC directly. Errors refuse the installation. */
export async function admit(places: Places, { source, slot, runs }: Admission): Promise<void> {
  const file = join(source, 'manifest.raucm');
  const version = checkVersion(manifestVersion(await readFile(file, 'utf8'), file), `${file}, version`);
  const record = await readRecord(places.updateDir);
  checkNotOlder(record, 'system', version);
  if (slot === runs) throw slotError('a slot that does not run', slot, 'Nothing was written.');
  await keepStill(places);
  const fromVersion = record.goodSlots[runs];
  await beginTrial(places, {
    way: 'install',
    phase: 'writing',
    version,
    slot,
    fromSlot: runs,
    ...(fromVersion === undefined ? {} : { fromVersion }),
  });
}

/** RAUC's post-install handler. */
export async function admitted(places: Places): Promise<void> {
  await activated(places);
  await letGo(places);
}

/**
 * Goes back to the other slot, if it was good. It is on trial again, as a new one is. Errors: UPDATE_NOTHING, UPDATE_ROBOT_ACTIVE,
 * UPDATE_NO_RAUC, ...
 */
export function rollBackSystem(places: Places): Promise<SystemInstalled> {
  return withLock(places.updateDir, async () => {
    const { booted, other } = slotsOf(await raucStatus(places));
    const record = await readRecord(places.updateDir);
    const version = record.goodSlots[other.name];
    if (version === undefined || !other.isGood) throw nothing('system', booted.version);
    const quiet = await keepStill(places);
    try {
      await beginTrial(places, { way: 'rollback', phase: 'writing', version, slot: other.name, ...fromOf(booted) });
      await mark(places, 'mark-active', other.name);
      await activated(places);
    } finally {
      await quiet.release();
    }
    return { version, slot: other.name, remarks: quiet.remark === undefined ? [] : [quiet.remark] };
  });
}

/** How a start of the system was judged. */
export type SystemVerdict = 'kept' | 'committed' | 'fell-back' | 'interrupted' | 'unhealthy';

export interface SystemConfirmed {
  readonly verdict: SystemVerdict;
  readonly version: string;
  readonly reasons: readonly string[];
  /** Whether another slot is to be started now. */
  readonly restart: boolean;
}

/**
 * Judges the system that runs. Without a trial it is kept: a camera that is unplugged is a fault to tell, no reason to start another system. Each
 * step
 * may be the last before a power cut, and then the next start repeats or completes it.
 */
export async function confirmSystem(places: Places, own: string, health: () => Promise<Health>): Promise<SystemConfirmed> {
  const { booted, other } = slotsOf(await raucStatus(places));
  const record = await readRecord(places.updateDir);
  const { systemTrial: trial } = record;
  const running = booted.version ?? own;
  if (trial === undefined) return kept(places, booted, running);
  if (trial.slot !== booted.name) return notReached(places, booted, running, trial);
  const found = await health();
  const reasons = unwell(found);
  if (found.ok) {
    await mark(places, 'mark-good', booted.name);
    await changeRecord(places.updateDir, (now) => {
      raiseHighWater(now, 'system', trial.version);
      now.goodSlots[booted.name] = trial.version;
      tell(now, 'system', trial.way === 'rollback' ? 'rolled-back' : 'committed', trial.version);
      delete now.systemTrial;
    });
    return { verdict: 'committed', version: trial.version, reasons: [], restart: false };
  }
  // Without another system there is nothing to go to: this one stays, and says what is wrong with it.
  const elsewhere = other.isGood;
  if (elsewhere) await mark(places, 'mark-bad', booted.name);
  await changeRecord(places.updateDir, (now) => {
    tell(now, 'system', 'unhealthy', trial.version, reasons);
    delete now.systemTrial;
    delete now.goodSlots[booted.name];
  });
  return { verdict: 'unhealthy', version: trial.version, reasons, restart: elsewhere };
}

async function kept(places: Places, booted: Slot, running: string): Promise<SystemConfirmed> {
  // The boot loader counts every start until it is told that one succeeded.
  await mark(places, 'mark-good', booted.name);
  const record = await readRecord(places.updateDir);
  if (isVersion(running) && (record.goodSlots[booted.name] !== running || record.highWater.system === undefined)) {
    await changeRecord(places.updateDir, (now) => {
      now.goodSlots[booted.name] = running;
      raiseHighWater(now, 'system', running);
    });
  }
  return { verdict: 'kept', version: running, reasons: [], restart: false };
}

/** The slot on trial is not the one that runs: it never got so far, or was never written to its end. */
async function notReached(places: Places, booted: Slot, running: string, trial: SystemTrial): Promise<SystemConfirmed> {
  const verdict = trial.phase === 'writing' ? 'interrupted' : 'fell-back';
  const reasons = verdict === 'interrupted' ? ['the installation did not end'] : [`${trial.slot} did not start, or was marked bad`];
  await changeRecord(places.updateDir, (now) => {
    tell(now, 'system', verdict, trial.version, reasons);
    delete now.systemTrial;
  });
  await kept(places, booted, running);
  return { verdict, version: trial.version, reasons, restart: false };
}
