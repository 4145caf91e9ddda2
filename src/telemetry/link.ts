/**
 * Link: one MQTT session with the broker, from the TCP connection to its end; who wants another opens another. Owned by the edge node. It queues
 * nothing, reconnects never and knows no topic; a session is clean, and a robot's has
 * a will.
 */
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { MqttClient } from 'mqtt';
import type { BrokerAddress } from './broker-address.js';

export interface LinkHandlers {
  message(topic: string, payload: Uint8Array, isRetained: boolean): void;
  /** A PINGREQ went out: what was published before it will have arrived when its answer comes. */
  pinged(): void;
  ponged(): void;
  /** The session is over, and why; called once, never before open() resolved. */
  closed(why: string): void;
}

export interface LinkOptions {
  readonly address: BrokerAddress;
  readonly clientId: string;
  /** Asked for when the CONNECT is about to go out; one that only listens has none. */
  readonly will?: () => { readonly topic: string; readonly payload: Uint8Array };
  readonly handlers: LinkHandlers;
  readonly signal: AbortSignal;
}

/** TCP and TLS together, and then the broker's answer to CONNECT. */
const CONNECT_TIMEOUT_MS = 5000;
/** A goodbye takes no longer. */
const LEAVE_TIMEOUT_MS = 1000;
/** MQTT 5: disconnect with will message. */
const WITH_WILL = 0x04;

/** The socket, once CONNECT may be written to it. */
function openSocket({ host, port, tls }: BrokerAddress, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const named = isIP(host) === 0 ? { servername: host } : {};
    const socket = tls ? connectTls({ host, port, minVersion: 'TLSv1.2', ...named, ...tls }) : connectTcp({ host, port });
    const give = (why?: Error): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
      socket.off('error', give);
      if (!why) resolve(socket);
      else reject(why);
      if (why) socket.on('error', () => undefined).destroy();
    };
    const abort = (): void => give(new Error('closed'));
    const timer = setTimeout(() => give(new Error(`no connection within ${CONNECT_TIMEOUT_MS} ms`)), CONNECT_TIMEOUT_MS);
    signal.addEventListener('abort', abort, { once: true });
    socket.once('error', give);
    socket.once(tls ? 'secureConnect' : 'connect', () => give());
    if (signal.aborted) abort();
  });
}

export class Link {
  readonly #client: MqttClient;
  readonly #isV5: boolean;
  #isOver = false;
  #why = 'the broker closed the connection';

  private constructor(client: MqttClient, isV5: boolean) {
    this.#client = client;
    this.#isV5 = isV5;
  }

  /** Resolves once the broker has accepted the session; rejects with the reason in words. */
  static async open({ address, clientId, will, handlers, signal }: LinkOptions): Promise<Link> {
    const socket = await openSocket(address, signal);
    socket.setNoDelay(true);
    const last = will?.();
    const client = new MqttClient(() => socket, {
      protocolVersion: address.isV5 ? 5 : 4,
      protocolId: 'MQTT',
      clientId,
      clean: true,
      ...(address.isV5 ? { properties: { sessionExpiryInterval: 0 } } : {}),
      keepalive: address.keepaliveS,
      reconnectPeriod: 0,
      connectTimeout: CONNECT_TIMEOUT_MS,
      queueQoSZero: false,
      resubscribe: false,
      ...(address.username === undefined ? {} : { username: address.username }),
      ...(address.password === undefined ? {} : { password: address.password }),
      ...(last === undefined ? {} : { will: { topic: last.topic, payload: Buffer.from(last.payload), qos: 1 as const, retain: false } }),
    });
    const link = new Link(client, address.isV5);
    await link.#accepted(signal);
    link.#listen(handlers);
    return link;
  }

  get isOpen(): boolean {
    return !this.#isOver && this.#client.connected;
  }

  /** Bytes that the kernel has not taken yet. */
  get backlogBytes(): number {
    return this.#client.stream?.writableLength ?? 0;
  }

  /** QoS 0. */
  publish(topic: string, payload: Uint8Array): void {
    this.#client.publish(topic, Buffer.from(payload.buffer, payload.byteOffset, payload.length), { qos: 0, retain: false });
  }

  /** QoS 1, as the specification asks. Rejects when the broker refuses one of them. */
  async subscribe(topics: readonly string[]): Promise<void> {
    const granted = await this.#client.subscribeAsync([...topics], { qos: 1 });
    const refused = granted.find(({ qos }) => qos >= 128);
    if (refused) throw new Error(`the broker refuses a subscription to ${refused.topic}`);
  }

  ping(): void {
    if (this.isOpen) this.#client.sendPing();
  }

  /** Says that the node dies, in its own words and by MQTT, within a bound. */
  async leave(topic: string, payload: Uint8Array): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, LEAVE_TIMEOUT_MS);
    });
    const goodbye = async (): Promise<void> => {
      if (!this.isOpen) return;
      await this.#client.publishAsync(topic, Buffer.from(payload), { qos: 1, retain: false });
      await this.#client.endAsync(false, this.#isV5 ? { reasonCode: WITH_WILL } : {});
    };
    await Promise.race([goodbye().catch(() => undefined), late]);
    clearTimeout(timer);
    this.destroy();
  }

  /** Ends at once; the broker publishes the will. */
  destroy(why?: string): void {
    if (why !== undefined) this.#why = why;
    this.#client.stream?.destroy();
    this.#client.end(true);
  }

  async #accepted(signal: AbortSignal): Promise<void> {
    const client = this.#client;
    let abort = (): void => undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        abort = () => reject(new Error('closed'));
        client.once('connect', () => resolve());
        client.once('error', reject);
        client.once('close', () => reject(new Error('the broker closed the connection')));
        signal.addEventListener('abort', abort, { once: true });
        if (signal.aborted) abort();
      });
    } catch (error) {
      client.on('error', () => undefined);
      this.destroy();
      throw error;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  #listen(handlers: LinkHandlers): void {
    const client = this.#client;
    client.removeAllListeners('error');
    const over = (): void => {
      if (this.#isOver) return;
      this.#isOver = true;
      handlers.closed(this.#why);
    };
    client.on('error', (error: Error) => {
      this.#why = error.message;
    });
    client.on('close', over);
    client.on('disconnect', ({ reasonCode }) => {
      this.#why = `the broker ended the session, reason ${reasonCode ?? 0}`;
    });
    client.on('message', (topic, payload, { retain }) => {
      if (!this.#isOver) handlers.message(topic, payload, retain);
    });
    client.on('packetsend', ({ cmd }) => void (cmd === 'pingreq' && handlers.pinged()));
    client.on('packetreceive', ({ cmd }) => void (cmd === 'pingresp' && handlers.ponged()));
    if (!client.connected) over();
  }
}
