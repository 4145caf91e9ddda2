/**
 * Scenarios of `npm run test:image` that update a robot in the guest: from slot A to slot B and judged there, bundles that are refused, systems that
 * do not come up, and power cuts at random moments. Bundles are made by the product's own commands from the system of the very image that runs, so an
 * update changes the slot and the version, and nothing else. They need a package (--deb).
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Guest } from './guest.mjs';
import { buildTestImage, writeLightRobot, writeRobot } from './images.mjs';
import { withGuest } from './scenarios.mjs';

/** A verity bundle of a few hundred MiB is read, hashed and written by an emulated machine. */
const install_timeout_ms = 900_000;
const judge_timeout_ms = 900_000;
const POWER_CUTS = 20;
/** An installation takes about so long here: the plug is pulled at random moments of it, and a little after. */
const cut_within_ms = 150_000;

const pause = (duration_ms) => new Promise((resolve) => setTimeout(resolve, duration_ms));

function tool(program, args, options = {}) {
  const { status, stderr, stdout, error } = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 1 << 26, ...options });
  if (status !== 0) throw new Error(`${program} ${args.slice(0, 4).join(' ')}: expected 0, found ${status ?? error}: ${String(stderr).slice(-400)}`);
  return stdout;
}

const premotor = ({ root }, ...args) => tool(process.execPath, [join(root, 'bin', 'premotor.js'), ...args]);

const fleets = new Map();

/** A fleet with one robot's image, made once for all scenarios of a run: hardware in the loop, or a `light` one without a bus. */
function fleetOf(context, kind = 'robot') {
  const key = `${kind} ${context.arch}`;
  if (!fleets.has(key)) fleets.set(key, makeFleet(context, kind));
  return fleets.get(key);
}

function makeFleet(context, kind) {
  const folder = join(context.home, `fleet-${context.arch}`);
  const authority = join(folder, 'authority');
  mkdirSync(folder, { recursive: true });
  if (!existsSync(join(authority, 'fleet-ca.pem'))) premotor(context, 'update', 'ca', 'create', authority);
  if (!existsSync(join(authority, 'ci.pem'))) premotor(context, 'update', 'ca', 'signer', authority, 'ci');
  const extra = ['--fleet-ca', join(authority, 'fleet-ca.pem')];
  // Nobody is asked for telemetry here: whether a robot reports is no part of these scenarios.
  const changes = [['telemetry.enabled', false]];
  const hasBus = kind !== 'light';
  const robot = hasBus ? writeRobot(folder, changes) : writeLightRobot(folder, changes);
  const image = buildTestImage({ arch: context.arch, deb: context.deb, key: context.key, folder, name: kind, robot, hasBus, extra });
  return { folder, authority, image, system: image.replace(/\.img$/, '.squashfs') };
}

function bundle(context, fleet, version, { system = fleet.system, authority = fleet.authority, arch = context.arch, name = version } = {}) {
  const file = join(fleet.folder, `${name}.raucb`);
  rmSync(file, { force: true });
  const signed = ['--cert', join(authority, 'ci.pem'), '--key', join(authority, 'ci.key')];
  premotor(context, 'update', 'build', '--rootfs', system, '--version', version, '--arch', arch, ...signed, '-o', file);
  return file;
}

const slotOf = (guest) => guest.output(`sed -n 's/.*rauc.slot=\\([AB]\\).*/\\1/p' /proc/cmdline`);
const recordOf = async (guest) => JSON.parse(await guest.output('cat /var/lib/premotor/update/record.json 2>/dev/null || echo "{}"'));

/** Bundles come over ssh: the guest reads them from its data partition, as a download leaves them. */
async function bring(guest, file, name = 'new.raucb') {
  await guest.output('mkdir -p /data/bundles');
  await guest.output(`cat >/data/bundles/${name} && sync`, { input: readFileSync(file), timeout_ms: install_timeout_ms });
  return `/data/bundles/${name}`;
}

async function settled(guest) {
  await guest.reachable();
  await guest.output('systemctl is-system-running --wait >/dev/null 2>&1; systemctl start premotor-confirm.service || true', {
    timeout_ms: judge_timeout_ms,
  });
}

