/**
 * FleetObserver: one that listens to a broker's Sparkplug messages and keeps what is known of the robots. Owned by a command. It publishes nothing
 * but requests of a birth, and these only when it is told to; it can neither move nor stop a robot, and as a client without a will it leaves no
 * trace.
 */
import { randomUUID } from 'node:crypto';
import { PremotorError } from '../errors.js';
import type { BrokerAddress } from '../telemetry/broker-address.js';
import { Link } from '../telemetry/link.js';
import { REBIRTH } from '../telemetry/metrics.js';
import { encodePayload } from '../telemetry/payload.js';
import type { Robots } from './robots.js';

export interface FleetObserverOptions {
  readonly address: BrokerAddress;
  readonly robots: Robots;
  /** Of Sparkplug; absent: all. */
  readonly group?: string;
  /** Ask every robot whose birth was missed for another, once. */
  readonly asksBirths: boolean;
  /** Robots that are asked for a birth though nothing was heard of them. */
  readonly expected?: readonly string[];
  /** Goes on after the session was lost. */
  readonly persists: boolean;
  readonly onChange: () => void;
  readonly signal: AbortSignal;
  readonly nowMs?: () => number;
}

const BACKOFF_MS_MIN = 500;
const BACKOFF_MS_MAX = 30_000;
/** A robot is not asked for its birth again before this. */
const ASK_AGAIN_MS = 10_000;

export class FleetObserver {
  readonly #options: FleetObserverOptions;
  readonly #nowMs: () => number;
  readonly #askedMs = new Map<string, number>();
  #link: Link | undefined;
  /** What is published from now on is heard. */
  #isListening = false;
  #retry: NodeJS.Timeout | undefined;
  #failures = 0;
  #isClosed = false;
  #end: (error: PremotorError) => void = () => undefined;
  readonly #ended: Promise<never>;

  private constructor(options: FleetObserverOptions) {
    this.#options = options;
    this.#nowMs = options.nowMs ?? Date.now;
    this.#ended = new Promise((_, reject) => {
      this.#end = reject;
    });
    // Whoever never waits for it must not be told by the process.
    this.#ended.catch(() => undefined);
  }

  /** Listens. The first session must come about. Errors: FLEET_BROKER. */
  static async open(options: FleetObserverOptions): Promise<FleetObserver> {
    const observer = new FleetObserver(options);
    try {
      await observer.#session();
    } catch (error) {
      throw observer.#broken((error as Error).message);
    }
    return observer;
  }

  /** Never resolves. Errors: FLEET_BROKER when the session ends and the observer does not persist. */
  get ended(): Promise<never> {
    return this.#ended;
  }

  /** A session is there, and what is published is heard. */
  get isConnected(): boolean {
    return this.#isListening && this.#link?.isOpen === true;
  }

  /** Asks a robot for its birth, at most once in ten seconds. */
  askBirth(group: string, node: string): void {
    const key = `${group}/${node}`;
    const nowMs = this.#nowMs();
    // The answer to a question before that would be missed.
    if (!this.#link || !this.isConnected || nowMs - (this.#askedMs.get(key) ?? -Infinity) < ASK_AGAIN_MS) return;
    this.#askedMs.set(key, nowMs);
    const payload = encodePayload({
      timestampMs: nowMs,
      metrics: [{ name: REBIRTH, type: 'Boolean', saysType: true, timestampMs: nowMs, value: true }],
    });
    this.#link.publish(`spBv1.0/${group}/NCMD/${node}`, payload);
  }

  /** Idempotent. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#retry);
    this.#link?.destroy();
  }

  /** Rejects with the reason in words. */
  async #session(): Promise<void> {
    const { address, group = '+', signal, expected = [], asksBirths } = this.#options;
    let mine: Link | undefined;
    const link = await Link.open({
      address,
      clientId: `premotor-fleet-${randomUUID().slice(0, 8)}`,
      handlers: {
        message: (topic, payload) => this.#message(topic, payload),
        pinged: () => undefined,
        ponged: () => undefined,
        closed: (why) => void (mine && this.#link === mine && this.#lost(why)),
      },
      signal,
    });
    mine = link;
    this.#link = link;
    try {
      await link.subscribe(['NBIRTH', 'NDATA', 'NDEATH'].map((verb) => `spBv1.0/${group}/${verb}/+`));
    } catch (error) {
      this.#link = undefined;
      link.destroy();
      throw error;
    }
    this.#isListening = true;
    this.#failures = 0;
    this.#askedMs.clear();
    if (asksBirths && group !== '+') for (const node of expected) this.askBirth(group, node);
    if (asksBirths) this.#askUnborn();
  }

  #broken(found: string): PremotorError {
    const { host, port } = this.#options.address;
    const message = `There is no session with the broker at ${host}:${port}. Check its address, the network and the certificates.`;
    return new PremotorError('FLEET_BROKER', message, { expected: 'a session that may read spBv1.0/#', found });
  }

  #message(topic: string, payload: Uint8Array): void {
    const { robots, asksBirths, onChange } = this.#options;
    const isChanged = robots.accept(topic, payload, this.#nowMs());
    const [, group = '', , node = ''] = topic.split('/');
    if (asksBirths && robots.needsBirth(group, node)) this.askBirth(group, node);
    if (isChanged) onChange();
  }

  /** Robots that are known already and say nothing now. */
  #askUnborn(): void {
    const { robots } = this.#options;
    for (const { group, node } of robots.rows(0)) if (robots.needsBirth(group, node)) this.askBirth(group, node);
  }

  #lost(why: string): void {
    this.#link = undefined;
    this.#isListening = false;
    if (this.#isClosed) return;
    this.#options.robots.lost(`the observer lost the broker: ${why}`, this.#nowMs());
    this.#options.onChange();
    this.#again(why);
  }

  #again(why: string): void {
    if (this.#isClosed || this.#options.signal.aborted) return;
    if (!this.#options.persists) {
      this.#end(this.#broken(why));
      return;
    }
    const wait_ms = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** this.#failures++);
    this.#retry = setTimeout(() => void this.#session().catch((error: Error) => this.#again(error.message)), wait_ms);
  }
}
