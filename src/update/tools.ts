/**
 * Runs the programs that updates are made of (rauc, openssl, zstd, systemctl): output collected up to a bound, time bounded, lines passed on as they
 * come. Owned by the update commands; it starts no shell.
 */
import { spawn } from 'node:child_process';
import { PremotorError } from '../errors.js';

const OUTPUT_BYTES_MAX = 4 << 20;
const TOOL_TIMEOUT_MS = 60_000;

export interface ToolResult {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export interface ToolOptions {
  readonly timeout_ms?: number;
  readonly signal?: AbortSignal;
  readonly input?: Uint8Array;
  readonly onLine?: (line: string) => void;
  /** In a session of its own: an interrupt at the terminal does not reach it. */
  readonly detached?: boolean;
}

/** The program ran, whatever its exit code. Errors: UPDATE_TOOL_MISSING, UPDATE_TOOL_FAILED (killed, or out of time), ABORTED. */
export function runTool(program: string, args: readonly string[], options: ToolOptions = {}): Promise<ToolResult> {
  const { timeout_ms = TOOL_TIMEOUT_MS, signal, detached = false } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(program, [...args], { stdio: ['pipe', 'pipe', 'pipe'], detached, ...(signal === undefined ? {} : { signal }) });
    const timer = setTimeout(() => child.kill('SIGKILL'), timeout_ms);
    const out = new Collected(options.onLine);
    const err = new Collected(options.onLine);
    child.stdout.on('data', (bytes: Buffer) => out.add(bytes));
    child.stderr.on('data', (bytes: Buffer) => err.add(bytes));
    // A program that does not read its input is fine: its exit code says what it made of it.
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input ?? new Uint8Array());
    child.on('error', (cause: NodeJS.ErrnoException) => {
      clearTimeout(timer);
      reject(cause.code === 'ENOENT' ? missing(program) : cause.name === 'AbortError' ? aborted(program) : toolFailed(program, cause.message));
    });
    child.on('close', (code, killedBy) => {
      clearTimeout(timer);
      out.end();
      err.end();
      if (code === null) reject(toolFailed(program, killedBy === 'SIGKILL' ? `no end within ${timeout_ms} ms` : `signal ${killedBy}`));
      else resolve({ code, out: out.text, err: err.text });
    });
  });
}

/** The same for a program that must succeed. Errors: also UPDATE_TOOL_FAILED with what the program said last. */
export async function runToolWell(program: string, args: readonly string[], options: ToolOptions = {}): Promise<ToolResult> {
  const result = await runTool(program, args, options);
  if (result.code !== 0) throw toolFailed(program, lastLine(result) || `exit code ${result.code}`);
  return result;
}

/** What a program said last, without its decoration. */
export function lastLine({ out, err }: Pick<ToolResult, 'out' | 'err'>): string {
  const lines = `${out}\n${err}`.split('\n').map((line) => line.trim());
  return lines.filter((line) => line !== '' && !line.startsWith('rauc-Message')).at(-1) ?? '';
}

/** Text up to a bound; more is dropped, because a program in a loop must not fill the memory. */
class Collected {
  text = '';
  #rest = '';
  readonly #onLine: ((line: string) => void) | undefined;

  constructor(onLine: ((line: string) => void) | undefined) {
    this.#onLine = onLine;
  }

  add(bytes: Buffer): void {
    const text = bytes.toString('utf8');
    if (this.text.length < OUTPUT_BYTES_MAX) this.text += text;
    if (this.#onLine === undefined) return;
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#onLine(line);
  }

  end(): void {
    if (this.#rest !== '') this.#onLine?.(this.#rest);
    this.#rest = '';
  }
}

function missing(program: string): PremotorError {
  const remedy = program === 'rauc' ? 'Updates of the system need an image with RAUC (docs/UPDATE.md).' : `Install it (apt-get install ${program}).`;
  const details = { expected: `the program ${program}`, found: 'no such program' };
  return new PremotorError(
    program === 'rauc' ? 'UPDATE_NO_RAUC' : 'UPDATE_TOOL_MISSING',
    `The program ${program} is not installed. ${remedy}`,
    details,
  );
}

export function toolFailed(program: string, found: string): PremotorError {
  const message = `The program ${program} failed: expected exit code 0, found ${found}. Nothing of its result is used.`;
  return new PremotorError('UPDATE_TOOL_FAILED', message, { expected: 'exit code 0', found });
}

const aborted = (program: string): PremotorError => new PremotorError('ABORTED', `The program ${program} was stopped on request.`);
