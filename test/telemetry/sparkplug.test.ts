/**
 * The edge node against a real mosquitto, captured between the two and judged by sparkplug-checker.ts, for MQTT 3.1.1 with a primary host and for
 * MQTT 5; and the checker against captures in which one thing was changed.
 */
import t, { type Test } from 'tap';
import { type Capture, captureOf } from './capture.js';
import { MUTATIONS } from './mutations.js';
import { ASSERTIONS, failuresOf } from './sparkplug-checker.js';
import { FastTime, HOST, HostApplication, IDS, LinkProxy, Mosquitto, Rig, skipMosquitto, until } from './world.js';

/** Telemetry's own second is 50 ms here. */
const SPEED = 20;
const state = { capture311: undefined as Capture | undefined, capture5: undefined as Capture | undefined };

/** What the rig says of a robot that moves a little. */
function move(rig: Rig, step: number): void {
  rig.set('Joint/shoulder/Position', Math.sin(step / 10));
  rig.set('Motion/Cycles', step * 1000);
  rig.set('Robot/State', step % 7 === 0 ? 'holding' : 'running');
  rig.report();
}

async function moves(rig: Rig, from: number, count: number): Promise<void> {
  for (let step = from; step < from + count; step++) {
    move(rig, step);
    // Each message goes out alone, as with a ticker.
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

interface Stage {
  readonly rig: Rig;
  readonly host: HostApplication;
  readonly broker: Mosquitto;
  readonly proxy: LinkProxy;
}

async function stage(t: Test, version: '3.1.1' | '5', primaryHost?: string): Promise<Stage> {
  const broker = await Mosquitto.open(t.testdir());
  const proxy = await LinkProxy.open(() => broker.port);
  const host = await HostApplication.open(broker.port);
  const config = { mqtt_version: version };
  const dir = `${t.testdirName}/queue`;
  const rig = await Rig.open({ port: proxy.port, dir, time: new FastTime(SPEED), config, ...(primaryHost ? { primaryHost } : {}) });
  t.teardown(async () => {
    await rig.close();
    await host.close();
    await proxy.close();
    await broker.kill();
  });
  return { rig, host, broker, proxy };
}

const isHeard = (proxy: LinkProxy, timestamp: number): boolean =>
  proxy.captured.some((one) => {
    if (one.kind !== 'packet' || one.from !== 'broker' || one.packet.type !== 'publish' || !one.packet.topic.includes('/STATE/')) return false;
    return Buffer.from(one.packet.payload).includes(`"timestamp":${timestamp}`);
  });

/** The host as the node hears it; it acts on it before the next message of this test, because that takes the same way. */
async function say({ host, proxy }: Stage, online: boolean, timestamp: number): Promise<void> {
  await host.state(online, timestamp);
  await until(`STATE ${timestamp} at the node`, () => isHeard(proxy, timestamp));
}

async function rebirth({ rig, host, proxy }: Stage): Promise<void> {
  const births = host.count('NBIRTH');
  const ncmds = (): number =>
    proxy.captured.filter(
      (one) => one.kind === 'packet' && one.from === 'broker' && one.packet.type === 'publish' && one.packet.topic.includes('/NCMD/'),
    ).length;
  const before = ncmds();
  await host.command([{ name: 'Node Control/Rebirth', type: 'Boolean', value: true }]);
  await until('the request', () => ncmds() > before);
  rig.report();
  await until('a rebirth', () => host.count('NBIRTH') > births);
}

t.test(
  'MQTT 3.1.1 with a primary host: waits, is born, speaks, is reborn, dies with its host, comes back, says goodbye',
  { skip: skipMosquitto },
  async (t) => {
    const all = await stage(t, '3.1.1', HOST);
    const { rig, host, proxy, broker } = all;
    rig.set('Joint/elbow/Position', -0.25);
    rig.report();
    rig.node.start();
    await until('connected', () => rig.node.state === 'waiting for host');
    await host.state(true, 5000, 'another-host');
    await say(all, false, 1000);
    await moves(rig, 0, 3);
    t.equal(rig.node.state, 'waiting for host');
    t.equal(host.count('NBIRTH'), 0, 'nothing is published while the host is not there');
    t.equal(host.count('NDATA'), 0);
    await say(all, true, 2000);
    await until('born', () => rig.node.state === 'online');
    await moves(rig, 10, 300);
    await rebirth(all);
    await moves(rig, 310, 5);
    await say(all, false, 1500);
    await moves(rig, 320, 5);
    t.equal(rig.node.state, 'online', 'an offline message from before is late, not true');
    await say(all, false, 2500);
    await until('away', () => rig.node.state !== 'online');
    await until('an NDEATH', () => host.count('NDEATH') === 1);
    await until('waiting again', () => rig.node.state === 'waiting for host');
    await say(all, true, 2400);
    await moves(rig, 330, 5);
    t.equal(rig.node.state, 'waiting for host', 'an online message from before is late, too');
    await say(all, true, 3000);
    await until('born again', () => rig.node.state === 'online');
    await moves(rig, 340, 20);
    proxy.cut();
    await until('the will', () => host.count('NDEATH') === 2);
    await moves(rig, 360, 20);
    await until('back after the cut', () => rig.node.state === 'online' && host.count('NBIRTH') === 4);
    await moves(rig, 380, 20);
    await until('everything is confirmed', () => rig.queue.isEmpty);
    await rig.close();
    t.equal(host.count('NDEATH'), 3);
    t.equal(rig.node.connections, 3);
    state.capture311 = captureOf(proxy.captured, { ...IDS, host: HOST });
    t.notMatch(broker.log, /malformed|protocol error/i);
  },
);

t.test('MQTT 5: clean start, no session expiry, disconnect with will message', { skip: skipMosquitto }, async (t) => {
  const all = await stage(t, '5');
  const { rig, host, proxy } = all;
  rig.node.start();
  await until('born', () => rig.node.state === 'online');
  await moves(rig, 0, 300);
  await rebirth(all);
  await moves(rig, 300, 5);
  await rig.close();
  await until('its goodbye and the will', () => host.count('NDEATH') === 2);
  state.capture5 = captureOf(proxy.captured, { ...IDS, host: HOST });
});

t.test('every assertion holds', { skip: skipMosquitto }, async (t) => {
  const { capture311, capture5 } = state;
  if (!capture311 || !capture5) throw new Error('no captures');
  t.ok(ASSERTIONS.length >= 60, `${ASSERTIONS.length} assertions`);
  t.equal(new Set(ASSERTIONS.map(({ id }) => id)).size, ASSERTIONS.length);
  for (const { id, judge, version } of ASSERTIONS) {
    for (const [one, capture] of [
      [4, capture311],
      [5, capture5],
    ] as const) {
      if (version !== undefined && version !== one) continue;
      const { seen, problems } = judge(capture);
      t.ok(seen > 0, `${id}: ${seen} things judged, MQTT ${one === 4 ? '3.1.1' : '5'}`);
      t.same(problems.slice(0, 5), [], id);
    }
  }
});

t.test('every assertion can fail: one thing is changed', { skip: skipMosquitto }, async (t) => {
  const { capture311, capture5 } = state;
  if (!capture311 || !capture5) throw new Error('no captures');
  const broken = new Set<string>();
  for (const { name, version = 4, change, fails } of MUTATIONS) {
    const capture = structuredClone(version === 5 ? capture5 : capture311);
    change(capture);
    const failed = failuresOf(capture, version);
    for (const id of fails) t.ok(failed.has(`tck-id-${id}`), `${name}: ${id}`);
    for (const id of fails) broken.add(`tck-id-${id}`);
  }
  t.same(
    ASSERTIONS.map(({ id }) => id).filter((id) => !broken.has(id)),
    [],
    `${MUTATIONS.length} changes leave no assertion that cannot fail`,
  );
});
