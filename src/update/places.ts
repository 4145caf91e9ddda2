/**
 * Where updates find things on a robot: the data partition, the control socket, the fleet's certificate. Owned by the update commands; tests and
 * bare installs name other places. Nothing here is opened.
 */
import { join } from 'node:path';

export interface Places {
  /** The data partition's folder: models, configuration, records. */
  readonly stateDir: string;
  /** Records of updates, and what is downloaded. */
  readonly updateDir: string;
  /** The service's control socket. */
  readonly socket: string;
  /** The folder of the files that say which processes run. */
  readonly registry: string;
  /** The certificate that signers of this fleet descend from. */
  readonly keyring: string;
  /** RAUC's configuration. */
  readonly raucConfig: string;
}

const STATE_DIR = '/var/lib/premotor';
const RUNTIME_DIR = '/run';
const KEYRING = '/etc/rauc/fleet-ca.pem';
const RAUC_CONFIG = '/etc/rauc/system.conf';

export interface PlaceOptions {
  readonly stateDir?: string | undefined;
  readonly socket?: string | undefined;
  readonly keyring?: string | undefined;
  readonly raucConf?: string | undefined;
}

export function placesOf(options: PlaceOptions = {}, env: NodeJS.ProcessEnv = process.env): Places {
  const stateDir = options.stateDir ?? env['PREMOTOR_STATE_DIR'] ?? STATE_DIR;
  const registry = join(env['PREMOTOR_RUNTIME_DIR'] ?? RUNTIME_DIR, 'premotor');
  return {
    stateDir,
    updateDir: join(stateDir, 'update'),
    socket: options.socket ?? join(registry, 'control.sock'),
    registry,
    keyring: options.keyring ?? KEYRING,
    raucConfig: options.raucConf ?? RAUC_CONFIG,
  };
}
