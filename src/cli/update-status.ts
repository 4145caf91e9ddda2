/**
 * `premotor update status`: what runs, what is on trial, what was good, how the last updates ended. Owned by the command line; it changes
 * nothing.
 */
import { PremotorError } from '../errors.js';
import type { Places } from '../update/places.js';
import { type RaucStatus, raucStatus } from '../update/rauc.js';
import { type ReleaseKind, readRecord, type UpdateRecord } from '../update/records.js';
import { Releases } from '../update/releases.js';
import { formatTable } from './context.js';

export interface ReleaseStatus {
  readonly current: string | undefined;
  readonly versions: readonly string[];
}

export interface UpdateStatus {
  readonly system: RaucStatus | { readonly error: { readonly code: string; readonly message: string } };
  readonly model: ReleaseStatus;
  readonly config: ReleaseStatus;
  readonly record: UpdateRecord;
}

const OUTCOMES_SHOWN = 5;

/** Errors: UPDATE_RECORD. A machine without RAUC has models and configurations all the same. */
export async function readUpdateStatus(places: Places): Promise<UpdateStatus> {
  const system = await raucStatus(places).catch((error: unknown) => {
    if (!(error instanceof PremotorError)) throw error;
    return { error: { code: error.code, message: error.message } };
  });
  return {
    system,
    model: await releaseStatus(places, 'model'),
    config: await releaseStatus(places, 'config'),
    record: await readRecord(places.updateDir),
  };
}

async function releaseStatus(places: Places, kind: ReleaseKind): Promise<ReleaseStatus> {
  const releases = new Releases(places, kind);
  return { current: await releases.current(), versions: await releases.versions() };
}

export function statusText(status: UpdateStatus): string {
  const { system, record } = status;
  return [...systemLines(system, record), '', releaseTable(status), '', ...outcomeLines(record)].join('\n');
}

function systemLines(system: UpdateStatus['system'], { systemTrial: trial, goodSlots, highWater }: UpdateRecord): string[] {
  if ('error' in system) return [`system      not updatable here (${system.error.code}): ${system.error.message}`];
  const rows = system.slots.map(({ name, bootname, isBooted, isGood, version }) => [
    `${name} (${bootname})`,
    version ?? goodSlots[name] ?? '-',
    [
      ...(isBooted ? ['runs'] : []),
      ...(name === system.primary ? ['starts next'] : []),
      isGood ? 'good' : 'bad',
      ...(trial?.slot === name ? [`on trial since ${trial.since}`] : []),
    ].join(', '),
  ]);
  const mark = highWater.system === undefined ? 'none yet' : highWater.system;
  return [
    `system      ${system.compatible}; nothing older than ${mark} is installed`,
    formatTable(['slot', 'version', 'state'], rows, ['left', 'left', 'left']),
  ];
}

function releaseTable(status: UpdateStatus): string {
  const rows = (['model', 'config'] as const).map((kind) => {
    const { current, versions } = status[kind];
    const { previous, trial } = status.record[kind];
    const state = current === undefined ? '-' : trial?.to === current ? `${current}, on trial since ${trial.since}` : current;
    return [kind, state, trial?.from ?? previous ?? '-', versions.join(', ') || '-', status.record.highWater[kind] ?? '-'];
  });
  return formatTable(['', 'current', 'before', 'kept', 'nothing older than'], rows, ['left', 'left', 'left', 'left', 'left']);
}

function outcomeLines({ outcomes }: UpdateRecord): string[] {
  if (outcomes.length === 0) return ['no updates so far'];
  const shown = outcomes.slice(-OUTCOMES_SHOWN).reverse();
  return shown.map(
    ({ at, kind, version, outcome, reasons }) => `${at}  ${kind} ${version} ${outcome}${reasons.length > 0 ? `: ${reasons.join('; ')}` : ''}`,
  );
}
