/**
 * Replacing a file in one step: whoever reads it meets the old content or the new one, also after a power cut. Owned by whoever keeps small files of
 * state; it makes no folders.
 */
import { randomUUID } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { syncFolder } from './journal/durable.js';

/** `mode`: of the new file, whatever the old one had. */
export async function replaceFile(file: string, content: string | Uint8Array, mode: number): Promise<void> {
  const path = resolve(file);
  const beside = `${path}.${randomUUID()}.new`;
  try {
    const handle = await open(beside, 'wx', mode);
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(beside, path);
  } catch (error) {
    await rm(beside, { force: true });
    throw error;
  }
  await syncFolder(dirname(path));
}
