/**
 * `premotor serve`: serves a checkpoint to websocket clients until it is interrupted. Owned by the command line; the server is src/server. It moves
 * no robot.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { UNTRAINED_MARKER } from '../checkpoint/untrained.js';
import type { LoadPolicyOptions } from '../policy/contract.js';
import { readJob } from '../policy/job.js';
import { type CpuPrecision, type KvCache, pairName } from '../policy/precision.js';
import { Cameras } from '../policy/validate.js';
import { jsonLog, type ServerLog, textLog } from '../server/log.js';
import { PORT_DEFAULT, PolicyServer } from '../server/server.js';
import { readServerToken } from '../server/token.js';
import { type CliContext, UsageError } from './context.js';
import { SEED_MAX, whole } from './numbers.js';
import { kvCacheOption, precisionOption, uncertifiedOption } from './precision-option.js';

export interface ServeOptions {
  readonly job?: string;
  readonly host: string;
  readonly port: number;
  readonly tokenFile?: string;
  readonly connections: number;
  readonly idleTimeout: number;
  readonly messageTimeout: number;
  readonly callTimeout: number;
  readonly messageMaxMib: number;
  readonly pictureSideMax: number;
  readonly camera?: readonly [string, string][];
  readonly seed: number;
  readonly precision: CpuPrecision;
  readonly kvCache?: KvCache;
  readonly allowUncertified: boolean;
  readonly device: 'auto' | 'cpu' | 'cuda';
  readonly threads?: number;
  readonly plan?: string;
  readonly json: boolean;
}

const JOB_FILE = 'job.json';
const SECONDS_MAX = 86_400;
const MIB_MAX = 2_047;
const SIDE_MAX = 8_192;
const CONNECTIONS_MAX = 64;

/** Runs until the context's signal aborts. Errors: TOKEN_INVALID, SERVER_OPEN, SERVER_LISTEN, JOB_*, USAGE, those of loadPolicy. */
export async function runServe(checkpoint: string, options: ServeOptions, context: CliContext): Promise<void> {
  const { signal } = context;
  const log: ServerLog = options.json ? jsonLog(context.out as { write(text: string): void }) : textLog((line) => context.err.write(line));
  const token = options.tokenFile === undefined ? undefined : readServerToken(options.tokenFile);
  const job = options.job ?? join(checkpoint, JOB_FILE);
  const parsed = await readJob(job);
  const aliases = aliasesOf(options.camera ?? [], new Cameras(parsed.job.obs_cam_keys));
  const load = (): LoadPolicyOptions => loadOptions(checkpoint, job, options);
  const begun = performance.now();
  log('info', 'loading', { checkpoint, policies: options.connections });
  const server = await PolicyServer.open({
    load: () => context.loadPolicy(load()),
    host: options.host,
    port: options.port,
    ...(token === undefined ? {} : { token }),
    connections: options.connections,
    messageMaxMib: options.messageMaxMib,
    limits: {
      idle_timeout_ms: options.idleTimeout * 1000,
      message_timeout_ms: options.messageTimeout * 1000,
      call_timeout_ms: options.callTimeout * 1000,
    },
    session: { seed: options.seed, pictureSideMax: options.pictureSideMax, aliases },
    untrained: existsSync(join(checkpoint, UNTRAINED_MARKER)),
    log,
    onLoaded: (loaded) => log('info', 'loaded', { policy: loaded, of: options.connections, after_ms: Math.round(performance.now() - begun) }),
  });
  try {
    tellReady(server, options, log);
    await aborted(signal);
    log('info', 'stopping', { connections: server.served });
  } finally {
    await server.close();
  }
  log('info', 'stopped', { after_ms: Math.round(performance.now() - begun) });
}

function tellReady(server: PolicyServer, { host }: ServeOptions, log: ServerLog): void {
  const { info } = server.policy ?? {};
  for (const warning of info?.warnings ?? []) log('warn', 'warning', { message: warning });
  const size = info === undefined ? {} : { engine: `${info.backend}, ${pairName(info)}`, threads: info.threads, parameters: info.parameters };
  const url = `ws://${host.includes(':') && !host.startsWith('[') ? `[${host}]` : host}:${server.port}`;
  log('info', 'listening', { url, port: server.port, ...size });
}

