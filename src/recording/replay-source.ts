/**
 * The replay record inside a recording: what the policy was asked and answered, as src/replay plays it. Owned by `premotor replay`; a recording of
 * several parts is read from all that are there. A record with a gap ends before it.
 */
import { open, readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import type { Framed } from '../journal/framing.js';
import { RECORD_BYTES_MAX, type ReplayRecord, recordOf } from '../replay/record.js';
import { McapReader } from './mcap-reader.js';
import { TOPICS } from './schemas.js';

const MAGIC = Buffer.from([0x89, 0x4d, 0x43, 0x41, 0x50]);
const PART_NAME = /^(full-.+)-\d{3}\.mcap$/;
const entrySchema = z.object({ number: z.int().min(0), kind: z.int(), payload: z.instanceof(Uint8Array) });

/** Whether a file begins as an MCAP file does. One that cannot be read does not. */
export async function isRecording(file: string): Promise<boolean> {
  const handle = await open(file, 'r').catch(() => undefined);
  try {
    const { buffer, bytesRead } = (await handle?.read(Buffer.alloc(MAGIC.length), 0, MAGIC.length, 0)) ?? { buffer: MAGIC, bytesRead: 0 };
    return bytesRead === MAGIC.length && MAGIC.equals(buffer);
  } catch {
    return false;
  } finally {
    await handle?.close();
  }
}

/** Errors: MCAP_MISSING, MCAP_FOREIGN, MCAP_DAMAGED, MCAP_UNSUPPORTED, REPLAY_DAMAGED where there is no record or not its beginning. */
export async function recordIn(file: string): Promise<ReplayRecord> {
  const frames = new Map<number, Framed>();
  let bytes = 0;
  for (const part of await partsOf(file)) {
    const reader = await McapReader.open(part);
    try {
      bytes = await collect(reader, frames, bytes);
    } finally {
      await reader.close();
    }
  }
  return recordFrom(file, frames);
}

/** Adds the entries of one recording; as many as a replay record may hold. */
export async function collect(reader: McapReader, frames: Map<number, Framed>, bytesBefore = 0): Promise<number> {
  let bytes = bytesBefore;
  for await (const message of reader.messages({ topics: [TOPICS.replay.topic] })) {
    const entry = entrySchema.safeParse(message.decode());
    if (!entry.success) continue;
    const { number, kind, payload } = entry.data;
    bytes += payload.length;
    if (bytes > RECORD_BYTES_MAX) break;
    if (!frames.has(number)) frames.set(number, { kind, payload });
  }
  return bytes;
}

/** As far as the numbers go without a gap. Errors: REPLAY_DAMAGED. */
export function recordFrom(file: string, frames: ReadonlyMap<number, Framed>): ReplayRecord {
  const whole: Framed[] = [];
  for (let one = frames.get(0); one; one = frames.get(whole.length)) whole.push(one);
  if (whole.length > 0) return recordOf(file, whole);
  const [expected, found] = [`messages of ${TOPICS.replay.topic} from the beginning of the run`, frames.size === 0 ? 'none' : 'only later ones'];
  const message = `${file} cannot be replayed: expected ${expected}, found ${found}. Use a recording that begins with the run.`;
  throw new PremotorError('REPLAY_DAMAGED', message, { file, expected, found });
}

/** The file, and those that its recording goes on in. */
async function partsOf(file: string): Promise<readonly string[]> {
  const stem = PART_NAME.exec(basename(file))?.[1];
  if (stem === undefined) return [file];
  const dir = dirname(file);
  const names = (await readdir(dir)).filter((name) => PART_NAME.exec(name)?.[1] === stem).sort();
  return names.map((name) => join(dir, name));
}
