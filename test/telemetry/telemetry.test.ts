/**
 * Telemetry as the observer of an episode: a stop over MQTT while a chunk is computed, brokers that are not there, mutual TLS with an access list,
 * the queue from one run to the next, and that a robot moves the same with it and without.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type RobotConfig, robotConfigSchema } from '../../src/config/schema.js';
import { PremotorError } from '../../src/errors.js';
import { EmbeddedBroker } from '../../src/mqtt/broker.js';
import { type EpisodeResult, runEpisode } from '../../src/runtime/episode.js';
import { Observers } from '../../src/runtime/observers.js';
import type { MotionSample, Observer } from '../../src/tap/observer.js';
import { openTelemetry } from '../../src/telemetry/telemetry.js';
import { atHome, FakePolicy, hasty } from '../control/fakes.js';
import { certificates, skipOpenssl } from './certificates.js';
import { readPayload } from './wire.js';
import { FakeControl, FastTime, fakeAbout, freePort, HostApplication, IDS, Mosquitto, Rig, skipMosquitto, until } from './world.js';

interface Told {
  readonly notices: string[];
  readonly warnings: PremotorError[];
}

function configOf(dir: string, telemetry: object = {}, more: object = {}): RobotConfig {
  return robotConfigSchema.parse({
    robot: { type: 'sim' },
    policy: { checkpoint_dir: join(dir, 'none'), recover: false },
    recording: { animation: false, replay: false, out_dir: join(dir, 'out'), recorder: { mode: 'off' } },
    dashboard: { enabled: false },
    telemetry: { node_id: IDS.node, group_id: IDS.group, ...telemetry },
    ...more,
  });
}

async function openAt(config: RobotConfig): Promise<{ observer: Observer; told: Told; port: number }> {
  const told: Told = { notices: [], warnings: [] };
  const observer = await openTelemetry(config, {
    onNotice: (text) => void told.notices.push(text),
    onWarning: (error) => void told.warnings.push(error),
  });
  if (!observer) throw new Error('no telemetry');
  const port = Number(/mqtts?:\/\/[^:]+:(\d+)/.exec(told.notices.join())?.[1]);
  return { observer, told, port };
}

interface EpisodeWatch {
  readonly policy: FakePolicy;
  /** The telemetry's own; absent: without. */
  readonly onNotice?: (text: string) => void;
  readonly onMotion?: (sample: MotionSample) => void;
  readonly chunks?: number;
}

/** An episode of the real runtime; only the policy is played. */
function episode(config: RobotConfig, { policy, onNotice = () => undefined, onMotion = () => undefined }: EpisodeWatch): Promise<EpisodeResult> {
  const nothing = (): void => undefined;
  const ear: Observer = {
    name: 'recorder',
    begin: async () => undefined,
    event: nothing,
    motion: onMotion,
    end: async () => undefined,
    close: async () => undefined,
  };
  const hear = async (): Promise<Observer> => ear;
  return runEpisode(config, {
    loadPolicy: async () => policy,
    observer: {
      ready: nothing,
      cycle: nothing,
      decoding: nothing,
      decoded: nothing,
      noAnimation: nothing,
      resumed: nothing,
      recovery: nothing,
      warning: nothing,
      notice: onNotice,
    },
    signal: new AbortController().signal,
    openObservers: (one, parts) => Observers.open(one, parts, [(given, those) => openTelemetry(given, those), hear]),
  });
}

