/**
 * What the telemetry tests share: mosquitto in a process of its own, a TCP proxy that records, delays and cuts, a faster time, a host application,
 * and an edge node put together from the real parts with the test in the place of the ticker. Not a test itself.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { connect as connectTcp, createServer, type Server, type Socket } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import mqtt, { type MqttClient } from 'mqtt';
import { robotConfigSchema } from '../../src/config/schema.js';
import type { PremotorError } from '../../src/errors.js';
import type { RobotStatus, RunAbout, RunControl } from '../../src/tap/observer.js';
import { brokerAddress } from '../../src/telemetry/broker-address.js';
import { Commands } from '../../src/telemetry/commands.js';
import { EdgeNode, type NodeState } from '../../src/telemetry/edge-node.js';
import { type MetricSpec, metricTable } from '../../src/telemetry/metrics.js';
import { headerOf, Outbox } from '../../src/telemetry/outbox.js';
import { encodePayload, type Metric } from '../../src/telemetry/payload.js';
import { DiskQueue } from '../../src/telemetry/queue.js';
import { Reporter, type Sample } from '../../src/telemetry/reporter.js';
import type { Time } from '../../src/telemetry/time.js';
import type { Captured } from './capture.js';
import { PacketReader } from './wire.js';

export const mosquittoProgram = ['/usr/sbin/mosquitto', '/usr/local/sbin/mosquitto', '/usr/bin/mosquitto'].find((path) => existsSync(path));
export const skipMosquitto = mosquittoProgram ? false : 'SKIPPED: no mosquitto here (Debian package mosquitto): the real broker is not tested';
export const skipClients =
  skipMosquitto ||
  (['/usr/bin/mosquitto_sub', '/usr/bin/protoc'].every((path) => existsSync(path)) ? false : 'SKIPPED: no mosquitto_sub or protoc here');

/** Bound of every wait of a test: a slow machine is no failure, a hang is. */
const UNTIL_MS = 30_000;
const LOOK_MS = 5;

