/**
 * The programs that updates are made of (rauc, openssl, zstd, systemctl), with their errors in words. Owned by the update commands.
 */
import { PremotorError } from '../errors.js';
import { NoResult, type ProgramOptions, runProgram } from '../run-program.js';

export interface ToolResult {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export type ToolOptions = ProgramOptions;

/** The program ran, whatever its exit code. Errors: UPDATE_TOOL_MISSING, UPDATE_TOOL_FAILED (killed, or out of time), ABORTED. */
export async function runTool(program: string, args: readonly string[], options: ToolOptions = {}): Promise<ToolResult> {
  try {
    const { code, out, err } = await runProgram(program, args, options);
    return { code, out: out.toString('utf8'), err };
  } catch (error) {
    if (!(error instanceof NoResult)) throw error;
    if (error.reason === 'missing') throw missing(program);
    throw error.reason === 'aborted' ? aborted(program) : toolFailed(program, error.message);
  }
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
