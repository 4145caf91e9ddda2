/**
 * Models and configurations: installed, refused, taken back, rolled back; and with the power cut at every single operation of an installation.
 * What is
 * current is then the old or the new release, whole.
 */
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { PremotorError } from '../../src/errors.js';
import { noteReleases } from '../../src/image/first-releases.js';
import { makeSeed } from '../../src/image/seed.js';
import type { Health } from '../../src/update/health.js';
import type { Places } from '../../src/update/places.js';
import { readRecord } from '../../src/update/records.js';
import { packRelease } from '../../src/update/release-file.js';
import { commitRelease, installRelease, type ReleaseParts, rollBackRelease, settleTrial } from '../../src/update/release-install.js';
import { Releases } from '../../src/update/releases.js';
import { FakeService, type Fleet, makeFleet, placesIn } from './fakes.js';
import { FailingDisk, hastyDisk, PowerCut } from './power-cut.js';

const well: Health = { ok: true, findings: [] };
const ill: Health = { ok: false, findings: [{ check: 'service', ok: false, found: 'waiting (CAMERA: none)' }] };

const home = t.testdir();
let fleet: Fleet;
const files = new Map<string, string>();

/** Files of a release whose content says its version. */
async function pack(version: string, kind: 'model' | 'config' = 'model'): Promise<string> {
  const known = files.get(`${kind}-${version}`);
  if (known !== undefined) return known;
  const folder = join(home, `${kind}-${version}`);
  mkdirSync(join(folder, 'deep', 'er'), { recursive: true });
  writeFileSync(join(folder, 'robot.yaml'), `version ${version}\n`);
  writeFileSync(join(folder, 'deep', 'er', 'weights'), version.repeat(40_000));
  writeFileSync(join(folder, 'deep', 'empty'), '');
  const out = join(home, `${kind}-${version}.tar`);
  await packRelease({ kind, version, folder, out, signer: fleet.signer });
  files.set(`${kind}-${version}`, out);
  return out;
}

t.before(async () => {
  fleet = await makeFleet(join(home, 'fleet'));
});

interface Robot {
  readonly places: Places;
  readonly parts: ReleaseParts;
  health: Health;
  readonly restarts: string[];
}

async function robot(t: Test, withService = true): Promise<Robot & { service?: FakeService }> {
  const places = placesIn(t, fleet.keyring);
  const service = withService ? await FakeService.listen(t, places.socket) : undefined;
  const made: Robot & { service?: FakeService } = {
    places,
    health: well,
    restarts: [],
    ...(service === undefined ? {} : { service }),
    parts: {
      places,
      keep: 3,
      disk: hastyDisk,
      check: async () => undefined,
      restart: async () => {
        if (service !== undefined) service.state.state = 'starting';
        made.restarts.push((await new Releases(places, 'model').current()) ?? 'none');
      },
      health: async () => made.health,
    },
  };
  return made;
}

const current = (places: Places): Promise<string | undefined> => new Releases(places, 'model').current();

/** Every file of the current release is what its manifest says. */
async function wholeCurrent(places: Places): Promise<string | undefined> {
  const releases = new Releases(places, 'model');
  const version = await releases.current();
  if (version === undefined) return undefined;
  for (const { path, sha256 } of (await releases.manifest(version)).files) {
    const found = createHash('sha256')
      .update(readFileSync(join(releases.path(version), path)))
      .digest('hex');
    if (found !== sha256) return `${version} with another ${path}`;
  }
  return version;
}

t.test('a release is tried, found well, and the one before is the way back', async (t) => {
  const { places, parts, restarts } = await robot(t);
  t.match(await installRelease('model', await pack('1.0.0'), parts), { version: '1.0.0', state: 'committed', previous: undefined });
  t.match(await installRelease('model', await pack('2.0.0'), parts), { version: '2.0.0', state: 'committed', previous: '1.0.0' });
  t.equal(readlinkSync(join(places.stateDir, 'models', 'current')), 'releases/2.0.0');
  t.equal(await wholeCurrent(places), '2.0.0');
  t.same(restarts, ['1.0.0', '2.0.0'], 'the service starts when what it reads is in place');
  t.match(await installRelease('model', await pack('2.0.0'), parts), { state: 'unchanged' });
  t.match(await rollBackRelease('model', parts), { version: '1.0.0', state: 'committed', previous: '2.0.0' });
  t.equal(await wholeCurrent(places), '1.0.0');
  await t.rejects(installRelease('model', await pack('1.5.0'), parts), { code: 'UPDATE_OLDER', expected: '2.0.0 or newer' });
  t.equal(await current(places), '1.0.0', 'going back does not lower the mark');
  const { outcomes } = await readRecord(places.updateDir);
  t.same(
    outcomes.map(({ outcome, version }) => `${outcome} ${version}`),
    ['committed 1.0.0', 'committed 2.0.0', 'committed 1.0.0', 'rolled-back 2.0.0'],
  );
});

