/** Pictures out of MCAP recordings that the tests write with the library that others use: both encodings, order, cut files, and what is refused. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { McapWriter } from '@mcap/core';
import { Writer } from 'protobufjs';
import sharp from 'sharp';
import t, { type Test } from 'tap';
import { PlayedCamera } from '../../src/cameras/played.js';
import { openRecording } from '../../src/cameras/recording.js';
import { descriptorOf, TYPES } from '../../src/recording/schemas.js';
import { failureOf, MS, picture, samplerOf, TestClock } from './rig.js';

interface Written {
  readonly topic: string;
  readonly schema?: string;
  readonly encoding?: 'protobuf' | 'json' | 'cdr';
  /** Values of the pictures, and the order of their log times. */
  readonly values: readonly number[];
  readonly timesMs?: readonly number[];
  readonly compressChunk?: () => { compression: string; compressedData: Uint8Array };
}

const pngOf = (value: number): Promise<Buffer> =>
  sharp(Buffer.from(picture(4, 2, value).data), { raw: { width: 4, height: 2, channels: 3 } })
    .png()
    .toBuffer();

function messageOf(encoding: string, data: Uint8Array): Uint8Array {
  if (encoding === 'json') return Buffer.from(JSON.stringify({ frame_id: 'eye', format: 'png', data: Buffer.from(data).toString('base64') }));
  // Fields 1 timestamp, 4 frame_id, 2 data, 3 format.
  const writer = Writer.create().uint32(10).fork().uint32(8).int64(5).ldelim();
  return writer.uint32(34).string('eye').uint32(18).bytes(data).uint32(26).string('png').finish();
}

/** Writes a recording; gives its path. */
async function recorded(t: Test, all: readonly Written[]): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0n;
  const writable = {
    position: () => bytes,
    write: async (data: Uint8Array) => {
      parts.push(Uint8Array.from(data));
      bytes += BigInt(data.length);
    },
  };
  const compressChunk = all.find((one) => one.compressChunk)?.compressChunk;
  const writer = new McapWriter({ writable, chunkSize: 400, ...(compressChunk ? { compressChunk } : {}) });
  await writer.start({ profile: '', library: 'test' });
  for (const { topic, schema = 'foxglove.CompressedImage', encoding = 'protobuf', values, timesMs } of all) {
    const data = TYPES.messages.has(schema) ? descriptorOf(schema) : new Uint8Array(0);
    const schemaId = await writer.registerSchema({ name: schema, encoding: 'protobuf', data });
    const channelId = await writer.registerChannel({ schemaId, topic, messageEncoding: encoding, metadata: new Map() });
    for (const [index, value] of values.entries()) {
      const logTime = BigInt(timesMs?.[index] ?? index * 100) * MS;
      await writer.addMessage({ channelId, sequence: index, logTime, publishTime: logTime, data: messageOf(encoding, await pngOf(value)) });
    }
  }
  await writer.end();
  const path = join(t.testdir({}), 'r.mcap');
  writeFileSync(path, Buffer.concat(parts));
  return path;
}

async function valuesOf(path: string, topic: string): Promise<number[]> {
  const list = await openRecording(path, topic);
  t.same([list.width, list.height], [4, 2]);
  return Promise.all(Array.from({ length: list.count }, async (_, index) => (await list.picture(index)).data[0] ?? -1));
}

t.test('pictures of one topic among others, in protobuf and in JSON', async (t) => {
  const path = await recorded(t, [
    { topic: 'other', values: [90, 91] },
    { topic: 'eye', values: [1, 2, 3, 4, 5] },
    { topic: 'words', encoding: 'json', values: [7, 8] },
    { topic: 'numbers', schema: 'acme.Numbers', values: [60] },
  ]);
  t.same(await valuesOf(path, 'eye'), [1, 2, 3, 4, 5]);
  t.same(await valuesOf(path, 'words'), [7, 8]);
});

t.test('in the order of their times, whatever their order in the file', async (t) => {
  t.same(await valuesOf(await recorded(t, [{ topic: 'eye', values: [3, 1, 2], timesMs: [300, 100, 200] }]), 'eye'), [1, 2, 3]);
});

t.test('a file that was cut off plays what it has', async (t) => {
  const path = await recorded(t, [{ topic: 'eye', values: [1, 2, 3, 4, 5, 6, 7, 8] }]);
  const whole = readFileSync(path);
  writeFileSync(path, whole.subarray(0, Math.floor(whole.length / 3)));
  const values = await valuesOf(path, 'eye');
  t.ok(values.length > 0 && values.length < 8, `${values}`);
  t.same(
    values,
    values.map((_, index) => index + 1),
  );
});

t.test('played on the robot’s clock; once, its end is a frame that is too old', async (t) => {
  const list = await openRecording(await recorded(t, [{ topic: 'eye', values: [10, 20] }]), 'eye');
  const clock = new TestClock({ isReal: false });
  const play = (loops: boolean): PlayedCamera => new PlayedCamera(list, { camera: 'eye', rateHz: 10, loops, clock });
  const [once, looped] = [samplerOf(play(false), ['eye']), samplerOf(play(true), ['eye'])];
  clock.timeNs = 100n * MS;
  t.equal((await once(clock.timeNs)).frames[0]?.data[0], 20);
  clock.timeNs = 250n * MS;
  t.match(await failureOf(() => once(clock.timeNs)), { code: 'CAMERA_FRAME_STALE' });
  t.equal((await looped(clock.timeNs)).frames[0]?.data[0], 10);
});

t.test('what is refused', async (t) => {
  const refused = (path: string, topic: string) => failureOf(() => openRecording(path, topic));
  const path = await recorded(t, [
    { topic: 'eye', values: [1] },
    { topic: 'motion', schema: 'acme.Numbers', values: [1] },
    { topic: 'ros', encoding: 'cdr', values: [1] },
  ]);
  t.match(await refused(path, 'nose'), { code: 'CAMERA_RECORDING', found: /pictures on eye, ros alone/, message: /topic/ });
  t.match(await refused(path, 'motion'), { code: 'CAMERA_RECORDING', found: 'acme.Numbers' });
  t.match(await refused(path, 'ros'), { code: 'CAMERA_RECORDING', found: 'cdr' });
  t.match(await refused('/nowhere.mcap', 'eye'), { code: 'CAMERA_RECORDING', message: /ENOENT/, file: '/nowhere.mcap' });
  const folder = t.testdir({ 'text.mcap': 'this is no recording at all, but a text' });
  t.match(await refused(join(folder, 'text.mcap'), 'eye'), { code: 'CAMERA_RECORDING', expected: 'an MCAP file' });
  const packed = await recorded(t, [
    { topic: 'eye', values: [1, 2], compressChunk: () => ({ compression: 'zstd', compressedData: new Uint8Array(20) }) },
  ]);
  t.match(await refused(packed, 'eye'), { code: 'CAMERA_RECORDING', found: 'zstd', message: /convert it/ });
});
