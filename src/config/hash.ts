/**
 * The hash of a configuration: two robots with the same one run with the same settings, however their files are written. A pure function of the
 * checked configuration with its defaults; it reads no file.
 */
import { createHash } from 'node:crypto';

const DIGITS = 16;

/** Keys in one order, at every depth. */
function ordered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(ordered);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, inner]) => [key, ordered(inner)]));
}

/** 16 hexadecimal digits of SHA-256. */
export function configurationHash(configuration: unknown): string {
  return createHash('sha256')
    .update(JSON.stringify(ordered(configuration)) ?? '')
    .digest('hex')
    .slice(0, DIGITS);
}
