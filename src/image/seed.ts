/**
 * What a new robot's data partition holds: its configuration and its models as first releases, an ssh key if one is given, and nothing else. Owned by
 * the image builder. Paths in the configuration that point into the builder's machine are rewritten to where the image keeps them, and each is told.
 */
import { createHash } from 'node:crypto';
import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { parseDocument } from 'yaml';
import { PremotorError } from '../errors.js';
import { MIB } from './layout.js';
import { type NamedFile, namedFiles } from './named-files.js';
import { folderHash } from './rootfs.js';

/** Where the data partition's product folder is mounted on a robot. */
export const STATE_DIR = '/var/lib/premotor';
/** The robot's own checkpoint: the content of a model's release, which updates replace. */
export const CURRENT_MODEL = `${STATE_DIR}/models/current`;
/** A unit's name; an instance has something between @ and the ending. */
const UNIT = /^[A-Za-z0-9][A-Za-z0-9._:-]*(@[A-Za-z0-9._:-]+)?\.(service|target|timer|path|socket|mount)$/;
const KEY_BYTES_MAX = 64 << 10;
/** What systemd takes at most of a line is more; a drop-in is some lines. */
const DROP_IN_BYTES_MAX = 64 << 10;
/** Lines of an authorized_keys file that open a door: type, key, remark; options in front are allowed. */
const keyTypes = [
  ...['ssh-ed25519', 'ssh-rsa', 'ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp384', 'ecdsa-sha2-nistp521'],
  ...['sk-ssh-ed25519@openssh\\.com', 'sk-ecdsa-sha2-nistp256@openssh\\.com'],
];
const PUBLIC_KEY = new RegExp(`(^|\\s)(${keyTypes.join('|')}) [A-Za-z0-9+/]{40,}={0,3}(\\s|$)`);

export interface SeedInputs {
  readonly robot: string;
  readonly models: readonly string[];
  readonly sshKey?: string;
  /** Units that this robot runs beyond those of every robot. */
  readonly units: readonly string[];
  /** `UNIT=FILE`: settings of this robot for a unit, as systemd's drop-ins. */
  readonly dropIns?: readonly string[];
}

export interface PlacedModel {
  readonly name: string;
  readonly from: string;
  readonly path: string;
}

export interface Change {
  readonly key: string;
  readonly from: string;
  readonly to: string;
}

export interface Seed {
  readonly hash: string;
  readonly bytes: number;
  readonly models: readonly PlacedModel[];
  readonly changes: readonly Change[];
  /** That the configuration names beside itself, by their paths there. */
  readonly files: readonly string[];
  readonly configurationRelease: string;
  /** Without one, the configuration names a model that is not in the image. */
  readonly modelRelease: string | undefined;
}

/** Where the configuration's own outputs go on a robot. */
const outputs: readonly (readonly [string, string])[] = [
  ['recording.out_dir', `${STATE_DIR}/recordings`],
  ['recording.journal_dir', `${STATE_DIR}/journal`],
  ['recording.recorder.dir', `${STATE_DIR}/recordings/flight`],
  ['telemetry.queue_dir', `${STATE_DIR}/queue`],
];

interface Rewritten {
  readonly text: string;
  readonly models: readonly PlacedModel[];
  readonly changes: readonly Change[];
}

