/**
 * `premotor record`: what is in a recording, as text, as files, as a story, and made whole again after a power cut. Owned by the command line;
 * src/recording reads and writes.
 */
import { basename, dirname, join, resolve } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import { readRobotConfig } from '../config/reader.js';
import { PremotorError } from '../errors.js';
import { contentsOf, type RecordingContents } from '../recording/contents.js';
import { EXPORTS, type Exported, type ExportName, exportRecording } from '../recording/export.js';
import { McapReader } from '../recording/mcap-reader.js';
import { type Merged, mergeRecordings } from '../recording/merge.js';
import { recordingsDir } from '../recording/recorder.js';
import { saveRecording } from '../recording/save.js';
import { type Line, storyOf } from '../recording/timeline.js';
import { VOCABULARY } from '../runtime/rig.js';
import { type CliContext, formatBytes, formatMs, formatTable, printResult } from './context.js';
import { ProgressBar } from './progress.js';
import { findConfig } from './service.js';

const SPEED_MAX = 1000;
/** Chunks and damages that are printed as text; --json has all. */
const ROWS_MAX = 20;
/** The longest single wait that a timer can do is longer than any story should pause. */
const PAUSE_MS_MAX = 3_600_000;

/** Reads a file with a bar; it is closed afterwards, whatever happens. */
async function reading<T>(
  file: string,
  { err, signal }: CliContext,
  stage: string,
  read: (reader: McapReader, options: { readonly signal: AbortSignal; readonly onProgress: (bytes: number) => void }) => Promise<T>,
): Promise<T> {
  const bar = new ProgressBar(err, { show: formatBytes });
  const reader = await McapReader.open(file);
  try {
    return await read(reader, { signal, onProgress: (bytes) => bar.update(stage, bytes, reader.bytes) });
  } finally {
    bar.clear();
    await reader.close();
  }
}

/** Errors: MCAP_MISSING, MCAP_FOREIGN, MCAP_UNSUPPORTED, ABORTED. */
export async function runInfo(file: string, { json }: { readonly json: boolean }, context: CliContext): Promise<void> {
  const contents = await reading(file, context, 'reading', contentsOf);
  printResult(context, json, contents, () => infoText(contents));
}