export async function until(what: string, holds: () => boolean, timeoutMs = UNTIL_MS): Promise<void> {
  const untilMs = performance.now() + timeoutMs;
  while (!holds()) {
    if (performance.now() > untilMs) throw new Error(`waited ${timeoutMs} ms in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** mosquitto with a configuration of the test; what it logs is kept. */
export class Mosquitto {
  readonly port: number;
  readonly #file: string;
  #child: ChildProcess | undefined;
  log = '';

  private constructor(port: number, file: string) {
    this.port = port;
    this.#file = file;
  }

  static async open(folder: string, more: readonly string[] = ['allow_anonymous true']): Promise<Mosquitto> {
    const port = await freePort();
    mkdirSync(folder, { recursive: true });
    const file = join(folder, 'mosquitto.conf');
    const general = [
      'persistence false',
      'set_tcp_nodelay true',
      'log_dest stderr',
      'log_type all',
      'max_queued_messages 0',
      'max_inflight_messages 0',
    ].filter((line) => !more.some((other) => other.split(' ')[0] === line.split(' ')[0]));
    const lines = ['per_listener_settings false', `listener ${port} 127.0.0.1`, `user ${userInfo().username}`, ...general, ...more, ''];
    writeFileSync(file, lines.join('\n'));
    const broker = new Mosquitto(port, file);
    await broker.start();
    return broker;
  }

  async start(): Promise<void> {
    this.log = '';
    const child = spawn(mosquittoProgram ?? '', ['-c', this.#file], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (text: Buffer) => (this.log += text.toString()));
    await until('mosquitto runs', () => / running/.test(this.log) || child.exitCode !== null);
    if (child.exitCode !== null) throw new Error(`mosquitto ended: ${this.log}`);
  }

  /** As a crash does it. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  }
}

/** Between a node and its broker: records both directions, can delay them, and cuts. */
export class LinkProxy {
  readonly captured: Captured[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #target: () => number;
  #connections = 0;
  /** Of every chunk of the connections that come, in both directions. */
  delayMs = 0;
  /** New connections are turned away. */
  isClosed = false;

  private constructor(target: () => number) {
    this.#target = target;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  static async open(target: () => number): Promise<LinkProxy> {
    const proxy = new LinkProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  get connections(): number {
    return this.#connections;
  }

  /** Cuts every connection; what is on its way is lost. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #accept(node: Socket): void {
    if (this.isClosed) {
      node.on('error', () => undefined).resetAndDestroy();
      return;
    }
    const connection = this.#connections++;
    const broker = connectTcp(this.#target(), '127.0.0.1');
    const atMs = performance.now();
    const { delayMs } = this;
    this.captured.push({ connection, from: 'proxy', kind: 'open', atMs });
    const reader = { node: new PacketReader(), broker: new PacketReader() };
    const pass = (from: 'node' | 'broker', source: Socket, sink: Socket): void => {
      source.setNoDelay(true);
      source.on('data', (chunk) => {
        for (const packet of reader[from].push(chunk)) {
          if (packet.type === 'connect') reader.broker.version = packet.version;
          this.captured.push({ connection, from, kind: 'packet', packet, atMs: performance.now() });
        }
        if (delayMs === 0) sink.write(chunk);
        else setTimeout(() => void (sink.writable && sink.write(chunk)), delayMs);
      });
      source.on('error', () => undefined);
      source.on('end', () => sink.end());
      source.on('close', () => {
        this.#sockets.delete(source);
        sink.destroy();
      });
      this.#sockets.add(source);
    };
    pass('node', node, broker);
    pass('broker', broker, node);
    node.on('close', () => this.captured.push({ connection, from: 'node', kind: 'close', atMs: performance.now() }));
  }
}

/** A time that runs faster than the clock; timestamps begin at a given moment. */
export class FastTime implements Time {
  readonly #speed: number;
  readonly #fromMs: number;
  readonly #beganMs = performance.now();
  stepByMs = 0;
  #stepped = 0;

  constructor(speed: number, fromMs = Date.UTC(2026, 10, 30)) {
    this.#speed = speed;
    this.#fromMs = fromMs;
  }

  nowMs(): number {
    return Math.floor(this.#fromMs + (performance.now() - this.#beganMs) * this.#speed) + this.#stepped;
  }

  after(delayMs: number, run: () => void): () => void {
    const timer = setTimeout(run, delayMs / this.#speed);
    return () => clearTimeout(timer);
  }

  stepMs(): number {
    return this.stepByMs - this.#stepped;
  }

  follow(): void {
    this.#stepped = this.stepByMs;
  }
}

export const IDS = { group: 'plant', node: 'arm-07' } as const;
export const HOST = 'scada';

export const telemetryConfig = (more: object = {}): ReturnType<typeof robotConfigSchema.parse>['telemetry'] =>
  robotConfigSchema.parse({
    robot: { type: 'sim' },
    policy: { checkpoint_dir: 'none' },
    telemetry: { node_id: IDS.node, group_id: IDS.group, ...more },
  }).telemetry;

export const JOINTS = ['shoulder', 'elbow'] as const;

export const fakeStatus = (more: Partial<RobotStatus> = {}): RobotStatus => ({
  timeNs: 0n,
  state: 'running',
  stream: 'following',
  link: 'up',
  bridge: 'armed',
  faultCode: '',
  faultMessage: '',
  isAtRest: false,
  counts: { cycles: 0, missed: 0, chunks_refused: 0 },
  temperaturesC: { shoulder: 31.5 },
  ...more,
});

/** As much of a run as telemetry looks at. */
export const fakeAbout = (): RunAbout =>
  ({
    id: '2026-11-30T10-11-12-345Z',
    version: '0.1.0',
    robot: 'sim',
    joints: JOINTS.map((name) => ({ name, lowerRad: -1, upperRad: 1, velocityMaxRadPerS: 1, accelerationMaxRadPerS2: 1, jerkMaxRadPerS3: 1 })),
    cameras: [],
    task: 'touch',
    instruction: 'touch the red button',
    seed: 0,
    chunksMax: 6,
    actionRateHz: 25,
    mode: 'sync',
    checkpoint: 'models/none',
    untrained: false,
    policy: { checkpointHash: '0123456789abcdef0123', precision: 'bf16', backend: 'cpu' },
    configuration: { policy: { plan: 'plans/arm.plan' } },
    epochNs: 0n,
    timeNs: 0n,
  }) as unknown as RunAbout;

export class FakeControl implements RunControl {
  readonly stops: string[] = [];
  now = fakeStatus();
  /** Anything else that was called, which nothing may. */
  readonly others: string[] = [];

  requestStop(reason: string): void {
    this.stops.push(reason);
  }

  status(): RobotStatus {
    return this.now;
  }

  cache(): ReturnType<RunControl['cache']> {
    return { capacity: 200, valid: 20, committed: 20, predicted: 0, checksum: '' };
  }

  async decode(): Promise<never> {
    this.others.push('decode');
    throw new Error('not asked for');
  }
}

export interface RigOptions {
  readonly port: number;
  readonly dir: string;
  readonly time: Time;
  readonly config?: object;
  readonly primaryHost?: string;
  readonly bytesMax?: number;
  readonly replayRateHz?: number;
  /** Replaces the metrics of a robot with two joints. */
  readonly specs?: readonly MetricSpec[];
  readonly url?: string;
}

/** An edge node of the real parts; report() is the ticker. */
export class Rig {
  readonly reporter: Reporter;
  readonly node: EdgeNode;
  readonly outbox: Outbox;
  readonly queue: DiskQueue;
  readonly commands: Commands;
  readonly states: NodeState[] = [];
  readonly whys: string[] = [];
  readonly stops: number[] = [];
  readonly rates: number[] = [];
  readonly #time: Time;

  private constructor(options: RigOptions, queue: DiskQueue) {
    const { time, specs = metricTable({ joints: JOINTS, counts: ['cycles', 'missed'], sensors: ['shoulder'], hostSensors: [] }) } = options;
    const config = telemetryConfig({ ...options.config, ...(options.primaryHost ? { primary_host_id: options.primaryHost } : {}) });
    this.#time = time;
    this.queue = queue;
    queue.describe(headerOf(specs));
    this.reporter = new Reporter(specs);
    this.outbox = new Outbox({ queue, time, specs, replayRateHz: options.replayRateHz ?? 200, pongTimeoutMs: 60_000 });
    this.commands = new Commands(specs, {
      rebirth: () => this.node.requestBirth(),
      stop: () => void this.stops.push(time.nowMs()),
      rate: (rateHz) => void this.rates.push(rateHz),
    });
    this.node = new EdgeNode({
      address: brokerAddress(options.url ?? `mqtt://127.0.0.1:${options.port}`, config),
      ids: { ...IDS, ...(options.primaryHost ? { primaryHost: options.primaryHost } : {}) },
      time,
      outbox: this.outbox,
      birth: () => this.#birth(),
      onCommand: (payload, isRetained) => this.commands.accept(payload, isRetained),
      onState: (state, why) => {
        this.states.push(state);
        this.whys.push(why);
      },
    });
  }

  static async open(options: RigOptions): Promise<Rig> {
    const warnings: PremotorError[] = [];
    const queue = await DiskQueue.open({ dir: options.dir, bytesMax: options.bytesMax ?? 2 ** 24, onWarning: (error) => void warnings.push(error) });
    return new Rig(options, queue);
  }

  *#birth(): IterableIterator<Metric> {
    for (const { spec, value } of this.reporter.reported()) {
      yield { name: spec.name, alias: spec.alias, type: spec.type, value, ...(spec.unit === '' ? {} : { unit: spec.unit }) };
    }
  }

  set(name: string, value: number | string | boolean | null): void {
    this.reporter.set(name, value, this.#time.nowMs());
  }

  /** What was given to the node. */
  report(): readonly Sample[] {
    if (this.node.isHeld) return [];
    const samples = this.reporter.take(this.#time.nowMs());
    this.node.report(samples);
    return samples;
  }

  async close(): Promise<void> {
    await this.node.close(2000);
    await this.outbox.close();
  }
}

/** A host application that does as little as can be. */
export class HostApplication {
  readonly client: MqttClient;
  readonly seen: { readonly topic: string; readonly payload: Uint8Array; readonly retain: boolean }[] = [];

  private constructor(client: MqttClient) {
    this.client = client;
    client.on('message', (topic, payload, { retain }) => void this.seen.push({ topic, payload: new Uint8Array(payload), retain }));
  }

  static async open(port: number, options: mqtt.IClientOptions = {}): Promise<HostApplication> {
    const client = await mqtt.connectAsync(`${options.ca ? 'mqtts' : 'mqtt'}://127.0.0.1:${port}`, { reconnectPeriod: 0, ...options });
    const host = new HostApplication(client);
    await client.subscribeAsync('spBv1.0/#', { qos: 1 });
    return host;
  }

  async state(online: boolean, timestamp: number, host = HOST): Promise<void> {
    await this.client.publishAsync(`spBv1.0/STATE/${host}`, JSON.stringify({ online, timestamp }), { qos: 1, retain: true });
  }

  async command(metrics: readonly Metric[], options: mqtt.IClientPublishOptions = { qos: 0 }): Promise<void> {
    const payload = encodePayload({ timestampMs: Date.now(), metrics });
    await this.client.publishAsync(`spBv1.0/${IDS.group}/NCMD/${IDS.node}`, Buffer.from(payload), options);
  }

  count(verb: string): number {
    return this.seen.filter(({ topic }) => topic === `spBv1.0/${IDS.group}/${verb}/${IDS.node}`).length;
  }

  async close(): Promise<void> {
    await this.client.endAsync(true);
  }
}
