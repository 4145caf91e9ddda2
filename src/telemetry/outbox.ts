/**
 * Outbox: samples on their way to the broker. While there is a session they go out at once and are kept until the broker has answered a ping that
 * was sent after them; what was not confirmed, and all that comes without a session, waits in the disk queue and follows as historical, at a bounded
 * rate. Owned by the edge node. It knows no topics and no sequence numbers, and never waits for the network.
 */
import type { MetricSpec } from './metrics.js';
import { decodePayload, encodePayload, type Metric, type ReceivedPayload, valueAs } from './payload.js';
import type { DiskQueue, Position, QueuedRecord } from './queue.js';
import type { Sample } from './reporter.js';
import type { Time } from './time.js';

/** One session as the outbox sees it. */
export interface Carrier {
  publish(metrics: readonly Metric[]): void;
  ping(): void;
  readonly backlogBytes: number;
  /** The link does not carry: end it. */
  giveUp(why: string): void;
}

export interface OutboxOptions {
  readonly queue: DiskQueue;
  readonly time: Time;
  readonly specs: readonly MetricSpec[];
  /** Messages of kept samples per second. */
  readonly replayRateHz: number;
  /** A ping that is not answered so long means that the link is dead. */
  readonly pongTimeoutMs: number;
}

/** What was sent is asked about so often. */
const CONFIRM_MS = 500;
/** Power cuts cost what came since. */
const SYNC_MS = 1000;
/** A message of kept samples holds no more, but for the last of its records. */
const REPLAY_SAMPLES_MAX = 250;
/** Samples that are neither confirmed nor on disk, and bytes that wait in the socket: more means that the link does not carry. */
const UNCONFIRMED_MAX = 10_000;
const BACKLOG_BYTES_MAX = 2 ** 20;

/** How far the broker has certainly come when a ping is answered. */
interface Marker {
  readonly sent: number;
  readonly replayed: Position | undefined;
  readonly messages: number;
  readonly atMs: number;
}

/** The names behind the aliases of kept records. */
export function headerOf(specs: readonly MetricSpec[]): Uint8Array {
  return encodePayload({ timestampMs: 0, metrics: specs.map(({ name, alias, type }) => ({ name, alias, type, saysType: true, value: null })) });
}

const metricOf = ({ spec: { alias, type }, timestampMs, value }: Sample): Metric => ({ alias, timestampMs, type, value });

export class Outbox {
  readonly #options: OutboxOptions;
  readonly #byName: ReadonlyMap<string, MetricSpec>;
  readonly #headers = new WeakMap<Uint8Array, ReceivedPayload['metrics']>();
  #carrier: Carrier | undefined;
  #unconfirmed: { readonly number: number; readonly samples: readonly Sample[] }[] = [];
  #unconfirmedSamples = 0;
  #sent = 0;
  #markers: Marker[] = [];
  /** What was replayed last, and in how many messages; of these, confirmed. */
  #replayed: Position | undefined;
  #messages = 0;
  #messagesConfirmed = 0;
  /** Read for a message that may not go out yet. */
  #taken: readonly QueuedRecord[] | undefined;
  /** What the last ping asked about. */
  #asked: Marker | undefined;
  #isHeld = false;
  #replaying: Promise<void> = Promise.resolve();
  #cancelConfirm: (() => void) | undefined;
  #cancelSync: (() => void) | undefined;
  #cancelReplay: (() => void) | undefined;
  #drained: (() => void)[] = [];

  constructor(options: OutboxOptions) {
    this.#options = options;
    this.#byName = new Map(options.specs.map((spec) => [spec.name, spec]));
  }

