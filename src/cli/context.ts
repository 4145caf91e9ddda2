/**
 * What every command shares: where output goes, the outside parts that tests replace, and how numbers, tables and errors are printed. Owned by
 * main.ts; commands never write to the process's streams themselves.
 */
import { PremotorError } from '../errors.js';
import type { NativeCameraModule, NativeCanModule, NativeEngineModule, NativePlanModule } from '../native.js';
import type { LoadPolicyOptions, Policy } from '../policy/contract.js';

/** A place for text: standard output or error, or a test's list. */
export interface Sink {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export interface CliContext {
  /** Results. With --json, nothing but one JSON document. */
  readonly out: Sink;
  /** Progress, remarks and errors. */
  readonly err: Sink;
  readonly loadPolicy: (options: LoadPolicyOptions) => Promise<Policy>;
  readonly loadNative: () => NativeEngineModule & NativeCanModule & NativePlanModule & NativeCameraModule;
  /** Aborted by the first interrupt. */
  readonly signal: AbortSignal;
}

/** A wrong command line: exit code 2. */
export class UsageError extends PremotorError {
  constructor(message: string, details: { readonly expected?: string; readonly found?: string } = {}) {
    super('USAGE', message, details);
  }
}

export const EXIT_OK = 0;
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;
/** An episode ran to its end, but its task was not done. */
export const EXIT_NOT_DONE = 3;
/** What shells report for a process that an interrupt ended. */
export const EXIT_INTERRUPTED = 130;

/** A command that has printed its result and ends with a code of its own. */
export class CommandExit extends Error {
  readonly exitCode: number;

  constructor(exitCode: number) {
    super(`exit code ${exitCode}`);
    this.exitCode = exitCode;
  }
}

/** A command that finished but found problems, such as inspect: it has printed its result, and the exit code is 1. */
export class FoundProblems extends Error {}

export type Align = 'left' | 'right';

/** Lines of a table with a header; columns two spaces apart. */
export function formatTable(header: readonly string[], rows: readonly (readonly string[])[], align: readonly Align[] = []): string {
  const widths = header.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) =>
        align[column] === 'left' || (column === 0 && align[0] !== 'right') ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd();
  return [header, ...rows].map(line).join('\n');
}

/** Bytes with a binary unit: 3.36 GiB. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toPrecision(value >= 1000 ? 4 : 3)} ${units[unit]}`;
}

/** A count with a decimal unit: 3.02 T. */
export function formatCount(count: number): string {
  const units = ['', 'k', 'M', 'G', 'T', 'P'];
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return unit === 0 ? String(Math.round(value)) : `${value.toPrecision(3)} ${units[unit]}`;
}

export function formatMs(milliseconds: number): string {
  return milliseconds >= 100 ? milliseconds.toFixed(0) : milliseconds >= 1 ? milliseconds.toFixed(1) : milliseconds.toFixed(2);
}

/** The next step for codes that users meet first; the message already says what is wrong. */
const hints: Readonly<Record<string, string>> = {
  USAGE: 'premotor --help lists the commands, premotor COMMAND --help their options with examples.',
  NATIVE_MISSING: 'npm run build:native builds the engine; premotor doctor shows what else is missing.',
  NATIVE_LOAD: 'npm run build:native builds the engine for this system.',
  CHECKPOINT_MISSING_FILE: 'premotor inspect DIR lists everything that is wrong with a checkpoint.',
  CHECKPOINT_MISSING_TENSOR: 'premotor inspect DIR lists everything that is wrong with a checkpoint.',
  JOB_MISSING: 'A job is a JSON file with the reference job configuration: docs/CLI.md, "The job".',
  JOB_INVALID: 'docs/CLI.md, "The job", lists the fields.',
  CONFIG_MISSING: 'premotor config example prints a configuration to start from.',
  CONFIG_INVALID: 'premotor config check FILE lists everything that is wrong with it.',
  OUT_NOT_EMPTY: 'Choose another --out, or add --force to replace the results in it.',
  DEVICE_UNAVAILABLE: 'premotor doctor shows which devices this machine has.',
  PRECISION_UNSUPPORTED: 'Use --precision f32, bf16, int8 or int4.',
  PRECISION_NOT_CERTIFIED: 'docs/PRECISION.md explains certificates.',
  PLAN_MISSING: 'premotor build CHECKPOINT -o FILE makes a plan.',
  PLAN_FOREIGN: 'premotor build CHECKPOINT -o FILE makes a plan.',
  PLAN_VERSION: 'premotor build CHECKPOINT -o FILE makes a plan for this version.',
  PLAN_PRECISION: 'premotor plan explain FILE shows what a plan was made for.',
  PLAN_CHECKPOINT: 'premotor plan explain FILE shows what a plan was made for.',
  PLAN_DAMAGED: 'premotor plan verify FILE checks every byte.',
  LADDER_UNCERTIFIED: 'premotor eval certify compares the rungs; docs/BUDGET.md explains certificates.',
  CYCLE_TOO_SLOW: 'docs/BUDGET.md explains the figures and what each remedy costs.',
  INTERNAL: 'This is a bug of premotor: please report it with the command line and this message.',
};

interface ErrorReport {
  readonly code: string;
  readonly message: string;
  readonly field?: string;
  readonly file?: string;
  readonly tensor?: string;
  readonly expected?: string;
  readonly found?: string;
  readonly hint: string;
}

/** An error's public form. */
export function reportOf(error: unknown): ErrorReport {
  if (!(error instanceof PremotorError)) {
    const message = error instanceof Error ? error.message : String(error);
    return { code: 'INTERNAL', message, hint: hints['INTERNAL'] ?? '' };
  }
  const details: Record<string, string> = {};
  for (const key of ['field', 'file', 'tensor', 'expected', 'found'] as const) {
    const value = error[key];
    if (value !== undefined && value !== '') details[key] = value;
  }
  return { code: error.code, message: error.message, ...details, hint: hints[error.code] ?? `docs/ERRORS.md explains ${error.code}.` };
}

/** Prints an error for people on `err`, and with --json for programs on `out`. */
export function printError(error: unknown, context: Pick<CliContext, 'out' | 'err'>, json: boolean): void {
  const report = reportOf(error);
  const lines = [`error ${report.code}: ${report.message}`];
  for (const key of ['field', 'file', 'tensor', 'expected', 'found'] as const) {
    const value = report[key];
    if (value !== undefined && !report.message.includes(value)) lines.push(`  ${key}: ${value}`);
  }
  lines.push(`  hint: ${report.hint}`);
  if (report.code === 'INTERNAL' && error instanceof Error && error.stack !== undefined) lines.push(error.stack);
  context.err.write(`${lines.join('\n')}\n`);
  if (json) context.out.write(`${JSON.stringify({ error: report }, null, 2)}\n`);
}

/** Prints a result: the JSON document with --json, else the text. */
export function printResult(context: Pick<CliContext, 'out'>, json: boolean, document: unknown, text: () => string): void {
  context.out.write(json ? `${JSON.stringify(document, null, 2)}\n` : `${text()}\n`);
}