t.test('one with which the service is not well is taken back', async (t) => {
  const robotHere = await robot(t);
  const { places, parts, restarts } = robotHere;
  await installRelease('model', await pack('1.0.0'), parts);
  robotHere.health = ill;
  await t.rejects(installRelease('model', await pack('2.0.0'), parts), { code: 'UPDATE_UNHEALTHY', found: /CAMERA/ });
  t.equal(await wholeCurrent(places), '1.0.0');
  t.same(restarts, ['1.0.0', '2.0.0', '1.0.0']);
  const record = await readRecord(places.updateDir);
  t.match(record, { highWater: { model: '1.0.0' }, model: { committed: '1.0.0', trial: undefined } });
  t.match(record.outcomes.at(-1), { outcome: 'unhealthy', version: '2.0.0', reasons: [/waiting/] });
  await t.rejects(rollBackRelease('model', parts), { code: 'UPDATE_NOTHING' }, 'what was never good is no way back');
  robotHere.health = well;
  t.match(await installRelease('model', await pack('2.0.0'), parts), { state: 'committed', previous: '1.0.0' }, 'it may be tried again');
});

t.test('a first release that is not well leaves none, as before', async (t) => {
  const robotHere = await robot(t);
  robotHere.health = ill;
  await t.rejects(installRelease('model', await pack('1.0.0'), robotHere.parts), { code: 'UPDATE_UNHEALTHY' });
  t.equal(await current(robotHere.places), undefined);
});

t.test('on a robot from an image the first update that is not well goes back, and so does one that was', async (t) => {
  const robotHere = await robot(t);
  const { places, parts } = robotHere;
  const source = t.testdir({ 'arm.yaml': 'policy:\n  checkpoint_dir: tabletop\n', tabletop: { 'robot.yaml': 'x', 'job.json': '{}' } });
  const seed = join(source, 'seed');
  const { modelRelease: image = '', ...made } = makeSeed({ robot: join(source, 'arm.yaml'), models: [], units: [] }, seed);
  await noteReleases(seed, { ...made, modelRelease: image });
  cpSync(join(seed, 'premotor'), places.stateDir, { recursive: true, verbatimSymlinks: true });
  cpSync(join(seed, 'premotor', 'update'), places.updateDir, { recursive: true });
  t.equal(await wholeCurrent(places), image);
  robotHere.health = ill;
  await t.rejects(installRelease('model', await pack('1.0.0'), parts), { code: 'UPDATE_UNHEALTHY' });
  t.equal(await wholeCurrent(places), image, 'the model of the image is in use again');
  robotHere.health = well;
  t.match(await installRelease('model', await pack('1.0.0'), parts), { version: '1.0.0', state: 'committed', previous: image });
  t.match(await rollBackRelease('model', parts), { version: image, state: 'committed' });
  t.equal(await wholeCurrent(places), image);
});

t.test('without a service a release stays on trial, and another one does not lose the way back', async (t) => {
  const { places, parts } = await robot(t, false);
  t.match(await installRelease('model', await pack('1.0.0'), parts), { state: 'trial', remarks: [/No service/, /confirm/] });
  await commitRelease('model', places, 3);
  await installRelease('model', await pack('2.0.0'), parts);
  await installRelease('model', await pack('3.0.0'), parts);
  t.match((await readRecord(places.updateDir)).model.trial, { to: '3.0.0', from: '1.0.0' });
  t.match(await rollBackRelease('model', parts), { version: '1.0.0' });
  t.equal(await wholeCurrent(places), '1.0.0');
});

