/**
 * Where a broker may be, and the connection to it. Owned by publisher and receiver, one connection each; it queues nothing while it is down and never
 * connects beyond the loopback without a client certificate.
 */
import { Socket } from 'node:net';
import { connect, type IClientOptions, type MqttClient } from 'mqtt';
import { PremotorError } from '../errors.js';
import { isLoopback as isLoopbackHost } from '../local-access.js';

export interface TlsCredentials {
  /** PEM */
  readonly key: string | Buffer;
  readonly cert: string | Buffer;
  readonly ca: string | Buffer;
}

export interface BrokerOptions {
  /** `mqtt://` or `mqtts://` */
  readonly url?: string;
  /** Client certificate and the authority that signs the broker's; required for a broker on another machine. */
  readonly tls?: TlsCredentials;
  /** On the loopback only: TLS without a client certificate, for a broker that a developer is trying out. */
  readonly allowInsecure?: boolean;
  readonly connect_timeout_ms?: number;
  readonly reconnect_ms?: number;
}

export const defaultUrl = 'mqtt://127.0.0.1:1883';
/** Bytes that wait in the socket; more means that the network is slower than the setpoints, and newer ones would only be late. */
export const backlogBytesMax = 65536;

/** What a connection may use. Errors: MQTT_OPTIONS, MQTT_INSECURE. */
export function checkBroker(options: BrokerOptions): { readonly url: string; readonly isLoopback: boolean } {
  const text = options.url ?? defaultUrl;
  if (!URL.canParse(text)) throw optionError('url', 'mqtt://HOST:PORT or mqtts://HOST:PORT', 'no URL');
  const url = new URL(text);
  const isTls = url.protocol === 'mqtts:';
  if (!isTls && url.protocol !== 'mqtt:') throw optionError('url', 'mqtt:// or mqtts://', url.protocol);
  // A password in a URL ends in logs.
  if (url.username !== '' || url.password !== '')
    throw optionError('url', 'no user or password: identity is the certificate', 'a URL with credentials');
  const isLoopback = isLoopbackHost(url.hostname);
  const hasCertificate = options.tls !== undefined && [options.tls.key, options.tls.cert, options.tls.ca].every((pem) => pem.length > 0);
  if (!isLoopback && (!isTls || !hasCertificate || options.allowInsecure === true)) {
    const how = `${hasCertificate ? 'with' : 'without'} a client certificate${options.allowInsecure ? ', allowInsecure' : ''}`;
    throw new PremotorError('MQTT_INSECURE', insecureMessage, {
      field: 'url',
      expected: 'a loopback address, or mqtts:// with key, cert and ca and without allowInsecure',
      found: `${url.protocol}//${url.host} ${how}`,
    });
  }
  if (isTls && !hasCertificate && options.allowInsecure !== true) {
    throw new PremotorError('MQTT_INSECURE', insecureMessage, { field: 'tls', expected: 'key, cert and ca', found: 'none, or an empty one' });
  }
  for (const name of ['connect_timeout_ms', 'reconnect_ms'] as const) {
    const value = options[name];
    if (value !== undefined && !(value >= 10 && value <= 60_000)) throw optionError(name, '10 to 60000', String(value));
  }
  return { url: text, isLoopback };
}

const insecureMessage =
  'Setpoints over MQTT need a broker that knows who sends them. Use a broker on this machine, or mqtts:// with a client certificate per robot.';

function optionError(field: string, expected: string, found: string): PremotorError {
  return new PremotorError('MQTT_OPTIONS', 'An option of the MQTT connection cannot be right. Correct the configuration.', {
    field,
    expected,
    found,
  });
}

/** A client that reconnects by itself, with a clean session each time. Errors: MQTT_OPTIONS, MQTT_INSECURE. */
export function openClient(options: BrokerOptions, more: Pick<IClientOptions, 'will'> = {}): MqttClient {
  const { url, isLoopback } = checkBroker(options);
  const tls: IClientOptions = options.tls === undefined ? {} : { key: options.tls.key, cert: options.tls.cert, ca: options.tls.ca };
  const client = connect(url, {
    ...tls,
    ...more,
    rejectUnauthorized: !(isLoopback && options.allowInsecure === true),
    clean: true,
    // The default would replay, at the reconnect, setpoints that were published while the broker was away.
    queueQoSZero: false,
    reconnectPeriod: options.reconnect_ms ?? 500,
    connectTimeout: options.connect_timeout_ms ?? 3000,
    keepalive: 5,
    resubscribe: false,
    protocolVersion: 4,
  });
  client.on('connect', () => {
    // Small messages must not wait for the acknowledgement of the one before.
    if (client.stream instanceof Socket) client.stream.setNoDelay(true);
  });
  return client;
}

/** Bytes that the kernel has not taken yet. */
export function backlogBytes(client: MqttClient): number {
  return client.stream?.writableLength ?? 0;
}

const closeMs = 500;

/** Lets go what was given to the socket and disconnects; a broker that died does not hold it up. A second call does nothing more. */
export async function closeClient(client: MqttClient): Promise<void> {
  if (!client.connected) {
    await client.endAsync(true);
    return;
  }
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(true), closeMs);
  });
  const isLate = await Promise.race([client.endAsync().then(() => false), late]);
  clearTimeout(timer);
  if (isLate) client.stream.destroy();
}

/** Resolves at the first connection and its subscriptions. Errors: MQTT_CONNECT. */
export function whenReady(client: MqttClient, ready: Promise<void>, timeout_ms: number, url: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let last: unknown;
    const onError = (error: unknown): void => {
      last = error;
    };
    const timer = setTimeout(() => {
      client.off('error', onError);
      const found = last instanceof Error ? last.message : 'no answer';
      const message = 'The MQTT broker cannot be reached, or refuses. Start it, or correct the address and the certificates.';
      reject(new PremotorError('MQTT_CONNECT', message, { expected: `a broker at ${url} within ${timeout_ms} ms`, found, cause: last }));
    }, timeout_ms);
    client.on('error', onError);
    ready.then(() => {
      clearTimeout(timer);
      client.off('error', onError);
      resolve();
    }, reject);
  });
}

export interface Topics {
  readonly setpoint: string;
  readonly feedback: string;
  readonly session: string;
  readonly status: string;
}

/** Errors: MQTT_OPTIONS. */
export function topicsOf(robot: string): Topics {
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(robot)) throw optionError('robot', '1 to 64 of A-Z a-z 0-9 _ -', robot);
  const base = `premotor/${robot}`;
  return { setpoint: `${base}/setpoint`, feedback: `${base}/feedback`, session: `${base}/session`, status: `${base}/status` };
}