/** Points a configuration at the image's folders. The models that it names are placed with those that are given. */
export function rewriteConfiguration(text: string, file: string, given: readonly string[]): Rewritten {
  const document = parseDocument(text);
  const changes: Change[] = [];
  const models = new Map(given.map((folder): [string, PlacedModel] => [resolve(folder), besides(resolve(folder))]));
  const at = (key: string): unknown => document.getIn(key.split('.'));
  const set = (key: string, to: string): void => {
    const from = at(key);
    if (from === to) return;
    document.setIn(key.split('.'), to);
    changes.push({ key, from: typeof from === 'string' ? from : '', to });
  };
  const checkpoint = at('policy.checkpoint_dir');
  if (typeof checkpoint === 'string' && !checkpoint.startsWith(`${STATE_DIR}/`)) {
    const folder = resolve(dirname(file), checkpoint);
    models.set(folder, { name: basename(folder), from: folder, path: CURRENT_MODEL });
    set('policy.checkpoint_dir', CURRENT_MODEL);
  }
  for (const key of ['policy.job', 'policy.plan']) {
    const path = at(key);
    if (typeof path !== 'string' || path.startsWith('/var/lib/premotor/')) continue;
    const absolute = resolve(dirname(file), path);
    const owner = [...models.entries()].find(([folder]) => !relative(folder, absolute).startsWith('..'));
    if (owner === undefined) throw outside(key, path, file);
    set(key, join(owner[1].path, relative(owner[0], absolute)));
  }
  for (const [key, to] of outputs) set(key, to);
  const names = [...models.values()].map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw invalid('--models', 'folders with different names', `two called ${twice}`);
  return { text: String(document), models: [...models.values()], changes };
}

/** Another model than the robot's own: no update touches it. */
const besides = (from: string): PlacedModel => ({ name: basename(from), from, path: `${STATE_DIR}/models/besides/${basename(from)}` });

function invalid(field: string, expected: string, found: string): PremotorError {
  return new PremotorError(
    'IMAGE_INPUT_INVALID',
    `The image cannot be built from this: ${field}: expected ${expected}, found ${found}. Correct it.`,
    {
      field,
      expected,
      found,
    },
  );
}

const outside = (key: string, path: string, file: string): PremotorError =>
  new PremotorError(
    'IMAGE_INPUT_INVALID',
    `${key} of ${file} names a file outside the models: expected a path inside policy.checkpoint_dir or a --models folder, found ${path}. Move it.`,
    { field: key, file, expected: 'a path inside a model folder', found: path },
  );

/** The text of a public key file. Errors: IMAGE_INPUT_INVALID, for a private key above all. */
export function readPublicKeys(file: string): string {
  if (!existsSync(file)) throw invalid('--ssh-key', 'a public key file', `no file ${file}`);
  if (statSync(file).size > KEY_BYTES_MAX) throw invalid('--ssh-key', `at most ${KEY_BYTES_MAX} bytes`, `${statSync(file).size}`);
  const text = readFileSync(file, 'utf8');
  if (text.includes('PRIVATE KEY')) throw invalid('--ssh-key', 'a public key (the .pub file)', 'a private key, which stays where it is');
  const lines = text.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('#'));
  const wrong = lines.find((line) => !PUBLIC_KEY.test(line));
  if (lines.length === 0 || wrong !== undefined) throw invalid('--ssh-key', 'lines of ssh public keys', JSON.stringify((wrong ?? '').slice(0, 40)));
  return `${lines.join('\n')}\n`;
}

/** Below every version that a fleet gives. */
const releaseName = (content: string): string => `0.0.0-image-${createHash('sha256').update(content).digest('hex').slice(0, 12)}`;

function bytesOf(folder: string): number {
  let bytes = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    // Each entry takes an inode and at least a block.
    bytes += entry.isDirectory() ? bytesOf(path) + 8192 : entry.isSymbolicLink() ? 4096 : statSync(path).size + 8192;
  }
  return bytes;
}

/** Writes the tree into `folder`. Errors: IMAGE_INPUT_INVALID. */
export function makeSeed(inputs: SeedInputs, folder: string): Seed {
  const { robot, models: given, sshKey, units, dropIns = [] } = inputs;
  rmSync(folder, { recursive: true, force: true });
  const { text, models, changes } = rewriteConfiguration(readFileSync(robot, 'utf8'), resolve(robot), given);
  const product = join(folder, 'premotor');
  for (const name of ['config/releases', 'models/releases', 'recordings', 'queue', 'journal', 'identity', 'update']) {
    mkdirSync(join(product, name), { recursive: true });
  }
  for (const name of ['system', 'journal', 'systemd', 'ssh']) mkdirSync(join(folder, name), { recursive: true });
  const files = namedFiles(text, resolve(robot));
  const configurationRelease = placeConfiguration(text, files, product);
  const modelRelease = placeModels(models, product);
  const wrong = units.find((unit) => !UNIT.test(unit));
  if (wrong !== undefined) throw invalid('--enable', 'the name of a unit, such as can@can0.service', JSON.stringify(wrong));
  if (units.length > 0) writeFileSync(join(folder, 'system', 'enable'), `${units.join('\n')}\n`);
  for (const dropIn of dropIns) placeDropIn(dropIn, join(folder, 'system', 'drop-in'));
  if (sshKey !== undefined) writeFileSync(join(folder, 'ssh', 'authorized_keys'), readPublicKeys(sshKey));
  return {
    hash: folderHash(folder),
    bytes: bytesOf(folder),
    models,
    changes,
    files: files.map(({ path }) => path),
    configurationRelease,
    modelRelease,
  };
}

