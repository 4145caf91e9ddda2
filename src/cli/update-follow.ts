/**
 * `premotor update follow`: one look at the fleet's roll-out list, run by premotor-update.timer. What is due is handed to `premotor update install`
 * in a
 * process of its own. Owned by the command line.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { readRobotConfig } from '../config/reader.js';
import { PremotorError } from '../errors.js';
import { type Followed, type FollowParts, follow } from '../fleet/follow.js';
import type { Architecture } from '../fleet/list.js';
import { stillnessOf } from '../fleet/stillness.js';
import { VOCABULARY } from '../runtime/rig.js';
import { idsOf, machineName } from '../telemetry/broker-address.js';
import { readSystem } from '../telemetry/system.js';
import { type CliContext, CommandExit, EXIT_NOT_DONE, printResult, UsageError } from './context.js';
import { ProgressBar } from './progress.js';

export interface FollowOptions {
  readonly config?: string;
  readonly name?: string;
  readonly fleet?: string;
  readonly authority: string;
  readonly httpsCa?: string;
  readonly stateDir: string;
  readonly socket?: string;
  readonly running?: string;
  readonly reboot: boolean;
  readonly json: boolean;
}

/** What starts other programs, for tests. */
export interface FollowPrograms {
  readonly install: (file: string, signal: AbortSignal) => Promise<void>;
  readonly restart: () => Promise<void>;
}

const AUTHORITY = '/etc/rauc/fleet-ca.pem';
const STATE_DIR = '/var/lib/premotor';
const RUNTIME_DIR = '/run';
/** Where the service looks, in its order. */
const CONFIGURATIONS = ['/var/lib/premotor/config/current/robot.yaml', '/etc/premotor/robot.yaml'];
const ARCHITECTURES: Readonly<Record<string, Architecture>> = { x64: 'amd64', arm64: 'arm64' };
const OUTPUT_CHARACTERS_MAX = 65_536;
const PROGRAM = fileURLToPath(new URL('../../bin/premotor.js', import.meta.url));

/** `premotor update install FILE` by a given program; its error comes back with its code. Errors: those of update install, ROLLOUT_INSTALL. */
export function installBy(program: string, file: string, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, 'update', 'install', file, '--json'], { stdio: ['ignore', 'pipe', 'inherit'], signal });
    let said = '';
    child.stdout.on('data', (text: Buffer) => {
      said = `${said}${text.toString('utf8')}`.slice(-OUTPUT_CHARACTERS_MAX);
    });
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve();
      else reject(installError(said, code));
    });
  });
}

function installError(said: string, code: number | null): PremotorError {
  try {
    const { error } = JSON.parse(said) as { error: { code: string; message: string } };
    if (typeof error.code === 'string' && typeof error.message === 'string') return new PremotorError(error.code, error.message);
  } catch {
    // It said nothing that is an error; its exit code must do.
  }
  const message = 'The bundle was fetched, and premotor update install failed. Its output says why; it is tried three times.';
  return new PremotorError('ROLLOUT_INSTALL', message, { expected: 'exit code 0', found: String(code) });
}

/** Starts the computer again in order: the robot's controlled stop comes first. */
function restart(): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('systemctl', ['reboot'], { stdio: 'inherit' });
    child.on('error', reject);
    child.on('close', (code) =>
      code === 0 ? resolve() : reject(new PremotorError('ROLLOUT_INSTALL', 'The system was not started again. Do it by hand.')),
    );
  });
}

const PROGRAMS: FollowPrograms = { install: (file, signal) => installBy(PROGRAM, file, signal), restart };

/** The robot's own name and fleet: given, configured, or those of the machine. */
async function idsFor({ config, name, fleet }: FollowOptions): Promise<{ readonly name: string; readonly fleet: string | undefined }> {
  const file = config ?? CONFIGURATIONS.find((one) => existsSync(one));
  if (file === undefined) return { name: name ?? machineName(), fleet };
  const ids = idsOf((await readRobotConfig(file, VOCABULARY)).config.telemetry);
  return { name: name ?? ids.node, fleet: fleet ?? ids.group };
}