function loadOptions(checkpoint: string, job: string, options: ServeOptions): LoadPolicyOptions {
  const { precision, allowUncertified, device, kvCache, threads, plan } = options;
  return {
    checkpoint,
    job,
    device,
    precision,
    allowUncertified,
    // A crash of the engine ends one client's episode, not the server.
    isolate: true,
    ...(kvCache === undefined ? {} : { kvCache }),
    ...(threads === undefined ? {} : { threads }),
    ...(plan === undefined ? {} : { plan }),
  };
}

/** Errors: USAGE when a name is none of the job's cameras. */
function aliasesOf(pairs: readonly [string, string][], cameras: Cameras): Map<string, string> {
  const aliases = new Map<string, string>();
  for (const [key, name] of pairs) {
    const camera = cameras.keys.find((one) => one === name || one.endsWith(`.${name}`));
    if (camera === undefined) {
      const expected = `one of ${cameras.keys.join(', ')}`;
      throw new UsageError(`--camera ${key}=${name}: expected ${expected} after "=", found ${name}.`, { expected, found: name });
    }
    aliases.set(key, camera);
  }
  return aliases;
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}

function parseCamera(text: string, before: readonly [string, string][] = []): [string, string][] {
  const [, key, name] = /^([^=]+)=([^=]+)$/.exec(text) ?? [];
  if (key === undefined || name === undefined) throw new InvalidArgumentError('Expected KEY=CAMERA, such as observation/image=cam_front.');
  return [...before, [key, name]];
}

const examples = `
Examples:
  premotor serve models/tabletop
  premotor serve checkpoint/ --job job.json --precision bf16 --port 8000
  premotor serve checkpoint/ --host 0.0.0.0 --token-file secrets/policy.token
  premotor run robots/sim-tabletop.yaml --policy ws://127.0.0.1:${PORT_DEFAULT}

Clients of LingBot-VA and openpi connect unmodified (docs/SERVER.md). GET /healthz answers 200 once it listens.
Ctrl-C or SIGTERM says goodbye to every client and ends with 0.`;

/** Adds `premotor serve` to the program. */
export function registerServe(program: Command, context: CliContext): void {
  program
    .command('serve')
    .description('serve a checkpoint to websocket clients')
    .argument('<checkpoint>', 'checkpoint folder in the released layout')
    .option('--job <file>', 'job file (default: job.json in the checkpoint)')
    .option('--host <address>', 'where to listen; any other than loopback needs --token-file', '127.0.0.1')
    .option('--port <n>', 'its port; 0: any that is free', whole(0, 65_535), PORT_DEFAULT)
    .option('--token-file <file>', 'holds the token that clients must give')
    .option('--connections <n>', 'clients served at a time, each with a policy of its own', whole(1, CONNECTIONS_MAX), 1)
    .option('--idle-timeout <s>', 'a client that asks nothing for so long is left', whole(1, SECONDS_MAX), 600)
    .option('--message-timeout <s>', 'for a message to arrive, and for an answer to be taken', whole(1, SECONDS_MAX), 30)
    .option('--call-timeout <s>', 'for one request to be computed', whole(1, SECONDS_MAX), 600)
    .option('--message-max-mib <n>', 'a larger message ends the connection', whole(1, MIB_MAX), 256)
    .option('--picture-side-max <pixels>', 'larger pictures are refused', whole(16, SIDE_MAX), 2_048)
    .addOption(new Option('--camera <key=camera>', 'flat observations: what a key is of the job (may be repeated)').argParser(parseCamera))
    .option('--seed <n>', 'seed of the noise for clients that give none', whole(0, SEED_MAX), 0)
    .addOption(precisionOption('how weights are held', 'f32'))
    .addOption(kvCacheOption())
    .addOption(uncertifiedOption())
    .addOption(new Option('--device <name>', 'where to compute').choices(['auto', 'cpu', 'cuda']).default('auto'))
    .option('--threads <n>', 'CPU threads of each policy (default: all cores but one)', whole(1, 1024))
    .option('--plan <file>', 'plan of the checkpoint (premotor build)')
    .option('--json', 'log as JSON lines on standard output', false)
    .addHelpText('after', examples)
    .action((checkpoint: string, options: ServeOptions) => runServe(checkpoint, options, context));
}