  get #isDrained(): boolean {
    return this.#unconfirmed.length === 0 && this.#options.queue.isEmpty;
  }

  /** Takes samples over; in order of time. */
  send(samples: readonly Sample[]): void {
    if (samples.length === 0) return;
    const carrier = this.#carrier;
    if (!carrier) {
      this.#keep(samples);
      return;
    }
    this.#unconfirmed.push({ number: ++this.#sent, samples });
    this.#unconfirmedSamples += samples.length;
    carrier.publish(samples.map(metricOf));
    this.#confirmSoon();
    if (this.#unconfirmedSamples > UNCONFIRMED_MAX || carrier.backlogBytes > BACKLOG_BYTES_MAX) carrier.giveUp('the link takes nothing more');
  }

  /** A session was born: kept samples may follow. */
  begin(carrier: Carrier): void {
    this.#carrier = carrier;
    this.#isHeld = false;
    const { queue } = this.#options;
    const before = this.#replaying;
    this.#replaying = before.then(() => queue.rewind());
    this.#replaySoon();
  }

  /** Between the request of a rebirth and the rebirth nothing goes out. */
  hold(isHeld: boolean): void {
    this.#isHeld = isHeld;
  }

  /** The session is over: what is not confirmed waits for the next. */
  end(): void {
    if (!this.#carrier) return;
    this.#carrier = undefined;
    this.#cancelConfirm?.();
    this.#cancelReplay?.();
    this.#cancelConfirm = undefined;
    this.#cancelReplay = undefined;
    for (const { samples } of this.#unconfirmed) this.#keep(samples);
    this.#unconfirmed = [];
    this.#unconfirmedSamples = 0;
    this.#markers = [];
    this.#replayed = undefined;
    this.#messages = 0;
    this.#messagesConfirmed = 0;
    this.#taken = undefined;
    this.#asked = undefined;
    this.#tellDrained();
  }

  pinged(): void {
    this.#asked = { sent: this.#sent, replayed: this.#replayed, messages: this.#messages, atMs: this.#options.time.nowMs() };
    this.#markers.push(this.#asked);
  }

  ponged(): void {
    const marker = this.#markers.shift();
    if (!marker) return;
    for (let first = this.#unconfirmed[0]; first && first.number <= marker.sent; first = this.#unconfirmed[0]) {
      this.#unconfirmed.shift();
      this.#unconfirmedSamples -= first.samples.length;
    }
    this.#messagesConfirmed = marker.messages;
    const confirmed = marker.replayed ? this.#options.queue.confirm(marker.replayed) : Promise.resolve();
    void confirmed.catch(() => undefined).then(() => this.#tellDrained());
  }

  /** Resolves when everything is confirmed, when the session ends, or after a time. */
  async drained(timeoutMs: number): Promise<void> {
    if (!this.#carrier || this.#isDrained) return;
    this.#carrier.ping();
    await new Promise<void>((resolve) => {
      const cancel = this.#options.time.after(timeoutMs, resolve);
      this.#drained.push(() => {
        cancel();
        resolve();
      });
    });
  }

  /** Puts what is left on disk. */
  async close(): Promise<void> {
    this.end();
    this.#cancelSync?.();
    await this.#replaying;
    await this.#options.queue.close();
  }

  #tellDrained(): void {
    if (this.#carrier && !this.#isDrained) return;
    for (const tell of this.#drained.splice(0)) tell();
  }

  #keep(samples: readonly Sample[]): void {
    const { queue, time } = this.#options;
    queue.append(encodePayload({ timestampMs: samples[0]?.timestampMs ?? 0, metrics: samples.map(metricOf) }), samples.length);
    this.#cancelSync ??= time.after(SYNC_MS, () => {
      this.#cancelSync = undefined;
      void queue.sync();
    });
  }

  #confirmSoon(): void {
    this.#cancelConfirm ??= this.#options.time.after(CONFIRM_MS, () => {
      this.#cancelConfirm = undefined;
      this.#confirm();
    });
  }

  #confirm(): void {
    const carrier = this.#carrier;
    if (!carrier) return;
    const { time, pongTimeoutMs } = this.#options;
    const [oldest] = this.#markers;
    if (oldest && time.nowMs() - oldest.atMs > pongTimeoutMs) {
      carrier.giveUp('the broker does not answer');
      return;
    }
    if ((this.#asked?.sent ?? 0) < this.#sent || this.#asked?.replayed !== this.#replayed) carrier.ping();
    if (this.#unconfirmed.length > 0 || !this.#options.queue.isEmpty) this.#confirmSoon();
  }

  #replaySoon(): void {
    const { time, replayRateHz } = this.#options;
    this.#cancelReplay = time.after(1000 / replayRateHz, () => {
      this.#cancelReplay = undefined;
      this.#replaying = this.#replaying.then(() => this.#replay());
    });
  }

  /** One message of kept samples. */
  async #replay(): Promise<void> {
    const { queue, replayRateHz } = this.#options;
    const carrier = this.#carrier;
    if (!carrier) return;
    // What the broker did not answer yet is bounded by a second's messages.
    if (this.#isHeld || this.#messages - this.#messagesConfirmed > replayRateHz + 1) {
      this.#replaySoon();
      return;
    }
    const records = this.#taken ?? (await queue.next(REPLAY_SAMPLES_MAX));
    if (this.#carrier !== carrier) {
      queue.rewind();
      return;
    }
    this.#taken = this.#isHeld ? records : undefined;
    if (this.#isHeld) {
      this.#replaySoon();
      return;
    }
    const last = records.at(-1);
    if (!last) return;
    const metrics = records.flatMap((record) => this.#metricsOf(record));
    if (metrics.length > 0) carrier.publish(metrics);
    this.#replayed = last.after;
    this.#messages++;
    this.#confirmSoon();
    this.#replaySoon();
  }

  /** A kept record with today's aliases. What this robot no longer reports, or reports as another type, cannot be sent. */
  #metricsOf({ header, bytes, samples }: QueuedRecord): readonly Metric[] {
    const names = this.#namesOf(header);
    const metrics: Metric[] = [];
    for (const metric of decodePayload(bytes)?.metrics ?? []) {
      const was = names.find(({ alias }) => alias === metric.alias);
      const spec = this.#byName.get(was?.name ?? '');
      const value = spec && valueAs(metric, spec.type);
      if (!spec || value === undefined || metric.timestamp === undefined) continue;
      metrics.push({ alias: spec.alias, timestampMs: Number(metric.timestamp), type: spec.type, value, isHistorical: true });
    }
    this.#options.queue.countDropped(samples - metrics.length);
    return metrics;
  }

  #namesOf(header: Uint8Array): ReceivedPayload['metrics'] {
    const known = this.#headers.get(header);
    if (known) return known;
    const names = decodePayload(header)?.metrics ?? [];
    this.#headers.set(header, names);
    return names;
  }
}