function infoText(contents: RecordingContents): string {
  const { run, chunks, faults, damages, damageCount } = contents;
  const dropped = Object.entries(contents.dropped).map(([topic, count]) => `${topic} ${count}`);
  const rows: [string, string][] = [
    ['recording', `${contents.file}, ${formatBytes(contents.bytes)}`],
    ['state', contents.complete ? 'whole' : `cut off after ${contents.mcapChunks} chunks; premotor record recover makes it whole`],
    ['begins', contents.start ?? '-'],
    ['lasts', `${contents.durationS.toFixed(3)} s, ${contents.messages} messages`],
    ...(run === null ? [] : runRows(run)),
    ['replay', contents.replayEntries === 0 ? 'not in it' : `${contents.replayEntries} entries`],
    ['dropped', dropped.length === 0 ? 'nothing' : dropped.join(', ')],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  const parts = [rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n'), topicTable(contents)];
  if (chunks.length > 0) parts.push(chunkTable(contents));
  if (faults.length > 0)
    parts.push(['faults', ...faults.map(({ timeS, code, message }) => `  ${timeS.toFixed(3)} s  ${code}: ${message}`)].join('\n'));
  if (damageCount > 0) parts.push([`damaged parts: ${damageCount}`, ...damages.slice(0, ROWS_MAX).map(damageText)].join('\n'));
  return parts.join('\n\n');
}

const damageText = ({ atByte, found }: RecordingContents['damages'][number]): string => `  byte ${atByte}: ${found}`;

const runRows = (run: NonNullable<RecordingContents['run']>): [string, string][] => [
  ['run', `${run.id}, premotor ${run.version}, ${run.robot}, mode ${run.mode}`],
  ['task', `${run.task}, seed ${run.seed}: "${run.instruction}"`],
  ['checkpoint', `${run.checkpoint}, ${run.checkpoint_hash.slice(0, 12)}...`],
  ['joints', run.joints.join(', ')],
];

const topicTable = ({ topics }: RecordingContents): string =>
  formatTable(
    ['topic', 'type', 'messages', 'per second', 'bytes'],
    topics.map(({ topic, schema, encoding, messages, rateHz, bytes }) => [
      topic,
      schema === '' ? encoding : schema,
      String(messages),
      rateHz === 0 ? '-' : rateHz.toFixed(1),
      formatBytes(bytes),
    ]),
    ['left', 'left'],
  );

function chunkTable({ chunks }: RecordingContents): string {
  const rows = chunks
    .slice(0, ROWS_MAX)
    .map((one) => [
      String(one.chunk),
      one.timeS.toFixed(3),
      formatMs(one.predict_ms),
      formatMs(one.execute_ms),
      formatMs(one.commit_wall_ms),
      String(one.delay_knots),
      `${one.clamped_knots}/${one.knots}`,
    ]);
  const table = formatTable(['chunk', 'done at s', 'predict ms', 'execute ms', 'commit ms', 'delay', 'clamped'], rows);
  return chunks.length > ROWS_MAX ? `${table}\n... ${chunks.length - ROWS_MAX} more` : table;
}

interface ExportCliOptions {
  readonly out?: string;
  readonly only?: readonly ExportName[];
  readonly png: boolean;
  readonly force: boolean;
  readonly json: boolean;
}

/** Errors: those of exportRecording and of opening. */
export async function runExport(file: string, options: ExportCliOptions, context: CliContext): Promise<void> {
  const { png, force, json, only: what = EXPORTS } = options;
  const dir = resolve(options.out ?? stemOf(file));
  const result = await reading(file, context, 'exporting', (reader, more) => exportRecording(reader, dir, { what, png, force, ...more }));
  printResult(context, json, { out: dir, ...result }, () => exportText(dir, result));
}

function exportText(dir: string, { samples, pictures, chunks, lines, unreadable }: Exported): string {
  const counts = [`${samples} samples of motion`, `${pictures} pictures`, `${chunks} entries about chunks`, `${lines} lines of the log`];
  return `${dir}: ${counts.join(', ')}${unreadable === 0 ? '' : `; ${unreadable} messages could not be read`}`;
}

interface PlayOptions {
  readonly speed: number;
  readonly json: boolean;
}

/** Errors: those of storyOf and of opening; ABORTED. */
export async function runPlay(file: string, { speed, json }: PlayOptions, context: CliContext): Promise<void> {
  const lines = await reading(file, context, 'reading', storyOf);
  const begun = performance.now();
  for (const line of lines) {
    if (speed > 0) await until(begun + (line.atS * 1000) / speed, context.signal);
    context.out.write(`${json ? JSON.stringify({ ...line, timeNs: line.timeNs.toString() }) : storyText(line)}\n`);
  }
  if (lines.length === 0) context.err.write('The recording has no story: none of the topics that premotor records.\n');
}

const storyText = ({ atS, text }: Line): string => `${atS.toFixed(3).padStart(9)} s  ${text}`;

/** Waits for a moment of performance.now. Errors: ABORTED. */
function until(atMs: number, signal: AbortSignal): Promise<void> {
  const left_ms = Math.min(PAUSE_MS_MAX, atMs - performance.now());
  const interrupted = (): PremotorError => new PremotorError('ABORTED', 'Playing was interrupted. Nothing was changed.');
  return new Promise((done, reject) => {
    if (signal.aborted) return reject(interrupted());
    if (left_ms <= 0) return done();
    const stop = (): void => {
      clearTimeout(timer);
      reject(interrupted());
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop);
      done();
    }, left_ms);
    signal.addEventListener('abort', stop, { once: true });
  });
}

interface RecoverOptions {
  readonly out?: string;
  readonly json: boolean;
}

/** Errors: those of mergeRecordings. */
export async function runRecover(file: string, { out, json }: RecoverOptions, context: CliContext): Promise<void> {
  const target = resolve(out ?? join(dirname(file), `${basename(file, '.mcap')}-recovered.mcap`));
  const result = await reading(file, context, 'recovering', async (_, more) => mergeRecordings([{ file }], target, { isNew: true, ...more }));
  printResult(context, json, recovered(target, result), () => {
    const { messages, bytes, damages } = recovered(target, result);
    return `${target}: ${messages} messages, ${formatBytes(bytes)}, whole and indexed; ${damages} parts could not be read`;
  });
}

const recovered = (out: string, { messages, bytes, damages }: Merged): { out: string; messages: number; bytes: number; damages: number } => ({
  out,
  messages: Number(messages),
  bytes,
  damages,
});

