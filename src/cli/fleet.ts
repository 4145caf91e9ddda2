/**
 * `premotor fleet`: who runs what, by what robots tell a broker. It listens, and asks for births when it is told to; it can neither move nor stop a
 * robot. Owned by the command line.
 */
import { setTimeout as passed } from 'node:timers/promises';
import type { Command } from 'commander';
import { PremotorError } from '../errors.js';
import { factsOf, filterFacts, type RobotFacts, sortFacts } from '../fleet/facts.js';
import { readMemory, writeMemory } from '../fleet/memory.js';
import { FleetObserver } from '../fleet/observer.js';
import { Robots } from '../fleet/robots.js';
import { type BrokerSettings, brokerAddress } from '../telemetry/broker-address.js';
import { type CliContext, CommandExit, EXIT_NOT_DONE, formatTable, printResult, UsageError } from './context.js';
import { registerRollout } from './fleet-rollout.js';
import { whole } from './numbers.js';

export interface BrokerOptions {
  readonly broker?: string;
  readonly group?: string;
  readonly caFile?: string;
  readonly certFile?: string;
  readonly keyFile?: string;
  readonly username?: string;
  readonly passwordFile?: string;
  readonly mqttVersion: string;
  readonly rebirth: boolean;
  readonly listen: number;
  readonly memory?: string;
}

export interface FleetOptions extends BrokerOptions {
  readonly filter: readonly string[];
  readonly sort: string;
  readonly watch: boolean;
  readonly check: boolean;
  readonly json: boolean;
}

const LISTEN_S = 5;
const LISTEN_S_MAX = 3600;
const KEEPALIVE_S = 15;
/** A table is drawn anew no more often. */
const REDRAW_MS = 500;
const MS_PER_S = 1000;
/** Digits of a hash that tell two apart for people. */
const HASH_DIGITS = 8;

/** The settings of a robot's telemetry by the names of this command's options. Errors: those of brokerAddress. */
export function addressOf(options: BrokerOptions): ReturnType<typeof brokerAddress> {
  const { broker, caFile, certFile, keyFile, username, passwordFile, mqttVersion } = options;
  if (broker === undefined) throw new UsageError('--broker says which broker to listen to, such as mqtt://127.0.0.1:1883.');
  const settings: BrokerSettings = {
    ...(caFile === undefined ? {} : { ca_file: caFile }),
    ...(certFile === undefined ? {} : { cert_file: certFile }),
    ...(keyFile === undefined ? {} : { key_file: keyFile }),
    ...(username === undefined ? {} : { username }),
    ...(passwordFile === undefined ? {} : { password_file: passwordFile }),
    mqtt_version: mqttVersion === '5' ? '5' : '3.1.1',
    keepalive_s: KEEPALIVE_S,
  };
  return brokerAddress(broker, settings, (field) => (field === 'broker_url' ? '--broker' : `--${field.replaceAll('_', '-')}`));
}

/** Listens for a time and returns what is known then. `expected`: robots that are asked for a birth though they say nothing. */
export async function look(options: BrokerOptions, context: CliContext, expected: readonly string[] = []): Promise<readonly RobotFacts[]> {
  const robots = await remembered(options);
  const observer = await openObserver(options, context, robots, { expected, persists: false, onChange: () => undefined });
  try {
    await Promise.race([passed(options.listen * MS_PER_S, undefined, { signal: context.signal }).catch(() => undefined), observer.ended]);
  } finally {
    observer.close();
  }
  return keep(options, robots);
}

async function remembered({ memory }: BrokerOptions): Promise<Robots> {
  const robots = new Robots();
  if (memory !== undefined) robots.remember(await readMemory(memory), Date.now());
  return robots;
}

async function keep({ memory }: BrokerOptions, robots: Robots): Promise<readonly RobotFacts[]> {
  const rows = robots.rows(Date.now());
  if (memory !== undefined) await writeMemory(memory, rows);
  return rows.map(factsOf);
}

type Listening = Pick<Parameters<typeof FleetObserver.open>[0], 'expected' | 'persists' | 'onChange'>;

