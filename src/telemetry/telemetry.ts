/**
 * Telemetry of a run: the observer that turns what the tap tells into Sparkplug messages and into values for Prometheus. Opened by its factory for
 * one run and owned by the observers' hub. The broker may be away or slow: then samples wait on disk, and the robot notices nothing.
 */
import { join } from 'node:path';
import type { RobotConfig } from '../config/schema.js';
import type { CycleReport } from '../control/events.js';
import { PremotorError } from '../errors.js';
import { certificateRemark } from '../identity/certificate.js';
import { EmbeddedBroker } from '../mqtt/broker.js';
import type { MotionSample, Observer, ObserverParts, RunControl, RunEvent, ServiceReport, StandbyAbout } from '../tap/observer.js';
import { type BrokerAddress, brokerAddress, idsOf, type SparkplugIds, topicsOf } from './broker-address.js';
import { Commands } from './commands.js';
import { EdgeNode, type NodeState } from './edge-node.js';
import { Host } from './host.js';
import { type MetricSpec, metricTable, RATE } from './metrics.js';
import { headerOf, Outbox } from './outbox.js';
import type { Metric } from './payload.js';
import { expositionOf, PrometheusServer } from './prometheus.js';
import { DiskQueue } from './queue.js';
import { Reporter } from './reporter.js';
import { namesOf, Sampler } from './sampler.js';
import { readSystem } from './system.js';
import { SystemTime, type Time } from './time.js';

const HOST_MS = 2000;
/** A wall clock that is further off was stepped. */
const CLOCK_STEP_MS = 1000;
/** close() sends what it can within this, says goodbye, and keeps the rest. */
const CLOSE_MS = 2000;
const BYTES_PER_MIB = 2 ** 20;

/** Where samples go, when telemetry is enabled. */
interface Destination {
  readonly address: BrokerAddress;
  readonly ids: SparkplugIds;
  readonly queue: DiskQueue;
  readonly broker: EmbeddedBroker | undefined;
}

/** What a run's begin() adds. */
interface Running {
  /** What the metrics are named after: another robot has others. */
  readonly names: string;
  readonly reporter: Reporter;
  /** Of the run; a service has one after another. */
  readonly control: RunControl;
  readonly sampler: Sampler;
  readonly commands: Commands;
  readonly node?: EdgeNode;
  readonly outbox?: Outbox;
}

class Telemetry implements Observer {
  readonly name: 'telemetry' | 'prometheus';
  readonly #config: RobotConfig['telemetry'];
  readonly #parts: ObserverParts;
  readonly #time: Time;
  readonly #destination: Destination | undefined;
  readonly #host: Host;
  #prometheus: PrometheusServer | undefined;
  #running: Running | undefined;
  #rateHz: number;
  #clockSteps = 0;
  #cancelTick: (() => void) | undefined;
  #cancelHost: (() => void) | undefined;
  #isOutageTold = false;
  #isService = false;
  #service: ServiceReport | undefined;
  #isClosed = false;

  constructor({ telemetry, recording }: RobotConfig, parts: ObserverParts, destination: Destination | undefined, time: Time) {
    this.name = destination ? 'telemetry' : 'prometheus';
    this.#config = telemetry;
    this.#parts = parts;
    this.#time = time;
    this.#destination = destination;
    this.#host = new Host({ disk: recording.out_dir });
    this.#rateHz = telemetry.rate_max_hz;
  }

  /** Errors: TELEMETRY_PORT. */
  async serve(port: number): Promise<void> {
    this.#prometheus = await PrometheusServer.open(port, () => expositionOf(this.#running?.reporter.values() ?? []));
    this.#parts.onNotice(`Telemetry: values for Prometheus at ${this.#prometheus.url}`);
  }

  async begin(about: StandbyAbout, control: RunControl): Promise<void> {
    await this.#start(about, control);
  }

  async attend(about: StandbyAbout, control: RunControl): Promise<void> {
    this.#isService = true;
    await this.#start(about, control);
  }

  service(report: ServiceReport): void {
    this.#service = report;
    this.#running?.sampler.service(report);
  }

  get isConnected(): boolean {
    return this.#running?.node?.state === 'online';
  }

