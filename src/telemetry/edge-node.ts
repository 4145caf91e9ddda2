/**
 * EdgeNode: a Sparkplug B edge node. Connects and reconnects, is born, speaks, is reborn when asked and dies in order, by the rules of Sparkplug 3.0
 * for one broker and, if there is one, one primary host. Owned by the telemetry of a run. It decides what may be said when; what there is to say, and
 * what commands mean, is decided elsewhere.
 */
import { type BrokerAddress, type SparkplugIds, type Topics, topicsOf } from './broker-address.js';
import { HostState } from './host-state.js';
import { Link } from './link.js';
import { BDSEQ_ALIAS, REBIRTH } from './metrics.js';
import type { Outbox } from './outbox.js';
import { encodePayload, type Metric } from './payload.js';
import type { Sample } from './reporter.js';
import type { Time } from './time.js';

/** What an operator can meet: without a broker and trying again; on the way to it; there, but the primary host is not; everything; the end. */
export type NodeState = 'offline' | 'connecting' | 'waiting for host' | 'online' | 'closed';

export interface EdgeNodeOptions {
  readonly address: BrokerAddress;
  readonly ids: SparkplugIds;
  readonly time: Time;
  readonly outbox: Outbox;
  /** Every metric but bdSeq and the one of rebirths, with what was said last. */
  readonly birth: () => Iterable<Metric>;
  readonly onCommand: (payload: Uint8Array, isRetained: boolean) => void;
  readonly onState: (state: NodeState, why: string) => void;
  /** 0 .. 1; spreads the reconnections of many robots. */
  readonly random?: () => number;
}

const BACKOFF_MS_MIN = 500;
const BACKOFF_MS_MAX = 30_000;
/** Rebirths that are asked for faster are one. */
const REBIRTH_MS_MIN = 1000;
const SEQ_COUNT = 256;

export class EdgeNode {
  readonly #options: EdgeNodeOptions;
  readonly #topics: Topics;
  readonly #host: HostState | undefined;
  readonly #ending = new AbortController();
  #state: NodeState = 'offline';
  #link: Link | undefined;
  #isBorn = false;
  /** Of the next CONNECT. */
  #nextBdSeq = 0;
  #bdSeq = 0;
  #seq = 0;
  #attempts = 0;
  #connections = 0;
  #bornMs = 0;
  #cancelConnect: (() => void) | undefined;
  #cancelRebirth: (() => void) | undefined;
  /** Those who wait until it is decided whether there is a broker. */
  #settled: (() => void)[] = [];

  constructor(options: EdgeNodeOptions) {
    this.#options = options;
    this.#topics = topicsOf(options.ids);
    this.#host = this.#topics.state === undefined ? undefined : new HostState();
  }

  get state(): NodeState {
    return this.#state;
  }

  /** Sessions that began. */
  get connections(): number {
    return this.#connections;
  }

  /** A rebirth was asked for and nothing may be said before it. */
  get isHeld(): boolean {
    return this.#cancelRebirth !== undefined;
  }