function openObserver(options: BrokerOptions, context: CliContext, robots: Robots, listening: Listening): Promise<FleetObserver> {
  return FleetObserver.open({
    address: addressOf(options),
    robots,
    ...(options.group === undefined ? {} : { group: options.group }),
    asksBirths: options.rebirth,
    signal: context.signal,
    ...listening,
  });
}

const duration = (ms: number): string => {
  const s = Math.max(0, Math.round(ms / MS_PER_S));
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  return s < 172_800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86_400)} d`;
};
const hash = (found: string | null): string => found?.slice(0, HASH_DIGITS) ?? '';

function linkText({ link, why, sinceMs }: RobotFacts, nowMs: number): string {
  if (link === 'online') return 'online';
  return `${link} ${duration(nowMs - sinceMs)}${link === 'offline' ? '' : ` (${why})`}`;
}

/** A table for people, and a line that says how many there are. */
export function describeFleet(facts: readonly RobotFacts[], nowMs: number): string {
  if (facts.length === 0)
    return 'No robot was heard of. Births come once: --rebirth asks robots that speak for theirs, a longer --listen hears more of them.';
  const groups = new Set(facts.map(({ group }) => group));
  const header = ['robot', 'link', 'state', 'fault', 'version', 'system', 'update', 'model', 'plan', 'configuration', 'firmware', 'uptime', 'steps'];
  const rows = facts.map((one) => [
    groups.size > 1 ? `${one.group}/${one.node}` : one.node,
    linkText(one, nowMs),
    one.state ?? '',
    one.fault ?? '',
    one.version ?? '',
    [one.slot, one.system].filter((part) => part !== null).join(' '),
    [one.update, one.newest === one.system ? null : one.newest].filter((part) => part !== null).join(' '),
    [one.model, hash(one.modelHash), one.precision].filter((part) => part).join(' '),
    one.plan ?? '',
    hash(one.configuration),
    one.firmware ?? '',
    one.uptimeS === null ? '' : duration(one.uptimeS * MS_PER_S),
    one.clockSteps === null ? '' : String(one.clockSteps),
  ]);
  // A column that says nothing of anybody is left out.
  const used = header.map((_, column) => column).filter((column) => column < 3 || rows.some((row) => row[column] !== ''));
  const pick = (row: readonly string[]): string[] => used.map((column) => row[column] ?? '');
  const counts = ['online', 'unborn', 'stale', 'offline'].map((link) => [link, facts.filter((one) => one.link === link).length] as const);
  const summary = counts.flatMap(([link, count]) => (count === 0 ? [] : [`${count} ${link}`])).join(', ');
  const faults = facts.filter(({ fault }) => fault !== null).length;
  const total = `${facts.length} robot${facts.length === 1 ? '' : 's'}: ${summary}${faults === 0 ? '' : `; ${faults} with a fault`}`;
  return `${formatTable(
    pick(header),
    rows.map(pick),
    used.map(() => 'left' as const),
  )}\n${total}`;
}

const iso = (ms: number): string => new Date(ms).toISOString();
const documentOf = (facts: readonly RobotFacts[], broker: string | undefined, nowMs: number): object => ({
  broker,
  observedAt: iso(nowMs),
  robots: facts.map(({ sinceMs, heardMs, ...one }) => ({ ...one, since: iso(sinceMs), heard: iso(heardMs) })),
});

const isWell = ({ link, fault }: RobotFacts): boolean => link === 'online' && fault === null;

/** Errors: FLEET_BROKER, FLEET_FACT, FLEET_MEMORY and those of brokerAddress. */
export async function runFleet(options: FleetOptions, context: CliContext): Promise<void> {
  const chosen = (facts: readonly RobotFacts[]): readonly RobotFacts[] => sortFacts(filterFacts(facts, options.filter), options.sort);
  // What cannot be asked for is refused before anybody is asked.
  chosen([]);
  if (options.watch) {
    await watch(options, context, chosen);
    return;
  }
  const facts = chosen(await look(options, context));
  if (context.signal.aborted) throw context.signal.reason;
  printResult(context, options.json, documentOf(facts, options.broker, Date.now()), () => describeFleet(facts, Date.now()));
  if (options.check && (facts.length === 0 || !facts.every(isWell))) throw new CommandExit(EXIT_NOT_DONE);
}

/** Goes on until it is interrupted: a table that is drawn anew, with --json a document in a line at every change. */
async function watch(options: FleetOptions, context: CliContext, chosen: (facts: readonly RobotFacts[]) => readonly RobotFacts[]): Promise<void> {
  const robots = await remembered(options);
  let isDue = true;
  const observer = await openObserver(options, context, robots, {
    persists: true,
    onChange: () => {
      isDue = true;
    },
  });
  let last = '';
  const show = (): void => {
    const nowMs = Date.now();
    const facts = chosen(robots.rows(nowMs).map(factsOf));
    const text = options.json ? JSON.stringify(documentOf(facts, options.broker, nowMs)) : describeFleet(facts, nowMs);
    if (options.json ? !isDue : text === last) return;
    [isDue, last] = [false, text];
    const clear = context.out.isTTY === true && !options.json ? '\u001b[H\u001b[J' : '';
    context.out.write(`${clear}${text}\n`);
  };
  const timer = setInterval(show, REDRAW_MS);
  try {
    show();
    await new Promise<void>((resolve) => {
      if (context.signal.aborted) resolve();
      context.signal.addEventListener('abort', () => resolve(), { once: true });
    });
    await keep(options, robots);
    throw context.signal.reason instanceof PremotorError ? context.signal.reason : new PremotorError('ABORTED', 'Interrupted.');
  } finally {
    clearInterval(timer);
    observer.close();
  }
}

/** The options that say which broker, and as whom. */
export function withBroker(command: Command): Command {
  return command
    .option('--broker <url>', 'mqtt://HOST:PORT or mqtts://HOST:PORT; another machine needs mqtts and an identity')
    .option('--group <id>', 'Sparkplug group (default: all)')
    .option('--ca-file <file>', "certificates (PEM) that sign the broker's")
    .option('--cert-file <file>', 'a certificate (PEM) that the broker lets read')
    .option('--key-file <file>', 'its private key (PEM)')
    .option('--username <name>', 'for brokers that ask for one')
    .option('--password-file <file>', 'holds the password')
    .option('--mqtt-version <version>', '3.1.1 or 5', '3.1.1')
    .option('--rebirth', 'ask robots whose birth was missed for another; this is all that is ever sent', false)
    .option('--listen <s>', 'how long to listen, seconds', whole(1, LISTEN_S_MAX), LISTEN_S)
    .option('--memory <file>', 'take over what was known from FILE, and leave there what is known then');
}

const help = `
A robot tells what it runs once, when it connects; who comes later learns it with --rebirth, or remembers it with --memory.
Links: online; unborn (it speaks, its birth was missed); stale (a message is missing, it is silent for three minutes, or this command lost
the broker); offline (broker or robot said so).

