/**
 * `premotor update`: signed updates of a robot's system, model and configuration, made on the fleet's machine and installed on robots that are
 * disarmed
 * and still. Owned by the command line; how each works is in src/update.
 */
import type { Command } from 'commander';
import { PremotorError } from '../errors.js';
import { type Health, unwell } from '../update/health.js';
import { withLock } from '../update/lock.js';
import type { Places } from '../update/places.js';
import { type ReleaseKind, readRecord } from '../update/records.js';
import { commitRelease, RELEASES_KEPT, settleTrial, takeBack } from '../update/release-install.js';
import {
  type Admission,
  admit,
  admitted,
  confirmSystem,
  installSystem,
  rollBackSystem,
  type SystemConfirmed,
  type SystemInstalled,
} from '../update/system.js';
import { version } from '../version.js';
import { type CliContext, FoundProblems, printResult } from './context.js';
import { whole } from './numbers.js';
import { ProgressBar } from './progress.js';
import { registerMake } from './update-make.js';
import { fetched, healthOf, placesFor, reboot, remarksText, restartService, type UpdateOptions, withPlaces, withTls } from './update-options.js';
import { registerRelease } from './update-release.js';
import { readUpdateStatus, statusText } from './update-status.js';

const CONFIRM_TIMEOUT_S = 300;
const CONFIRM_TIMEOUT_S_MAX = 3600;

interface RebootOptions extends UpdateOptions {
  readonly reboot: boolean;
}

interface ConfirmOptions extends RebootOptions {
  readonly timeout: number;
  readonly telemetry: boolean;
}

function installedText({ version: to, slot, remarks }: SystemInstalled, starts: boolean): string {
  const next = starts ? 'The robot starts again now.' : 'It runs after the next start (systemctl reboot), on trial until it is found well.';
  return [`system     ${to} in ${slot}`, `next       ${next}`, ...remarksText(remarks)].join('\n');
}

async function runInstall(source: string, options: RebootOptions, context: CliContext): Promise<void> {
  const file = await fetched(source, options, context);
  const bar = new ProgressBar(context.err, { show: (value) => `${value} %` });
  const done = await installSystem(placesFor(options), file, (percent, what) => bar.update(what, percent, 100)).finally(() => bar.clear());
  printResult(context, options.json, done, () => installedText(done, options.reboot));
  if (options.reboot) await reboot();
}

async function runRollback(options: RebootOptions, context: CliContext): Promise<void> {
  const done = await rollBackSystem(placesFor(options));
  printResult(context, options.json, done, () => installedText(done, options.reboot));
  if (options.reboot) await reboot();
}

async function runStatus(options: UpdateOptions, context: CliContext): Promise<void> {
  const status = await readUpdateStatus(placesFor(options));
  printResult(context, options.json, status, () => statusText(status));
}

interface ReleaseConfirmed {
  readonly kind: ReleaseKind;
  readonly version: string;
  readonly verdict: 'committed' | 'unhealthy';
}

/** Models and configurations that a power cut left on trial. */
async function confirmReleases(places: Places, health: () => Promise<Health>): Promise<ReleaseConfirmed[]> {
  const told: ReleaseConfirmed[] = [];
  // The newest change is the first suspect: a configuration may name what only a new model has.
  for (const kind of ['config', 'model'] as const) {
    const { trial } = (await settleTrial(kind, places))[kind];
    if (trial === undefined) continue;
    const found = await health();
    if (found.ok) await commitRelease(kind, places, RELEASES_KEPT);
    else await takeBack(kind, unwell(found), { places, restart: restartService });
    told.push({ kind, version: trial.to, verdict: found.ok ? 'committed' : 'unhealthy' });
  }
  return told;
}

/** A machine without RAUC has no system to confirm, but may have releases on trial. */
async function confirmSystemHere(places: Places, health: () => Promise<Health>): Promise<SystemConfirmed | undefined> {
  return confirmSystem(places, version(), health).catch((error: unknown) => {
    if (error instanceof PremotorError && error.code === 'UPDATE_NO_RAUC') return undefined;
    throw error;
  });
}

