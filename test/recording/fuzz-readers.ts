/**
 * Spoils recordings and reads them: the work of mcap-fuzz.test.ts, in a process of its own, because the test runner's tracking of promises would cost
 * three times the reading. Prints one JSON line. Not a test itself.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { McapRecordBuilder } from '@mcap/core';
import { PremotorError } from '../../src/errors.js';
import type { Framed } from '../../src/journal/framing.js';
import { contentsOf } from '../../src/recording/contents.js';
import { exportRecording } from '../../src/recording/export.js';
import { isPicture, pictureOf } from '../../src/recording/mcap-picture.js';
import { type ByteSource, McapReader } from '../../src/recording/mcap-reader.js';
import { McapWriter, type WritableFile } from '../../src/recording/mcap-writer.js';
import { collect, recordFrom } from '../../src/recording/replay-source.js';
import { descriptorOf, encode, TOPICS } from '../../src/recording/schemas.js';
import { storyOf } from '../../src/recording/timeline.js';
import { compressedCall, compressedEnd, KINDS } from '../../src/replay/record.js';
import { seeded } from './support.js';

const SEED = 20261130;
const FILES = 306_000;
/** Files that are also exported to the disk, which costs more. */
const EXPORTS = 300;
/** The first files fill what is kept anyhow. */
const WARM_FILES = 20_000;

/** A file in memory. */
async function inMemory(fill: (writer: McapWriter) => void | Promise<void>): Promise<Buffer> {
  const parts: Buffer[] = [];
  const file: WritableFile = {
    write: async (bytes, offset, length) => {
      parts.push(Buffer.from(bytes.subarray(offset, offset + length)));
      return { bytesWritten: length };
    },
    datasync: async () => undefined,
    close: async () => undefined,
  };
  const writer = await McapWriter.create('memory', async () => file);
  await fill(writer);
  await writer.close();
  return Buffer.concat(parts);
}

const channel = (writer: McapWriter, { topic, schema }: { topic: string; schema: string }): number =>
  writer.channel({ topic, schema, schemaData: descriptorOf(schema) });

/** Small files that between them have everything. */
async function originals(): Promise<readonly Buffer[]> {
  const story = await inMemory(async (writer) => {
    const [log, faults, timing] = [channel(writer, TOPICS.log), channel(writer, TOPICS.faults), channel(writer, TOPICS.timing)];
    writer.metadata('premotor', { id: 'x' });
    writer.add(log, 5n, encode('foxglove.Log', { message: 'hello', level: 3, name: 'x' }));
    writer.add(faults, 6n, encode('premotor.Fault', { code: 'X_Y', message: 'm' }));
    await writer.flush();
    writer.add(timing, 7n, encode('premotor.ChunkTiming', { chunk: 3, predict_ms: 1.5, knots: 16 }));
  });
  const call = { method: 'reset', options: { prompt: 'x' }, checksum: 'abc' } as const;
  const payloads = [await compressedCall(call), await compressedEnd('closed')];
  const pictures = await inMemory((writer) => {
    const [motion, replay] = [channel(writer, TOPICS.motion), channel(writer, TOPICS.replay)];
    const camera = channel(writer, { topic: '/camera/front', schema: 'foxglove.CompressedImage' });
    writer.add(camera, 1n, encode('foxglove.CompressedImage', { format: 'jpeg', data: Uint8Array.of(255, 216, 1, 2) }));
    writer.add(motion, 2n, encode('premotor.Motion', { setpoint_rad: [1, 2], position_rad: [1, 2], velocity_rad_per_s: [3, 4] }));
    payloads.forEach((payload, number) => {
      writer.add(replay, 3n, encode('premotor.Replay', { number, kind: number === 0 ? KINDS.call : KINDS.end, payload }));
    });
  });
  const json = await inMemory((writer) => {
    const about = { schemaEncoding: 'jsonschema', messageEncoding: 'json', schemaData: Buffer.from('{"type":"object"}') };
    const raw = writer.channel({ topic: '/raw', schema: 'foxglove.RawImage', ...about });
    const text = JSON.stringify({ encoding: 'mono8', width: 2, height: 2, step: 2, data: 'AQIDBA==' });
    writer.add(raw, 1n, Buffer.from(text));
    writer.add(writer.channel({ topic: '/state', schema: '', schemaData: new Uint8Array(0), messageEncoding: 'json' }), 2n, Buffer.from('{"to":1}'));
  });
  const all = [story, pictures, json, packed(story), lastResort()];
  return [...all, ...all.map(unchecked)];
}

/** Without the CRCs of its chunks, so that what is spoilt inside them reaches those who decode it. */
function unchecked(file: Buffer): Buffer {
  const bytes = Buffer.from(file);
  for (let at = 8; at + 9 < bytes.length; at += 9 + Number(bytes.readBigUInt64LE(at + 1))) if (bytes[at] === 6) bytes.writeUInt32LE(0, at + 33);
  return bytes;
}

/** The same with its chunks under names of compressions: what they hold is no LZ4 frame and no zstd frame. */
function packed(story: Buffer): Buffer {
  const builder = new McapRecordBuilder();
  builder.writeMagic();
  builder.writeHeader({ profile: '', library: 'x' });
  const about = { messageStartTime: 0n, messageEndTime: 1n, uncompressedSize: 100n, uncompressedCrc: 0 };
  const frame = Buffer.from('BCJNGGhAgAAAAAAAAAB9KwAAAP8RLXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIEgAEhQF5IaSIEAAAAA', 'base64');
  builder.writeChunk({ ...about, compression: 'lz4', records: frame, uncompressedSize: 128n });
  builder.writeChunk({ ...about, compression: 'lz4', records: story.subarray(0, 60) });
  builder.writeChunk({ ...about, compression: '', records: story.subarray(8, 90) });
  return Buffer.from(builder.buffer);
}