for (const [name, word] of [
  ['by its name', 'name'],
  ['by its alias', 'alias'],
] as const) {
  t.test(`a stop over MQTT while a chunk is computed, ${name}`, async (t) => {
    const policy = new FakePolicy(atHome);
    let host: HostApplication | undefined;
    let port = 0;
    let predictions = 0;
    policy.before = async (call, signal) => {
      if (call !== 'predict' || ++predictions < 2) return;
      // The second chunk is never done: only a stop ends the wait.
      host = await HostApplication.open(port);
      await host.command([{ name: 'Node Control/Rebirth', type: 'Boolean', value: true }]);
      await until('a birth', () => (host?.count('NBIRTH') ?? 0) > 0);
      const birth = host.seen.find(({ topic }) => topic.includes('/NBIRTH/'));
      const alias = Number(readPayload(birth?.payload ?? new Uint8Array()).metrics.find((metric) => metric.name === 'Robot/Stop')?.alias);
      const ended = new Promise<void>((resolve) => signal?.addEventListener('abort', () => resolve(), { once: true }));
      await host.command([{ ...(word === 'name' ? { name: 'Robot/Stop' } : { alias }), type: 'Boolean', value: true }]);
      await ended;
      throw new PremotorError('ABORTED', 'The prediction was stopped.');
    };
    const config = configOf(t.testdir(), {}, { control: { chunks_max: 5 } });
    const onNotice = (text: string): void => {
      port = Number(/mqtt:\/\/127\.0\.0\.1:(\d+)/.exec(text)?.[1] ?? port);
    };
    const { summary } = await episode(config, { policy, onNotice });
    t.equal(summary.outcome, 'stopped');
    t.match(summary.stopReason, /asked for over MQTT/);
    t.same(
      summary.transitions.map(({ from, to }) => `${from} ${to}`),
      ['disarmed armed', 'armed running', 'running stopping', 'stopping holding', 'holding disarmed'],
    );
    t.equal(predictions, 2, 'nothing went on');
    await host?.close();
  });
}

t.test('the robot moves bit by bit the same with telemetry, without, and with a broker that is not there', async (t) => {
  const motions = async (telemetry: object): Promise<Buffer[]> => {
    const samples: Buffer[] = [];
    const onMotion = ({ timeNs, setpointRad, positionsRad }: MotionSample): void => {
      samples.push(Buffer.concat([Buffer.from(String(timeNs)), Buffer.from(setpointRad.slice().buffer), Buffer.from(positionsRad.slice().buffer)]));
    };
    const { summary } = await episode(configOf(t.testdir(), telemetry, { control: { chunks_max: 2 } }), { policy: new FakePolicy(hasty), onMotion });
    t.equal(summary.outcome, 'finished');
    return samples;
  };
  const without = await motions({ enabled: false });
  t.ok(without.length > 100, `${without.length} steps`);
  t.ok(Buffer.concat(await motions({})).equals(Buffer.concat(without)));
  t.ok(Buffer.concat(await motions({ broker_url: `mqtt://127.0.0.1:${await freePort()}` })).equals(Buffer.concat(without)));
});

t.test('a broker that is not there: one warning; the next run tells what this one could not', async (t) => {
  const dir = t.testdir();
  const port = await freePort();
  const config = configOf(dir, { broker_url: `mqtt://127.0.0.1:${port}` });
  const first = await openAt(config);
  const control = new FakeControl();
  await first.observer.begin(fakeAbout(), control);
  await until('told', () => first.told.warnings.length > 0);
  const fault = { from: 'running', to: 'fault', trigger: 'fail', reason: 'ENGINE_DIED: it fell over', atMs: 0 } as const;
  first.observer.event({ type: 'cycle', event: { type: 'state', transition: fault } }, 0n);
  control.now = { ...control.now, state: 'fault' };
  await first.observer.end(undefined);
  await first.observer.close();
  await first.observer.close();
  t.match(first.told.warnings, [{ code: 'TELEMETRY_OFFLINE' }]);
  t.equal(first.told.warnings.length, 1);
  const broker = await EmbeddedBroker.open({ port });
  const host = await HostApplication.open(port);
  t.teardown(async () => {
    await host.close();
    await broker.close();
  });
  const second = await openAt(config);
  await second.observer.begin({ ...fakeAbout(), id: 'another run' }, new FakeControl());
  const kept = (): string[] =>
    host.seen
      .filter(({ topic }) => topic.includes('/NDATA/'))
      .flatMap(({ payload }) => readPayload(payload).metrics)
      .flatMap(({ value, isHistorical }) => (isHistorical ? [String(value)] : []));
  await until('what was kept', () => kept().includes('ENGINE_DIED') && kept().includes('failed'));
  t.ok(kept().indexOf('ENGINE_DIED') < kept().indexOf('failed'), 'in order');
  t.same(second.told.warnings, []);
  await second.observer.close();
  await until('its death', () => host.count('NDEATH') === 1);
});