async function runConfirm(options: ConfirmOptions, context: CliContext): Promise<void> {
  const places = placesFor(options);
  const timeout_ms = options.timeout * 1000;
  const { telemetry, json } = options;
  const confirmed = await withLock(places.updateDir, async () => {
    // Releases first: a model that is taken back may be all that was wrong with a new system.
    const releases = await confirmReleases(places, () => healthOf(places, { timeout_ms, telemetry: false, selftest: true }, context));
    const system = await confirmSystemHere(places, () => healthOf(places, { timeout_ms, telemetry, selftest: true }, context));
    return { system: system ?? null, releases, outcomes: (await readRecord(places.updateDir)).outcomes.slice(-1) };
  });
  const { system, releases } = confirmed;
  printResult(context, json, confirmed, () => confirmedText(system, releases));
  if (system?.restart === true && options.reboot) await reboot();
  if (system?.verdict === 'unhealthy' || releases.some(({ verdict }) => verdict === 'unhealthy')) throw new FoundProblems();
}

const verdicts: Readonly<Record<SystemConfirmed['verdict'], string>> = {
  kept: 'runs as before',
  committed: 'was on trial and is good',
  'fell-back': 'did not start; the system before runs',
  interrupted: 'was never installed to its end; the system before runs',
  unhealthy: 'was on trial and is not good',
};

function confirmedText(system: SystemConfirmed | null, releases: readonly ReleaseConfirmed[]): string {
  const lines = releases.map(
    ({ kind, version: of, verdict }) => `${kind.padEnd(10)} ${of} ${verdict === 'committed' ? verdicts.committed : 'is not good and was taken back'}`,
  );
  if (system === null) return [...lines, 'system     not updatable here'].join('\n');
  const next =
    system.verdict !== 'unhealthy'
      ? []
      : [system.restart ? 'next       the other system starts' : 'next       there is no other good system: this one stays'];
  return [
    ...lines,
    `system     ${system.version} ${verdicts[system.verdict]}`,
    ...system.reasons.map((reason) => `reason     ${reason}`),
    ...next,
  ].join('\n');
}

const examples = `
Examples, on the fleet's machine:
  premotor update ca create fleet/                            once; fleet/fleet-ca.pem goes on every robot
  premotor update ca signer fleet/ ci --days 90
  premotor update build --rootfs root.squashfs --version 1.4.0 --arch arm64 --cert fleet/ci.pem
  premotor update model pack checkpoint/ --version 2.0.0 --cert fleet/ci.pem -o model-2.0.0.tar
Examples, on a robot, as root:
  premotor update status
  premotor update install https://updates.example.org/premotor-arm64-1.4.0.raucb --reboot
  premotor update rollback --reboot
  premotor update model install model-2.0.0.tar
  premotor update config rollback

Installing needs a robot that is disarmed and still. docs/UPDATE.md explains what is checked, and what happens when power fails.`;

/** Adds `premotor update` and its subcommands to the program. */
export function registerUpdate(program: Command, context: CliContext): void {
  const update = program
    .command('update')
    .description('signed updates of system, model and configuration: make, install, roll back')
    .addHelpText('after', examples);
  registerMake(update, context);
  withTls(withPlaces(update.command('install').description('write a bundle to the slot that does not run')))
    .argument('<file|url>', 'a bundle, or its https address')
    .option('--reboot', 'start the robot again afterwards', false)
    .action((source: string, options: RebootOptions) => runInstall(source, options, context));
  withPlaces(update.command('status').description('what runs, what is on trial, how the last updates ended')).action((options: UpdateOptions) =>
    runStatus(options, context),
  );
  withPlaces(update.command('rollback').description('go back to the other system, if it was good'))
    .option('--reboot', 'start the robot again afterwards', false)
    .action((options: RebootOptions) => runRollback(options, context));
  withPlaces(update.command('confirm').description('judge what is on trial: run at every start by premotor-confirm.service'))
    .option('--timeout <s>', 'how long the robot may take to be well, seconds', whole(1, CONFIRM_TIMEOUT_S_MAX), CONFIRM_TIMEOUT_S)
    .option('--no-telemetry', 'do not ask for a telemetry connection')
    .option('--no-reboot', 'do not start the other system')
    .action((options: ConfirmOptions) => runConfirm(options, context));
  registerRelease(update, 'model', context);
  registerRelease(update, 'config', context);
  registerHandlers(update);
}

/** What RAUC's handlers call. */
function registerHandlers(update: Command): void {
  withPlaces(update.command('admit', { hidden: true }))
    .requiredOption('--source <dir>', 'the mounted bundle')
    .requiredOption('--slot <name>', 'the slot that will be written')
    .requiredOption('--runs <name>', 'the slot that runs')
    .action(({ source, slot, runs, ...options }: UpdateOptions & Admission) => admit(placesFor(options), { source, slot, runs }));
  withPlaces(update.command('admitted', { hidden: true })).action((options: UpdateOptions) => admitted(placesFor(options)));
}