/** Records that follow no rule: attachments, private ones, messages without a channel, an index alone. */
function lastResort(): Buffer {
  const builder = new McapRecordBuilder();
  builder.writeMagic();
  builder.writeAttachment({ name: 'a', logTime: 1n, createTime: 1n, mediaType: 'text/plain', data: Uint8Array.of(1, 2, 3) });
  builder.writeMessage({ channelId: 3, sequence: 1, logTime: 1n, publishTime: 1n, data: Uint8Array.of(1) });
  builder.writeSchema({ id: 1, name: 'foxglove.Log', encoding: 'protobuf', data: descriptorOf('foxglove.Log') });
  builder.writeChannel({ id: 1, schemaId: 1, topic: '/log', messageEncoding: 'protobuf', metadata: new Map([['a', 'b']]) });
  builder.writeMessage({ channelId: 1, sequence: 1, logTime: 2n ** 64n - 1n, publishTime: 1n, data: encode('foxglove.Log', { message: 'late' }) });
  builder.writeMetadata({ name: 'm', metadata: new Map([['k', 'v']]) });
  return Buffer.concat([builder.buffer, Buffer.of(0x85, 3, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3)]);
}

/** One of many ways to spoil a file. */
function spoilt(files: readonly Buffer[], random: () => number): Buffer {
  const pick = (): Buffer => files[Math.floor(random() * files.length)] ?? Buffer.alloc(0);
  const whole = (below: number): number => Math.floor(random() * below);
  const from = pick();
  let bytes = Buffer.from(random() < 0.25 ? from.subarray(0, whole(from.length)) : from);
  if (bytes.length < 10) return bytes;
  const way = random();
  if (way < 0.1) bytes = Buffer.concat([bytes.subarray(0, whole(bytes.length)), pick().subarray(whole(from.length))]);
  else if (way < 0.2) bytes.fill(whole(3) === 0 ? 0 : 255, whole(bytes.length), bytes.length);
  else if (way < 0.45) {
    // Lengths and counts: numbers of 1, 2, 4 and 8 bytes at the ends of what they can be.
    const ends = [0, 1, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0xffff_ffff];
    const at = whole(bytes.length - 8);
    if (random() < 0.5) bytes.writeUInt32LE(ends[whole(ends.length)] ?? 0, at);
    else bytes.writeBigUInt64LE(BigInt(ends[whole(ends.length)] ?? 0) << BigInt(whole(32)), at);
  }
  // Where the magic is gone every reader ends at once.
  for (let count = 1 + whole(6); count > 0; count--) bytes[Math.min(bytes.length - 1, 8 + whole(bytes.length - 8))] = whole(256);
  return bytes;
}

const KNOWN = ['MCAP_FOREIGN', 'MCAP_DAMAGED', 'MCAP_UNSUPPORTED', 'REPLAY_DAMAGED', 'JOURNAL_DAMAGED'];

/** What a reader of a spoilt file came to. Anything else than an error that it names is a bug, and thrown. */
async function ended(read: () => Promise<unknown>): Promise<string> {
  try {
    await read();
    return 'read';
  } catch (error) {
    if (error instanceof PremotorError && KNOWN.includes(error.code)) return error.code;
    throw error;
  }
}

const sourceOf = (bytes: Buffer): ByteSource => ({ bytes: bytes.length, read: (at, length) => bytes.subarray(at, at + length) });

const readers: readonly ((bytes: Buffer) => Promise<unknown>)[] = [
  async (bytes) => JSON.stringify(await contentsOf(await McapReader.of('spoilt', sourceOf(bytes)))),
  async (bytes) => storyOf(await McapReader.of('spoilt', sourceOf(bytes))),
  async (bytes) => {
    const frames = new Map<number, Framed>();
    await collect(await McapReader.of('spoilt', sourceOf(bytes)), frames);
    recordFrom('spoilt', frames);
  },
  async (bytes) => {
    for await (const message of (await McapReader.of('spoilt', sourceOf(bytes))).messages()) {
      if (isPicture(message)) pictureOf(message);
      else message.decode();
    }
  },
];

const heap = (): number => {
  globalThis.gc?.();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
};

const random = seeded(SEED);
const files = await originals();
const outcomes: Record<string, number> = {};
let before = 0;
let failure: string | undefined;
for (let number = 0; number < FILES && failure === undefined; number++) {
  const bytes = spoilt(files, random);
  const read = readers[number % readers.length];
  try {
    const outcome = read ? await ended(() => read(bytes)) : '';
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  } catch (error) {
    failure = `file ${number} of seed ${SEED}, reader ${number % readers.length}, ${bytes.toString('base64')}: ${(error as Error).stack}`;
  }
  if (number === WARM_FILES) before = heap();
}
const grownBytes = heap() - before;

const dir = mkdtempSync(join(tmpdir(), 'premotor-fuzz-'));
for (let number = 0; number < EXPORTS && failure === undefined; number++) {
  const bytes = spoilt(files, random);
  const what = ['motion', 'pictures', 'chunks', 'log'] as const;
  const out = join(dir, String(number));
  try {
    await ended(async () => exportRecording(await McapReader.of('spoilt', sourceOf(bytes)), out, { what, png: number % 2 === 0 }));
  } catch (error) {
    failure = `export ${number}, ${bytes.toString('base64')}: ${(error as Error).stack}`;
  }
}
rmSync(dir, { recursive: true, force: true });
console.log(JSON.stringify({ seed: SEED, files: FILES, exports: EXPORTS, outcomes, grownBytes, failure }));