t.test('a primary host that is away is told once; its return, too', async (t) => {
  const { observer, told, port } = await openAt(configOf(t.testdir(), { primary_host_id: 'scada' }));
  const host = await HostApplication.open(port);
  await observer.begin(fakeAbout(), new FakeControl());
  await until('told', () => told.warnings.length > 0);
  t.match(told.warnings[0], { code: 'TELEMETRY_OFFLINE', found: 'the primary host scada is not online' });
  await host.state(true, 1);
  await until('back', () => told.notices.some((text) => /is back/.test(text)));
  await until('born', () => host.count('NBIRTH') === 1);
  await host.close();
  await observer.close();
  t.equal(told.warnings.length, 1);
});

t.test('a slower rate is taken over; a faster one than the configuration allows is not', async (t) => {
  const { observer, port } = await openAt(configOf(t.testdir(), { rate_max_hz: 5 }));
  const host = await HostApplication.open(port);
  await observer.begin(fakeAbout(), new FakeControl());
  await until('born', () => host.count('NBIRTH') === 1);
  const births = host.seen.find(({ topic }) => topic.includes('/NBIRTH/'));
  const rate = readPayload(births?.payload ?? new Uint8Array()).metrics.find(({ name }) => name === 'Telemetry/Rate Max');
  t.equal(rate?.value, 5);
  const told = (): unknown[] =>
    host.seen
      .filter(({ topic }) => topic.includes('/NDATA/'))
      .flatMap(({ payload }) => readPayload(payload).metrics)
      .filter(({ alias, isHistorical }) => alias === rate?.alias && !isHistorical)
      .map(({ value }) => value);
  await host.command([{ name: 'Telemetry/Rate Max', type: 'Double', value: 4 }]);
  await until('4 Hz', () => told().includes(4));
  await host.command([{ name: 'Telemetry/Rate Max', type: 'Double', value: 9 }]);
  await until('5 Hz', () => told().includes(5));
  t.same(told(), [4, 5]);
  await host.close();
  await observer.close();
});

t.test('what a configuration cannot mean is refused before anything moves', async (t) => {
  const dir = t.testdir({ 'a.pem': 'x' });
  const refuses = async (telemetry: object, code: string): Promise<void> => {
    const { queue_dir } = configOf(dir, telemetry).telemetry;
    await t.rejects(openAt(configOf(dir, telemetry)), { code }, `${code} ${queue_dir ?? ''}`);
  };
  const remote = 'mqtts://broker.example:8883';
  await refuses({ mqtt_version: '5' }, 'TELEMETRY_OPTIONS');
  await refuses({ broker_url: 'http://127.0.0.1' }, 'TELEMETRY_OPTIONS');
  await refuses({ broker_url: 'nonsense' }, 'TELEMETRY_OPTIONS');
  await refuses({ broker_url: 'mqtt://me:secret@127.0.0.1' }, 'TELEMETRY_OPTIONS');
  await refuses({ broker_url: 'mqtt://127.0.0.1', ca_file: join(dir, 'a.pem') }, 'TELEMETRY_OPTIONS');
  await refuses({ broker_url: remote, cert_file: join(dir, 'a.pem') }, 'TELEMETRY_OPTIONS');
  await refuses({ broker_url: remote, password_file: join(dir, 'a.pem') }, 'TELEMETRY_OPTIONS');
  await refuses({ broker_url: remote, cert_file: join(dir, 'b.pem'), key_file: join(dir, 'a.pem') }, 'TELEMETRY_FILE');
  await refuses({ broker_url: 'mqtt://192.0.2.1' }, 'TELEMETRY_INSECURE');
  await refuses({ broker_url: remote }, 'TELEMETRY_INSECURE');
  await refuses({ broker_url: 'mqtt://localhost.example' }, 'TELEMETRY_INSECURE');
  await refuses({ queue_dir: join(dir, 'a.pem') }, 'TELEMETRY_QUEUE');
  const taken = await EmbeddedBroker.open({ port: 0 });
  const port = Number(new URL(taken.url).port);
  await refuses({ embedded_port: port }, 'MQTT_BROKER');
  await refuses({ prometheus_port: port }, 'TELEMETRY_PORT');
  await taken.close();
  t.notOk(existsSync(join(dir, 'out', 'telemetry', 'slot-0', 'lock')), 'nothing stays open');
});

