/**
 * Which broker the robot reports to, as whom, and how it proves it: the configuration's answer, checked before anything moves. Owned by the telemetry
 * of a run; it reads certificates and passwords and connects nowhere.
 */
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import type { RobotConfig } from '../config/schema.js';
import { PremotorError } from '../errors.js';
import { isLoopback } from '../local-access.js';

export interface BrokerAddress {
  readonly host: string;
  readonly port: number;
  /** Absent: plain TCP. */
  readonly tls?: { readonly ca?: Buffer; readonly cert?: Buffer; readonly key?: Buffer };
  readonly username?: string;
  readonly password?: string;
  readonly isV5: boolean;
  readonly keepaliveS: number;
}

const PORTS: Readonly<Record<string, number>> = { 'mqtt:': 1883, 'mqtts:': 8883 };

/** What broker and identity are made of. */
export type BrokerSettings = Pick<
  RobotConfig['telemetry'],
  'username' | 'password_file' | 'ca_file' | 'cert_file' | 'key_file' | 'mqtt_version' | 'keepalive_s'
>;
type Naming = (field: string) => string;

function contentOf(named: string, file: string | undefined): Buffer | undefined {
  if (file === undefined) return undefined;
  try {
    return readFileSync(file);
  } catch (cause) {
    const found = (cause as Error).message;
    const message = `The file of ${named} cannot be read: ${found}. Check path and rights; a new robot's certificate comes from its authority.`;
    throw new PremotorError('TELEMETRY_FILE', message, { field: named, file, found, cause });
  }
}

/**
 * The address at a URL with an identity. `naming`: what the user calls a setting, by default its key in a robot's configuration. Errors:
 * TELEMETRY_OPTIONS, TELEMETRY_FILE, TELEMETRY_INSECURE.
 */
export function brokerAddress(broker: string, config: BrokerSettings, naming: Naming = (field) => `telemetry.${field}`): BrokerAddress {
  const refused = (field: string, expected: string, found: string): PremotorError =>
    new PremotorError('TELEMETRY_OPTIONS', `${naming(field)} cannot be right. Correct it.`, { field: naming(field), expected, found });
  if (!URL.canParse(broker)) throw refused('broker_url', 'mqtt://HOST:PORT or mqtts://HOST:PORT', 'no URL');
  const url = new URL(broker);
  const port = PORTS[url.protocol];
  if (port === undefined) throw refused('broker_url', 'mqtt:// or mqtts://', url.protocol);
  // A password in a URL ends in logs.
  if (url.username !== '' || url.password !== '') throw refused('broker_url', 'username and password_file beside it', 'a URL with credentials');
  if (url.hostname === '') throw refused('broker_url', 'mqtt://HOST:PORT or mqtts://HOST:PORT', 'no host');
  const [ca, cert, key] = (['ca_file', 'cert_file', 'key_file'] as const).map((field) => contentOf(naming(field), config[field]));
  if ((cert === undefined) !== (key === undefined)) throw refused(cert ? 'key_file' : 'cert_file', 'a certificate with its key', 'one of the two');
  const isTls = url.protocol === 'mqtts:';
  if (!isTls && (ca || cert)) throw refused('broker_url', 'mqtts://, because certificates are given', url.protocol);
  const password = contentOf(naming('password_file'), config.password_file)?.toString('utf8').trimEnd();
  if (password !== undefined && config.username === undefined) throw refused('username', 'the name that the password belongs to', 'none');
  checkSecurity(url, isTls, cert !== undefined || password !== undefined, naming('broker_url'));
  return {
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: url.port === '' ? port : Number(url.port),
    ...(isTls ? { tls: { ...(ca ? { ca } : {}), ...(cert && key ? { cert, key } : {}) } } : {}),
    ...(config.username === undefined ? {} : { username: config.username }),
    ...(password === undefined ? {} : { password }),
    isV5: config.mqtt_version === '5',
    keepaliveS: config.keepalive_s,
  };
}

function checkSecurity(url: URL, isTls: boolean, hasIdentity: boolean, field: string): void {
  if (isLoopback(url.hostname) || (isTls && hasIdentity)) return;
  const message =
    'Telemetry to another machine needs TLS and an identity of this robot: who can write to the broker can stop it. Use mqtts:// and a certificate.';
  throw new PremotorError('TELEMETRY_INSECURE', message, {
    field,
    expected: 'a loopback address, or mqtts:// with cert_file and key_file, or with username and password_file',
    found: `${url.protocol}//${url.host} ${hasIdentity ? 'with' : 'without'} an identity`,
  });
}

export interface SparkplugIds {
  readonly group: string;
  readonly node: string;
  readonly primaryHost?: string;
}

/** What the machine is called, without what a topic cannot hold. */
export function machineName(): string {
  const machine = hostname()
    .replace(/[/+#\s]/g, '-')
    .slice(0, 128);
  return machine === '' ? 'robot' : machine;
}

/** The machine's name where the configuration names no node. */
export function idsOf({ group_id: group, node_id, primary_host_id: primaryHost }: RobotConfig['telemetry']): SparkplugIds {
  return { group, node: node_id ?? machineName(), ...(primaryHost === undefined ? {} : { primaryHost }) };
}

export interface Topics {
  readonly birth: string;
  readonly data: string;
  readonly death: string;
  readonly command: string;
  /** Of the primary host, where there is one. */
  readonly state?: string;
}

export function topicsOf({ group, node, primaryHost }: SparkplugIds): Topics {
  const of = (verb: string): string => `spBv1.0/${group}/${verb}/${node}`;
  return {
    birth: of('NBIRTH'),
    data: of('NDATA'),
    death: of('NDEATH'),
    command: of('NCMD'),
    ...(primaryHost === undefined ? {} : { state: `spBv1.0/STATE/${primaryHost}` }),
  };
}