/** A window of some hundred MiB on a slow disk. */
const SAVE_WAIT_MS = 120_000;

/** Errors: CONFIG_*, and those of saveRecording. */
export async function runSave(named: string | undefined, { json }: { readonly json: boolean }, context: CliContext): Promise<void> {
  const { config } = await readRobotConfig(findConfig(named), VOCABULARY);
  const { disk_max_mib } = config.recording.recorder;
  const saved = await saveRecording(recordingsDir(config), disk_max_mib * 2 ** 20, { wait_ms: SAVE_WAIT_MS, signal: context.signal });
  const whose = saved.of === 'running' ? 'the episode that runs, until now' : 'the episode that ended last';
  printResult(context, json, saved, () => `${saved.path}: the last seconds of ${whose}`);
}

const stemOf = (file: string): string => join(dirname(file), basename(file).replace(/\.mcap$/, '') + (file.endsWith('.mcap') ? '' : '-export'));

/** "motion,pictures" */
export function parseOnly(text: string): readonly ExportName[] {
  const names = text.split(',').map((name) => EXPORTS.find((one) => one === name));
  if (names.every((name) => name !== undefined)) return names;
  throw new InvalidArgumentError(`Expected names of ${EXPORTS.join(', ')}, with commas between.`);
}

/** A factor, or "max": without waiting, which is 0 here. */
export function parseSpeed(text: string): number {
  const speed = text === 'max' ? 0 : Number(text);
  if ((speed > 0 || text === 'max') && speed <= SPEED_MAX) return speed;
  throw new InvalidArgumentError(`Expected a number above 0 and up to ${SPEED_MAX}, or max.`);
}

const examples = `
Examples:
  premotor record save                                          what it thought a minute ago, on a robot
  premotor record info premotor-out/flight/fault-20261130T101112Z-ENGINE_DIED.mcap
  premotor record play fault-20261130T101112Z-ENGINE_DIED.mcap --speed 4
  premotor record export full-2026-11-30T10-11-12-345Z-001.mcap --out episode --only motion,pictures --png
  premotor record recover full-2026-11-30T10-11-12-345Z-001.mcap
  premotor replay full-2026-11-30T10-11-12-345Z-001.mcap        the engine again, compared bit by bit

Recordings are MCAP files: Foxglove opens them as they are (docs/RECORDING.md).`;

/** Adds `premotor record` to the program. */
export function registerRecord(program: Command, context: CliContext): void {
  const record = program.command('record').description('look into recordings of the flight recorder').addHelpText('after', examples);
  record
    .command('info')
    .description('topics, duration, chunks, faults, and what is damaged')
    .argument('<file>', 'an MCAP file, whole or cut off')
    .option('--json', 'print them as JSON', false)
    .action((file: string, options: { json: boolean }) => runInfo(file, options, context));
  record
    .command('save')
    .description('keep the last seconds of the episode that runs, else of the one that ended last')
    .argument('[config]', "robot configuration; default: the service's own")
    .option('--json', 'print where it is as JSON', false)
    .action((config: string | undefined, options: { json: boolean }) => runSave(config, options, context));
  record
    .command('export')
    .description('motion and log as tables, pictures as files, chunks as JSON')
    .argument('<file>', 'an MCAP file, whole or cut off')
    .option('--out <dir>', "where to; default: a folder of the recording's name beside it")
    .option('--only <names>', `only these of ${EXPORTS.join(', ')}`, parseOnly)
    .option('--png', 'pictures as PNG instead of as they were recorded', false)
    .option('--force', 'add to a folder that is not empty', false)
    .option('--json', 'print the counts and files as JSON', false)
    .action((file: string, options: ExportCliOptions) => runExport(file, options, context));
  record
    .command('play')
    .description('the story of an episode, line by line, in its own time')
    .argument('<file>', 'an MCAP file, whole or cut off')
    .option('--speed <factor>', 'faster or slower; max: without waiting', parseSpeed, 1)
    .option('--json', 'one JSON document per line', false)
    .action((file: string, options: PlayOptions) => runPlay(file, options, context));
  record
    .command('recover')
    .description('write a whole, indexed file of one that was cut off or damaged')
    .argument('<file>', 'an MCAP file')
    .option('--out <file>', 'where to; default: FILE-recovered.mcap')
    .option('--json', 'print the counts as JSON', false)
    .action((file: string, options: RecoverOptions) => runRecover(file, options, context));
}