async function goodUpdate({ check, disk, ...context }) {
  const fleet = fleetOf(context);
  const file = bundle(context, fleet, '1.1.0');
  await withGuest(disk('update', { image: fleet.image }), context, async (guest) => {
    await settled(guest);
    check.equal(await slotOf(guest), 'A', 'slot A runs');
    await guest.output('echo kept >/data/premotor/queue/witness; sync');
    const path = await bring(guest, file);
    const answer = await guest.output(`premotor update install ${path} --json`, { timeout_ms: install_timeout_ms });
    check.match(answer, /"version": ?"1\.1\.0"/, 'installed');
    check.ok((await recordOf(guest)).systemTrial !== undefined, 'it is on trial');
    const from = guest.lines.length;
    await guest.output('nohup sh -c "sleep 1; systemctl reboot" >/dev/null 2>&1 &');
    check.match(await guest.line(/premotor: starting slot/, { from }), /slot B/, 'the boot loader takes B');
    await pause(10_000);
    await settled(guest);
    check.equal(await slotOf(guest), 'B', 'slot B runs');
    const record = await recordOf(guest);
    check.equal(record.highWater?.system, '1.1.0', 'committed: the mark is raised');
    check.equal(record.outcomes?.at(-1)?.outcome, 'committed', 'and told');
    check.equal(await guest.output('cat /var/lib/premotor/queue/witness'), 'kept', 'the data is there');
    // Older, by its signed version.
    const old = await bring(guest, bundle(context, fleet, '1.0.0'), 'old.raucb');
    const refused = await guest.run(`premotor update install ${old} --json`, { timeout_ms: install_timeout_ms });
    check.match(refused.out + refused.err, /UPDATE_OLDER/, 'an older version is refused');
    check.equal(await slotOf(guest), 'B', 'and nothing changed');
  });
}

/** Changes a byte in the middle, where the payload is. */
function tampered(file) {
  const copy = file.replace(/\.raucb$/, '-tampered.raucb');
  copyFileSync(file, copy);
  const bytes = readFileSync(copy);
  bytes[Math.floor(bytes.length / 2)] ^= 0x40;
  writeFileSync(copy, bytes);
  return copy;
}

async function refusals({ check, disk, ...context }) {
  const fleet = fleetOf(context);
  const good = bundle(context, fleet, '1.1.0');
  const stranger = join(fleet.folder, 'stranger');
  if (!existsSync(join(stranger, 'ci.pem'))) {
    premotor(context, 'update', 'ca', 'create', stranger);
    premotor(context, 'update', 'ca', 'signer', stranger, 'ci');
  }
  const cases = [
    ['a bundle of another fleet', bundle(context, fleet, '1.1.0', { authority: stranger, name: 'stranger' }), /UPDATE_SIGNATURE/],
    [
      'a bundle for other hardware',
      bundle(context, fleet, '1.1.0', { arch: context.arch === 'amd64' ? 'arm64' : 'amd64', name: 'other' }),
      /UPDATE_COMPATIBLE/,
    ],
    ['a tampered payload', tampered(good), /UPDATE_DAMAGED|UPDATE_SIGNATURE/],
  ];
  await withGuest(disk('refused', { image: fleet.image }), context, async (guest) => {
    await settled(guest);
    for (const [what, file, code] of cases) {
      const path = await bring(guest, file);
      const answer = await guest.run(`premotor update install ${path} --json`, { timeout_ms: install_timeout_ms });
      check.ok(answer.code !== 0, `${what} is refused`);
      check.match(answer.out + answer.err, code, `${what}: told as ${code}`);
    }
    const from = guest.lines.length;
    await guest.output('nohup sh -c "sleep 1; systemctl reboot" >/dev/null 2>&1 &');
    check.match(await guest.line(/premotor: starting slot/, { from }), /slot A/, 'the old system starts, as if nothing had been');
  });
}

/** The system with something broken in it, as a squashfs of its own. */
function broken(fleet, name, spoil) {
  const tree = join(fleet.folder, `${name}-tree`);
  const file = join(fleet.folder, `${name}.squashfs`);
  if (existsSync(file) && statSync(file).mtimeMs > statSync(fleet.system).mtimeMs) return file;
  rmSync(tree, { recursive: true, force: true });
  tool('unsquashfs', ['-no-progress', '-quiet', '-d', tree, fleet.system]);
  spoil(tree);
  tool('mksquashfs', [tree, file, '-comp', 'gzip', '-b', '256K', '-no-progress', '-quiet', '-noappend']);
  rmSync(tree, { recursive: true, force: true });
  return file;
}

const defects = [
  {
    name: 'panics',
    spoil: (tree) => {
      // The first process ends at once: the kernel panics, and starts again after some seconds.
      rmSync(join(tree, 'sbin/init'), { force: true });
      writeFileSync(join(tree, 'sbin/init'), '#!/bin/sh\nexit 1\n');
      chmodSync(join(tree, 'sbin/init'), 0o755);
    },
  },
  {
    name: 'hangs',
    spoil: (tree) => {
      // The first process never does anything, so it never looks after the watchdog either.
      rmSync(join(tree, 'sbin/init'), { force: true });
      writeFileSync(join(tree, 'sbin/init'), '#!/bin/sh\nwhile :; do sleep 1000; done\n');
      chmodSync(join(tree, 'sbin/init'), 0o755);
    },
    guest: { watchdog: 'reset' },
  },
  {
    name: 'has no premotor that runs',
    spoil: (tree) => {
      for (const program of ['usr/bin/premotor', 'usr/lib/premotor/bin/premotor.js']) {
        writeFileSync(join(tree, program), '#!/bin/sh\nexit 1\n');
        chmodSync(join(tree, program), 0o755);
      }
    },
  },
];