  /** A run of the same robot goes on in the session that there is; another robot has other metrics, and is born anew. */
  async #start(about: StandbyAbout, control: RunControl): Promise<void> {
    const names = { ...namesOf(about, control.status(), this.#host.sensors), isService: this.#isService };
    const known = JSON.stringify(names);
    const before = this.#running;
    if (before?.names === known) {
      this.#running = { ...before, control, sampler: new Sampler(before.reporter, about, () => this.#time.nowMs()) };
      if (this.#service) this.#running.sampler.service(this.#service);
      return;
    }
    if (before) await this.#finish();
    const specs = metricTable(names);
    const reporter = new Reporter(specs);
    const sampler = new Sampler(reporter, about, () => this.#time.nowMs());
    const commands = new Commands(specs, {
      rebirth: () => this.#running?.node?.requestBirth(),
      stop: () => this.#running?.control.requestStop('asked for over MQTT (Sparkplug command Robot/Stop)'),
      rate: (rateHz) => {
        this.#rateHz = Math.min(rateHz, this.#config.rate_max_hz);
      },
    });
    const sending: Pick<Running, 'node' | 'outbox'> = this.#destination ? this.#sending(this.#destination, specs, reporter, commands) : {};
    this.#running = { names: known, control, reporter, sampler, commands, ...sending };
    if (this.#service) sampler.service(this.#service);
    await this.#readHost();
    this.#tick();
    sending.node?.start();
  }

  /** Says what there is to say, and goodbye. */
  async #finish(): Promise<void> {
    this.#cancelTick?.();
    this.#cancelHost?.();
    const { node, outbox } = this.#running ?? {};
    node?.finishBirth();
    this.#report();
    await node?.close(CLOSE_MS);
    await outbox?.close();
    this.#running = undefined;
  }

  event(event: RunEvent): void {
    this.#running?.sampler.event(event);
  }

  motion(sample: MotionSample): void {
    this.#running?.sampler.motion(sample);
  }

  async end(report: CycleReport | undefined): Promise<void> {
    this.#running?.sampler.end(report);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#finish();
    await this.#prometheus?.close();
    await this.#destination?.queue.close();
    await this.#destination?.broker?.close();
  }

  #sending(
    { address, ids, queue }: Destination,
    specs: readonly MetricSpec[],
    reporter: Reporter,
    commands: Commands,
  ): Required<Pick<Running, 'node' | 'outbox'>> {
    const { replay_rate_hz, keepalive_s } = this.#config;
    const time = this.#time;
    queue.describe(headerOf(specs));
    const outbox = new Outbox({ queue, time, specs, replayRateHz: replay_rate_hz, pongTimeoutMs: keepalive_s * 1500 });
    const node = new EdgeNode({
      address,
      ids,
      time,
      outbox,
      birth: () => birthOf(reporter),
      onCommand: (payload, isRetained) => commands.accept(payload, isRetained),
      onState: (state, why) => this.#told(state, why),
    });
    return { node, outbox };
  }

  /** An outage is told once, and its end. */
  #told(state: NodeState, why: string): void {
    if (state === 'online' && this.#isOutageTold) {
      this.#isOutageTold = false;
      this.#parts.onNotice('Telemetry: the broker is back; samples that were kept follow.');
    }
    if ((state === 'offline' || state === 'waiting for host') && !this.#isOutageTold) {
      this.#isOutageTold = true;
      const { host, port } = this.#destination?.address ?? { host: '', port: 0 };
      const message = `Telemetry is ${state}. The robot goes on; samples are kept on disk until it is back. Check broker, network and credentials.`;
      const expected = state === 'offline' ? `a session with the broker at ${host}:${port}` : 'an online STATE message of the primary host';
      this.#parts.onWarning(new PremotorError('TELEMETRY_OFFLINE', message, { expected, found: why }));
    }
  }

  /** A message of what has changed, and the timer for the next. */
  #tick(): void {
    this.#followClock();
    this.#report();
    this.#cancelTick = this.#time.after(1000 / this.#rateHz, () => this.#tick());
  }

  #report(): void {
    const running = this.#running;
    if (!running) return;
    const { control, reporter, sampler, node } = running;
    try {
      sampler.sample(control);
    } catch {
      // A robot that is closed has no status any more; what was known of it is still told.
    }
    if (node) this.#ownValues(running);
    // Between the request of a rebirth and the rebirth changes wait for the message after it.
    if (node?.isHeld) return;
    const samples = reporter.take(this.#time.nowMs());
    if (node) node.report(samples);
  }