  /** Connects, and goes on trying. */
  start(): void {
    if (this.#state === 'offline' && !this.#cancelConnect) void this.#connect();
  }

  report(samples: readonly Sample[]): void {
    this.#options.outbox.send(samples);
  }

  /** A new birth of the same session, at once but never twice in a second. */
  requestBirth(): void {
    if (!this.#isBorn || this.#cancelRebirth) return;
    const sinceMs = this.#options.time.nowMs() - this.#bornMs;
    if (sinceMs >= REBIRTH_MS_MIN || sinceMs < 0) {
      this.#bear();
      return;
    }
    this.#options.outbox.hold(true);
    this.#cancelRebirth = this.#options.time.after(REBIRTH_MS_MIN - sinceMs, () => this.#bear());
  }

  /** A rebirth that was asked for happens now. */
  finishBirth(): void {
    if (this.#cancelRebirth) this.#bear();
  }

  /** Sends what can be sent within a bound, and dies in order. Idempotent. */
  async close(timeoutMs: number): Promise<void> {
    if (this.#state === 'closed') return;
    const { outbox, time } = this.#options;
    if (this.#state === 'connecting') await this.#settle(timeoutMs);
    await outbox.drained(timeoutMs);
    this.#cancelConnect?.();
    this.#go('closed', 'the run is over');
    const link = this.#link;
    this.#over();
    this.#ending.abort();
    await link?.leave(this.#topics.death, this.#death(time.nowMs()));
  }

  #settle(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#options.time.after(timeoutMs, resolve);
      this.#settled.push(() => {
        cancel();
        resolve();
      });
    });
  }

  #go(state: NodeState, why: string): void {
    this.#state = state;
    if (state !== 'connecting') for (const tell of this.#settled.splice(0)) tell();
    this.#options.onState(state, why);
  }

  async #connect(): Promise<void> {
    this.#cancelConnect = undefined;
    const { address, ids, time } = this.#options;
    this.#go('connecting', `${address.host}:${address.port}`);
    this.#host?.forget();
    let link: Link | undefined;
    try {
      link = await Link.open({
        address,
        clientId: `premotor:${ids.group}:${ids.node}`,
        will: () => {
          this.#bdSeq = this.#nextBdSeq;
          this.#nextBdSeq = (this.#nextBdSeq + 1) % SEQ_COUNT;
          return { topic: this.#topics.death, payload: this.#death(time.nowMs()) };
        },
        handlers: {
          message: (topic, payload, isRetained) => this.#message(topic, payload, isRetained),
          pinged: () => this.#options.outbox.pinged(),
          ponged: () => this.#options.outbox.ponged(),
          closed: (why) => this.#lost(why),
        },
        signal: this.#ending.signal,
      });
      this.#link = link;
      await link.subscribe([this.#topics.command, ...(this.#topics.state === undefined ? [] : [this.#topics.state])]);
      if (this.#link !== link || !link.isOpen) return;
      this.#connections++;
      if (!this.#host || this.#host.isOnline) this.#bear();
      else this.#go('waiting for host', `the primary host ${ids.primaryHost} is not online`);
    } catch (error) {
      if (this.#state === 'closed') return;
      if (link) link.destroy((error as Error).message);
      else this.#lost((error as Error).message);
    }
  }

  /** The session is no more. */
  #over(): void {
    this.#link = undefined;
    this.#isBorn = false;
    this.#cancelRebirth?.();
    this.#cancelRebirth = undefined;
    this.#options.outbox.end();
  }

  #lost(why: string): void {
    if (this.#state === 'closed') return;
    this.#over();
    this.#go('offline', why);
    const { time, random = Math.random } = this.#options;
    const delayMs = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(this.#attempts++, 10));
    this.#cancelConnect?.();
    this.#cancelConnect = time.after(delayMs * (0.5 + random() / 2), () => void this.#connect());
  }

  #message(topic: string, payload: Uint8Array, isRetained: boolean): void {
    if (topic === this.#topics.command) this.#options.onCommand(payload, isRetained);
    if (topic !== this.#topics.state || !this.#host) return;
    const verdict = this.#host.accept(payload);
    // Before its subscriptions are confirmed the node is not ready to be born; connect() looks again then.
    if (verdict === 'online' && this.#state === 'waiting for host') this.#bear();
    if (verdict === 'offline' && this.#isBorn) void this.#die('the primary host is offline');
  }

  /** Dies in order and begins anew, as the specification wants it when the primary host goes. */
  async #die(why: string): Promise<void> {
    const link = this.#link;
    const death = this.#death(this.#options.time.nowMs());
    this.#over();
    this.#attempts = 0;
    this.#go('offline', why);
    // Its end is reported as lost, which connects again.
    await link?.leave(this.#topics.death, death);
  }

  #bear(): void {
    const link = this.#link;
    if (!link?.isOpen) return;
    this.#cancelRebirth?.();
    this.#cancelRebirth = undefined;
    const { time, outbox, birth } = this.#options;
    const timestampMs = time.nowMs();
    const metrics: Metric[] = [
      { name: 'bdSeq', alias: BDSEQ_ALIAS, timestampMs, type: 'Int64', saysType: true, value: this.#bdSeq },
      { name: REBIRTH, timestampMs, type: 'Boolean', saysType: true, value: false },
    ];
    for (const metric of birth()) metrics.push({ ...metric, timestampMs, saysType: true });
    this.#seq = 0;
    link.publish(this.#topics.birth, encodePayload({ timestampMs, seq: 0, metrics }));
    this.#bornMs = timestampMs;
    this.#attempts = 0;
    outbox.hold(false);
    if (this.#isBorn) return;
    this.#isBorn = true;
    this.#go('online', this.#topics.birth);
    outbox.begin({
      publish: (data) => this.#data(link, data),
      ping: () => link.ping(),
      get backlogBytes() {
        return link.backlogBytes;
      },
      giveUp: (why) => link.destroy(why),
    });
  }

  #data(link: Link, metrics: readonly Metric[]): void {
    this.#seq = (this.#seq + 1) % SEQ_COUNT;
    link.publish(this.#topics.data, encodePayload({ timestampMs: this.#options.time.nowMs(), seq: this.#seq, metrics }));
  }

  #death(timestampMs: number): Uint8Array {
    return encodePayload({ timestampMs, metrics: [{ name: 'bdSeq', timestampMs, type: 'Int64', saysType: true, value: this.#bdSeq }] });
  }
}
