/**
 * The set-up steps behind `npm install`, `npm start`, `npm test` and `npm run build`: each finds out what is missing, does only that, and says so in
 * one line. Plain JavaScript without dependencies, because it runs before node_modules exists. It never touches anything outside this folder, but for
 * Debian packages that the build needs, when asked to and run as root.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, extname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const cmakeVersionMin = [3, 22];

/** A set-up problem that the user can mend; printed without a stack. */
export class SetupError extends Error {}

export function say(text) {
  process.stderr.write(`premotor: ${text}\n`);
}

/** Runs `main` and turns its outcome into the exit code; a SetupError prints as its message. */
export async function runMain(main) {
  try {
    process.exitCode = (await main()) ?? 0;
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    say(error.message);
    process.exitCode = 1;
  }
}

/** Runs a program with this terminal; throws a SetupError that names `what` when it fails. */
export function run(what, command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options });
  if (result.error) throw new SetupError(`${what} failed: ${command} cannot be started (${result.error.message})`);
  if (result.status !== 0) throw new SetupError(`${what} failed: ${command} ended with ${result.status ?? result.signal}`);
}

function outputOf(command, args) {
  const result = spawnSync(command, args, { encoding: 'utf8' });
  return result.status === 0 ? result.stdout : undefined;
}

function missingTools() {
  const missing = [];
  const cmake = /version (\d+)\.(\d+)/.exec(outputOf('cmake', ['--version']) ?? '');
  const isOld = cmake && (Number(cmake[1]) - cmakeVersionMin[0] || Number(cmake[2]) - cmakeVersionMin[1]) < 0;
  if (!cmake || isOld) missing.push({ tool: `CMake >= ${cmakeVersionMin.join('.')}`, found: cmake ? cmake[0] : 'none', debian: 'cmake' });
  const compiler = process.env.CXX ?? 'c++';
  if (outputOf(compiler, ['--version']) === undefined) missing.push({ tool: `a C++20 compiler (${compiler})`, found: 'none', debian: 'g++' });
  if (outputOf('ninja', ['--version']) === undefined && outputOf('make', ['--version']) === undefined) {
    missing.push({ tool: 'make or ninja', found: 'none', debian: 'make' });
  }
  return missing;
}

/** Finds the compiler, CMake and make. `mayInstall`: as root on a Debian system, apt-get installs what is missing. */
export function ensureTools({ mayInstall }) {
  let missing = missingTools();
  if (missing.length === 0) return;
  const packages = missing.map((entry) => entry.debian);
  if (mayInstall && process.getuid?.() === 0 && outputOf('apt-get', ['--version']) !== undefined) {
    say(`installing build tools: ${packages.join(' ')}`);
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    run('apt-get update', 'apt-get', ['update', '-qq'], { env });
    run('apt-get install', 'apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...packages], { env });
    missing = missingTools();
  }
  if (missing.length === 0) return;
  const list = missing.map((entry) => `  - ${entry.tool}; found: ${entry.found}; Debian package: ${entry.debian}`).join('\n');
  throw new SetupError(
    `the native addon is built from source and needs tools that this machine lacks:\n${list}\n` +
      `On Debian or Ubuntu: sudo apt-get install ${missing.map((entry) => entry.debian).join(' ')}\nThen run the same command again.`,
  );
}

function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

/** True when node_modules holds every package of package-lock.json at its version; packages for other systems may be absent. */
function packagesAreCurrent() {
  const wanted = readJson(join(root, 'package-lock.json'))?.packages ?? {};
  const installed = readJson(join(root, 'node_modules', '.package-lock.json'))?.packages;
  if (!installed) return false;
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === '') return true;
    return installed[path] ? installed[path].version === entry.version : entry.optional === true || entry.devOptional === true;
  });
}

export function ensurePackages() {
  if (packagesAreCurrent()) return;
  say('installing npm packages (npm ci)');
  const npm = process.env.npm_execpath;
  const args = ['ci', '--no-audit', '--no-fund'];
  // onnxruntime-node would look for GPU libraries on the net, and fail where it is not reached; the CPU's come with the package.
  const env = { ...process.env, ONNXRUNTIME_NODE_INSTALL: 'skip' };
  if (npm?.endsWith('.js')) run('npm ci', process.execPath, [npm, ...args], { env });
  else run('npm ci', 'npm', args, { env });
}