  #ownValues({ reporter, commands, node }: Running): void {
    const queue = this.#destination?.queue;
    queue?.countDropped(reporter.takeDropped());
    const nowMs = this.#time.nowMs();
    for (const [name, value] of [
      [RATE, this.#rateHz],
      ['Telemetry/Connections', node?.connections ?? 0],
      ['Telemetry/Samples Dropped', queue?.dropped ?? 0],
      ['Telemetry/Bytes Damaged', queue?.damagedBytes ?? 0],
      ['Telemetry/Queue Size', queue?.bytes ?? 0],
      ['Telemetry/Commands', commands.followed],
      ['Telemetry/Commands Refused', commands.refused],
      ['Telemetry/Clock Steps', this.#clockSteps],
    ] as const) {
      reporter.set(name, value, nowMs);
    }
  }

  /** Timestamps follow a stepped wall clock with a birth, so that none of them runs back within one. */
  #followClock(): void {
    if (Math.abs(this.#time.stepMs()) < CLOCK_STEP_MS) return;
    this.#time.follow();
    this.#clockSteps++;
    this.#running?.node?.requestBirth();
  }

  async #readHost(): Promise<void> {
    const [values, system] = await Promise.all([this.#host.read(), readSystem()]);
    const nowMs = this.#time.nowMs();
    for (const [name, value] of [...values, ...system]) this.#running?.reporter.set(name, value, nowMs);
    if (!this.#isClosed) this.#cancelHost = this.#time.after(HOST_MS, () => void this.#readHost());
  }
}

/** What a birth says of every metric: what was said last. */
function* birthOf(reporter: Reporter): IterableIterator<Metric> {
  for (const { spec, value } of reporter.reported()) {
    const { name, alias, type, unit } = spec;
    yield { name, alias, type, value, ...(unit === '' ? {} : { unit }) };
  }
}

/** Errors: those of brokerOf, and TELEMETRY_QUEUE. */
async function destinationOf({ telemetry, recording }: RobotConfig, parts: ObserverParts): Promise<Destination> {
  const ids = idsOf(telemetry);
  if (telemetry.broker_url === undefined && telemetry.mqtt_version === '5') {
    const message = 'The embedded broker speaks MQTT 3.1.1 alone. Leave telemetry.mqtt_version out, or name a broker in telemetry.broker_url.';
    throw new PremotorError('TELEMETRY_OPTIONS', message, { field: 'telemetry.mqtt_version', expected: '3.1.1', found: '5' });
  }
  const given = telemetry.broker_url;
  // What is wrong in the configuration shows before anything is opened.
  if (given !== undefined) brokerAddress(given, telemetry);
  const dir = telemetry.queue_dir ?? join(recording.out_dir, 'telemetry');
  const queue = await DiskQueue.open({ dir, bytesMax: telemetry.queue_max_mib * BYTES_PER_MIB, onWarning: (error) => parts.onWarning(error) });
  try {
    return { ids, queue, ...(await brokerOf(telemetry, parts)) };
  } catch (error) {
    await queue.close();
    throw error;
  }
}

/** The broker that is configured, or one that is embedded. Errors: MQTT_BROKER, TELEMETRY_OPTIONS, TELEMETRY_FILE, TELEMETRY_INSECURE. */
async function brokerOf(telemetry: RobotConfig['telemetry'], parts: ObserverParts): Promise<Pick<Destination, 'address' | 'broker'>> {
  const given = telemetry.broker_url;
  const broker = given === undefined ? await EmbeddedBroker.open({ port: telemetry.embedded_port }) : undefined;
  try {
    const url = given ?? broker?.url ?? '';
    const address = brokerAddress(url, broker ? withoutIdentity(telemetry) : telemetry);
    const remark = address.tls?.cert && certificateRemark(address.tls.cert, idsOf(telemetry).node, Date.now());
    if (remark) parts.onWarning(remark);
    parts.onNotice(`Telemetry: Sparkplug B, ${topicsOf(idsOf(telemetry)).birth} at ${url}${broker ? ' (embedded broker)' : ''}`);
    return { address, broker };
  } catch (error) {
    await broker?.close();
    throw error;
  }
}

/** The embedded broker asks nobody who they are. */
function withoutIdentity({ mqtt_version, keepalive_s, ...rest }: RobotConfig['telemetry']): RobotConfig['telemetry'] {
  const { username: _u, password_file: _p, ca_file: _a, cert_file: _c, key_file: _k, ...plain } = rest;
  return { ...plain, mqtt_version, keepalive_s };
}

/**
 * Opens the telemetry that a configuration asks for; undefined: none. `time`: for tests. Errors: MQTT_BROKER, TELEMETRY_OPTIONS, TELEMETRY_FILE,
 * TELEMETRY_INSECURE, TELEMETRY_QUEUE, TELEMETRY_PORT.
 */
export async function openTelemetry(config: RobotConfig, parts: ObserverParts, time: Time = new SystemTime()): Promise<Observer | undefined> {
  const { enabled, prometheus_port } = config.telemetry;
  if (!enabled && prometheus_port === undefined) return undefined;
  const telemetry = new Telemetry(config, parts, enabled ? await destinationOf(config, parts) : undefined, time);
  try {
    if (prometheus_port !== undefined) await telemetry.serve(prometheus_port);
    return telemetry;
  } catch (error) {
    await telemetry.close();
    throw error;
  }
}
