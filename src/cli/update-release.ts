/**
 * `premotor update model` and `premotor update config`: releases of a model or of a configuration, packed and signed on the fleet's machine,
 * installed
 * and rolled back on a robot, each apart from the system. Owned by the command line.
 */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from 'commander';
import { ConfigError, parseRobotConfig, readRobotConfig } from '../config/reader.js';
import type { RobotConfig } from '../config/schema.js';
import { PremotorError } from '../errors.js';
import { callNative } from '../native.js';
import { readJob } from '../policy/job.js';
import { readOnnxJob } from '../policy/onnx/job.js';
import { jobOf, VOCABULARY } from '../runtime/rig.js';
import { runSelftest, SELFTEST_FILE } from '../runtime/selftest.js';
import type { Places } from '../update/places.js';
import type { ReleaseKind } from '../update/records.js';
import { contentError, manifestBytes, packRelease } from '../update/release-file.js';
import { type Installed, installRelease, RELEASES_KEPT, type ReleaseParts, rollBackRelease } from '../update/release-install.js';
import { serviceStatus } from '../update/service.js';
import { checkVersion } from '../update/versions.js';
import { type CliContext, formatBytes, printResult, UsageError } from './context.js';
import { whole } from './numbers.js';
import { ProgressBar } from './progress.js';
import { descriptionProblems } from './robot-descriptions.js';
import { type SignerOptions, signerOf, withSigner } from './update-make.js';
import { fetched, healthOf, placesFor, remarksText, restartService, type UpdateOptions, withPlaces, withTls } from './update-options.js';

/** The configuration in a release of its kind. */
const CONFIG_FILE = 'robot.yaml';
/** The configuration of a bare install. */
const BARE_CONFIG = '/etc/premotor/robot.yaml';
const HEALTH_TIMEOUT_S = 180;
const HEALTH_TIMEOUT_S_MAX = 3600;
const RELEASES_KEPT_MAX = 100;

interface ReleaseOptions extends UpdateOptions {
  readonly timeout: number;
  readonly keep: number;
}

interface PackOptions extends SignerOptions {
  readonly version: string;
  readonly output: string;
  readonly json: boolean;
}

async function runPack(kind: ReleaseKind, folder: string, options: PackOptions, context: CliContext): Promise<void> {
  const { version, output: out, json } = options;
  checkVersion(version);
  const needed = kind === 'config' ? CONFIG_FILE : SELFTEST_FILE;
  if (!existsSync(join(folder, needed))) {
    const remedy = kind === 'config' ? 'the configuration' : 'made by premotor selftest CONFIG --create --checkpoint DIR';
    throw contentError(folder, `${needed} in it (${remedy})`, 'no such file');
  }
  if (existsSync(out)) throw new UsageError(`-o ${out} exists already: name another file, or remove it.`, { expected: 'a new file', found: out });
  const bar = new ProgressBar(context.err, { show: formatBytes });
  const onBytes = (done: number, total: number): void => bar.update('packing', done, total);
  const manifest = await packRelease({ kind, version, folder, out, signer: signerOf(options), onBytes }).finally(() => bar.clear());
  const text = (): string =>
    `${kind.padEnd(10)} ${out}\nversion    ${version}\nfiles      ${manifest.files.length}, ${formatBytes(manifestBytes(manifest))}`;
  printResult(context, json, { file: out, ...manifest }, text);
}

/** What a release must be before anything points at it. Errors: CONFIG_*, JOB_*, CHECKPOINT_*, SELFTEST_*, UPDATE_CONTENT. */
function checkOf(places: Places, context: CliContext, onRemark: (text: string) => void): ReleaseParts['check'] {
  return (kind, folder) => (kind === 'config' ? checkConfig(places, folder) : checkModel(places, folder, context, onRemark));
}

async function checkConfig({ stateDir }: Places, folder: string): Promise<void> {
  const text = await readFile(join(folder, CONFIG_FILE), 'utf8').catch(() => {
    throw contentError(folder, CONFIG_FILE, 'no such file');
  });
  // Read as from its place to be: relative paths start there.
  const file = join(stateDir, 'config', 'current', CONFIG_FILE);
  const loaded = parseRobotConfig(text, file, VOCABULARY);
  const problems = descriptionProblems(loaded, folder);
  if (problems.length > 0) throw new ConfigError(file, problems);
  const { config } = loaded;
  await (config.policy.backend === 'onnx' ? readOnnxJob : readJob)(jobOf(config.policy));
}

