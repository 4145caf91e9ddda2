/**
 * The fleet view against a real mosquitto and real edge nodes: births that were missed and asked for, deaths, a broker that goes; the command's
 * output,
 * options and exit codes; a roll-out from the first stage to its end as an operator runs it.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import mqtt from 'mqtt';
import t, { type Test } from 'tap';
import { runCli } from '../../src/cli/main.js';
import { factsOf } from '../../src/fleet/facts.js';
import { openList } from '../../src/fleet/list.js';
import { FleetObserver } from '../../src/fleet/observer.js';
import { Robots } from '../../src/fleet/robots.js';
import { brokerAddress } from '../../src/telemetry/broker-address.js';
import { decodePayload } from '../../src/telemetry/payload.js';
import { Sampler } from '../../src/telemetry/sampler.js';
import { fakeContext } from '../cli/fakes.js';
import { Authority, SIGNER_USES } from '../identity/authority.js';
import { skipOpenssl } from '../telemetry/certificates.js';
import { FastTime, fakeAbout, freePort, IDS, Mosquitto, Rig, skipMosquitto, telemetryConfig, until } from '../telemetry/world.js';
import { birth } from './parts.js';

const signal = new AbortController().signal;

async function edgeNode(t: Test, port: number): Promise<Rig> {
  const rig = await Rig.open({ port, dir: join(t.testdirName, 'queue'), time: new FastTime(10) });
  new Sampler(rig.reporter, fakeAbout(), () => 0);
  rig.set('Robot/State', 'holding');
  rig.set('Host/Uptime', 7200);
  rig.node.start();
  await until('born', () => rig.node.state === 'online');
  return rig;
}

t.test('births that were missed, deaths, a broker that goes and comes back', { skip: skipMosquitto }, async (t) => {
  const broker = await Mosquitto.open(join(t.testdir(), 'broker'));
  const robots = new Robots();
  let changes = 0;
  const open = (more: object = {}): Promise<FleetObserver> =>
    FleetObserver.open({
      address: brokerAddress(`mqtt://127.0.0.1:${broker.port}`, telemetryConfig()),
      robots,
      asksBirths: false,
      persists: true,
      onChange: () => void changes++,
      signal,
      ...more,
    });
  const rig = await edgeNode(t, broker.port);
  const observer = await open();
  t.teardown(async () => {
    observer.close();
    await rig.close();
    await broker.kill();
  });
  const link = (): string | undefined => robots.rows(0)[0]?.link;
  rig.set('Robot/State', 'running');
  rig.report();
  await until('it speaks', () => link() === 'unborn');
  observer.askBirth(IDS.group, IDS.node);
  await until('reborn', () => link() === 'online');
  t.match(factsOf(robots.rows(0)[0] as never), {
    state: 'running',
    model: 'none',
    plan: 'arm.plan',
    precision: 'bf16',
    modelHash: '0123456789abcdef',
    uptimeS: 7200,
  });
  rig.set('Robot/Fault Code', 'BUS_OFF');
  rig.report();
  await until('the fault', () => robots.rows(0)[0]?.values['Robot/Fault Code'] === 'BUS_OFF');
  t.equal(link(), 'online', 'no message is missing');
  t.ok(changes > 0);
  await broker.kill();
  await until('stale', () => link() === 'stale');
  t.match(robots.rows(0)[0]?.why, /the observer lost the broker/);
  await broker.start();
  await until('both are back', () => observer.isConnected && rig.node.state === 'online');
  // Whether the birth or the observer was first is chance.
  observer.askBirth(IDS.group, IDS.node);
  await until('known again', () => link() === 'online');
  await rig.close();
  await until('gone', () => link() === 'offline');
  t.equal(rig.stops.length, 0, 'and nobody stopped it');
  const brief = await open({ persists: false });
  const ended = brief.ended.catch((error: unknown) => error);
  await broker.kill();
  t.match(await ended, { code: 'FLEET_BROKER' });
  await t.rejects(open(), { code: 'FLEET_BROKER' }, 'no broker at all');
});

t.test('the command', { skip: skipMosquitto }, async (t) => {
  const broker = await Mosquitto.open(join(t.testdir(), 'broker'));
  const rig = await edgeNode(t, broker.port);
  t.teardown(async () => {
    await rig.close();
    await broker.kill();
  });
  const memory = join(t.testdirName, 'memory.json');
  const run = async (...args: string[]): Promise<{ code: number; text: string; said: string }> => {
    const { out, err, context } = fakeContext();
    const code = await runCli(['fleet', '--broker', `mqtt://127.0.0.1:${broker.port}`, '--listen', '1', ...args], context);
    return { code, text: out.text, said: err.text };
  };
  t.match(await run('--check'), { code: 3, text: /No robot was heard of/ });
  // It is at rest and says nothing: only who knows its name can ask it.
  rig.set('Robot/State', 'running');
  const listening = run('--rebirth', '--check', '--memory', memory, '--json');
  const speaking = setInterval(() => {
    rig.set('Host/Uptime', 7200 + Math.floor(performance.now()));
    rig.report();
  }, 100);
  const { code, text } = await listening;
  clearInterval(speaking);
  t.match(
    { code, ...JSON.parse(text) },
    { code: 0, robots: [{ node: IDS.node, group: IDS.group, link: 'online', state: 'running', version: '0.1.0' }] },
  );
  const later = await run('--memory', memory);
  t.match(later, { code: 0, text: /arm-07 +stale .*running +0\.1\.0 +none 01234567 bf16 +arm\.plan/ });
  t.match(await run('--memory', memory, '--filter', 'version!=0.1.0'), { text: /No robot/ });
  t.match(await run('--sort', 'up'), { code: 1, said: /FLEET_FACT/ });
  t.match(await run('--key-file', memory), { code: 1, said: /TELEMETRY_OPTIONS[\s\S]*--cert-file/ });
  const { err, context } = fakeContext();
  t.equal(await runCli(['fleet'], context), 2);
  t.match(err.text, /--broker/);
  t.equal(await runCli(['fleet', '--broker', 'mqtt://192.0.2.1'], fakeContext().context), 1, 'nobody sends an identity over an open line');
  t.equal(await runCli(['fleet', '--broker', `mqtt://127.0.0.1:${await freePort()}`], fakeContext().context), 1);
});

/** Robots that answer every request of a birth with what a test says of them. */
async function played(t: Test, port: number, group: string): Promise<Map<string, Record<string, string | number>>> {
  const robots = new Map<string, Record<string, string | number>>();
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { reconnectPeriod: 0 });
  t.teardown(() => client.endAsync(true));
  await client.subscribeAsync(`spBv1.0/${group}/NCMD/+`, { qos: 1 });
  client.on('message', (topic, payload) => {
    const node = topic.split('/')[3] ?? '';
    const values = robots.get(node);
    const isRebirth = decodePayload(payload)?.metrics.some(({ name, boolean_value }) => name === 'Node Control/Rebirth' && boolean_value === true);
    if (values && isRebirth) client.publish(`spBv1.0/${group}/NBIRTH/${node}`, Buffer.from(birth(0, values)));
  });
  return robots;
}

