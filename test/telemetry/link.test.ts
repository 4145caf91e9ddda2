/**
 * An hour of telemetry over a bad link, in compressed time: mosquitto is killed and restarted a hundred times, the link is delayed and cut, the
 * robot's process restarts, one outage is longer than the queue. Judged from the broker's side, with mosquitto_sub and protoc alone: every sample
 * arrives, in order, or is among those that were counted as dropped. PREMOTOR_SEED changes what happens when.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { Sample } from '../../src/telemetry/reporter.js';
import { FastTime, HOST, IDS, LinkProxy, Mosquitto, Rig, skipClients, until } from './world.js';

const SPEED = 60;
const LIVES = 100;
/** 100 lives x 120 reports x 300 ms are an hour. */
const REPORTS_PER_LIFE = 120;
const OVERFLOW_LIFE = 60;
const OVERFLOW_REPORTS = 6000;
const RESTARTS = [25, 50, 75];
const QUEUE_BYTES = 192 * 1024;
const seed = Number(process.env['PREMOTOR_SEED'] ?? 20261130);

function randomFrom(start: number): () => number {
  let state = start >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** A host that is nothing but mosquitto's own programs. */
class Watcher {
  readonly lines: string[] = [];
  readonly #broker: Mosquitto;
  readonly #proxy: LinkProxy;
  #child: ChildProcess | undefined;
  #life = 0;

  constructor(broker: Mosquitto, proxy: LinkProxy) {
    this.#broker = broker;
    this.#proxy = proxy;
  }

  /** Subscribes, and only then says that the host is there. */
  async begin(timestamp: number): Promise<void> {
    const id = `watcher-${this.#life++}`;
    this.#proxy.isClosed = false;
    const topic = `spBv1.0/${IDS.group}/#`;
    const child = spawn('mosquitto_sub', ['-h', '127.0.0.1', '-p', String(this.#proxy.port), '-i', id, '-t', topic, '-F', '%t %x'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    this.#child = child;
    let rest = '';
    child.stdout.on('data', (text: Buffer) => {
      const lines = (rest + text.toString()).split('\n');
      rest = lines.pop() ?? '';
      this.lines.push(...lines);
    });
    await until('the watcher is subscribed', () => this.#broker.log.includes(`Sending SUBACK to ${id}`));
    const state = JSON.stringify({ online: true, timestamp });
    const said = spawn('mosquitto_pub', [
      '-h',
      '127.0.0.1',
      '-p',
      String(this.#broker.port),
      '-t',
      `spBv1.0/STATE/${HOST}`,
      '-r',
      '-q',
      '1',
      '-m',
      state,
    ]);
    await once(said, 'exit');
  }

  /** The broker is dead: what it had sent is read to its end. */
  async end(): Promise<void> {
    const child = this.#child;
    if (!child) return;
    this.#proxy.isClosed = true;
    const connection = this.#proxy.connections - 1;
    await until('the watcher has read everything', () => this.#proxy.captured.some((one) => one.kind === 'close' && one.connection === connection));
    const ended = once(child, 'close');
    child.kill('SIGTERM');
    await ended;
  }
}

interface Arrived {
  readonly name: string;
  readonly timestamp: string;
  readonly value: string;
  readonly isHistorical: boolean;
}

const varint = (value: number): number[] => (value < 128 ? [value] : [(value & 127) | 128, ...varint(value >>> 7)]);
const framed = (number: number, bytes: Uint8Array): Uint8Array => Buffer.concat([Uint8Array.from([number * 8 + 2, ...varint(bytes.length)]), bytes]);

/** All payloads in one run of protoc, in the order of their arrival. */
function arrivedOf(folder: string, lines: readonly string[]): Arrived[] {
  const wrapper = 'syntax = "proto2"; import "sparkplug_b.proto"; message All { repeated One one = 1; }';
  const one = 'message One { optional string topic = 1; optional org.eclipse.tahu.protobuf.Payload payload = 2; }';
  writeFileSync(join(folder, 'all.proto'), `${wrapper} ${one}`);
  const input = Buffer.concat(
    lines.map((line) => {
      const [topic = '', hex = ''] = line.split(' ');
      return framed(1, Buffer.concat([framed(1, Buffer.from(topic)), framed(2, Buffer.from(hex, 'hex'))]));
    }),
  );
  const protocol = fileURLToPath(new URL('../../protocol', import.meta.url));
  const options = [`--proto_path=${protocol}`, `--proto_path=${folder}`, '--decode=All', 'all.proto'];
  const { status, stdout, stderr } = spawnSync('protoc', options, { input, maxBuffer: 2 ** 30, encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return readText(stdout);
}

/** protoc's text: names come from births, data has aliases alone. */
function readText(text: string): Arrived[] {
  const names = new Map<string, string>();
  const arrived: Arrived[] = [];
  let topic = '';
  let metric: Map<string, string> | undefined;
  for (const line of text.split('\n')) {
    const [, indent = '', key = '', value = ''] = /^( *)(\w+): (.*)$/.exec(line) ?? [];
    if (indent.length === 2 && key === 'topic') topic = value;
    if (line === '    metrics {') metric = new Map();
    else if (indent.length === 6 && metric) metric.set(key, value);
    else if (line === '    }' && metric) {
      const alias = metric.get('alias') ?? '';
      if (topic.includes('/NBIRTH/')) names.set(alias, JSON.parse(metric.get('name') ?? '""'));
      const [, found = 'null'] = [...metric].find(([field]) => field.endsWith('_value')) ?? [];
      const isHistorical = metric.get('is_historical') === 'true';
      const name = names.get(alias) ?? `alias ${alias} that was not born`;
      if (topic.includes('/NDATA/')) arrived.push({ name, timestamp: metric.get('timestamp') ?? '', value: found, isHistorical });
      metric = undefined;
    }
  }
  return arrived;
}

const keyOf = (name: string, timestamp: string | number): string => `${name} ${timestamp}`;
const textOf = ({ spec, value }: Sample): string => (value === null ? 'null' : spec.type === 'String' ? JSON.stringify(value) : String(value));

/** A robot whose every report has something new. */
class Robot {
  readonly produced: Sample[] = [];
  step = 0;

  report(rig: Rig): void {
    this.step++;
    rig.set('Joint/shoulder/Position', this.step);
    if (this.step % 3 === 0) rig.set('Robot/State', `state ${this.step}`);
    if (this.step % 3 === 0) rig.set('Robot/State', `state ${this.step} again`);
    if (this.step % 10 === 0) rig.set('Chunk/Done', this.step);
    this.produced.push(...rig.report());
  }

  /** Reports with the event loop between them. */
  async reports(rig: Rig, count: number): Promise<void> {
    for (let index = 0; index < count; index++) {
      this.report(rig);
      if (index % 4 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }
}

/** What came against what was measured. */
function judge(
  t: Test,
  robot: Robot,
  arrived: readonly Arrived[],
  dropped: number,
  overflow: { readonly to: number; readonly droppedBefore: number },
): void {
  const expected = new Map(robot.produced.map((sample) => [keyOf(sample.spec.name, sample.timestampMs), textOf(sample)]));
  t.equal(expected.size, robot.produced.length, 'no two samples of a metric have one time');
  const first = new Map<string, Arrived>();
  const newest = new Map<string, number>();
  let twice = 0;
  let wrong = 0;
  let disordered = 0;
  let twiceLive = 0;
  for (const one of arrived) {
    const key = keyOf(one.name, one.timestamp);
    if (expected.get(key) !== one.value) wrong++;
    if (first.has(key)) {
      twice++;
      if (!one.isHistorical) twiceLive++;
      continue;
    }
    first.set(key, one);
    // Historical and live samples of a metric are two streams, each in order.
    const stream = `${one.name} ${one.isHistorical}`;
    if (Number(one.timestamp) <= (newest.get(stream) ?? 0)) disordered++;
    newest.set(stream, Number(one.timestamp));
  }
  const missing = robot.produced.filter((sample) => !first.has(keyOf(sample.spec.name, sample.timestampMs)));
  const historical = [...first.values()].filter(({ isHistorical }) => isHistorical).length;
  t.comment(
    `${arrived.length} arrived, ${historical} as historical, ${twice} a second time, ${missing.length} missing, ${dropped} counted as dropped`,
  );
  t.equal(wrong, 0, 'what arrives is what was measured');
  t.equal(disordered, 0, 'in order per metric');
  t.equal(twiceLive, 0, 'what comes a second time says that it is historical');
  t.equal(overflow.droppedBefore, 0, 'nothing was dropped while the queue sufficed');
  t.ok(dropped > 0 && missing.length > 0, 'the bound was met');
  t.ok(missing.length <= dropped, `${missing.length} missing, ${dropped} counted`);
  const lost = new Set(robot.produced.slice(0, overflow.to));
  t.ok(
    missing.every((sample) => lost.has(sample)),
    'what is missing is older than the end of the outage that was too long',
  );
}

t.test('an hour over a bad link', { skip: skipClients, timeout: 400_000 }, async (t) => {
  t.comment(`seed ${seed}`);
  const beganMs = performance.now();
  const random = randomFrom(seed);
  const folder = t.testdir();
  const broker = await Mosquitto.open(join(folder, 'broker'));
  const proxy = await LinkProxy.open(() => broker.port);
  const watched = await LinkProxy.open(() => broker.port);
  const watcher = new Watcher(broker, watched);
  const time = new FastTime(SPEED);
  const open = (): Promise<Rig> =>
    Rig.open({ port: proxy.port, dir: join(folder, 'queue'), time, primaryHost: HOST, bytesMax: QUEUE_BYTES, replayRateHz: 50 });
  const robot = new Robot();
  let rig = await open();
  let cuts = 0;
  let overflow = { from: 0, to: 0, droppedBefore: -1 };
  t.teardown(async () => {
    await rig.close();
    await broker.kill();
    await proxy.close();
    await watched.close();
  });
  rig.node.start();
  for (let life = 0; life < LIVES; life++) {
    if (life > 0) await broker.start();
    proxy.delayMs = life % 3 === 0 ? Math.ceil(random() * 15) : 0;
    await watcher.begin(life);
    await until('online', () => rig.node.state === 'online');
    const online = Math.floor(REPORTS_PER_LIFE * (0.3 + 0.4 * random()));
    const cutAt = random() < 0.4 ? Math.floor(online * random()) : online;
    await robot.reports(rig, cutAt);
    if (cutAt < online) {
      cuts++;
      proxy.cut();
    }
    await robot.reports(rig, online - cutAt);
    await broker.kill();
    await watcher.end();
    if (life === OVERFLOW_LIFE) {
      await until('offline', () => rig.node.state !== 'online');
      overflow = { from: robot.produced.length, to: 0, droppedBefore: rig.queue.dropped };
      await robot.reports(rig, OVERFLOW_REPORTS);
      await rig.queue.sync();
      overflow.to = robot.produced.length;
    }
    await robot.reports(rig, REPORTS_PER_LIFE - online);
    if (RESTARTS.includes(life)) {
      await rig.close();
      rig = await open();
      rig.node.start();
    }
  }
  await broker.start();
  proxy.delayMs = 0;
  await watcher.begin(LIVES);
  await until('everything is confirmed', () => rig.queue.isEmpty && rig.node.state === 'online');
  await rig.close();
  await broker.kill();
  await watcher.end();
  const { dropped } = rig.queue;
  t.comment(`${robot.step} reports, ${robot.produced.length} samples, ${LIVES} brokers, ${cuts} cuts, ${proxy.connections} connections`);
  t.comment(`${((performance.now() - beganMs) / 1000).toFixed(1)} s`);

  judge(t, robot, arrivedOf(folder, watcher.lines), dropped, overflow);
});
