/**
 * `premotor can dump`: prints what a CAN bus carries, in candump's manner, and keeps a log that can-utils reads. Owned by the command line. It never
 * sends, but for what opens a channel of an slcan adapter.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { CanBus } from '../can/bus.js';
import { explainBridge } from '../can/explain.js';
import { type CanFilter, formatFrame, formatLine, parseFilter, passes } from '../can/frame-text.js';
import { PremotorError } from '../errors.js';
import type { NativeCanCounters, NativeCanReceived } from '../native.js';
import { type CliContext, CommandExit, EXIT_INTERRUPTED, printResult, UsageError } from './context.js';
import { whole } from './numbers.js';

export interface DumpOptions {
  readonly count?: number;
  readonly for?: number;
  readonly filter: readonly CanFilter[];
  readonly log?: string;
  readonly decode?: 'bridge';
  readonly json: boolean;
}

const FOR_S_MAX = 86_400 * 7;

/** A file of log lines, new: a log that is there is never overwritten. Errors: FILE_WRITE. */
class LogFile {
  readonly #path: string;
  readonly #file: number;

  constructor(path: string) {
    this.#path = path;
    this.#file = this.#try(() => openSync(path, 'wx'));
  }

  write(lines: string): void {
    if (lines !== '') this.#try(() => writeSync(this.#file, lines));
  }

  close(): void {
    closeSync(this.#file);
  }

  #try<T>(action: () => T): T {
    try {
      return action();
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException;
      const advice = code === 'EEXIST' ? 'It exists: name a new file.' : "Check the disk and the folder's rights.";
      throw new PremotorError('FILE_WRITE', `The log ${this.#path} cannot be written (${message}). ${advice}`, { file: this.#path, cause });
    }
  }
}

/** The non-zero ones of the counters that concern a listener. */
export function describeCounters(counters: NativeCanCounters): string {
  const shown: readonly (readonly [keyof NativeCanCounters, string])[] = [
    ['errors', 'errors'],
    ['busOff', 'times bus-off'],
    ['malformed', 'malformed'],
    ['lost', 'lost on the way'],
    ['droppedFull', 'lost because they were read too late'],
    ['unlogged', 'missing in the log'],
  ];
  return [`${counters.received} received`, ...shown.filter(([key]) => counters[key] > 0).map(([key, words]) => `${counters[key]} ${words}`)].join(
    ', ',
  );
}

type Document = Record<string, unknown>;

function documentOf(frame: NativeCanReceived, explanation: string | undefined): Document {
  const { receivedUs, data, ...fields } = frame;
  const decoded = explanation === undefined ? {} : { decoded: explanation };
  return { receivedUs, text: formatFrame(frame), ...fields, data: Buffer.from(data).toString('hex').toUpperCase(), ...decoded };
}

class Dump {
  readonly documents: Document[] = [];
  shown = 0;
  readonly #options: DumpOptions;
  readonly #context: CliContext;

  constructor(options: DumpOptions, context: CliContext) {
    this.#options = options;
    this.#context = context;
  }

  left(): number {
    return (this.#options.count ?? Number.POSITIVE_INFINITY) - this.shown;
  }

  show(name: string, frame: NativeCanReceived): void {
    if (!passes(frame, this.#options.filter)) return;
    this.shown++;
    const explanation = this.#options.decode === 'bridge' ? explainBridge(frame) : undefined;
    if (this.#options.json) this.documents.push(documentOf(frame, explanation));
    else this.#context.out.write(`${formatLine(frame.receivedUs, name, frame)}${explanation === undefined ? '' : `    ${explanation}`}\n`);
  }
}

/** Reads until the count, the time or an interrupt. Errors: those of opening and receiving, FILE_WRITE. */
export async function runDump(address: string, options: DumpOptions, context: CliContext): Promise<void> {
  if (options.json && options.count === undefined && options.for === undefined) {
    throw new UsageError('--json prints one document at the end: give --count or --for.', { expected: '--count or --for', found: 'neither' });
  }
  const bus = CanBus.open(address, context.loadNative());
  const dump = new Dump(options, context);
  const stop = options.for === undefined ? context.signal : AbortSignal.any([context.signal, AbortSignal.timeout(Math.ceil(options.for * 1000))]);
  let log: LogFile | undefined;
  try {
    if (options.log !== undefined) {
      log = new LogFile(options.log);
      bus.capture();
    }
    let wasOff = false;
    for await (const { frames, isOff } of bus.batches({ signal: stop, most: () => dump.left() })) {
      log?.write(bus.logLines());
      for (const frame of frames) dump.show(bus.name, frame);
      if (isOff && !wasOff) context.err.write(`warning: ${bus.problem()?.message ?? 'bus-off'}\n`);
      wasOff = isOff;
      if (dump.left() <= 0) break;
    }
    const counters = bus.counters();
    if (options.json) printResult(context, true, { bus: bus.name, frames: dump.documents, counters, interrupted: context.signal.aborted }, () => '');
  } finally {
    log?.write(bus.logLines());
    log?.close();
    const counters = bus.counters();
    bus.close();
    context.err.write(`${dump.shown} shown, ${describeCounters(counters)}\n`);
  }
  if (context.signal.aborted) throw new CommandExit(EXIT_INTERRUPTED);
}

function filter(text: string, before: readonly CanFilter[]): readonly CanFilter[] {
  const parsed = parseFilter(text);
  if (parsed === undefined) throw new InvalidArgumentError('Expected ID:MASK in hexadecimal, such as 123:7FF or 12345678:1FFFFFFF.');
  return [...before, parsed];
}

function seconds(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && value > 0 && value <= FOR_S_MAX) return value;
  throw new InvalidArgumentError(`Expected seconds above 0, at most ${FOR_S_MAX}.`);
}

const examples = `
Examples:
  premotor can dump socketcan:can0
  premotor can dump socketcan-fd:can0 --decode bridge --filter 050:7FF --filter 100:7FC
  premotor can dump slcan:/dev/ttyACM0 --for 10 --log drive.log     then: canplayer -I drive.log vcan0=ttyACM0

The log has every frame, filtered or not. Times are those of reading the bus, up to a few milliseconds late. Ctrl-C ends it with the counters.`;

/** Adds `dump` to `premotor can`. */
export function registerDump(can: Command, context: CliContext): void {
  can
    .command('dump')
    .description('print the frames of a bus')
    .argument('<address>', 'bus: socketcan:can0, socketcan-fd:can0, slcan:/dev/ttyACM0, cannelloni:20000:192.0.2.1:20001')
    .option('--count <n>', 'end after so many frames', whole(1, 1_000_000_000))
    .option('--for <seconds>', 'end after this time', seconds)
    .option('--filter <id:mask>', 'show frames with (id & mask) as given; 3 digits: 11 bits, 8 digits: 29; may be given more than once', filter, [])
    .option('--log <file>', "also write a log in candump's format; the file must be new")
    .addOption(new Option('--decode <protocol>', 'explain the frames of a protocol').choices(['bridge']))
    .option('--json', 'print the frames and counters as one JSON document at the end', false)
    .addHelpText('after', examples)
    .action(async (address: string, options: DumpOptions) => runDump(address, options, context));
}
