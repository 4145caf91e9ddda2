/**
 * `premotor fleet rollout`: checks a staged roll-out, shows where it stands, and writes the signed list that opens its next stage. The list is put on
 * any HTTPS server by the operator; robots fetch it themselves. Owned by the command line.
 */
import type { Command } from 'commander';
import { signList } from '../fleet/list.js';
import {
  advance,
  type Judgement,
  judge,
  listOf,
  type NextWish,
  type Progress,
  type Rollout,
  readProgress,
  readRollout,
  writeProgress,
} from '../fleet/rollout.js';
import { replaceFile } from '../replace-file.js';
import { type CliContext, CommandExit, EXIT_NOT_DONE, formatBytes, formatTable, printResult, UsageError } from './context.js';
import { type BrokerOptions, look, withBroker } from './fleet.js';

interface StatusOptions extends BrokerOptions {
  readonly json: boolean;
}

interface NextOptions extends StatusOptions, NextWish {
  readonly signer?: string;
  readonly signerKey?: string;
  readonly out: string;
}

export function describeRollout({ fleet, version, bundles, stages }: Rollout): string {
  const rows = stages.map(({ name, robots, healthyMs, failuresMax }, index) => [
    String(index + 1),
    name,
    String(robots.length),
    `${healthyMs / 60_000} min`,
    String(failuresMax),
    `${robots.slice(0, 4).join(', ')}${robots.length > 4 ? ', ...' : ''}`,
  ]);
  const files = Object.entries(bundles).map(
    ([arch, { url, bytes, sha256 }]) => `${arch}: ${url}, ${formatBytes(bytes)}, sha256 ${sha256.slice(0, 16)}...`,
  );
  const table = formatTable(['', 'stage', 'robots', 'healthy', 'failures', ''], rows, ['left', 'left', 'right', 'right', 'right', 'left']);
  return [`${version} for ${fleet}`, ...files, table].join('\n');
}

export function describeProgress({ version }: Rollout, { stages, blocks, isComplete, seen }: Judgement): string {
  const rows = stages.flatMap((stage) => stage.robots.map(({ name, progress, why }) => [stage.name, stage.progress, name, progress, why]));
  const verdict = isComplete
    ? 'Complete.'
    : blocks.length === 0
      ? 'The next stage may begin: premotor fleet rollout next.'
      : `Not yet: ${blocks.join('; ')}.`;
  const paused = seen.paused ? ['Paused: no robot installs.'] : [];
  return [version, formatTable(['stage', '', 'robot', '', ''], rows, ['left', 'left', 'left', 'left', 'left']), ...paused, verdict].join('\n');
}

export async function runCheck(file: string, json: boolean, context: CliContext): Promise<void> {
  const rollout = await readRollout(file);
  printResult(context, json, rollout, () => describeRollout(rollout));
}

interface Looked {
  readonly rollout: Rollout;
  readonly judgement: Judgement;
}

/** Looks at the robots and remembers what was seen. */
async function judged(file: string, options: BrokerOptions, context: CliContext): Promise<Looked> {
  const rollout = await readRollout(file);
  const before = await readProgress(file, rollout.version);
  const expected = rollout.stages.flatMap(({ robots }) => robots);
  const facts = await look({ ...options, group: rollout.fleet, rebirth: true }, context, expected);
  if (context.signal.aborted) throw context.signal.reason;
  const judgement = judge(rollout, before, facts, Date.now());
  await writeProgress(file, judgement.seen);
  return { rollout, judgement };
}

export async function runStatus(file: string, options: StatusOptions, context: CliContext): Promise<void> {
  const { rollout, judgement } = await judged(file, options, context);
  const { stages, blocks, isComplete, seen } = judgement;
  const document = { version: rollout.version, paused: seen.paused, round: seen.round, opened: seen.opened, isComplete, blocks, stages };
  printResult(context, options.json, document, () => describeProgress(rollout, judgement));
  if (stages.some(({ progress }) => progress === 'halted')) throw new CommandExit(EXIT_NOT_DONE);
}

export async function runNext(file: string, options: NextOptions, context: CliContext): Promise<void> {
  const { signer: certFile, signerKey: keyFile } = options;
  if (certFile === undefined || keyFile === undefined) throw new UsageError('A list is signed: --signer FILE --signer-key FILE.');
  const wishes = [options.pause, options.resume, options.retry].filter((wish) => wish === true);
  if (wishes.length > 1) throw new UsageError('--pause, --resume and --retry exclude one another.');
  const { rollout, judgement } = await judged(file, options, context);
  const { progress, words } = advance(rollout, judgement, options, file);
  const list = listOf(rollout, progress, Date.now());
  const after: Progress = { ...progress, serial: list.serial };
  await replaceFile(options.out, await signList(list, { certFile, keyFile }), 0o644);
  await writeProgress(file, after);
  const document = { out: options.out, words, serial: list.serial, paused: list.paused, robots: list.robots };
  printResult(
    context,
    options.json,
    document,
    () => `${words}\n${options.out}: ${list.robots.length} robots, serial ${list.serial}. Publish it where the robots look for it.`,
  );
}

const help = `
A roll-out (docs/FLEET.md):
  fleet: plant
  version: 1.4.0
  bundles:
    amd64: {url: https://bundles.example/premotor-1.4.0-amd64.raucb, sha256: ..., bytes: 412876800}
  gate: {healthy_minutes: 60, failures_max: 0}
  stages:
    - {name: canary, robots: [arm-01]}
    - {name: rest, robots: [arm-02, arm-03], failures_max: 1}

status and next ask every robot of it for a birth, and remember beside the file what they saw: FILE.progress.json.
Exit codes: 0 done; 1 an error, ROLLOUT_GATE when the next stage may not begin; 3 status: a stage is halted.`;

/** Adds `rollout` to `premotor fleet`. */
export function registerRollout(fleet: Command, context: CliContext): void {
  const rollout = fleet
    .command('rollout')
    .description('a staged roll-out of a new system: check it, see where it stands, open its next stage')
    .addHelpText('after', help);
  rollout
    .command('check')
    .description('what a roll-out means, or what is wrong with it')
    .argument('<file>', 'the roll-out, YAML')
    .option('--json', 'print one JSON document', false)
    .action((file: string, { json }: { json: boolean }) => runCheck(file, json, context));
  withBroker(rollout.command('status'))
    .description('which robots are where, and whether the next stage may begin')
    .argument('<file>', 'the roll-out, YAML')
    .option('--json', 'print one JSON document', false)
    .action((file: string, options: StatusOptions) => runStatus(file, options, context));
  withBroker(rollout.command('next'))
    .description('write the signed list that opens the next stage, if the open ones passed their gates')
    .argument('<file>', 'the roll-out, YAML')
    .option('--signer <file>', "a signer's certificate (PEM), of the authority that robots trust")
    .option('--signer-key <file>', 'its private key (PEM)')
    .option('-o, --out <file>', 'the list', 'rollout.list')
    .option('--pause', 'instead: no robot installs any more', false)
    .option('--resume', 'instead: they do again', false)
    .option('--retry', 'instead: robots on which it failed try again', false)
    .option('--json', 'print one JSON document', false)
    .action((file: string, options: NextOptions) => runNext(file, options, context));
}