export async function runFollow(url: string, options: FollowOptions, context: CliContext, programs: FollowPrograms = PROGRAMS): Promise<void> {
  const { authority, httpsCa, stateDir, socket, running, json } = options;
  const arch = ARCHITECTURES[process.arch];
  const { name, fleet } = await idsFor(options);
  if (arch === undefined) throw new UsageError('Roll-outs are for amd64 and arm64.', { found: process.arch });
  if (fleet === undefined) throw new UsageError('--fleet says which fleet this robot is of, or --config names its configuration.');
  const version = running ?? (await readSystem()).get('Update/Version');
  const bar = new ProgressBar(context.err);
  const parts: FollowParts = {
    url,
    authority,
    fleet,
    name,
    arch,
    version: typeof version === 'string' ? version : undefined,
    dir: join(stateDir, 'update', 'follow'),
    stillness: () => stillnessOf(socket ?? join(process.env['PREMOTOR_RUNTIME_DIR'] ?? RUNTIME_DIR, 'premotor', 'control.sock')),
    install: (file) => programs.install(file, context.signal),
    onProgress: (stage, done, total) => bar.update(stage, done, total),
    signal: context.signal,
    ...(httpsCa === undefined ? {} : { ca: contentOf(httpsCa) }),
  };
  let followed: Followed;
  try {
    followed = await follow(parts);
  } finally {
    bar.clear();
  }
  const { outcome, why } = followed;
  printResult(context, json, { name, fleet, running: parts.version ?? null, ...followed }, () => `${name}: ${followed.version}: ${outcome}: ${why}`);
  if (outcome === 'installed' && options.reboot) await programs.restart();
  if (outcome === 'tried' || outcome === 'given up' || outcome === 'no bundle') throw new CommandExit(EXIT_NOT_DONE);
}

function contentOf(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    const message = `The certificates of --https-ca cannot be read. Check the path.`;
    throw new PremotorError('ROLLOUT_FETCH', message, { file, expected: 'a file that can be read', found: (cause as Error).message, cause });
  }
}

const help = `
Fetches the list, believes it when the fleet's authority vouches for it and it is no older than the last one, and acts when it names this robot:
current, not due, paused, busy (armed or moving: the next look may do), no answer (of a service that runs), installed,
tried (it was installed and this robot does not run it: it fell back), given up (three failures), no bundle.

Exit codes: 0 nothing was to be done, or it was done; 1 an error; 3 tried, given up, no bundle: somebody has to look.`;

/** Adds `follow` to `premotor update`. */
export function registerUpdateFollow(program: Command, context: CliContext): void {
  const update = program.commands.find((one) => one.name() === 'update') ?? program.command('update').description('updates of the system');
  update
    .command('follow')
    .description("look at the fleet's roll-out once, and install what is due")
    .argument('<url>', 'the list: https://HOST/PATH')
    .option('--config <file>', "the robot's configuration: its node_id and group_id (default: where the service finds it)")
    .option('--name <name>', "this robot (default: the configuration's, or the machine's name)")
    .option('--fleet <group>', "its fleet (default: the configuration's)")
    .option('--authority <file>', 'who may sign lists', AUTHORITY)
    .option('--https-ca <file>', "certificates (PEM) that sign the server's (default: the system's)")
    .option('--state-dir <dir>', 'the data partition', STATE_DIR)
    .option('--socket <file>', "the service's control socket")
    .option('--running <version>', 'of the system that runs (default: what the system says)')
    .option('--reboot', 'start the computer again after an installation', false)
    .option('--json', 'print one JSON document', false)
    .addHelpText('after', help)
    .action((url: string, options: FollowOptions) => runFollow(url, options, context));
}
