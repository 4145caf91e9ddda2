/**
 * Numbers on the command line: parsers for commander that accept exactly what an option means and say so otherwise. Pure functions.
 */
import { InvalidArgumentError } from 'commander';

/** Scenes and noise are drawn from seeds of 0 .. SEED_MAX. */
export const SEED_MAX = 2 ** 32 - 1;

/** A whole number of low .. high, which are not negative, in plain digits. */
export const whole =
  (low: number, high: number) =>
  (text: string): number => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= low && value <= high) return value;
    throw new InvalidArgumentError(`Expected a whole number of ${low} .. ${high}.`);
  };

/** A number of 0 .. 1. */
export function share(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0 && value <= 1)) throw new InvalidArgumentError('Expected a number of 0 .. 1.');
  return value;
}
