/**
 * Pictures out of an MCAP recording: the foxglove.CompressedImage messages of one topic, in protobuf or JSON, in the order of their log times. The
 * file is read once, at the start; pictures stay packed in memory and are decoded when they are asked for.
 */
import { createReadStream } from 'node:fs';
import { McapStreamReader, type McapTypes } from '@mcap/core';
import { Reader } from 'protobufjs';
import { PremotorError } from '../errors.js';
import { type DecodedPicture, decodePicture } from './pictures.js';
import type { PictureList } from './played.js';

/** All pictures together, as they are in the file. */
const PACKED_BYTES_MAX = 1024 * 2 ** 20;
const SCHEMA = 'foxglove.CompressedImage';
/** Numbers of the fields in foxglove's CompressedImage.proto. */
const DATA_FIELD = 2;
const BYTES_WIRE_TYPE = 2;

interface Packed {
  readonly logTimeNs: bigint;
  readonly data: Uint8Array;
}

function recordingError(file: string, expected: string, found: string, advice: string, cause?: unknown): PremotorError {
  return new PremotorError('CAMERA_RECORDING', `The recording ${file} cannot be played: expected ${expected}, found ${found}. ${advice}`, {
    file,
    expected,
    found,
    ...(cause === undefined ? {} : { cause }),
  });
}

/** The picture's file inside a message. Throws when it is none. */
function pictureOf(encoding: string, data: Uint8Array): Uint8Array {
  if (encoding === 'json') {
    const value: unknown = JSON.parse(Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('utf8'));
    const packed = typeof value === 'object' && value !== null ? (value as Record<string, unknown>)['data'] : undefined;
    if (typeof packed !== 'string') throw new TypeError('a message without data');
    return Buffer.from(packed, 'base64');
  }
  if (encoding !== 'protobuf') throw new TypeError(`messages in ${encoding || 'no encoding'}`);
  const reader = Reader.create(data);
  let found: Uint8Array | undefined;
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 === DATA_FIELD && (tag & 7) === BYTES_WIRE_TYPE) found = Uint8Array.from(reader.bytes());
    else reader.skipType(tag & 7);
  }
  if (!found) throw new TypeError('a message without data');
  return found;
}

/** What the records of a file say about one topic. */
class Topic {
  readonly pictures: Packed[] = [];
  readonly others = new Set<string>();
  readonly #file: string;
  readonly #topic: string;
  readonly #schemas = new Map<number, string>();
  readonly #encodings = new Map<number, string>();
  #bytes = 0;

  constructor(file: string, topic: string) {
    this.#file = file;
    this.#topic = topic;
  }

  note(record: McapTypes.TypedMcapRecord): void {
    if (record.type === 'Schema') this.#schemas.set(record.id, record.name);
    else if (record.type === 'Channel') this.#noteChannel(record);
    else if (record.type === 'Message') this.#noteMessage(record);
  }

  #noteChannel({ id, topic, schemaId, messageEncoding }: McapTypes.Channel): void {
    const schema = this.#schemas.get(schemaId) ?? '';
    if (topic === this.#topic && schema === SCHEMA) this.#encodings.set(id, messageEncoding);
    else if (topic === this.#topic)
      throw recordingError(this.#file, `${SCHEMA} on ${topic}`, schema || 'no schema', 'Name the topic of pictures, or convert the recording.');
    else if (schema === SCHEMA && this.others.size < 32) this.others.add(topic);
  }

  #noteMessage({ channelId, logTime, data }: McapTypes.Message): void {
    const encoding = this.#encodings.get(channelId);
    if (encoding === undefined) return;
    try {
      const picture = pictureOf(encoding, data);
      this.#bytes += picture.length;
      this.pictures.push({ logTimeNs: logTime, data: picture });
    } catch (cause) {
      throw recordingError(this.#file, `${SCHEMA} in protobuf or JSON`, (cause as Error).message, 'Convert the recording.', cause);
    }
    if (this.#bytes <= PACKED_BYTES_MAX) return;
    throw recordingError(
      this.#file,
      `at most ${PACKED_BYTES_MAX} bytes of pictures on ${this.#topic}`,
      'more',
      'Cut it, or play a folder of pictures.',
    );
  }
}

function unpackable(file: string, name: string): () => never {
  return () => {
    throw recordingError(
      file,
      'chunks without compression',
      `chunks packed with ${name}`,
      `Unpack it: mcap compress --compression none ${file} -o NEW.`,
    );
  };
}

/** What was cut off at the end is played up to there. */
async function readTopic(file: string, topic: string): Promise<Topic> {
  const found = new Topic(file, topic);
  const reader = new McapStreamReader({ decompressHandlers: { lz4: unpackable(file, 'lz4'), zstd: unpackable(file, 'zstd') } });
  try {
    for await (const bytes of createReadStream(file, { highWaterMark: 1 << 20 })) {
      reader.append(bytes as Uint8Array);
      for (let record = reader.nextRecord(); record; record = reader.nextRecord()) found.note(record);
    }
  } catch (cause) {
    if (cause instanceof PremotorError) throw cause;
    throw recordingError(file, 'an MCAP file', (cause as Error).message, 'Check the path, or repair it: mcap recover.', cause);
  }
  return found;
}

/** Errors: CAMERA_RECORDING. */
export async function openRecording(file: string, topic: string): Promise<PictureList> {
  const { pictures, others } = await readTopic(file, topic);
  if (pictures.length === 0) {
    const found = others.size === 0 ? 'no pictures at all' : `pictures on ${[...others].join(', ')} alone`;
    throw recordingError(file, `pictures on ${topic}`, found, "Name their topic as the source's `topic`.");
  }
  pictures.sort((a, b) => (a.logTimeNs < b.logTimeNs ? -1 : a.logTimeNs > b.logTimeNs ? 1 : 0));
  const picture = async (index: number): Promise<DecodedPicture> => {
    try {
      return await decodePicture(pictures[index]?.data ?? new Uint8Array(0));
    } catch (cause) {
      throw recordingError(file, `a picture as message ${index} on ${topic}`, (cause as Error).message, 'Convert the recording.', cause);
    }
  };
  const { width, height } = await picture(0);
  return { count: pictures.length, width, height, picture };
}
