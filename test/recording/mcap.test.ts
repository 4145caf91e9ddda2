/**
 * MCAP files, written and read: the official library's indexed reader agrees with every index and checksum; a file that is cut at any byte gives all
 * whole chunks before it; damage in the middle costs what is damaged; a full disk ends a file and is reported.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import * as zlib from 'node:zlib';
import { McapIndexedReader, McapRecordBuilder } from '@mcap/core';
import t, { type Test } from 'tap';
import { pictureOf } from '../../src/recording/mcap-picture.js';
import { type ByteSource, McapReader } from '../../src/recording/mcap-reader.js';
import { McapWriter } from '../../src/recording/mcap-writer.js';
import { mergeRecordings } from '../../src/recording/merge.js';
import { decodeProto } from '../../src/recording/protobuf.js';
import { descriptorOf, encode, TYPES } from '../../src/recording/schemas.js';
import { fullAfter, readAll } from './support.js';

const log = { topic: '/log', schema: 'foxglove.Log', schemaData: descriptorOf('foxglove.Log') };
const state = { topic: '/state', schema: 'premotor.State', schemaData: descriptorOf('premotor.State') };
const message = (number: number): Uint8Array => encode('foxglove.Log', { message: `message ${number}`, level: 2 });

/** `chunks` chunks of five messages each. Where every chunk ends in the file is in `ends`. */
async function written(file: string, chunks: number): Promise<readonly number[]> {
  const writer = await McapWriter.create(file);
  const [a, b] = [writer.channel(log), writer.channel(state)];
  writer.metadata('premotor', { id: 'run' });
  const ends: number[] = [];
  for (let chunk = 0; chunk < chunks; chunk++) {
    for (let one = 0; one < 5; one++) {
      const number = chunk * 5 + one;
      writer.add(one === 4 ? b : a, BigInt(1000 - number), one === 4 ? encode('premotor.State', { to: String(number) }) : message(number));
    }
    await writer.flush();
    ends.push(writer.bytes);
  }
  await writer.close();
  return ends;
}

const sourceOf = (bytes: Uint8Array): ByteSource => ({ bytes: bytes.length, read: (at, length) => bytes.subarray(at, at + length) });

async function countIn(bytes: Uint8Array): Promise<{ readonly count: number; readonly reader: McapReader }> {
  const reader = await McapReader.of('bytes', sourceOf(bytes));
  let count = 0;
  for await (const one of reader.messages()) {
    one.decode();
    count++;
  }
  return { count, reader };
}

t.test("the official library's indexed reader agrees", async (t) => {
  const file = join(t.testdir(), 'a.mcap');
  await written(file, 7);
  const handle = await open(file, 'r');
  t.teardown(() => handle.close());
  const readable = {
    size: async () => BigInt((await handle.stat()).size),
    read: async (offset: bigint, size: bigint) => (await handle.read(new Uint8Array(Number(size)), 0, Number(size), Number(offset))).buffer,
  };
  const reader = await McapIndexedReader.Initialize({ readable });
  t.match(reader.statistics, { messageCount: 35n, chunkCount: 7, channelCount: 2, schemaCount: 2, messageStartTime: 966n, messageEndTime: 1000n });
  t.same(
    reader.statistics?.channelMessageCounts,
    new Map([
      [0, 28n],
      [1, 7n],
    ]),
  );
  t.same(
    [...reader.channelsById.values()].map(({ topic }) => topic),
    ['/log', '/state'],
  );
  let last = 0n;
  let count = 0;
  for await (const { logTime, channelId, data } of reader.readMessages({ validateCrcs: true })) {
    t.ok(logTime > last, 'in the order of time, by the indexes');
    last = logTime;
    count++;
    t.ok(decodeProto(TYPES, channelId === 0 ? 'foxglove.Log' : 'premotor.State', data));
  }
  t.equal(count, 35);
  for await (const one of reader.readMetadata()) t.same(one, { type: 'Metadata', name: 'premotor', metadata: new Map([['id', 'run']]) });
  let later = 0;
  for await (const { logTime } of reader.readMessages({ startTime: 990n, topics: ['/state'] })) later += Number(logTime >= 990n);
  t.equal(later, 2);
});

