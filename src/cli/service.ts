/**
 * `premotor service`: the process that systemd runs on a robot. It only brings the service and the outside together: configuration, log, systemd's
 * socket, signals.
 */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { readRobotConfig } from '../config/reader.js';
import { PremotorError } from '../errors.js';
import { outliveSaveSignal } from '../recording/save.js';
import { openRig, VOCABULARY } from '../runtime/rig.js';
import { serviceLog } from '../service/log.js';
import { Notifier, systemdSend, watchdogMs } from '../service/notifier.js';
import { Service } from '../service/service.js';
import type { CliContext } from './context.js';

/** Where a robot's configuration is when none is named: what an update installed, else what somebody wrote. */
const PLACES: readonly string[] = ['/var/lib/premotor/config/current/robot.yaml', '/etc/premotor/robot.yaml'];

/** Errors: CONFIG_MISSING. */
export function findConfig(named: string | undefined, places: readonly string[] = PLACES): string {
  const found = named ?? places.find((place) => existsSync(place));
  if (found !== undefined) return found;
  const message = `No configuration was named and none is in its place: expected ${places.join(' or ')}. Name one: premotor service CONFIG`;
  throw new PremotorError('CONFIG_MISSING', message, { expected: places.join(' or '), found: 'neither' });
}

/** Runs the command until the signal. Errors: CONFIG_MISSING, CONFIG_INVALID, those of Service.run. */
export async function runService(named: string | undefined, context: CliContext): Promise<void> {
  outliveSaveSignal();
  const file = findConfig(named);
  const { config } = await readRobotConfig(file, VOCABULARY);
  const log = serviceLog({ write: (line) => void context.out.write(line) });
  const notifier = new Notifier(systemdSend(), ({ code, message }) => log('warn', 'warning', { code, message }));
  const text = await readFile(file, 'utf8');
  const { loadPolicy } = context;
  const service = new Service({ config, file, text, openRig, loadPolicy, notifier, log, watchdogMs: watchdogMs() });
  await service.run(context.signal);
}

const help = `
Opens robot, cameras and policy once and keeps them; waits until all checks pass; then somebody at the robot arms it (premotor arm), or it arms itself
where the configuration says "autonomy: arm-on-boot". Log: one JSON object a line, on standard output. docs/SERVICE.md has the states.

Examples:
  premotor service robots/sim-tabletop.yaml
  premotor status
  premotor arm
  premotor go --task push

SIGTERM and Ctrl-C are a controlled stop first, then the end, with exit code 0. A second one ends the process at once.
Without CONFIG: ${PLACES.join(', else ')}.`;

/** Adds `premotor service` to the program. */
export function registerService(program: Command, context: CliContext): void {
  program
    .command('service')
    .description("run as the robot's service: headless, until it is told to end")
    .argument('[config]', 'robot configuration, a YAML file (docs/CONFIG.md)')
    .addHelpText('after', help)
    .action((config: string | undefined) => runService(config, context));
}
