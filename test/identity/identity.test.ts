/**
 * Identities with the real openssl: key and request, what a power cut leaves, certificates that are not this robot's, and a real mosquitto with the
 * shipped access list: a robot cannot speak as another.
 */
import { chmodSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import mqtt, { type MqttClient } from 'mqtt';
import t, { type Test } from 'tap';
import { runCli } from '../../src/cli/main.js';
import { certificateRemark } from '../../src/identity/certificate.js';
import { checkName, createIdentity, filesIn, installCertificate, isKeyPrivate, showIdentity } from '../../src/identity/identity.js';
import { fakeContext } from '../cli/fakes.js';
import { skipOpenssl } from '../telemetry/certificates.js';
import { Mosquitto, skipMosquitto, until } from '../telemetry/world.js';
import { Authority, ROBOT_USES, SERVER_USES, SIGNER_USES, ssl } from './authority.js';

const DAY_MS = 86_400_000;

t.test('key and request of a new robot', { skip: skipOpenssl }, async (t) => {
  const dir = join(t.testdir(), 'identity');
  t.match(await showIdentity(dir), { state: 'none' });
  t.ok(await createIdentity({ dir, name: 'arm-01', ifMissing: false }));
  const files = filesIn(dir);
  t.equal(statSync(files.key).mode & 0o777, 0o600);
  t.equal(statSync(dir).mode & 0o007, 0, 'nobody else looks into the folder');
  t.match(ssl('req', '-in', files.request, '-noout', '-verify', '-text'), /CN = arm-01[\s\S]*prime256v1[\s\S]*DNS:arm-01/);
  t.equal(ssl('pkey', '-in', files.key, '-pubout'), ssl('req', '-in', files.request, '-noout', '-pubkey'), 'of this key');
  t.match(await showIdentity(dir), { state: 'requested', name: 'arm-01', keyFingerprint: /^[0-9a-f]{64}$/ });
  const before = readFileSync(files.key, 'utf8');
  await t.rejects(createIdentity({ dir, name: 'arm-01', ifMissing: false }), { code: 'IDENTITY_EXISTS' });
  t.notOk(await createIdentity({ dir, name: 'other', ifMissing: true }), 'a second boot changes nothing');
  rmSync(files.request);
  t.match(await showIdentity(dir), { state: 'key alone' });
  t.ok(await createIdentity({ dir, name: 'arm-01', ifMissing: true }), 'a power cut between key and request');
  t.equal(readFileSync(files.key, 'utf8'), before, 'the key stays');
  t.match(await showIdentity(dir), { state: 'requested' });
  t.ok(await isKeyPrivate(dir));
  chmodSync(files.key, 0o644);
  t.notOk(await isKeyPrivate(dir));
  const other = join(t.testdirName, 'other');
  await createIdentity({ dir: other, name: 'arm-01', ifMissing: false });
  t.not((await showIdentity(other)).keyFingerprint, (await showIdentity(dir)).keyFingerprint, 'no two robots have one key');
  for (const name of ['', 'a b', 'a/b', '-a', 'a#', 'x'.repeat(64), 'a\nb', 'a/CN=b'])
    t.throws(() => checkName(name), { code: 'IDENTITY_NAME_INVALID' }, name);
  const two = await Promise.allSettled([1, 2].map(() => createIdentity({ dir: join(t.testdirName, 'race'), name: 'arm-01', ifMissing: true })));
  t.ok(
    two.some(({ status }) => status === 'fulfilled'),
    'two at one time',
  );
  t.equal(ssl('pkey', '-in', join(t.testdirName, 'race', 'robot.key'), '-pubout').includes('PUBLIC KEY'), true);
  writeFileSync(files.key, 'no key');
  await t.rejects(showIdentity(dir), { code: 'IDENTITY_KEY' });
});

t.test('a certificate is taken when it is this robot’s, and only then', { skip: skipOpenssl }, async (t) => {
  const folder = t.testdir();
  const dir = join(folder, 'identity');
  const authority = new Authority(join(folder, 'ca'));
  const stranger = new Authority(join(folder, 'stranger'));
  await t.rejects(installCertificate({ dir, certificate: authority.certificate, authority: authority.certificate }), { code: 'IDENTITY_MISSING' });
  await createIdentity({ dir, name: 'arm-01', ifMissing: false });
  const { request, certificate, key } = filesIn(dir);
  const good = authority.sign(request, 'good.pem');
  const install = (file: string, ca = authority.certificate, nowMs = Date.now()) =>
    installCertificate({ dir, certificate: file, authority: ca, nowMs });
  const refuses = async (what: string, file: string, found: RegExp, ca?: string, nowMs?: number): Promise<void> => {
    await t.rejects(install(file, ca, nowMs), { code: 'IDENTITY_CERTIFICATE', found }, what);
    t.notOk(existsSync(certificate), `${what}: nothing was installed`);
  };
  await refuses('another key', authority.issue('arm-01').certFile, /another key/);
  ssl('req', '-new', '-key', key, '-subj', '/CN=arm-02', '-out', join(folder, 'named.csr'));
  await refuses('another name', authority.sign(join(folder, 'named.csr'), 'named.pem'), /arm-02/);
  await refuses('another authority', good, /unable to get local issuer|self-signed|issuer/, stranger.certificate);
  await refuses('its own authority', stranger.sign(request, 'strange.pem'), /issuer|signature/);
  await refuses('may sign updates', authority.sign(request, 'signer.pem', `${SIGNER_USES},clientAuth`), /one that can/);
  await refuses('for servers', authority.sign(request, 'server.pem', SERVER_USES), /1\.3\.6/);
  await refuses('ended', good, /./, undefined, Date.now() + 6 * DAY_MS);
  await refuses('not begun, as with a clock of 1970', good, /1970/, undefined, 1000);
  writeFileSync(join(folder, 'no.pem'), 'no certificate');
  await refuses('no certificate', join(folder, 'no.pem'), /none/);
  await t.rejects(install(join(folder, 'absent.pem')), { code: 'IDENTITY_FILE' });
  t.match(await install(good), { name: 'arm-01', issuer: 'fleet' });
  t.match(await showIdentity(dir), { state: 'expiring', certificate: { daysLeft: 4 } }, 'five days are few');
  t.match(await showIdentity(dir, Date.now() + 6 * DAY_MS), { state: 'expired' });
  await install(authority.sign(request, 'long.pem', ROBOT_USES, '9'));
  t.match(await showIdentity(dir, Date.now()), { state: 'expiring', certificate: { daysLeft: 8 } }, 'renewed');
  writeFileSync(certificate, readFileSync(authority.file('arm-01.pem')));
  t.match(await showIdentity(dir), { state: 'wrong', why: /another key/ });
  const pem = readFileSync(good);
  t.equal(certificateRemark(pem, 'arm-01', Date.now())?.code, 'IDENTITY_EXPIRES', 'telemetry warns');
  t.match(certificateRemark(pem, 'arm-01', Date.now() + 9 * DAY_MS)?.message, /has expired/);
  t.equal(certificateRemark(pem, 'arm-02', Date.now() - 40 * DAY_MS)?.code, 'IDENTITY_NAME');
  t.equal(certificateRemark(pem, 'arm-01', Date.now() - 40 * DAY_MS), undefined);
  t.equal(certificateRemark(Buffer.from('none'), 'arm-01', 0), undefined);
});

t.test('the commands', { skip: skipOpenssl }, async (t) => {
  const folder = t.testdir();
  const dir = join(folder, 'identity');
  const authority = new Authority(join(folder, 'ca'));
  const run = async (...args: string[]): Promise<{ code: number; text: string; said: string }> => {
    const { out, err, context } = fakeContext();
    return { code: await runCli(['identity', ...args, '--dir', dir], context), text: out.text, said: err.text };
  };
  t.match(await run('show', '--check'), { code: 3, text: /none[\s\S]*identity create/ });
  t.match(await run('create', '--name', 'arm-01'), { code: 0, text: /Made[\s\S]*requested/ });
  t.match(await run('create', '--name', 'arm-01'), { code: 1, said: /IDENTITY_EXISTS/ });
  t.match(await run('create', '--if-missing'), { code: 0, text: /There is one already/ });
  const { request, key } = filesIn(dir);
  const installed = await run('install-cert', authority.sign(request, 'good.pem', ROBOT_USES, '90'), '--ca', authority.certificate, '--json');
  t.match(JSON.parse(installed.text), { telemetry: { node_id: 'arm-01', key_file: key } });
  const shown = await run('show', '--check', '--json');
  t.match({ code: shown.code, ...JSON.parse(shown.text) }, { code: 0, state: 'ready', isKeyPrivate: true });
  t.notMatch(shown.text + installed.text, /PRIVATE/);
  chmodSync(key, 0o640);
  t.match(await run('show', '--check'), { code: 3, said: /chmod 600/ });
});

/** The shipped files, with their places changed. */
async function shippedBroker(t: Test, authority: Authority): Promise<Mosquitto> {
  const folder = join(t.testdirName, 'broker');
  const shipped = (name: string): string => readFileSync(new URL(`../../deploy/broker/${name}`, import.meta.url), 'utf8');
  authority.issue('broker', SERVER_USES);
  writeFileSync(authority.file('acl'), shipped('acl'));

  const lines = shipped('mosquitto.conf')
    .replaceAll('/etc/mosquitto/fleet/', `${authority.file('')}/`)
    .split('\n')
    .filter((line) => !/^(listener|per_listener_settings|persistence) /.test(line));
  // Where the queue has no bound, mosquitto 2.0.11 ends the session of whoever was refused something.
  return Mosquitto.open(folder, [...lines, 'max_queued_messages 1000']);
}

t.test('with the shipped access list a robot cannot speak as another', { skip: skipMosquitto || skipOpenssl }, async (t) => {
  const authority = new Authority(join(t.testdir(), 'ca'));
  const broker = await shippedBroker(t, authority);
  const clients: MqttClient[] = [];
  t.teardown(async () => {
    for (const client of clients) await client.endAsync(true);
    await broker.kill();
  });
  const heard: string[] = [];
  const open = async (name: string): Promise<MqttClient> => {
    const dir = join(t.testdirName, name);
    await createIdentity({ dir, name, ifMissing: false });
    await installCertificate({ dir, certificate: authority.sign(filesIn(dir).request, `${name}.pem`), authority: authority.certificate });
    const { key, certificate: cert, authority: ca } = filesIn(dir);
    const client = await mqtt.connectAsync(`mqtts://127.0.0.1:${broker.port}`, {
      reconnectPeriod: 0,
      key: readFileSync(key),
      cert: readFileSync(cert),
      ca: readFileSync(ca),
    });
    client.on('message', (topic, payload) => void heard.push(`${name}: ${topic} ${payload.toString()}`));
    clients.push(client);
    return client;
  };
  const [view, one, two] = [await open('fleet-view'), await open('arm-01'), await open('arm-02')];
  await view.subscribeAsync('spBv1.0/#', { qos: 1 });
  const granted = await two.subscribeAsync(['spBv1.0/plant/NCMD/arm-02', 'spBv1.0/plant/NCMD/arm-01', 'spBv1.0/plant/NDATA/+'], { qos: 1 });
  t.equal(granted.length, 3);
  // As a robot sends, at QoS 0: what is refused vanishes.
  for (const verb of ['NBIRTH', 'NDATA', 'NDEATH', 'NCMD']) await one.publishAsync(`spBv1.0/plant/${verb}/arm-02`, 'forged', { qos: 0 });
  await one.publishAsync('spBv1.0/other/NDATA/arm-01', 'forged', { qos: 0 });
  await one.publishAsync('spBv1.0/STATE/scada', 'forged', { qos: 0, retain: true });
  await view.publishAsync('spBv1.0/plant/NDATA/arm-01', 'forged', { qos: 0 });
  for (const verb of ['NBIRTH', 'NDATA', 'NDEATH']) await one.publishAsync(`spBv1.0/plant/${verb}/arm-01`, 'own', { qos: 1 });
  for (const node of ['arm-01', 'arm-02']) await view.publishAsync(`spBv1.0/plant/NCMD/${node}`, 'rebirth', { qos: 1 });
  await until(
    'everything allowed has arrived',
    () => heard.filter((line) => line.startsWith('fleet-view')).length >= 5 && heard.some((line) => line.startsWith('arm-02')),
  );
  t.same(heard.filter((line) => line.startsWith('fleet-view')).sort(), [
    'fleet-view: spBv1.0/plant/NBIRTH/arm-01 own',
    'fleet-view: spBv1.0/plant/NCMD/arm-01 rebirth',
    'fleet-view: spBv1.0/plant/NCMD/arm-02 rebirth',
    'fleet-view: spBv1.0/plant/NDATA/arm-01 own',
    'fleet-view: spBv1.0/plant/NDEATH/arm-01 own',
  ]);
  t.same(
    heard.filter((line) => line.startsWith('arm')),
    ['arm-02: spBv1.0/plant/NCMD/arm-02 rebirth'],
    'nor hears it what is for another',
  );
  t.equal((broker.log.match(/Denied PUBLISH/g) ?? []).length, 7);
  const stranger = new Authority(join(t.testdirName, 'stranger')).issue('arm-01');
  const forged = { key: readFileSync(stranger.keyFile), cert: readFileSync(stranger.certFile), ca: readFileSync(authority.certificate) };
  await t.rejects(mqtt.connectAsync(`mqtts://127.0.0.1:${broker.port}`, { reconnectPeriod: 0, connectTimeout: 3000, ...forged }, false));
  const nobody = { ca: readFileSync(authority.certificate) };
  await t.rejects(mqtt.connectAsync(`mqtts://127.0.0.1:${broker.port}`, { reconnectPeriod: 0, connectTimeout: 3000, ...nobody }, false));
});