/** A build folder made for another source path, or left by a configure step that failed, cannot be reused. */
function dropUnusableBuild(folder) {
  const cache = join(folder, 'CMakeCache.txt');
  if (!existsSync(cache)) return;
  const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(readFileSync(cache, 'utf8'))?.[1];
  const isConfigured = existsSync(join(folder, 'build.ninja')) || existsSync(join(folder, 'Makefile'));
  if (home === root.replace(/\/$/, '') && isConfigured) return;
  say(`${relative(root, folder)} was made for another folder or is incomplete: starting over`);
  rmSync(cache, { force: true });
  rmSync(join(folder, 'CMakeFiles'), { recursive: true, force: true });
}

function build(what, folder, targets = []) {
  const wanted = targets.flatMap((target) => ['--target', target]);
  run(what, 'cmake', ['--build', folder, '--parallel', String(availableParallelism()), ...wanted], { stdio: ['ignore', 2, 2] });
}

function nodeAddonApi() {
  const path = createRequire(join(root, 'package.json')).resolve('node-addon-api/package.json');
  return dirname(path);
}

/** Builds build/Release/premotor.node through cmake-js, which knows where Node's headers are; CMake decides what is out of date. */
export function ensureAddon() {
  const folder = join(root, 'build');
  dropUnusableBuild(folder);
  if (!existsSync(join(folder, 'CMakeCache.txt'))) {
    say('configuring the native addon (first build: a minute or two)');
    const cmakeJs = createRequire(join(root, 'package.json')).resolve('cmake-js/bin/cmake-js');
    const args = [cmakeJs, 'configure', '--directory', root, '--log-level', 'warn', `--CDPREMOTOR_NODE_ADDON_API=${nodeAddonApi()}`];
    run('configuring the addon', process.execPath, args, { stdio: ['ignore', 2, 2] });
  }
  say('building the native addon');
  build('building the addon', folder);
}

/** Every file below `folder`, as sorted paths. */
export function filesBelow(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile())
    .sort();
}

/** Of the programs, and of the status page, which runs in a browser. */
const CONFIGURATIONS = ['tsconfig.json', 'tsconfig.page.json'];

/** Compiles src to dist when a source changed, and copies what is not TypeScript (scenes, pages). */
export function ensureDist() {
  const sources = filesBelow(join(root, 'src'));
  const hash = createHash('sha256');
  for (const path of [...sources, ...CONFIGURATIONS.map((name) => join(root, name)), join(root, 'package-lock.json')]) {
    hash.update(`${relative(root, path)}\n`).update(readFileSync(path));
  }
  const digest = hash.digest('hex');
  const stamp = join(root, 'build', 'dist.stamp');
  const dist = join(root, 'dist');
  if (existsSync(dist) && existsSync(stamp) && readFileSync(stamp, 'utf8') === digest) return;
  say('compiling TypeScript to dist');
  rmSync(dist, { recursive: true, force: true });
  rmSync(stamp, { force: true });
  for (const name of CONFIGURATIONS) run('compiling TypeScript', process.execPath, [typescript(), '-p', join(root, name)]);
  for (const path of sources.filter((source) => extname(source) !== '.ts')) {
    const target = join(dist, relative(join(root, 'src'), path));
    mkdirSync(dirname(target), { recursive: true });
    copyFileSync(path, target);
  }
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, digest);
}

export function typescript() {
  return createRequire(join(root, 'package.json')).resolve('typescript/bin/tsc');
}

/**
 * Configures and builds one extra CMake tree, build/NAME: `tests`, `sanitize` or `fuzz`. Returns the folder of its executables.
 * `definitions` are CMake options; a tree made with other options is configured again. `targets` builds only these.
 */
export function ensureNative(name, definitions, targets = []) {
  const folder = join(root, 'build', name);
  dropUnusableBuild(folder);
  const args = Object.entries({ ...definitions, PREMOTOR_NODE_ADDON_API: nodeAddonApi() }).map(([key, value]) => `-D${key}=${value}`);
  if (!existsSync(join(folder, 'CMakeCache.txt')) && outputOf('ninja', ['--version']) !== undefined) args.push('-G', 'Ninja');
  say(`building native ${name}`);
  run(`configuring native ${name}`, 'cmake', ['-S', root, '-B', folder, '--log-level=WARNING', '--no-warn-unused-cli', ...args], {
    stdio: ['ignore', 'ignore', 2],
  });
  build(`building native ${name}`, folder, targets);
  return join(folder, 'bin');
}