t.test('a file that is cut at any byte gives every whole chunk before', async (t) => {
  const file = join(t.testdir(), 'a.mcap');
  const ends = await written(file, 4);
  const bytes = readFileSync(file);
  let complete = 0;
  for (let length = 8; length <= bytes.length; length++) {
    const { count, reader } = await countIn(bytes.subarray(0, length));
    // The records of a chunk stand before its indexes: those are not needed.
    const whole = ends.filter((end) => end <= length).length;
    if (count < 5 * whole || count > 5 * (whole + 1) || count % 5 !== 0) t.fail(`${count} messages of ${length} bytes, ${whole} chunks`);
    if (reader.state.isComplete) complete++;
    else if (reader.state.damageCount !== 1) t.fail(`${reader.state.damageCount} damages of ${length} bytes`);
  }
  t.equal(complete, 1, 'only the whole file is whole');
  for (let length = 0; length < 8; length++) await t.rejects(countIn(bytes.subarray(0, length)), { code: 'MCAP_FOREIGN' });
});

t.test('a power cut can leave zeros, and a disk can change bytes', async (t) => {
  const file = join(t.testdir(), 'a.mcap');
  const ends = await written(file, 4);
  const bytes = readFileSync(file);
  const zeros = await countIn(Buffer.concat([bytes.subarray(0, ends[1]), Buffer.alloc(5000)]));
  t.equal(zeros.count, 10);
  t.match(zeros.reader.state.damages, [{ atByte: ends[1], found: /no record/ }]);
  const changed = Buffer.from(bytes);
  changed[(ends[0] ?? 0) + 100] = (changed[(ends[0] ?? 0) + 100] ?? 0) ^ 1;
  const { count, reader } = await countIn(changed);
  t.equal(count, 15, 'the chunk whose CRC is wrong is left out, the others are not');
  t.ok(reader.state.isComplete);
  t.match(reader.state.damages, [{ atByte: ends[0], found: /CRC/ }]);
});

t.test('a recording is made whole again', async (t) => {
  const dir = t.testdir();
  const ends = await written(join(dir, 'a.mcap'), 4);
  writeFileSync(join(dir, 'cut.mcap'), readFileSync(join(dir, 'a.mcap')).subarray(0, (ends[2] ?? 0) + 30));
  const target = join(dir, 'whole.mcap');
  const merged = await mergeRecordings([{ file: join(dir, 'cut.mcap') }], target);
  t.match(merged, { messages: 15n, damages: 1 });
  const { messages, state: found } = await readAll(target);
  t.ok(found.isComplete);
  t.same(found.metadata.get('premotor'), new Map([['id', 'run']]));
  t.same(
    messages.map(({ logTimeNs }) => Number(logTimeNs)),
    Array.from({ length: 15 }, (_, at) => 1000 - at),
  );
  await t.rejects(mergeRecordings([{ file: join(dir, 'a.mcap') }], target, { isNew: true }), { code: 'RECORD_WRITE' });
  await t.rejects(mergeRecordings([{ file: join(dir, 'none.mcap') }], join(dir, 'b.mcap')), { code: 'MCAP_MISSING' });
  const stopped = AbortSignal.abort();
  await t.rejects(mergeRecordings([{ file: target }], join(dir, 'c.mcap'), { signal: stopped }), { code: 'ABORTED' });
  t.same(readdirSync(dir).sort(), ['a.mcap', 'cut.mcap', 'whole.mcap'], 'nothing half is left');
});

t.test('a disk that is full ends the file and is named; what was written stays readable', async (t) => {
  const file = join(t.testdir(), 'a.mcap');
  const writer = await McapWriter.create(file, fullAfter(20_000));
  const id = writer.channel(log);
  for (let chunk = 0; chunk < 50; chunk++) {
    for (let one = 0; one < 20; one++) writer.add(id, 1n, message(one));
    await writer.flush();
  }
  t.match(writer.error?.message, /ENOSPC/);
  t.ok(writer.bytesWritten <= 20_000);
  await writer.close();
  await writer.close();
  const { messages, state: found } = await readAll(file);
  t.ok(messages.length >= 20 && messages.length < 1000, `${messages.length} messages`);
  t.equal(messages.length % 20, 0);
  t.notOk(found.isComplete);
});

/** A file of another program, with one channel and a message for each content. */
async function foreign(t: Test, about: Partial<Parameters<McapWriter['channel']>[0]>, contents: readonly Uint8Array[]): Promise<string> {
  const file = join(t.testdir(), 'a.mcap');
  const writer = await McapWriter.create(file);
  const id = writer.channel({ topic: '/x', schema: 'foxglove.CompressedImage', schemaData: new Uint8Array(0), ...about });
  for (const content of contents) writer.add(id, 5n, content);
  await writer.close();
  return file;
}

