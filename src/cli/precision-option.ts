/**
 * The options that every command that opens a checkpoint has for its precision. Owned by the command line.
 */
import { Option } from 'commander';
import { KV_CACHES, PRECISIONS } from '../policy/precision.js';

/** `--precision`, without a default unless one is given. */
export function precisionOption(help: string, fallback?: 'f32'): Option {
  const option = new Option('--precision <name>', help).choices(PRECISIONS);
  return fallback === undefined ? option : option.default(fallback);
}

/** `--kv-cache`: without a default, because that depends on the precision. */
export const kvCacheOption = (help = 'how cached keys and values are held (default: f32 with precision f32, else bf16)'): Option =>
  new Option('--kv-cache <name>', help).choices(KV_CACHES);

/** `--allow-uncertified`: a quantised precision, or another KV cache than the precision's, without its certificate. */
export const uncertifiedOption = (): Option =>
  new Option('--allow-uncertified', 'run a quantised precision or KV cache that has no certificate for this checkpoint').default(false);