const ACL = ['NBIRTH', 'NDATA', 'NDEATH'].map((verb) => `pattern write spBv1.0/${IDS.group}/${verb}/%u`);

function secured(t: Test): { readonly file: (name: string) => string; readonly lines: readonly string[] } {
  const folder = t.testdir();
  const file = certificates(folder, ['broker', IDS.node, 'arm-08', 'scada']);
  const acl = ['user scada', 'topic readwrite spBv1.0/#', ...ACL, `pattern read spBv1.0/${IDS.group}/NCMD/%u`, 'pattern read spBv1.0/STATE/#'];
  writeFileSync(file('acl'), `${acl.join('\n')}\n`);
  const tls = [`cafile ${file('ca.pem')}`, `certfile ${file('broker.pem')}`, `keyfile ${file('broker.key')}`];
  return { file, lines: [...tls, 'require_certificate true', 'use_identity_as_username true', `acl_file ${file('acl')}`] };
}

t.test(
  'mutual TLS and an access list: each robot has its own topics, and nobody else has a say',
  { skip: skipMosquitto || skipOpenssl },
  async (t) => {
    const { file, lines } = secured(t);
    const broker = await Mosquitto.open(join(t.testdirName, 'broker'), lines);
    const identity = (name: string): { key: Buffer; cert: Buffer; ca: Buffer } => ({
      key: readFileSync(file(`${name}.key`)),
      cert: readFileSync(file(`${name}.pem`)),
      ca: readFileSync(file('ca.pem')),
    });
    const files = (name: string): object => ({ ca_file: file('ca.pem'), cert_file: file(`${name}.pem`), key_file: file(`${name}.key`) });
    const url = `mqtts://127.0.0.1:${broker.port}`;
    const time = new FastTime(10);
    const rig = await Rig.open({ port: 0, url, dir: file('queue'), time, config: files(IDS.node) });
    const host = await HostApplication.open(broker.port, identity('scada'));
    const stranger = await HostApplication.open(broker.port, identity('arm-08'));
    t.teardown(async () => {
      await rig.close();
      await host.close();
      await stranger.close();
      await broker.kill();
    });
    rig.node.start();
    await until('born', () => rig.node.state === 'online' && host.count('NBIRTH') === 1);
    // What a stranger sends is denied by the broker, which then ends its session, and the host's command that follows arrives alone.
    await stranger.command([{ name: 'Robot/Stop', type: 'Boolean', value: true }]);
    await until('it is denied', () => broker.log.includes('Denied PUBLISH'));
    await host.command([{ name: 'Robot/Stop', type: 'Boolean', value: true }]);
    await until('the stop', () => rig.stops.length > 0);
    t.equal(rig.stops.length, 1);
    t.equal(host.count('NDEATH'), 0);
    t.equal(stranger.seen.length, 0, 'and it reads nothing');
    const nobody = await Rig.open({ port: 0, url, dir: file('queue'), time, config: { ca_file: file('ca.pem') } });
    nobody.node.start();
    await until('refused', () => nobody.states.filter((state) => state === 'offline').length > 1);
    t.equal(nobody.node.connections, 0, `${nobody.whys.at(-1)}`);
    await nobody.close();
    const mistaken = await Rig.open({
      port: 0,
      url,
      dir: file('queue'),
      time,
      config: { cert_file: file('scada.pem'), key_file: file('scada.key') },
    });
    mistaken.node.start();
    await until('the broker is not believed', () => mistaken.states.includes('offline'));
    t.match(mistaken.whys.join(), /certificate/);
    await mistaken.close();
  },
);