t.test('pictures of other programs', async (t) => {
  const json = { schemaEncoding: 'jsonschema', messageEncoding: 'json' };
  const text = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));
  const picture = { format: 'png', data: Buffer.from([1, 2, 3]).toString('base64') };
  const [message] = (await readAll(await foreign(t, json, [text(picture)]))).messages;
  t.same(message && pictureOf(message), { format: 'png', data: Uint8Array.of(1, 2, 3) });
  const raw = { encoding: 'rgb8', width: 2, height: 1, step: 6, data: Buffer.alloc(6).toString('base64') };
  const [second] = (await readAll(await foreign(t, { ...json, schema: 'foxglove.RawImage' }, [text(raw)]))).messages;
  t.match(second && pictureOf(second), { format: 'rgb8', raw: { width: 2, height: 1, rowBytes: 6 } });
  const wrong = [text({ ...raw, step: 5 }), text({ ...raw, data: '***' }), text({ ...raw, width: -1 }), text(3), Buffer.from('{')];
  for (const one of (await readAll(await foreign(t, { ...json, schema: 'foxglove.RawImage' }, wrong))).messages) {
    t.throws(() => pictureOf(one), { code: 'MCAP_DAMAGED' });
  }
  const [cdr] = (await readAll(await foreign(t, { messageEncoding: 'cdr', schemaEncoding: 'ros2msg' }, [text(1)]))).messages;
  t.throws(() => cdr?.decode(), { code: 'MCAP_UNSUPPORTED', found: 'cdr' });
  const [broken] = (await readAll(await foreign(t, { schemaData: Uint8Array.of(1, 2) }, [text(1)]))).messages;
  t.throws(() => broken?.decode(), { code: 'MCAP_DAMAGED' });
});

t.test('what is no recording', async (t) => {
  const dir = t.testdir({ 'a.txt': 'a text that is no recording' });
  await t.rejects(McapReader.open(join(dir, 'a.txt')), { code: 'MCAP_FOREIGN' });
  await t.rejects(McapReader.open(join(dir, 'none.mcap')), { code: 'MCAP_MISSING' });
  await t.rejects(McapReader.open(dir), { code: 'MCAP_MISSING' });
});

/** A file of one chunk under the name of a compression. */
function compressed(compression: string, wrap: (records: Uint8Array) => Uint8Array): Buffer {
  const inner = new McapRecordBuilder();
  inner.writeSchema({ id: 1, name: 'foxglove.Log', encoding: 'protobuf', data: log.schemaData });
  inner.writeChannel({ id: 1, schemaId: 1, topic: '/log', messageEncoding: 'protobuf', metadata: new Map() });
  inner.writeMessage({ channelId: 1, sequence: 0, logTime: 1n, publishTime: 1n, data: message(7) });
  const records = inner.buffer;
  const size = { uncompressedSize: BigInt(records.length), uncompressedCrc: zlib.crc32(records) };
  const builder = new McapRecordBuilder();
  builder.writeMagic();
  builder.writeHeader({ profile: '', library: 'another' });
  builder.writeChunk({ messageStartTime: 1n, messageEndTime: 1n, compression, records: wrap(records), ...size });
  return Buffer.from(builder.buffer);
}

t.test('chunks that are compressed', async (t) => {
  const lz4 = (records: Uint8Array): Uint8Array => {
    const head = Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0, 0, 0, 0, 0]);
    head.writeUInt32LE((records.length | 0x8000_0000) >>> 0, 7);
    return Buffer.concat([head, records, Buffer.alloc(4)]);
  };
  const { count, reader } = await countIn(compressed('lz4', lz4));
  t.equal(count, 1);
  t.match(reader.state.channels, [{ topic: '/log', schema: 'foxglove.Log' }]);
  const { zstdCompressSync } = zlib as unknown as { zstdCompressSync?: (bytes: Uint8Array) => Uint8Array };
  const zstd = compressed('zstd', (records) => zstdCompressSync?.(records) ?? records);
  if (zstdCompressSync) t.equal((await countIn(zstd)).count, 1);
  else await t.rejects(countIn(zstd), { code: 'MCAP_UNSUPPORTED', found: 'zstd' });
  const other = await countIn(compressed('bz2', (records) => records));
  t.match(other.reader.state.damages, [{ found: /Unsupported compression bz2/ }, {}]);
});
