/**
 * `npm run test:vm`: real SocketCAN and a real camera driver, wherever this runs. Boots Debian's kernel in QEMU (emulated, so that no machine needs
 * to lend its own kernel) with the host's root shared read-only, and runs test/vm/guest.py inside: virtual CAN interfaces and two emulated
 * controllers on one bus. The guest has no network. What the guest reports is kept in build/vm.tap, from which .ci/run counts. What is missing here
 * is skipped, loudly, and not a failure.
 */
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { ensureAddon, ensureDist, ensureNative, ensurePackages, ensureTools, root, runMain, say } from './steps.mjs';
import { withTotals } from './tap-totals.mjs';

const guest_timeout_ms = 420_000;
const folder = join(root, 'build', 'vm');
const tapFile = join(root, 'build', 'vm.tap');

/** Debian packages, each with a file that shows that it is installed. */
const packages = {
  'qemu-system-x86': '/usr/bin/qemu-system-x86_64',
  'busybox-static': '/bin/busybox',
  kmod: '/sbin/depmod',
  cpio: '/bin/cpio',
  'can-utils': '/usr/bin/candump',
  iproute2: '/sbin/tc',
  python3: '/usr/bin/python3',
  'python3-can': '/usr/lib/python3/dist-packages/can/__init__.py',
};

/** The modules that the guest loads before it can see the host's root, and without which nothing works. */
const earlyModules = ['virtio_pci', '9pnet_virtio', '9p'];

/** A reason to run nothing. */
class Skip extends Error {}

function outputOf(command, args, options = {}) {
  const result = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 26, ...options });
  if (result.status !== 0) throw new Skip(`${command} ${args.join(' ')} failed: ${result.error?.message ?? result.stderr.trim().slice(-300)}`);
  return result.stdout;
}

