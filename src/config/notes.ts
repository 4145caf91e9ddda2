/**
 * What a configuration's schema is made of: notes that go with each key, and the few types that most keys have. Pure data, shared by the files of the
 * schema.
 */
import { z } from 'zod';

/** What is known of a key beside its type. */
export interface KeyNotes {
  /** What a right value looks like, in an error's words. */
  readonly expected: string;
  readonly meaning: string;
  /** Said here when there is no fixed default. */
  readonly fallback?: string;
}

export function note<Schema extends z.ZodType>(schema: Schema, expected: string, meaning: string, fallback?: string): Schema {
  return schema.meta({ expected, meaning, ...(fallback === undefined ? {} : { fallback }) });
}

export const text = z.string().min(1);
export const positive = z.number().positive();
export const whole = (low: number, high: number): z.ZodInt => z.int().min(low).max(high);
export const wholeWords = (low: number, high: number): string => `a whole number of ${low} .. ${high}`;
export const among = (values: readonly string[]): string => values.map((value) => `"${value}"`).join(' or ');