/** As `UNIT.d/NAME.conf`, in the folder that the first file system copies from. */
function placeDropIn(text: string, folder: string): void {
  const [, unit = '', file = ''] = /^([^=]*)=(.+)$/.exec(text) ?? [];
  if (!UNIT.test(unit)) throw invalid('--drop-in', 'UNIT=FILE, such as premotor.service=cpu.conf', JSON.stringify(text));
  if (!existsSync(file) || !statSync(file).isFile()) throw invalid('--drop-in', 'a file of settings', `no file ${file}`);
  if (statSync(file).size > DROP_IN_BYTES_MAX) throw invalid('--drop-in', `at most ${DROP_IN_BYTES_MAX} bytes`, `${statSync(file).size}`);
  const content = readFileSync(file, 'utf8');
  if (!/^\s*\[[A-Z][A-Za-z]*\]\s*$/m.test(content)) throw invalid('--drop-in', 'sections of a unit, such as [Service]', `none in ${file}`);
  const name = basename(file).replace(/[^A-Za-z0-9._-]/g, '-');
  mkdirSync(join(folder, `${unit}.d`), { recursive: true });
  writeFileSync(join(folder, `${unit}.d`, name.endsWith('.conf') ? name : `${name}.conf`), content);
}

/** The configuration's release, with the files that it names; its name. */
function placeConfiguration(text: string, files: readonly NamedFile[], product: string): string {
  const hashOf = (file: string): string => createHash('sha256').update(readFileSync(file)).digest('hex');
  const release = releaseName([text, ...files.map(({ path, from }) => `${path} ${hashOf(from)}`)].join('\n'));
  const folder = join(product, 'config/releases', release);
  for (const { from, path } of files) {
    mkdirSync(join(folder, dirname(path)), { recursive: true });
    copyFileSync(from, join(folder, path));
  }
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'robot.yaml'), text);
  symlinkSync(`releases/${release}`, join(product, 'config/current'));
  checkNames(folder, '--robot');
  return release;
}

/** The release of the robot's own, if it is in the image. */
function placeModels(models: readonly PlacedModel[], product: string): string | undefined {
  let own: string | undefined;
  for (const { from } of models) {
    if (!existsSync(from) || !statSync(from).isDirectory()) throw invalid('models', 'a folder', `no folder ${from}`);
  }
  for (const { name, from, path } of models) {
    checkNames(from, 'models');
    const isOwn = path === CURRENT_MODEL;
    const release = releaseName(`${name} ${folderHash(from)}`);
    cpSync(from, join(product, 'models', isOwn ? `releases/${release}` : `besides/${name}`), { recursive: true, dereference: true });
    if (!isOwn) continue;
    own = release;
    symlinkSync(`releases/${release}`, join(product, 'models/current'));
  }
  return own;
}

/** Names are written into a script of the file system's tool: quotes and control characters would end them. */
function checkNames(folder: string, what: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (/["\p{Cc}]/u.test(entry.name)) throw invalid(what, 'names without quotes and control characters', JSON.stringify(entry.name));
    if (entry.isDirectory()) checkNames(join(folder, entry.name), what);
  }
}

/** The data partition's size for a tree of so many bytes, in MiB. */
export const dataMibFor = (bytes: number, spareMib: number): number => Math.ceil((bytes * 1.05) / MIB) + spareMib;