Examples:
  premotor fleet --broker mqtt://127.0.0.1:1883 --rebirth
  premotor fleet --broker mqtts://broker:8883 --ca-file ca.pem --cert-file me.pem --key-file me.key --filter version!=1.4.0 --sort -uptimeS
  premotor fleet --broker mqtt://127.0.0.1:1883 --rebirth --check || echo "somebody needs help"

Exit codes: 0 shown; 1 no session with the broker, or another error; 3 with --check: nobody, or somebody is not online or has a fault.`;

/** Adds `premotor fleet` and its subcommands to the program. */
export function registerFleet(program: Command, context: CliContext): void {
  // A subcommand has options of the same names.
  const fleet = withBroker(program.command('fleet').enablePositionalOptions())
    .description('who runs what: the robots that report to a broker')
    .option(
      '--filter <fact=value>',
      'show robots of which this holds; != for the opposite, value* for a beginning; several: all of them',
      collect,
      [],
    )
    .option('--sort <fact>', 'by this fact; a minus in front turns the order round', 'node')
    .option('--watch', 'go on until Ctrl-C', false)
    .option('--check', 'exit code 3 unless everybody shown is online without a fault', false)
    .option('--json', 'print one JSON document; with --watch one in a line at every change', false)
    .addHelpText('after', help)
    .action((options: FleetOptions) => runFleet(options, context));
  registerRollout(fleet, context);
}

const collect = (value: string, before: readonly string[]): readonly string[] => [...before, value];
