/**
 * `premotor image`: builds a robot's disk image and writes one to a disk. Owned by the command line; src/image does the work, and nothing here
 * touches a device.
 */
import { execFileSync } from 'node:child_process';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Command, Option } from 'commander';
import { type BuiltImage, buildImage, defaultEpoch } from '../image/build.js';
import { ARCHES, type Arch, SYSTEM_MIB_DEFAULT } from '../image/layout.js';
import { type CliContext, formatBytes, printResult, UsageError } from './context.js';
import { registerImageFlash } from './image-flash.js';
import { whole } from './numbers.js';
import { ProgressBar } from './progress.js';

export interface ImageBuildOptions {
  readonly arch: Arch;
  readonly robot: string;
  readonly output?: string;
  readonly deb?: string;
  readonly sshKey?: string;
  readonly fleetCa?: string;
  readonly models: readonly string[];
  readonly enable: readonly string[];
  readonly dropIn: readonly string[];
  readonly systemMib: number;
  readonly epoch?: number;
  readonly cacheDir: string;
  readonly debugConsole: boolean;
  readonly acceptPackages: boolean;
  readonly withoutPremotor: boolean;
  readonly json: boolean;
}

const SYSTEM_MIB_MAX = 16_384;
const EPOCH_MAX = 4_294_967_295;

const defaultCache = (): string => join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'premotor', 'image');

/** When the sources were committed; undefined outside a checkout. */
function commitEpoch(): number | undefined {
  try {
    const folder = fileURLToPath(new URL('../..', import.meta.url));
    const text = execFileSync('git', ['-C', folder, 'log', '-1', '--format=%ct'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    return Number(text.trim());
  } catch {
    return undefined;
  }
}

/** Runs the command. Errors: USAGE, IMAGE_*, ABORTED. */
export async function runImageBuild(options: ImageBuildOptions, context: CliContext): Promise<void> {
  const { arch, robot, deb, sshKey, fleetCa, models, systemMib, cacheDir } = options;
  if (deb === undefined && !options.withoutPremotor)
    throw new UsageError(
      "Expected --deb FILE, premotor's package for the robot's architecture, found none. --without-premotor builds the system alone.",
    );
  const bar = new ProgressBar(context.err, { show: (value) => (value > 100_000 ? formatBytes(value) : String(value)) });
  const started = performance.now();
  try {
    const built = await buildImage({
      ...{ arch, robot, models, systemMib, cacheDir },
      units: options.enable,
      dropIns: options.dropIn,
      out: options.output ?? `premotor-${arch}.img`,
      ...(deb === undefined ? {} : { deb }),
      ...(sshKey === undefined ? {} : { sshKey }),
      ...(fleetCa === undefined ? {} : { fleetCa }),
      epoch: options.epoch ?? defaultEpoch(process.env, commitEpoch),
      isDebugConsole: options.debugConsole,
      acceptPackages: options.acceptPackages,
      signal: context.signal,
      onProgress: (step, done, total) => bar.update(step, done, total),
    });
    bar.clear();
    const seconds = (performance.now() - started) / 1000;
    printResult(context, options.json, { ...built, seconds }, () => summary(built, seconds));
  } finally {
    bar.clear();
  }
}

function summary(built: BuiltImage, seconds: number): string {
  const lines = [`${built.file}: ${formatBytes(built.bytes)}, ${built.arch}, in ${seconds.toFixed(1)} s`, `  sha256 ${built.sha256}`];
  for (const { name, sizeBytes } of built.partitions) lines.push(`  ${name.padEnd(9)} ${formatBytes(sizeBytes)}`);
  lines.push(`  system    ${formatBytes(built.root.bytes)}, ${built.packages.length} Debian packages; for update bundles: ${built.root.file}`);
  for (const { name, path } of built.models) lines.push(`  model     ${name} at ${path}`);
  for (const path of built.files) lines.push(`  file      ${path}, beside the configuration`);
  for (const { key, to } of built.changes) lines.push(`  set       ${key}: ${to}`);
  lines.push(`  logins    ${built.isLoginOpen ? 'ssh with the given key' : 'none'}`);
  if (built.isDebugConsole) lines.push('  WARNING   the console is open without a password: for development only');
  if (!built.hasPremotor) lines.push('  WARNING   premotor is not in it (--without-premotor)');
  lines.push(`  manifest  ${built.file}.json`, `Write it to a disk with premotor image flash ${built.file} /dev/...`);
  return lines.join('\n');
}

const examples = `
Examples:
  premotor image build --arch amd64 --robot robots/arm.yaml --deb premotor_amd64.deb --ssh-key ~/.ssh/id_ed25519.pub -o arm.img
  premotor image build --arch arm64 --robot robots/arm.yaml --deb premotor_arm64.deb --fleet-ca ca/fleet-ca.pem -o arm64.img --json
  premotor image flash arm.img /dev/sdb

Equal inputs give equal bytes. What lasts on a robot, how it starts, who can log in and how to try an image in an emulator: docs/IMAGE.md.`;

const collect = (value: string, before: readonly string[]): readonly string[] => [...before, value];

/** Adds `premotor image` and its subcommands to the program. */
export function registerImage(program: Command, context: CliContext): void {
  const image = program.command('image').description("a robot's disk image: build one, write one to a disk").addHelpText('after', examples);
  image
    .command('build')
    .description('make a disk image that starts a headless robot')
    .addOption(new Option('--arch <arch>', "the robot's processor").choices([...ARCHES]).makeOptionMandatory())
    .requiredOption('--robot <file>', "the robot's configuration; its checkpoint goes into the image")
    .option('-o, --output <file>', 'the image to write (default: premotor-ARCH.img)')
    .option('--deb <file>', "premotor's package for this architecture")
    .option('--without-premotor', 'the system alone, without a package', false)
    .option('--ssh-key <file>', 'public keys that may log in; without it nobody can')
    .option('--fleet-ca <file>', 'the certificate that update bundles must be signed under; without it none is taken')
    .option('--models <dir>', 'a model besides the own one of the robot; may be repeated', collect, [])
    .option('--enable <unit>', 'a unit that this robot runs as well, such as can@can0.service; may be repeated', collect, [])
    .option('--drop-in <unit=file>', 'settings of this robot for a unit, such as premotor.service=cpu.conf; may be repeated', collect, [])
    .option('--system-mib <n>', 'size of each of the two system slots', whole(256, SYSTEM_MIB_MAX), SYSTEM_MIB_DEFAULT)
    .option('--epoch <seconds>', 'the time of every file (default: SOURCE_DATE_EPOCH, else that of the last commit)', whole(1, EPOCH_MAX))
    .option('--cache-dir <dir>', 'where base trees are kept', defaultCache())
    .option('--accept-packages', 'record other versions of Debian packages than those of the last build', false)
    .option('--debug-console', 'a root shell on the console without a password: for development only', false)
    .option('--json', 'print the result as JSON', false)
    .addHelpText('after', examples)
    .action((options: ImageBuildOptions) => runImageBuild(options, context));
  registerImageFlash(image, context);
}