t.test('a roll-out as an operator runs it', { skip: skipMosquitto || skipOpenssl }, async (t) => {
  const broker = await Mosquitto.open(join(t.testdir(), 'broker'));
  t.teardown(() => broker.kill());
  const robots = await played(t, broker.port, 'plant');
  const file = join(t.testdirName, 'rollout.yaml');
  const list = join(t.testdirName, 'rollout.list');
  const bundle = `{url: "https://bundles.example/a", sha256: "${'ab'.repeat(32)}", bytes: 5}`;
  const stages = 'stages: [{name: canary, robots: [a]}, {name: rest, robots: [b]}]';
  writeFileSync(file, `fleet: plant\nversion: 1.4.0\nbundles: {arm64: ${bundle}}\ngate: {healthy_minutes: 0}\n${stages}\n`);
  const authority = new Authority(join(t.testdirName, 'ca'));
  const { certFile, keyFile } = authority.issue('signer', SIGNER_USES);
  const run = async (verb: string, ...args: string[]): Promise<{ code: number; text: string; said: string }> => {
    const { out, err, context } = fakeContext();
    const where = verb === 'check' ? [] : ['--broker', `mqtt://127.0.0.1:${broker.port}`, '--listen', '1'];
    return { code: await runCli(['fleet', 'rollout', verb, file, ...where, ...args], context), text: out.text, said: err.text };
  };
  const next = (...args: string[]) => run('next', '--signer', certFile, '--signer-key', keyFile, '-o', list, ...args);
  const published = async (): Promise<unknown> => (await openList(list, readFileSync(list), authority.certificate)).robots;
  t.match(await run('check'), { code: 0, text: /1\.4\.0 for plant[\s\S]*canary +1 +0 min/ });
  const old = { 'Run/Version': '0.1.0', 'Update/Version': '1.3.0', 'Host/Uptime': 1_000_000 };
  const good = { ...old, 'Update/Version': '1.4.0', 'Update/State': 'committed', 'Update/Newest': '1.4.0' };
  robots.set('a', old).set('b', old);
  t.match(await next(), { code: 0, text: /stage 1 of 2 begins: canary/ });
  t.same(await published(), ['a']);
  t.match(await next(), { code: 1, said: /ROLLOUT_GATE[\s\S]*canary: a is due/ });
  robots.set('a', { ...old, 'Update/State': 'fell-back', 'Update/Newest': '1.4.0' });
  t.match(await run('status'), { code: 3, text: /halted +a +failed +its update is fell-back[\s\S]*Not yet/ });
  t.match(await next('--pause'), { code: 0, text: /paused/ });
  t.match(await next('--retry'), { code: 0, text: /round 2/ });
  robots.set('a', good);
  t.match(await next(), { code: 0, text: /stage 2 of 2 begins: rest/ });
  t.same(await published(), ['a', 'b']);
  robots.set('b', good);
  const { code, text } = await run('status', '--json');
  t.match({ code, ...JSON.parse(text) }, { code: 0, isComplete: true, opened: 2, blocks: [] });
  t.match(await run('next'), { code: 2, said: /--signer/ });
});
