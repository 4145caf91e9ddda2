/**
 * `npm run package:deb -- --arch amd64|arm64 [-o FILE]`: a Debian package of this tree for bare installs and images (docs/INSTALL.md): the app
 * with its production packages, the addon built for the architecture, and a Node of its own. The same commit gives the same bytes. It installs
 * nothing on this machine but, as root, the tools it needs.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, lstatSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { ensureDist, ensureNative, ensurePackages, root, runMain, SetupError, say } from '../../setup/steps.mjs';
import { packDeb } from './archive.mjs';
import { appFiles, filesOf } from './contents.mjs';
import { dependenciesOf, readNeeds } from './elf.mjs';
import { fetchNative } from './fetch.mjs';
import { APP, stageTree, stripNative } from './stage.mjs';

const usage = `Usage: npm run package:deb -- --arch amd64|arm64 [options]

  --arch ARCH      processor of the robot
  -o, --output F   the package to write (default: build/package/premotor_VERSION_ARCH.deb)
  --version V      version of the package and of the program in it (default: package.json's)
  --native DIR     take premotor.node, premotor-stream and premotor-bridge from there instead of building them
  --fast           compress little: for trying things out
  --list           print every file that went in

SOURCE_DATE_EPOCH decides about times; without it the last commit does.`;

const ARCHITECTURES = {
  amd64: { npmCpu: 'x64', strip: 'strip', machine: /X86-64/, tools: {} },
  arm64: {
    npmCpu: 'arm64',
    strip: 'aarch64-linux-gnu-strip',
    machine: /AArch64/,
    tools: { 'aarch64-linux-gnu-g++': 'g++-aarch64-linux-gnu', 'aarch64-linux-gnu-strip': 'binutils-aarch64-linux-gnu' },
  },
};
const TOOLS = { 'dpkg-deb': 'dpkg', readelf: 'binutils', strip: 'binutils', cmake: 'cmake', 'g++': 'g++', tar: 'tar' };
const VERSION = /^\d[A-Za-z0-9.+~]*$/;

const works = (command) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;

/** As root on Debian what is missing is installed; otherwise it is named. */
function ensureTools(wanted) {
  const missing = () => [...new Set(Object.keys(wanted).flatMap((command) => (works(command) ? [] : [wanted[command]])))];
  const before = missing();
  if (before.length === 0) return;
  if (process.getuid?.() === 0 && existsSync('/usr/bin/apt-get')) {
    say(`installing ${before.join(' ')}`);
    const options = { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }, stdio: ['ignore', 2, 2] };
    spawnSync('apt-get', ['update', '-qq'], options);
    spawnSync('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...before], options);
  }
  const after = missing();
  if (after.length > 0) throw new SetupError(`packaging needs tools that this machine lacks. On Debian: sudo apt-get install ${after.join(' ')}`);
}

function epochOf() {
  const given = process.env.SOURCE_DATE_EPOCH;
  const text = given ?? spawnSync('git', ['log', '-1', '--format=%ct'], { cwd: root, encoding: 'utf8' }).stdout?.trim();
  if (!/^\d{1,11}$/.test(text ?? ''))
    throw new SetupError(`the package's time: expected SOURCE_DATE_EPOCH in seconds, or a git commit here; found ${given ?? 'neither'}`);
  return Number(text);
}

function parse(args) {
  const options = {
    arch: { type: 'string' },
    output: { type: 'string', short: 'o' },
    version: { type: 'string' },
    native: { type: 'string' },
    fast: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  };
  let values;
  try {
    ({ values } = parseArgs({ args, options }));
  } catch (error) {
    throw new SetupError(`${error.message}\n\n${usage}`);
  }
  if (values.help) return values;
  if (!Object.hasOwn(ARCHITECTURES, values.arch ?? ''))
    throw new SetupError(`--arch: expected amd64 or arm64, found ${values.arch ?? 'none'}\n\n${usage}`);
  if (values.version !== undefined && !VERSION.test(values.version))
    throw new SetupError(`--version: expected a digit, then letters, digits, "." "+" "~"; found "${values.version}"`);
  return values;
}

/** Builds addon and programs for the architecture; paths of this machine do not get into them. */
function buildNative(arch) {
  const map = `-ffile-prefix-map=${root.replace(/\/$/, '')}=.`;
  const definitions = { PREMOTOR_ADDON: 'ON', PREMOTOR_CUDA: 'OFF', CMAKE_C_FLAGS: map, CMAKE_CXX_FLAGS: map };
  if (arch === 'arm64') definitions.CMAKE_TOOLCHAIN_FILE = join(root, 'deploy/deb/aarch64.cmake');
  ensureNative(`package/native-${arch}`, definitions, ['premotor', 'premotor-stream', 'premotor-bridge']);
  return join(root, 'build', 'package', `native-${arch}`, 'Release');
}