async function checkModel(places: Places, folder: string, context: CliContext, onRemark: (text: string) => void): Promise<void> {
  if (existsSync(join(folder, 'transformer'))) {
    const { components } = await callNative(() => context.loadNative().inspect(folder));
    const problem = components.flatMap(({ problems }) => problems)[0];
    if (problem !== undefined) throw new PremotorError(problem.code, problem.message, { file: folder });
  }
  const file = await configurationOf(places);
  if (file === undefined) return onRemark('There is no configuration yet, so the model was inspected but not run.');
  const { config } = await readRobotConfig(file, VOCABULARY);
  if (config.policy.backend === 'remote') return onRemark('The configured policy is a server: the model was inspected but not run.');
  const result = await runSelftest(movedTo(config, folder, join(places.stateDir, 'models', 'current')), {
    loadPolicy: context.loadPolicy,
    signal: context.signal,
  });
  if (result.matches) return;
  const [expected, found] = [`hash ${result.expectedSha256}`, `hash ${result.sha256}`];
  throw new PremotorError(
    'SELFTEST_MISMATCH',
    `The model does not compute what it should: expected ${expected}, found ${found}. It was not installed.`,
    {
      file: folder,
      expected,
      found,
    },
  );
}

/** The configuration with the model in another folder. A plan of the old model is none of the new one. */
function movedTo(config: RobotConfig, folder: string, current: string): RobotConfig {
  const { plan, ...policy } = config.policy;
  const moved = plan?.startsWith(`${current}/`) === true ? { plan: join(folder, plan.slice(current.length + 1)) } : {};
  return { ...config, policy: { ...policy, checkpoint_dir: folder, ...moved } };
}

/** The service's own, else the current release, else that of a bare install. */
async function configurationOf(places: Places): Promise<string | undefined> {
  const running = (await serviceStatus(places).catch(() => undefined))?.configuration.file;
  const candidates = [running, join(places.stateDir, 'config', 'current', CONFIG_FILE), BARE_CONFIG];
  return candidates.find((file) => file !== undefined && existsSync(file));
}

function partsOf(options: ReleaseOptions, context: CliContext, bar: ProgressBar, remarks: string[]): ReleaseParts {
  const places = placesFor(options);
  const timeout_ms = options.timeout * 1000;
  return {
    places,
    check: checkOf(places, context, (text) => void remarks.push(text)),
    restart: restartService,
    // Telemetry is judged with the system: a network that is down says nothing about a model.
    health: () => healthOf(places, { timeout_ms, telemetry: false, selftest: false }, context),
    keep: options.keep,
    onBytes: (done, total) => bar.update('unpacking', done, total),
  };
}

function installedText(kind: ReleaseKind, { version, state, previous, remarks, removed }: Installed): string {
  const states = { committed: 'in use, the service is well with it', trial: 'in use, on trial', unchanged: 'in use already' };
  return [
    `${kind.padEnd(10)} ${version}: ${states[state]}`,
    `before     ${previous ?? 'none'}`,
    ...(removed.length > 0 ? [`removed    ${removed.join(', ')}`] : []),
    ...remarksText(remarks),
  ].join('\n');
}

async function change(kind: ReleaseKind, source: string | undefined, options: ReleaseOptions, context: CliContext): Promise<void> {
  const bar = new ProgressBar(context.err, { show: formatBytes });
  const remarks: string[] = [];
  try {
    const parts = partsOf(options, context, bar, remarks);
    const done =
      source === undefined ? await rollBackRelease(kind, parts) : await installRelease(kind, await fetched(source, options, context), parts);
    bar.clear();
    const told = { ...done, remarks: [...done.remarks, ...remarks] };
    printResult(context, options.json, told, () => installedText(kind, told));
  } finally {
    bar.clear();
  }
}

function withWaiting(command: Command): Command {
  return withPlaces(command)
    .option('--timeout <s>', 'how long the service may take to get ready, seconds', whole(1, HEALTH_TIMEOUT_S_MAX), HEALTH_TIMEOUT_S)
    .option('--keep <n>', 'releases that are kept', whole(2, RELEASES_KEPT_MAX), RELEASES_KEPT);
}

/** Adds `model` and `config` to `premotor update`. */
export function registerRelease(update: Command, kind: ReleaseKind, context: CliContext): void {
  const what = kind === 'model' ? 'the model' : 'the configuration';
  const group = update.command(kind).description(`${what} of a robot, apart from its system: pack, install, roll back`);
  withSigner(group.command('pack').description(`make a signed release of ${what} from a folder`))
    .argument('<dir>', kind === 'model' ? `checkpoint folder with ${SELFTEST_FILE}` : `folder with ${CONFIG_FILE}`)
    .requiredOption('--version <v>', 'MAJOR.MINOR.PATCH or MAJOR.MINOR.PATCH-PRE; robots install no older one')
    .requiredOption('-o, --output <file>', 'the release, a tar file; zstd may compress it')
    .option('--json', 'print the result as JSON', false)
    .action((folder: string, options: PackOptions) => runPack(kind, folder, options, context));
  withTls(
    withWaiting(group.command('install').description(`put a release of ${what} into use, or take it back when the service is not well with it`)),
  )
    .argument('<file|url>', 'a release, or its https address')
    .action((source: string, options: ReleaseOptions) => change(kind, source, options, context));
  withWaiting(group.command('rollback').description('put the release before into use again')).action((options: ReleaseOptions) =>
    change(kind, undefined, options, context),
  );
}
