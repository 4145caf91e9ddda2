/**
 * `premotor replay`: asks a policy again what an episode asked it, and compares every answer bit by bit. Owned by the command line; src/replay reads
 * the record and does the comparing.
 */
import { join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { PremotorError } from '../errors.js';
import { jobHash } from '../journal/format.js';
import type { LoadPolicyOptions, Policy } from '../policy/contract.js';
import { type CpuPrecision, defaultKvCache, type KvCache } from '../policy/precision.js';
import { isRecording, recordIn } from '../recording/replay-source.js';
import { type Difference, play, type ReplayOutcome } from '../replay/player.js';
import { type RecordEnd, type RecordHeader, type ReplayRecord, readRecord } from '../replay/record.js';
import { type CliContext, printResult } from './context.js';
import { whole } from './numbers.js';
import { kvCacheOption, precisionOption, uncertifiedOption } from './precision-option.js';
import { ProgressBar } from './progress.js';

const THREADS_MAX = 1024;

export interface ReplayOptions {
  readonly checkpoint?: string;
  readonly precision?: CpuPrecision;
  /** Default: the recorded one; with another precision than the recorded one, that precision's. */
  readonly kvCache?: KvCache;
  readonly allowUncertified?: boolean;
  readonly device?: 'auto' | 'cpu' | 'cuda';
  readonly threads?: number;
  readonly json: boolean;
}

/** One thing that the replay was run with, beside what it was recorded with. */
interface Setting {
  readonly name: string;
  readonly recorded: string;
  readonly replayed: string;
}

export interface ReplayReport extends ReplayOutcome {
  readonly file: string;
  readonly prompt: string;
  readonly created: string;
  readonly end: RecordEnd;
  readonly same: boolean;
  readonly settings: readonly Setting[];
}

/** Runs the command. Errors: those of readRecord and recordIn, REPLAY_DIFFERS after the report, those of loadPolicy and of the policy. */
export async function runReplay(file: string, options: ReplayOptions, context: CliContext): Promise<void> {
  const record = (await isRecording(file)) ? await recordIn(file) : await readRecord(file);
  const bar = new ProgressBar(context.err);
  const policy = await context.loadPolicy(loadOptions(record.header, options));
  try {
    const outcome = await play(record, policy, {
      signal: context.signal,
      onCall: (call, method) => bar.prefix(`call ${call + 1}/${record.calls.length} ${method}`),
      onProgress: bar.report,
    });
    bar.clear();
    const report = reportOf(file, record, policy, outcome);
    printResult(context, options.json, report, () => reportText(report));
    if (!report.same) throw differs(report);
  } finally {
    bar.clear();
    await policy.close();
  }
}

/** Records of earlier versions do not name the KV cache: it was the precision's. */
const recordedKvCache = ({ precision, kvCache }: RecordHeader): KvCache => kvCache ?? defaultKvCache(precision);

function loadOptions(header: RecordHeader, options: ReplayOptions): LoadPolicyOptions {
  const { checkpoint, precision = header.precision, allowUncertified = false, device, threads } = options;
  const folder = checkpoint === undefined ? header.checkpoint : resolve(checkpoint);
  const kvCache = options.kvCache ?? (precision === header.precision ? recordedKvCache(header) : defaultKvCache(precision));
  return {
    checkpoint: folder,
    // The record has the job that follows from an exported policy's mapping, not the mapping.
    ...(header.backend.startsWith('onnxruntime') ? { backend: 'onnx', job: join(folder, 'job.json') } : { job: header.job }),
    precision,
    kvCache,
    allowUncertified,
    device: device ?? header.device,
    isolate: false,
    ...(threads === undefined ? {} : { threads }),
  };
}

function reportOf(file: string, { header, end }: ReplayRecord, policy: Policy, outcome: ReplayOutcome): ReplayReport {
  const { info, job } = policy;
  const settings: Setting[] = [
    { name: 'checkpoint', recorded: header.checkpointHash, replayed: info.checkpointHash },
    { name: 'job', recorded: jobHash(header.job as unknown as Policy['job']), replayed: jobHash(job) },
    { name: 'precision', recorded: header.precision, replayed: info.precision },
    { name: 'KV cache', recorded: recordedKvCache(header), replayed: info.kvCache },
    { name: 'backend', recorded: header.backend, replayed: info.backend },
    { name: 'threads', recorded: String(header.threads), replayed: String(info.threads) },
  ];
  return { file, prompt: header.prompt, created: header.created, end, same: outcome.callsDifferent === 0, settings, ...outcome };
}

const ends: Readonly<Record<RecordEnd, string>> = {
  closed: 'the whole episode',
  full: 'the beginning of the episode: the file was full',
  cut: 'the beginning of the episode: the rest was not written or is damaged',
};

function reportText(report: ReplayReport): string {
  const { settings, first } = report;
  const rows: [string, string][] = [
    ['record', `${report.file}, ${report.created}`],
    ['instruction', report.prompt],
    ['covers', ends[report.end]],
    ...settings.map(({ name, recorded, replayed }): [string, string] => [
      name,
      recorded === replayed ? short(recorded) : `recorded ${short(recorded)}, NOW ${short(replayed)}`,
    ]),
    ['calls', `${report.calls}: ${report.predictions} predictions, ${report.commits} commits, ${report.skipped} failed ones left out`],
    ['action values', `${report.values}, different ${report.valuesDifferent}`],
    ['answers', first === null ? 'the same in every bit' : `${report.callsDifferent} calls differ`],
    ...(first === null ? [] : [['first difference', differenceText(first)] as [string, string]]),
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n');
}

/** A hash by its first digits, anything else whole. */
const short = (text: string): string => (/^[0-9a-f]{64}$/.test(text) ? `${text.slice(0, 12)}...` : text);

function differenceText({ call, method, what, channel, index, expected, found }: Difference): string {
  const place = channel === undefined ? '' : `, channel ${channel}, action ${index}`;
  return `call ${call + 1} (${method}), ${what}${place}: expected ${expected}, found ${found}`;
}

function differs({ file, first, settings }: ReplayReport): PremotorError {
  const changed = settings.filter(({ recorded, replayed }) => recorded !== replayed).map(({ name }) => name);
  const remedy =
    changed.length === 0
      ? 'Nothing that should matter differs: please report it with the record.'
      : `Replay with the recorded ${changed.join(', ')}.`;
  const message = `The replay of ${file} went another way: ${first ? differenceText(first) : ''}. ${remedy}`;
  return new PremotorError('REPLAY_DIFFERS', message, { file, expected: first?.expected ?? '', found: first?.found ?? '' });
}

const examples = `
Examples:
  premotor replay premotor-out/episode.replay
  premotor replay premotor-out/flight/full-2026-11-30T10-11-12-345Z-001.mcap
  premotor replay episode.replay --checkpoint models/tabletop --json
  premotor replay episode.replay --precision bf16      how far another precision goes the same way

Exit codes: 0 every answer is the same in every bit, 1 something differs or failed, 2 wrong command line, 130 interrupted.`;

/** Adds `premotor replay` to the program. */
export function registerReplay(program: Command, context: CliContext): void {
  program
    .command('replay')
    .description('run a recorded episode again and compare it bit by bit')
    .argument('<file>', 'replay record that premotor run wrote, or a recording of the flight recorder')
    .option('--checkpoint <dir>', 'where the checkpoint is now; default: where it was')
    .addOption(precisionOption('another precision than the recorded one'))
    .addOption(kvCacheOption("another KV cache than the recorded one, or than that of another precision's default"))
    .addOption(uncertifiedOption())
    .addOption(new Option('--device <name>', 'another device than the recorded one').choices(['auto', 'cpu', 'cuda']))
    .option('--threads <n>', 'CPU threads; results do not depend on them', whole(1, THREADS_MAX))
    .option('--json', 'print the report as JSON', false)
    .addHelpText('after', examples)
    .action((file: string, options: ReplayOptions) => runReplay(file, options, context));
}
