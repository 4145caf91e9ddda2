/**
 * Several recordings become one, or a file that was cut off becomes a whole one with an index: every message that can be read, in its order. Owned by
 * the recorder, which saves its window so, and by `premotor record recover`. The result appears under its name only when it is complete.
 */
import { existsSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PremotorError } from '../errors.js';
import { syncFolder } from '../journal/durable.js';
import { McapReader } from './mcap-reader.js';
import { McapWriter, type OpenFile } from './mcap-writer.js';

/** A chunk of the result. */
const CHUNK_BYTES = 1024 * 1024;
/** A file that is not complete yet. */
export const PART = '.part';

export interface MergeSource {
  readonly file: string;
  /** Messages from then on. Default: all. */
  readonly sinceNs?: bigint;
  /** Earlier messages are logged then; when they were published stays. */
  readonly notBeforeNs?: bigint;
}

export interface Merged {
  readonly messages: bigint;
  readonly bytes: number;
  /** Parts that could not be read. */
  readonly damages: number;
  readonly timesNs: { readonly start: bigint; readonly end: bigint };
}

export interface MergeOptions {
  /** Where it is put together, on the same file system. Default: beside the result. */
  readonly part?: string;
  /** The result must not exist yet. */
  readonly isNew?: boolean;
  /** Goes on without files that are none: a process died before it had written their beginning. */
  readonly skipsUnreadable?: boolean;
  readonly openFile?: OpenFile;
  /** Bytes read so far, of all sources together. */
  readonly onProgress?: (bytes: number) => void;
  readonly signal?: AbortSignal;
}

/** Errors: MCAP_MISSING, MCAP_FOREIGN, MCAP_UNSUPPORTED, ABORTED, RECORD_WRITE; then nothing is left behind. */
export async function mergeRecordings(sources: readonly MergeSource[], target: string, options: MergeOptions = {}): Promise<Merged> {
  const { part = `${target}${PART}`, skipsUnreadable = false } = options;
  if (options.isNew && existsSync(target)) throw unwritable(target, new Error('a file of that name'));
  await rm(part, { force: true });
  const writer = await McapWriter.create(part, options.openFile).catch((cause: unknown) => {
    throw unwritable(target, cause);
  });
  try {
    let damages = 0;
    let done = 0;
    for (const source of sources) {
      const reader = await McapReader.open(source.file).catch((error: unknown) => {
        if (skipsUnreadable) return undefined;
        throw error;
      });
      if (reader === undefined) continue;
      try {
        await copy(reader, writer, source, { ...options, onProgress: (bytes) => options.onProgress?.(done + bytes) });
        damages += reader.state.damageCount;
        done += reader.bytes;
      } finally {
        await reader.close();
      }
    }
    await writer.close();
    if (writer.error) throw unwritable(target, writer.error);
    await rename(part, target);
    await syncFolder(dirname(target));
    return { messages: writer.messageCount, bytes: writer.bytes, damages, timesNs: writer.timesNs };
  } catch (error) {
    await writer.close();
    await rm(part, { force: true });
    throw error;
  }
}

async function copy(reader: McapReader, writer: McapWriter, { sinceNs = 0n, notBeforeNs = 0n }: MergeSource, options: MergeOptions): Promise<void> {
  const declared = new Map<number, number>();
  const { onProgress, signal } = options;
  for await (const { channel, logTimeNs, publishTimeNs, data } of reader.messages({
    ...(onProgress ? { onProgress } : {}),
    ...(signal ? { signal } : {}),
  })) {
    if (logTimeNs < sinceNs) continue;
    let id = declared.get(channel.id);
    if (id === undefined) {
      const { topic, schema, schemaData, schemaEncoding, encoding: messageEncoding } = channel;
      id = writer.channel({ topic, schema, schemaData, schemaEncoding, messageEncoding });
      declared.set(channel.id, id);
    }
    writer.add(id, logTimeNs < notBeforeNs ? notBeforeNs : logTimeNs, data, publishTimeNs);
    if (writer.pendingBytes >= CHUNK_BYTES) await writer.flush();
    if (writer.error) throw unwritable(writer.path, writer.error);
  }
  for (const [name, values] of reader.state.metadata) writer.metadata(name, Object.fromEntries(values));
}

export function unwritable(file: string, cause: unknown): PremotorError {
  const found = (cause as Error).message;
  const message = `The recording ${file} cannot be written: expected a writable file, found ${found}. Free the disk, or name another folder.`;
  return new PremotorError('RECORD_WRITE', message, { file, expected: 'a writable file', found, cause });
}