function controlOf({ version, arch, depends }) {
  return `Package: premotor
Version: ${version}
Architecture: ${arch}
Maintainer: premotor maintainers <premotor@example.org>
Section: misc
Priority: optional
Homepage: https://arxiv.org/abs/2601.21998
Depends: ${[...depends, 'systemd (>= 249)', 'udev', 'iproute2', 'kmod'].join(', ')}
Recommends: openssl
Suggests: can-utils, v4l-utils, rauc, rauc-service
Description: edge runtime for robots that plan while they move
 premotor runs causal video-action world models on a robot's own computer and
 turns their plans into motor setpoints on CAN, inside every limit.
 .
 The package has the supervisor with a Node of its own, the compiled engine, the
 real-time setpoint stream, systemd units, device rules and the small checkpoint
 of the simulated robot. It neither enables nor starts anything by itself.
`;
}

/** Sizes of the parts, largest first, as lines. */
function contentsOf(stage) {
  const sizes = new Map();
  for (const file of filesOf(stage)) {
    if (file.startsWith('DEBIAN/')) continue;
    const below = file.startsWith(`${APP}/`) ? file.slice(APP.length + 1).split('/') : undefined;
    const part =
      below === undefined ? file.split('/').slice(0, 3).join('/') : [APP, ...below.slice(0, below[0] === 'node_modules' ? 2 : 1)].join('/');
    sizes.set(part, (sizes.get(part) ?? 0) + lstatSync(join(stage, file)).size);
  }
  const rows = [...sizes].sort(([, a], [, b]) => b - a);
  const shown = rows.slice(0, 20);
  const rest = rows.slice(20).reduce((sum, [, size]) => sum + size, 0);
  if (rest > 0) shown.push([`${rows.length - 20} others`, rest]);
  return shown.map(([part, size]) => `${(size / 1e6).toFixed(2).padStart(9)} MB  ${part}`);
}

async function main() {
  const options = parse(process.argv.slice(2));
  if (options.help) {
    process.stdout.write(`${usage}\n`);
    return;
  }
  const { arch } = options;
  const { npmCpu, strip, machine, tools } = ARCHITECTURES[arch];
  ensureTools({ ...TOOLS, ...tools });
  ensurePackages();
  ensureDist();
  const version = options.version ?? JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version;
  const native = options.native === undefined ? buildNative(arch) : resolve(options.native);
  const stage = join(root, 'build', 'package', `stage-${arch}`);
  rmSync(stage, { recursive: true, force: true });
  mkdirSync(stage, { recursive: true });

  say('copying the program');
  const epoch_s = epochOf();
  const { files, packages, missing } = appFiles(root, npmCpu);
  if (missing.length > 0) throw new SetupError(`the tree is incomplete: ${missing.join(', ')} not found; run "npm ci"`);
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  const fetched = fetchNative({ lock, npmCpu, cache: join(root, 'build', 'package', 'cache'), folder: join(stage, APP) });
  const all = [...packages, ...fetched.flatMap(({ name }) => (name.startsWith('@') ? [`node_modules/${name}`] : []))];
  const { units, conffiles } = stageTree({ root, stage, files, packages: all, native, version, epoch_s });
  say('stripping native code');
  const programs = stripNative(stage, strip);
  const needs = readNeeds(programs);
  if (needs.machines.length !== 1 || !machine.test(needs.machines[0]))
    throw new SetupError(`native code for another processor: expected ${machine.source} alone, found ${needs.machines.join(', ')}`);
  const shipped = new Set(programs.map((file) => file.slice(file.lastIndexOf('/') + 1)));
  const control = controlOf({ version, arch, depends: dependenciesOf(needs, shipped) });
  const scripts = Object.fromEntries(
    ['postinst', 'prerm', 'postrm'].map((name) => [name, readFileSync(join(root, 'deploy/deb/files', name), 'utf8')]),
  );

  const output = resolve(options.output ?? join(root, 'build', 'package', `premotor_${version}_${arch}.deb`));
  say('compressing (a minute or two)');
  const installed_KiB = packDeb({ root: stage, control, scripts, conffiles, epoch_s, output, compression: options.fast ? 'fast' : 'small' });
  const sha256 = createHash('sha256').update(readFileSync(output)).digest('hex');
  if (options.list) process.stdout.write(`${filesOf(stage).join('\n')}\n`);
  process.stdout.write(`${contentsOf(stage).join('\n')}\n`);
  process.stdout.write(`units: ${units.join(', ')}\nneeds: glibc ${needs.glibc}, GLIBCXX_${needs.glibcxx}\n`);
  const size_MB = (statSync(output).size / 1e6).toFixed(1);
  process.stdout.write(`${relative(process.cwd(), output)}: ${size_MB} MB, ${(installed_KiB / 1024).toFixed(0)} MiB installed\nsha256 ${sha256}\n`);
}

await runMain(main);
