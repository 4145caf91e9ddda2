/**
 * `npm run test:install -- FILE.deb`: the package as a robot gets it. mmdebstrap makes a small Debian in a folder, dpkg installs the package
 * there, its programs run as the robot's user, then it is removed and purged. Prints TAP. By hand, as root, takes minutes; npm test does not run
 * it.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { runMain, SetupError, say } from './steps.mjs';

const command_timeout_ms = 600_000;
const debian_timeout_ms = 1_800_000;
const usage = 'Usage: npm run test:install -- FILE.deb [--root FOLDER]   --root keeps the Debian in FOLDER and uses it again';

/** Everything of the package's dependencies, so that dpkg alone installs it. */
const packages = ['systemd', 'udev', 'iproute2', 'kmod', 'libstdc++6', 'libgcc-s1'];

/** Whether systemd would start the service; the link points to where the unit is inside, so it is not followed. */
const isEnabled = (root) =>
  lstatSync(join(root, 'etc/systemd/system/multi-user.target.wants/premotor.service'), { throwIfNoEntry: false }) !== undefined;

let count = 0;
let failures = 0;

function check(name, isRight, detail = '') {
  count += 1;
  if (!isRight) failures += 1;
  process.stdout.write(`${isRight ? 'ok' : 'not ok'} ${count} - ${name}\n`);
  if (!isRight && detail !== '') process.stdout.write(`${detail.replace(/^/gm, '# ')}\n`);
}

/** Runs a command inside, with a /proc of its own; the mounts are private and end with it. */
function inside(root, script) {
  const mounts = `mount -t proc proc '${root}/proc' && mount -t tmpfs tmpfs '${root}/dev/shm'`;
  const args = [
    '--mount',
    '--propagation',
    'private',
    'sh',
    '-c',
    `${mounts} && exec chroot '${root}' env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C sh -c "$0"`,
    script,
  ];
  const result = spawnSync('unshare', args, { encoding: 'utf8', timeout: command_timeout_ms });
  return { status: result.status ?? -1, out: `${result.stdout ?? ''}${result.stderr ?? ''}` };
}

function makeDebian(root) {
  if (existsSync(join(root, 'usr', 'bin', 'dpkg'))) return;
  say('making a Debian (mmdebstrap)');
  const options = ['--variant=apt', '--mode=root', `--include=${packages.join(',')}`, '--quiet', 'bookworm', root];
  // In a mount namespace of its own: when it is killed, none of its mounts is left in the folder that is deleted afterwards.
  const result = spawnSync('unshare', ['--mount', '--propagation', 'private', 'mmdebstrap', ...options], {
    stdio: ['ignore', 2, 2],
    timeout: debian_timeout_ms,
  });
  if (result.status !== 0) throw new SetupError(`mmdebstrap failed: ${result.error?.message ?? result.status}; Debian package: mmdebstrap`);
  mkdirSync(join(root, 'dev', 'shm'), { recursive: true });
}

function install(root, deb) {
  copyFileSync(deb, join(root, 'premotor.deb'));
  const { status, out } = inside(root, 'dpkg -i /premotor.deb');
  check('dpkg installs it', status === 0, out);
  const user = inside(root, 'id premotor');
  check('there is a user premotor, who may use cameras and serial adapters', /video/.test(user.out) && /dialout/.test(user.out), user.out);
  const folders = inside(root, "stat -c '%a %U' /var/lib/premotor /var/lib/premotor/identity");
  check('its folders are closed to others', folders.out === '750 premotor\n700 premotor\n', folders.out);
  check('nothing is enabled', !isEnabled(root));
}

function use(root) {
  const version = inside(root, 'premotor --version');
  check('premotor --version', version.status === 0 && /^\d+\.\d+\.\d+\S*\n$/.test(version.out), version.out);
  const doctor = inside(root, 'setpriv --reuid premotor --regid premotor --init-groups premotor doctor --json');
  const findings = doctor.status === 0 ? JSON.parse(doctor.out).findings : [];
  check(
    "the engine loads for the robot's user",
    findings.some(({ name, level }) => name === 'engine' && level === 'ok'),
    doctor.out,
  );
  const demo = inside(root, 'cd /tmp && HOME=/tmp exec setpriv --reuid premotor --regid premotor --init-groups premotor demo');
  check('premotor demo runs an episode', demo.status === 0 && /setpoints at 1 kHz/.test(demo.out), demo.out);
  const unit = inside(
    root,
    "cd /usr/lib/systemd/system && systemd-analyze verify premotor.service can@vcan0.service premotor-sim-bridge.service 2>&1 | grep -v 'man '",
  );
  check('systemd has nothing to say about the units', unit.out.trim() === '', unit.out);
  const rules = inside(root, 'systemctl --root=/ enable premotor.service');
  check('the service can be enabled', rules.status === 0 && isEnabled(root), rules.out);
}

function remove(root) {
  writeFileSync(join(root, 'var/lib/premotor/recordings/kept.mcap'), 'recorded');
  writeFileSync(join(root, 'etc/premotor/can/can0.conf'), 'BITRATE=500000\n');
  const again = inside(root, 'dpkg -i /premotor.deb');
  check("installing it again changes nothing of the robot's", again.status === 0 && existsSync(join(root, 'etc/premotor/can/can0.conf')), again.out);
  const removed = inside(root, 'dpkg -r premotor');
  check('it can be removed', removed.status === 0 && !existsSync(join(root, 'usr/lib/premotor')), removed.out);
  check('and is then enabled no more', !isEnabled(root));
  check('configuration stays', readFileSync(join(root, 'etc/premotor/can/can0.conf'), 'utf8') === 'BITRATE=500000\n');
  const purged = inside(root, 'dpkg -P premotor');
  check('purging takes the configuration', purged.status === 0 && !existsSync(join(root, 'etc/premotor')), purged.out);
  check('and leaves recordings and identity', existsSync(join(root, 'var/lib/premotor/recordings/kept.mcap')));
}

await runMain(() => {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { root: { type: 'string' } } });
  const deb = positionals[0];
  if (deb === undefined || !existsSync(deb)) throw new SetupError(`expected a package, found ${deb ?? 'none'}\n${usage}`);
  if (process.getuid?.() !== 0) throw new SetupError('mmdebstrap and chroot are used as root here: expected user root');
  const root = resolve(values.root ?? mkdtempSync(join(tmpdir(), 'premotor-install-')));
  try {
    makeDebian(root);
    install(root, deb);
    use(root);
    remove(root);
  } finally {
    if (values.root === undefined) rmSync(root, { recursive: true, force: true });
  }
  process.stdout.write(`1..${count}\n# { total: ${count}, pass: ${count - failures}, fail: ${failures} }\n`);
  return failures === 0 ? 0 : 1;
});
