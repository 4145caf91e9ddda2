/**
 * The options that every command that opens a checkpoint has for its precision. Owned by the command line.
 */
import { Option } from 'commander';
import { PRECISIONS } from '../policy/precision.js';

/** `--precision`, without a default unless one is given. */
export function precisionOption(help: string, fallback?: 'f32'): Option {
  const option = new Option('--precision <name>', help).choices(PRECISIONS);
  return fallback === undefined ? option : option.default(fallback);
}

/** `--allow-uncertified`: a quantised precision without its certificate. */
export const uncertifiedOption = (): Option =>
  new Option('--allow-uncertified', 'run a quantised precision that has no certificate for this checkpoint').default(false);
