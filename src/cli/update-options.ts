/** Options that the update commands share, and how their results are told. Owned by the update commands. */

import { join } from 'node:path';
import type { Command } from 'commander';
import { readRobotConfig } from '../config/reader.js';
import { PremotorError } from '../errors.js';
import { VOCABULARY } from '../runtime/rig.js';
import { runSelftest } from '../runtime/selftest.js';
import { download, isUrl, type TlsFiles } from '../update/download.js';
import { examineHealth, type Health, type HealthWants } from '../update/health.js';
import { type PlaceOptions, type Places, placesOf } from '../update/places.js';
import { runToolWell } from '../update/tools.js';
import { type CliContext, formatBytes } from './context.js';
import { ProgressBar } from './progress.js';

const RESTART_TIMEOUT_MS = 300_000;
const REBOOT_TIMEOUT_MS = 30_000;

export interface UpdateOptions extends PlaceOptions, TlsFiles {
  readonly json: boolean;
}

/** Where things are: defaults are those of a robot. */
export function withPlaces(command: Command): Command {
  return command
    .option('--state-dir <dir>', 'data partition (default: /var/lib/premotor)')
    .option('--socket <file>', "the service's control socket (default: /run/premotor/control.sock)")
    .option('--keyring <file>', 'certificate of the fleet (default: /etc/rauc/fleet-ca.pem)')
    .option('--rauc-conf <file>', "RAUC's configuration (default: /etc/rauc/system.conf)")
    .option('--json', 'print the result as JSON', false);
}

/** How an https server is trusted. */
export function withTls(command: Command): Command {
  return command
    .option('--ca <file>', "certificates that the server's must descend from (default: the system's)")
    .option('--cert <file>', "this robot's certificate, where the server asks for one")
    .option('--key <file>', 'its key');
}

export const placesFor = (options: UpdateOptions): Places => placesOf(options);

/** A file's path as it is; what a URL names is fetched first. Errors: those of download. */
export async function fetched(source: string, options: UpdateOptions, context: CliContext): Promise<string> {
  if (!isUrl(source)) return source;
  const bar = new ProgressBar(context.err, { show: formatBytes });
  const { ca, cert, key } = options;
  const tls = { ...(ca === undefined ? {} : { ca }), ...(cert === undefined ? {} : { cert }), ...(key === undefined ? {} : { key }) };
  const folder = join(placesFor(options).updateDir, 'download');
  try {
    const onBytes = (done: number, total: number): void => bar.update('downloading', done, total);
    return await download({ url: source, folder, tls, signal: context.signal, onBytes });
  } finally {
    bar.clear();
  }
}

export async function restartService(): Promise<void> {
  await runToolWell('systemctl', ['restart', 'premotor.service'], { timeout_ms: RESTART_TIMEOUT_MS });
}

export async function reboot(): Promise<void> {
  await runToolWell('systemctl', ['reboot'], { timeout_ms: REBOOT_TIMEOUT_MS });
}

/** The health check with everything that a robot has. */
export function healthOf(
  places: Places,
  wants: Pick<HealthWants, 'timeout_ms' | 'telemetry'> & { readonly selftest: boolean },
  context: CliContext,
): Promise<Health> {
  const bar = new ProgressBar(context.err, { show: (value) => `${value.toFixed(0)} s` });
  const { timeout_ms, telemetry, selftest } = wants;
  return examineHealth(places, {
    timeout_ms,
    telemetry,
    signal: context.signal,
    onWait: (what, waited_ms, of_ms) => bar.update(what, waited_ms / 1000, of_ms / 1000),
    ...(selftest ? { selftest: (file: string, left_ms: number) => selftestWithin(file, left_ms, context) } : {}),
  }).finally(() => bar.clear());
}

/** Errors: SELFTEST_*, those of loadPolicy, ABORTED when it takes too long. */
async function selftestWithin(file: string, timeout_ms: number, { loadPolicy, signal }: CliContext): Promise<string> {
  const { config } = await readRobotConfig(file, VOCABULARY);
  const bound = AbortSignal.any([signal, AbortSignal.timeout(timeout_ms)]);
  const result = await runSelftest(config, { loadPolicy, signal: bound });
  if (result.matches) return `${result.values} values match, hash ${result.sha256.slice(0, 16)}`;
  const [expected, found] = [`hash ${result.expectedSha256}`, `hash ${result.sha256}`];
  throw new PremotorError('SELFTEST_MISMATCH', `The model does not compute what it should: expected ${expected}, found ${found}.`, {
    expected,
    found,
  });
}

export const remarksText = (remarks: readonly string[]): string[] => remarks.map((remark) => `note       ${remark}`);
