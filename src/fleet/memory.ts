/**
 * What was known of a fleet when somebody looked last, as a file: births come once, and who looks later would know nothing. Owned by a command that
 * is
 * told to keep it; it replaces the file in one step and believes nothing in it that does not parse.
 */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { replaceFile } from '../replace-file.js';
import type { RobotRow } from './robots.js';

const BYTES_MAX = 64 * 2 ** 20;
const name = z.string().regex(/^[^/+#\s]{1,128}$/);
const rowSchema = z.object({
  group: name,
  node: name,
  link: z.enum(['online', 'unborn', 'stale', 'offline']),
  sinceMs: z.number(),
  why: z.string(),
  heardMs: z.number(),
  values: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()])),
});
const memorySchema = z.object({ format: z.literal('premotor-fleet-1'), robots: z.array(rowSchema) });

/** Without a file: nobody. Errors: FLEET_MEMORY. */
export async function readMemory(file: string): Promise<readonly RobotRow[]> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw refused(file, (cause as Error).message, cause);
  }
  try {
    if (text.length > BYTES_MAX) throw new Error(`${text.length} characters`);
    return memorySchema.parse(JSON.parse(text)).robots;
  } catch (cause) {
    throw refused(file, 'another content', cause);
  }
}

function refused(file: string, found: string, cause: unknown): PremotorError {
  const message = `The memory of the fleet in ${file} cannot be used. Name another file, or remove it to begin anew.`;
  return new PremotorError('FLEET_MEMORY', message, { file, expected: 'a file that premotor fleet --memory wrote', found, cause });
}

/** Errors: FLEET_MEMORY. */
export async function writeMemory(file: string, robots: readonly RobotRow[]): Promise<void> {
  await replaceFile(file, `${JSON.stringify({ format: 'premotor-fleet-1', robots })}\n`, 0o644).catch((cause: Error) => {
    throw refused(file, cause.message, cause);
  });
}