async function fallsBackFrom(defect, { check, disk, ...context }) {
  const fleet = fleetOf(context);
  const file = bundle(context, fleet, '1.2.0', {
    system: broken(fleet, defect.name.replaceAll(' ', '-'), defect.spoil),
    name: defect.name.replaceAll(' ', '-'),
  });
  const work = async (guest) => {
    await settled(guest);
    const path = await bring(guest, file);
    await guest.output(`premotor update install ${path} --json`, { timeout_ms: install_timeout_ms });
    const from = guest.lines.length;
    await guest.output('nohup sh -c "sleep 1; systemctl reboot" >/dev/null 2>&1 &');
    for (const attempt of [1, 2, 3])
      check.match(
        await guest.line(new RegExp(`premotor: starting slot B.*try ${attempt}`), { from, timeout_ms: judge_timeout_ms }),
        /slot B/,
        `try ${attempt}`,
      );
    await guest.line(/premotor: starting slot A/, { from, timeout_ms: judge_timeout_ms });
    await settled(guest);
    check.equal(await slotOf(guest), 'A', 'the old system runs again, by itself');
    check.equal((await recordOf(guest)).outcomes?.at(-1)?.outcome, 'fell-back', 'and says so');
  };
  await withGuest(disk('broken', { image: fleet.image }), context, work, defect.guest);
}

/** With a robot that has no bus, which starts twice as fast: neither the boot loader nor the disk knows the difference. */
async function powerCuts({ check, disk, ...context }) {
  const fleet = fleetOf(context, 'light');
  const file = bundle(context, fleet, '1.1.0');
  const first = disk('cuts', { image: fleet.image });
  const frozen = join(first.folder, 'memory');
  await withGuest(first, context, async (guest) => {
    await settled(guest);
    await guest.output('echo kept >/data/premotor/queue/witness');
    await bring(guest, file);
    await guest.output('sync');
    await guest.freeze(frozen);
  });
  const seed = Number(process.env.PREMOTOR_TEST_SEED ?? Date.now() % 1_000_000);
  process.stdout.write(`    # seed ${seed}\n`);
  let random = seed;
  for (let cut = 1; cut <= POWER_CUTS; cut++) {
    random = (random * 1_103_515_245 + 12_345) % 2 ** 31;
    const after_ms = Math.floor((random / 2 ** 31) * cut_within_ms);
    const one = first.fork(join(context.folder, `cut-${cut}`));
    const guest = await Guest.start(one, context.key, { frozen });
    try {
      await guest.reachable();
      void guest.run('premotor update install /data/bundles/new.raucb --reboot', { timeout_ms: install_timeout_ms });
      await pause(after_ms);
    } finally {
      await guest.powerCut();
    }
    await withGuest(one, context, async (again) => {
      await settled(again);
      const [slot, witness] = [await slotOf(again), await again.output('cat /var/lib/premotor/queue/witness')];
      const record = await recordOf(again);
      check.ok(/^[AB]$/.test(slot) && witness === 'kept', `cut ${cut} after ${(after_ms / 1000).toFixed(1)} s: slot ${slot} runs, data is there`);
      check.ok(record.systemTrial === undefined, `cut ${cut}: judged: ${record.outcomes?.at(-1)?.outcome ?? 'nothing had begun'}`);
    });
    rmSync(one.folder, { recursive: true, force: true });
  }
}

const needs = ['premotor'];
export const scenarios = [
  {
    name: 'an update goes from slot A to slot B and is committed; an older one is refused',
    arch: 'amd64',
    needs,
    hasOwnImage: true,
    run: goodUpdate,
  },
  { name: 'a wrong signature, other hardware and a tampered payload are refused', arch: 'amd64', needs, hasOwnImage: true, run: refusals },
  ...defects.map((defect) => ({
    name: `a new system that ${defect.name} falls back by itself`,
    arch: 'amd64',
    needs,
    hasOwnImage: true,
    run: (context) => fallsBackFrom(defect, context),
  })),
  { name: `${POWER_CUTS} power cuts at random moments of an update`, arch: 'amd64', needs, hasOwnImage: true, run: powerCuts },
];
