/**
 * Numbers on the command line: parsers for commander that accept exactly what an option means and say so otherwise. Pure functions.
 */
import { InvalidArgumentError } from 'commander';

/** A whole number of low .. high. */
export const whole =
  (low: number, high: number) =>
  (text: string): number => {
    const value = Number(text);
    if (text.trim() === '' || !Number.isInteger(value) || value < low || value > high) {
      throw new InvalidArgumentError(`Expected a whole number of ${low} .. ${high}.`);
    }
    return value;
  };

/** A number of 0 .. 1. */
export function share(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0 && value <= 1)) throw new InvalidArgumentError('Expected a number of 0 .. 1.');
  return value;
}
