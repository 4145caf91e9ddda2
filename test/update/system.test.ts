/**
 * Updates of the system with a real RAUC: installed, refused, confirmed, found unwell, fallen back, rolled back. Bundles are plain ones, because this
 * machine need not have dm-verity; the guest's tests install verity bundles.
 */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { buildBundle, resignBundle } from '../../src/update/bundle.js';
import type { Health } from '../../src/update/health.js';
import type { Places } from '../../src/update/places.js';
import { bundleInfo, raucStatus } from '../../src/update/rauc.js';
import { changeRecord, readRecord } from '../../src/update/records.js';
import { confirmSystem, installSystem, rollBackSystem } from '../../src/update/system.js';
import { runTool } from '../../src/update/tools.js';
import { FakeService, type Fleet, makeFleet, placesIn } from './fakes.js';
import { RaucHost, raucMissing } from './rauc-host.js';

const skip = raucMissing();
const well: Health = { ok: true, findings: [] };
const ill: Health = { ok: false, findings: [{ check: 'telemetry', ok: false, found: 'not connected' }] };
const quiet = (): void => undefined;

const home = t.testdir();
let fleet: Fleet;

function image(name: string, text: string): string {
  const [folder, out] = [join(home, `root-${name}`), join(home, `${name}.squashfs`)];
  if (existsSync(out)) return out;
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'release'), text);
  // RAUC wants more than a block, compressed.
  const noise = Array.from({ length: 600 }, (_, index) => createHash('sha256').update(`${index}`).digest());
  writeFileSync(join(folder, 'noise'), Buffer.concat(noise));
  spawnSync('mksquashfs', [folder, out, '-quiet', '-no-progress', '-all-time', '0', '-mkfs-time', '0']);
  return out;
}

async function bundle(version: string, change: { architecture?: 'amd64' | 'arm64'; fleet?: Fleet; rootfs?: string } = {}): Promise<string> {
  const { architecture = 'amd64', fleet: by = fleet, rootfs = image(version, version) } = change;
  const out = join(home, `${version}-${architecture}-${by.folder.split('/').at(-1)}.raucb`);
  if (existsSync(out)) return out;
  await buildBundle({ rootfs, version, architecture, out, signer: by.signer, keyring: by.keyring, format: 'plain' });
  return out;
}

interface Robot {
  readonly places: Places;
  readonly host: RaucHost;
  readonly service: FakeService;
}

async function robot(t: Test): Promise<Robot> {
  const places = placesIn(t, fleet.keyring);
  const options = ['--state-dir', places.stateDir, '--socket', places.socket, '--keyring', places.keyring, '--rauc-conf', places.raucConfig];
  return { places, host: await RaucHost.start(t, t.testdirName, fleet.keyring, options), service: await FakeService.listen(t, places.socket) };
}

t.before(async () => {
  if (skip === undefined) fleet = await makeFleet(join(home, 'fleet'));
});

t.test('a good update, one that is unwell, one that does not start, and the way back', skip === undefined ? {} : { skip }, async (t) => {
  const { places, host, service } = await robot(t);
  t.match(await confirmSystem(places, '0.9.0', async () => ill), { verdict: 'kept', version: '0.9.0' }, 'without a trial nothing is judged');

  const progress: number[] = [];
  t.match(await installSystem(places, await bundle('1.0.0'), (percent) => void progress.push(percent)), { version: '1.0.0', slot: 'rootfs.1' });
  t.ok(progress.includes(100) && progress.length > 5, 'progress is told');
  t.equal(service.state.state, 'ready', 'maintenance has ended');
  t.ok(
    service.asked.some((request) => request['do'] === 'maintenance' && request['on'] === true),
    'and was asked for',
  );
  t.ok(
    host
      .slot('b')
      .subarray(0, 4096)
      .equals(readFileSync(image('1.0.0', '1.0.0')).subarray(0, 4096)),
    'the image is in slot B',
  );
  t.match((await readRecord(places.updateDir)).systemTrial, { version: '1.0.0', slot: 'rootfs.1', phase: 'activated', fromSlot: 'rootfs.0' });
  t.equal(host.next, 'B');
  await host.boot('B');
  t.match(await confirmSystem(places, '0.9.0', async () => well), { verdict: 'committed', version: '1.0.0', restart: false });
  t.match(await readRecord(places.updateDir), {
    highWater: { system: '1.0.0' },
    goodSlots: { 'rootfs.0': '0.9.0', 'rootfs.1': '1.0.0' },
    systemTrial: undefined,
  });

  await t.rejects(installSystem(places, await bundle('0.9.5'), quiet), { code: 'UPDATE_OLDER', expected: '1.0.0 or newer' });

  // Unwell: marked bad, and the other one starts.
  await installSystem(places, await bundle('1.1.0'), quiet);
  await host.boot(host.next);
  t.match(await confirmSystem(places, '0.9.0', async () => ill), { verdict: 'unhealthy', version: '1.1.0', restart: true, reasons: [/telemetry/] });
  t.equal(host.stateOf('A'), 'bad');
  t.equal(host.next, 'B');
  await host.boot('B');
  t.match(await confirmSystem(places, '0.9.0', async () => well), { verdict: 'kept', version: '1.0.0' });
  t.equal((await readRecord(places.updateDir)).highWater.system, '1.0.0', 'what was unwell raises no mark');
  await t.rejects(rollBackSystem(places), { code: 'UPDATE_NOTHING' }, 'and is no way back');

  // Never gets so far: the boot loader's counter starts the other one.
  await installSystem(places, await bundle('1.2.0'), quiet);
  t.match(await confirmSystem(places, '0.9.0', async () => well), { verdict: 'fell-back', version: '1.2.0' });

  await installSystem(places, await bundle('1.2.0'), quiet);
  await host.boot('A');
  await confirmSystem(places, '0.9.0', async () => well);
  t.match(await rollBackSystem(places), { version: '1.0.0', slot: 'rootfs.1' });
  t.equal(host.next, 'B');
  await host.boot('B');
  t.match(await confirmSystem(places, '0.9.0', async () => well), { verdict: 'committed', version: '1.0.0' });
  const { highWater, outcomes } = await readRecord(places.updateDir);
  t.equal(highWater.system, '1.2.0', 'going back does not lower the mark');
  t.same(
    outcomes.map(({ outcome, version }) => `${outcome} ${version}`),
    ['committed 1.0.0', 'unhealthy 1.1.0', 'fell-back 1.2.0', 'committed 1.2.0', 'rolled-back 1.0.0'],
  );
});

