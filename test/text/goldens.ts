/**
 * Where the text tests find the golden traces, and how they read tensors from them. Used by tests only.
 */
import { openSync, readFileSync, readSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseHeader } from '../../src/text/safetensors.js';

export const goldens = process.env['PREMOTOR_GOLDENS'] ?? join(dirname(fileURLToPath(import.meta.url)), '..', 'goldens');
export const cases = ['franka_tiny', 'robotwin_tiny', 'nocfg_partial', 'bf16', 'i2va_tiny'] as const;

/** A reset call of a trace. */
export interface ResetCall {
  readonly prefix: string;
  readonly kind: string;
  readonly prompt: string;
  readonly cleaned_prompt_pos: string;
  readonly cleaned_prompt_neg?: string;
}

export function resetCalls(name: string): ResetCall[] {
  const trace = JSON.parse(readFileSync(join(goldens, name, 'trace.json'), 'utf8')) as { calls: ResetCall[] };
  return trace.calls.filter((call) => call.kind === 'reset');
}

/** The bytes of one tensor of a trace. */
export function traceBytes(name: string, tensor: string): Buffer {
  const file = openSync(join(goldens, name, 'trace.safetensors'), 'r');
  const length = Buffer.alloc(8);
  readSync(file, length, 0, 8, 0);
  const header = Buffer.alloc(Number(length.readBigUInt64LE()));
  readSync(file, header, 0, header.length, 8);
  const entry = parseHeader(header.toString('utf8')).tensors.find((candidate) => candidate.name === tensor);
  if (entry === undefined) throw new Error(`${name} has no tensor ${tensor}`);
  const bytes = Buffer.alloc(entry.end - entry.begin);
  readSync(file, bytes, 0, bytes.length, 8 + header.length + entry.begin);
  return bytes;
}

export function traceInts(name: string, tensor: string): number[] {
  const bytes = traceBytes(name, tensor);
  return Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readInt32LE(4 * i));
}