function ensureMachine() {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Skip(`the guest runs this machine's programs: expected linux x64, found ${process.platform} ${process.arch}`);
  const missing = Object.keys(packages).filter((name) => !existsSync(packages[name]));
  if (missing.length === 0) return;
  if (process.getuid() !== 0 || !existsSync('/usr/bin/apt-get'))
    throw new Skip(`missing Debian packages: ${missing.join(' ')}; install them, or run this as root`);
  say(`installing Debian packages: ${missing.join(' ')}`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  outputOf('apt-get', ['update', '-qq'], { env });
  outputOf('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...missing], { env });
}

/** Debian's kernel, unpacked into build/vm and not installed; the newest that this machine's package lists know. Returns its release. */
function ensureKernel() {
  const release = () => (existsSync(join(folder, 'kernel', 'ready')) ? readFileSync(join(folder, 'kernel', 'ready'), 'utf8') : undefined);
  if (release() !== undefined) return release();
  const depends = outputOf('apt-cache', ['depends', 'linux-image-amd64']);
  const name = /Depends: (linux-image-(\S+))/.exec(depends);
  if (name === null) throw new Skip(`apt-cache knows no kernel behind linux-image-amd64: found ${JSON.stringify(depends.slice(0, 100))}`);
  say(`fetching ${name[1]}`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, 'kernel'), { recursive: true });
  outputOf('apt-get', ['download', '-qq', name[1]], { cwd: folder });
  const deb = readdirSync(folder).find((file) => file.endsWith('.deb'));
  outputOf('dpkg', ['-x', deb, 'kernel'], { cwd: folder });
  rmSync(join(folder, deb));
  outputOf('/sbin/depmod', ['-b', join(folder, 'kernel'), name[2]]);
  writeFileSync(join(folder, 'kernel', 'ready'), name[2]);
  return name[2];
}

/** The first file system: busybox, the early modules in the order of their dependencies, and init. */
function makeInitramfs(release) {
  const tree = join(folder, 'initramfs');
  rmSync(tree, { recursive: true, force: true });
  for (const name of ['bin', 'modules', 'dev']) mkdirSync(join(tree, name), { recursive: true });
  copyFileSync('/bin/busybox', join(tree, 'bin', 'busybox'));
  copyFileSync(join(root, 'test', 'vm', 'init.sh'), join(tree, 'init'));
  chmodSync(join(tree, 'init'), 0o755);
  const order = [];
  for (const module of earlyModules) {
    const shown = outputOf('/sbin/modprobe', ['-d', join(folder, 'kernel'), '-S', release, '--show-depends', '--ignore-install', module]);
    for (const [, path] of shown.matchAll(/^insmod (\S+)/gm)) if (!order.includes(path)) order.push(path);
  }
  const nameOf = (path) => path.slice(path.lastIndexOf('/') + 1);
  for (const path of order) copyFileSync(path, join(tree, 'modules', nameOf(path)));
  writeFileSync(join(tree, 'modules', 'order'), order.map((path) => `${nameOf(path)}\n`).join(''));
  const settings = {
    REPOSITORY: root.replace(/\/$/, ''),
    NODE: process.execPath,
    MODULES: relative(root, join(folder, 'kernel')),
    PROGRAMS: 'build/tests/bin',
  };
  writeFileSync(
    join(tree, 'settings'),
    Object.entries(settings)
      .map(([key, value]) => `${key}='${value}'\n`)
      .join(''),
  );
  const files = spawnSync('find', ['.', '-print0'], { cwd: tree });
  const archive = spawnSync('/bin/cpio', ['--null', '-o', '-H', 'newc', '--quiet'], { cwd: tree, input: files.stdout, maxBuffer: 1 << 28 });
  if (archive.status !== 0) throw new Skip(`cpio failed: ${archive.stderr}`);
  writeFileSync(join(folder, 'initramfs.cpio'), archive.stdout);
}

/** Boots the guest and waits for its end. Its console goes to build/vm/console.log. Returns what it reported. */
async function boot(release) {
  const [console, results] = [join(folder, 'console.log'), join(folder, 'results.tap')];
  for (const path of [console, results]) rmSync(path, { force: true });
  const args = [
    '-M',
    'q35',
    '-accel',
    'tcg',
    '-cpu',
    'max',
    '-m',
    '2048',
    '-smp',
    '2',
    '-nodefaults',
    '-nic',
    'none',
    '-display',
    'none',
    '-no-reboot',
  ];
  args.push('-kernel', join(folder, 'kernel', 'boot', `vmlinuz-${release}`), '-initrd', join(folder, 'initramfs.cpio'));
  args.push('-append', 'console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on');
  args.push('-serial', `file:${console}`, '-serial', `file:${results}`);
  args.push('-fsdev', 'local,id=host,path=/,security_model=none,readonly=on,multidevs=remap');
  args.push('-device', 'virtio-9p-pci,fsdev=host,mount_tag=host');
  // Two PCI cards with one SJA1000 controller each, on one bus.
  args.push('-object', 'can-bus,id=bus0', '-device', 'kvaser_pci,canbus=bus0', '-device', 'kvaser_pci,canbus=bus0');
  const log = openSync(join(folder, 'qemu.log'), 'w');
  const child = spawn('/usr/bin/qemu-system-x86_64', args, { stdio: ['ignore', log, log] });
  const timer = setTimeout(() => child.kill('SIGKILL'), guest_timeout_ms);
  const [code, signal] = await new Promise((resolve) => child.on('close', (...ended) => resolve(ended)));
  clearTimeout(timer);
  const text = existsSync(results) ? readFileSync(results, 'utf8').replaceAll('\r', '') : '';
  const how =
    signal === null
      ? `exit code ${code}: ${readFileSync(join(folder, 'qemu.log'), 'utf8').slice(-400)}`
      : `${signal} after at most ${guest_timeout_ms} ms`;
  return { text, ended: code === 0 ? undefined : how };
}

/** Keeps and prints what the guest reported, with totals. Returns the exit code. */
function conclude(text, ended) {
  const console = join(folder, 'console.log');
  const { lines, fail } = withTotals(text, ended, existsSync(console) ? readFileSync(console, 'utf8') : '');
  mkdirSync(join(root, 'build'), { recursive: true });
  writeFileSync(tapFile, `${lines.join('\n')}\n`);
  process.stdout.write(`${lines.join('\n')}\n`);
  return fail === 0 ? 0 : 1;
}

await runMain(async () => {
  rmSync(tapFile, { force: true });
  let release;
  try {
    ensureMachine();
    release = ensureKernel();
    makeInitramfs(release);
  } catch (error) {
    if (!(error instanceof Skip)) throw error;
    say(`SKIPPED: no SocketCAN test in a guest: ${error.message}`);
    return conclude(`TAP version 13\nok 1 - SocketCAN in a guest # SKIP ${error.message.replaceAll('\n', ' ')}\n1..1\n`, undefined);
  }
  ensureTools({ mayInstall: true });
  ensurePackages();
  ensureAddon();
  ensureDist();
  ensureNative('tests', { PREMOTOR_TESTS: 'ON' }, ['socketcan_peer', 'can_buses_test']);
  const started = performance.now();
  const { text, ended } = await boot(release);
  say(`the guest ran for ${((performance.now() - started) / 1000).toFixed(1)} s`);
  return conclude(text, ended);
});