t.test('what is refused changes no slot', skip === undefined ? {} : { skip }, async (t) => {
  const { places, host, service } = await robot(t);
  const before = host.slot('b');
  const refused = async (file: string, code: string, at = places): Promise<void> => {
    await t.rejects(installSystem(at, file, quiet), { code }, code);
    t.ok(host.slot('b').equals(before), `${code}: slot B is as before`);
    t.equal(host.next, 'A', `${code}: A starts next`);
    t.equal((await readRecord(places.updateDir)).systemTrial, undefined, `${code}: nothing is on trial`);
  };
  const good = await bundle('1.0.0');
  await refused(await bundle('1.0.0', { fleet: await makeFleet(join(home, 'stranger')) }), 'UPDATE_SIGNATURE');
  await refused(await bundle('1.0.0', { architecture: 'arm64' }), 'UPDATE_COMPATIBLE');
  const tampered = join(home, 'tampered.raucb');
  cpSync(good, tampered);
  const bytes = readFileSync(tampered);
  bytes[2000] = (bytes[2000] ?? 0) ^ 1;
  writeFileSync(tampered, bytes);
  await refused(tampered, 'UPDATE_SIGNATURE');
  await refused(join(home, 'fleet', 'ci.pem'), 'UPDATE_FORMAT');
  await refused(join(home, 'absent.raucb'), 'UPDATE_FORMAT');
  await refused(good, 'UPDATE_NO_RAUC', { ...places, raucConfig: join(home, 'absent.conf') });
  await changeRecord(places.updateDir, (record) => void (record.highWater.system = '2.0.0'));
  await refused(good, 'UPDATE_OLDER');
  await changeRecord(places.updateDir, (record) => void delete record.highWater.system);
  Object.assign(service.state, { armed: true, state: 'holding' });
  await refused(good, 'UPDATE_ROBOT_ACTIVE');

  // Whoever asks RAUC itself meets the same rules in its handler.
  const direct = await runTool('rauc', ['install', good]);
  t.not(direct.code, 0);
  t.match(`${direct.out}${direct.err}`, /Pre-install handler error/);
  t.ok(host.slot('b').equals(before));
  Object.assign(service.state, { armed: false, state: 'ready' });
  await changeRecord(places.updateDir, (record) => void (record.highWater.system = '2.0.0'));
  t.not((await runTool('rauc', ['install', good])).code, 0, 'an older version');
  await changeRecord(places.updateDir, (record) => void delete record.highWater.system);
  const allowed = await runTool('rauc', ['install', good]);
  t.equal(allowed.code, 0, allowed.err);
  t.match((await readRecord(places.updateDir)).systemTrial, { version: '1.0.0', slot: 'rootfs.1', phase: 'activated' }, 'and is on trial, too');
  t.equal(service.state.state, 'ready');
  t.match(
    (await raucStatus(places)).slots.find(({ name }) => name === 'rootfs.1'),
    { version: '1.0.0', isGood: true, isBooted: false },
  );
});

t.test('building refuses what robots would', skip === undefined ? {} : { skip }, async (t) => {
  const wants = {
    rootfs: image('1.0.0', '1.0.0'),
    version: '1.0.0',
    architecture: 'amd64',
    signer: fleet.signer,
    keyring: fleet.keyring,
    format: 'verity',
  } as const;
  const out = join(t.testdir(), 'x.raucb');
  await t.rejects(buildBundle({ ...wants, out, version: '1.0' }), { code: 'UPDATE_VERSION' });
  await t.rejects(buildBundle({ ...wants, out, rootfs: join(fleet.folder, 'ci.pem') }), { code: 'UPDATE_CONTENT' });
  await t.rejects(buildBundle({ ...wants, out, signer: { ...fleet.signer, certificate: join(home, 'none.pem') } }), { code: 'UPDATE_KEY' });
  const stranger = await makeFleet(join(home, 'stranger-2'));
  await t.rejects(buildBundle({ ...wants, out, signer: stranger.signer }), { code: 'UPDATE_BUILD' }, 'a signer of another fleet');
  t.match(await buildBundle({ ...wants, out }), { compatible: 'premotor-amd64', version: '1.0.0' });
  await t.rejects(buildBundle({ ...wants, out }), { code: 'OUT_NOT_EMPTY' });
  const again = join(t.testdirName, 'again.raucb');
  await resignBundle(out, again, fleet.signer, fleet.keyring);
  t.match(await bundleInfo({ keyring: fleet.keyring }, again), { version: '1.0.0' });
});