t.test('what is refused changes nothing', async (t) => {
  const { places, parts, service } = await robot(t);
  await installRelease('model', await pack('1.0.0'), parts);
  const refused = async (code: string, file: string, change: Partial<ReleaseParts> = {}): Promise<void> => {
    await t.rejects(installRelease('model', file, { ...parts, ...change }), { code }, code);
    t.equal(await wholeCurrent(places), '1.0.0');
    t.same(await new Releases(places, 'model').versions(), ['1.0.0'], 'nothing is left of it');
  };
  const file = await pack('2.0.0');
  await refused('UPDATE_KIND', await pack('2.0.0', 'config'));
  await refused('DISK_FULL', file, { freeBytes: async () => 1000 });
  const bad = async (): Promise<void> => {
    throw new PremotorError('SELFTEST_MISMATCH', 'computes something else');
  };
  await refused('SELFTEST_MISMATCH', file, { check: bad });
  const other = await makeFleet(join(t.testdirName, 'other'));
  await refused('UPDATE_SIGNATURE', file, { places: { ...places, keyring: other.keyring } });
  await refused('UPDATE_FORMAT', join(home, 'fleet', 'ci.pem'));
  if (service !== undefined) Object.assign(service.state, { state: 'holding', armed: true });
  await refused('UPDATE_ROBOT_ACTIVE', file);
});

t.test('old releases go, those that are needed stay', async (t) => {
  const { places, parts } = await robot(t);
  for (const version of ['1.0.0', '2.0.0', '3.0.0', '10.0.0']) await installRelease('model', await pack(version), parts);
  t.same(await new Releases(places, 'model').versions(), ['2.0.0', '3.0.0', '10.0.0']);
  await rollBackRelease('model', { ...parts, keep: 2 });
  t.same(await new Releases(places, 'model').versions(), ['3.0.0', '10.0.0']);
});

/** Numbers of 0 .. 1 from a seed (mulberry32). */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

const CUTS_MIN = 200;

t.test('the power is cut at every operation of an installation', { timeout: 300_000 }, async (t) => {
  const { places, parts, service } = await robot(t);
  await installRelease('model', await pack('1.0.0'), parts);
  const before = join(t.testdirName, 'before');
  cpSync(places.stateDir, before, { recursive: true, verbatimSymlinks: true });
  const file = await pack('2.0.0');
  const found: Record<string, number> = {};
  let cuts = 0;
  for (let round = 0; cuts < CUTS_MIN; round++) {
    t.comment(`round ${round}: losses from seeds ${round * 1000} on`);
    for (let at = 0; ; at++) {
      const stateDir = join(t.testdirName, `cut-${round}-${at}`);
      cpSync(before, stateDir, { recursive: true, verbatimSymlinks: true });
      const here = { ...places, stateDir, updateDir: join(stateDir, 'update') };
      const disk = new FailingDisk(at, numbers(round * 1000 + at));
      if (service !== undefined) service.state.state = 'ready';
      // In odd rounds the release is not well, so that taking it back is cut, too.
      const health = async (): Promise<Health> => (round % 2 === 0 ? well : ill);
      const end = await installRelease('model', file, { ...parts, places: here, disk, health, verify: async () => undefined }).catch(
        (error: unknown) => error as Error,
      );
      if (!(end instanceof PowerCut)) break;
      disk.lose();
      cuts++;
      const left = (await wholeCurrent(here)) ?? 'none';
      found[left] = (found[left] ?? 0) + 1;
      if (left !== '1.0.0' && left !== '2.0.0') t.fail(`cut at ${at} in round ${round} leaves ${left}`);
      const record = await settleTrial('model', here);
      if (left === '2.0.0' && record.model.trial === undefined && record.model.committed !== '2.0.0')
        t.fail(`cut at ${at}: 2.0.0 counts as good untried`);
      await goesOn(t, here, parts, file);
    }
  }
  t.comment(`${cuts} cuts: ${JSON.stringify(found)}`);
  t.ok((found['1.0.0'] ?? 0) > 0 && (found['2.0.0'] ?? 0) > 0, 'cuts fell before and after the step');
});

/** After a power cut the same release can be installed. */
async function goesOn(t: Test, places: Places, parts: ReleaseParts, file: string): Promise<void> {
  const done = await installRelease('model', file, { ...parts, places, verify: async () => undefined });
  if (done.state === 'unchanged') await commitRelease('model', places, 3);
  if ((await wholeCurrent(places)) !== '2.0.0') t.fail('the release cannot be installed after a cut');
  if ((await readRecord(places.updateDir)).highWater.model !== '2.0.0') t.fail('the mark was not raised after a cut');
}
