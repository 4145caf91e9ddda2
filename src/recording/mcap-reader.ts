/**
 * Reads MCAP files from their beginning, record by record, whether or not they were ended: the one reader of `premotor record`, of `premotor replay`
 * and of cameras that play a recording. A file that was cut off gives all that was written; a part that is damaged is left out and named. Bounded: no
 * record, chunk or list of damages can take more memory than its limit, whatever a file says. It never writes.
 */
import { type FileHandle, open } from 'node:fs/promises';
import * as zlib from 'node:zlib';
import { McapRecordBuilder, McapStreamReader, type McapTypes } from '@mcap/core';
import { PremotorError } from '../errors.js';
import { unpackLz4 } from './lz4.js';
import { MessageDecoder } from './message-decoder.js';

/** A record, and what a chunk unpacks to. */
const RECORD_BYTES_MAX = 128 * 2 ** 20;
/** Damages that are remembered; all of them are counted. */
const DAMAGES_MAX = 100;
const CHANNELS_MAX = 65_536;

const MAGIC = Uint8Array.of(0x89, 0x4d, 0x43, 0x41, 0x50, 0x30, 0x0d, 0x0a);
const HEAD_BYTES = 9;
const OPCODES = {
  header: 0x01,
  footer: 0x02,
  schema: 0x03,
  channel: 0x04,
  message: 0x05,
  chunk: 0x06,
  attachment: 0x09,
  metadata: 0x0c,
  dataEnd: 0x0f,
};
/** What carries content; the rest are indexes, which are not needed to read from the beginning. */
const WANTED: readonly number[] = [OPCODES.schema, OPCODES.channel, OPCODES.message, OPCODES.chunk, OPCODES.metadata, OPCODES.attachment];

/** Where bytes come from. A read may give fewer at the end. */
export interface ByteSource {
  readonly bytes: number;
  read(at: number, length: number): Uint8Array | Promise<Uint8Array>;
}

export interface McapChannel {
  readonly id: number;
  readonly topic: string;
  /** json, protobuf, cdr, ... */
  readonly encoding: string;
  /** Its type's name and how that is written down; empty without. */
  readonly schema: string;
  readonly schemaEncoding: string;
  readonly schemaData: Uint8Array;
}

export interface McapMessage {
  readonly channel: McapChannel;
  readonly topic: string;
  /** Nanoseconds since 1970 in premotor's recordings. */
  readonly logTimeNs: bigint;
  readonly publishTimeNs: bigint;
  readonly sequence: number;
  readonly data: Uint8Array;
  /** Its content. Errors: MCAP_DAMAGED, MCAP_UNSUPPORTED for encodings other than json and protobuf. */
  decode(): Readonly<Record<string, unknown>>;
}

export interface Damage {
  readonly atByte: number;
  readonly found: string;
}

/** What was found besides the messages; complete once they were read. */
export interface McapState {
  /** The file has its end: nothing was cut off. */
  readonly isComplete: boolean;
  readonly chunks: number;
  readonly damages: readonly Damage[];
  readonly damageCount: number;
  readonly channels: readonly McapChannel[];
  readonly metadata: ReadonlyMap<string, ReadonlyMap<string, string>>;
}

export interface ReadOptions {
  /** Only messages of these. */
  readonly topics?: readonly string[];
  /** Told after every record: bytes done. */
  readonly onProgress?: (bytes: number) => void;
  readonly signal?: AbortSignal;
}

interface Schema {
  readonly name: string;
  readonly encoding: string;
  readonly data: Uint8Array;
}

export class McapReader {
  readonly file: string;
  readonly #source: ByteSource;
  readonly #handle: FileHandle | undefined;
  #isComplete = false;
  #chunks = 0;
  #damageCount = 0;
  readonly #damages: Damage[] = [];
  readonly #schemas = new Map<number, Schema>();
  readonly #channels = new Map<number, McapChannel>();
  readonly #raw = new Map<number, McapTypes.Channel>();
  readonly #metadata = new Map<string, ReadonlyMap<string, string>>();
  readonly #decoder = new MessageDecoder();
  #stream = newStream();

  private constructor(file: string, source: ByteSource, handle?: FileHandle) {
    this.file = file;
    this.#source = source;
    this.#handle = handle;
  }

  /** Errors: MCAP_MISSING, MCAP_FOREIGN. */
  static async open(file: string): Promise<McapReader> {
    let handle: FileHandle | undefined;
    try {
      handle = await open(file, 'r');
      const opened = handle;
      const { size } = await handle.stat();
      const read = async (at: number, length: number): Promise<Uint8Array> => {
        const { buffer, bytesRead } = await opened.read(new Uint8Array(Math.max(0, Math.min(length, size - at))), 0, undefined, at);
        return buffer.subarray(0, bytesRead);
      };
      return await McapReader.of(file, { bytes: size, read }, handle);
    } catch (cause) {
      await handle?.close();
      if (cause instanceof PremotorError) throw cause;
      const found = (cause as Error).message;
      const message = `The recording ${file} cannot be read: expected an MCAP file, found ${found}. Check the path.`;
      throw new PremotorError('MCAP_MISSING', message, { file, expected: 'an MCAP file', found, cause });
    }
  }

  /** `file` is its name in messages. Errors: MCAP_FOREIGN. */
  static async of(file: string, source: ByteSource, handle?: FileHandle): Promise<McapReader> {
    const start = await source.read(0, MAGIC.length);
    if (!MAGIC.every((byte, at) => start[at] === byte)) {
      const found = source.bytes === 0 ? 'an empty file' : `bytes ${Buffer.from(start).toString('hex')}`;
      const expected = `an MCAP file, which begins with ${Buffer.from(MAGIC).toString('hex')}`;
      const message = `${file} is no recording: expected ${expected}, found ${found}. Check the path.`;
      throw new PremotorError('MCAP_FOREIGN', message, { file, expected, found });
    }
    return new McapReader(file, source, handle);
  }

  get bytes(): number {
    return this.#source.bytes;
  }

  get state(): McapState {
    return {
      isComplete: this.#isComplete,
      chunks: this.#chunks,
      damages: this.#damages,
      damageCount: this.#damageCount,
      channels: [...this.#channels.values()],
      metadata: this.#metadata,
    };
  }

  /** In the order of the file, which is that of each topic. To be read once; nothing is read ahead. Errors: ABORTED, MCAP_UNSUPPORTED. */
  async *messages(options: ReadOptions = {}): AsyncGenerator<McapMessage> {
    const wanted = options.topics && new Set(options.topics);
    for (let at = MAGIC.length; ; ) {
      if (options.signal?.aborted) throw new PremotorError('ABORTED', 'Reading was interrupted. Nothing was changed.');
      const reading = this.#source.read(at, HEAD_BYTES);
      // What is in memory costs no turn of the event loop.
      const head = reading instanceof Promise ? await reading : reading;
      if (head.length < HEAD_BYTES) return this.#broken(at, 'the end of the file where a record was wanted');
      const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
      const [opcode, length] = [view.getUint8(0), Number(view.getBigUint64(1, true))];
      const end = at + HEAD_BYTES + length;
      if (opcode === 0) return this.#broken(at, 'no record, as after a power cut');
      if (length > RECORD_BYTES_MAX) return this.#broken(at, `a record of ${length} bytes`);
      if (end > this.bytes) return this.#broken(at, `a record of ${length} bytes where ${this.bytes - at - HEAD_BYTES} are left`);
      if (opcode === OPCODES.footer) return await this.#ending(end);
      if (WANTED.includes(opcode)) {
        const record = this.#source.read(at, HEAD_BYTES + length);
        for (const message of this.#recordsIn(record instanceof Promise ? await record : record, at)) {
          if (!wanted || wanted.has(message.topic)) yield message;
        }
      }
      options.onProgress?.(end);
      at = end;
    }
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.#handle?.close();
  }

  async #ending(at: number): Promise<void> {
    const end = await this.#source.read(at, MAGIC.length);
    this.#isComplete = MAGIC.every((byte, index) => end[index] === byte);
    if (!this.#isComplete) this.#broken(at, 'no mark of an MCAP file at its end');
  }

  /** The messages of one whole record. */
  *#recordsIn(record: Uint8Array, at: number): Generator<McapMessage> {
    if (record[0] === OPCODES.chunk) this.#chunks++;
    try {
      this.#stream.append(record);
      for (;;) {
        const next = this.#stream.nextRecord();
        if (next === undefined) break;
        const message = this.#note(next);
        if (message) yield message;
      }
      if (this.#stream.bytesRemaining() > 0) throw new RangeError(`${this.#stream.bytesRemaining()} bytes too many`);
    } catch (error) {
      // What the compressions need is a matter of this program, not of the file.
      if (error instanceof PremotorError && error.code === 'MCAP_UNSUPPORTED') throw error;
      this.#broken(at, (error as Error).message);
      this.#restart();
    }
  }

  /** A stream that has failed says nothing any more; the next one has to know the channels. */
  #restart(): void {
    this.#stream = newStream();
    const builder = new McapRecordBuilder();
    for (const channel of this.#raw.values()) builder.writeChannel(channel);
    if (builder.length > 0) this.#stream.append(builder.buffer);
    while (this.#stream.nextRecord());
  }

  #note(record: McapTypes.TypedMcapRecord): McapMessage | undefined {
    if (record.type === 'Schema') {
      // The bytes must not keep a whole chunk alive.
      this.#schemas.set(record.id, { name: record.name, encoding: record.encoding, data: record.data });
      this.#decoder.forget(record.id);
    } else if (record.type === 'Channel') this.#noteChannel(record);
    else if (record.type === 'Metadata') {
      if (this.#metadata.size < DAMAGES_MAX) this.#metadata.set(record.name, record.metadata);
    } else if (record.type === 'Message') return this.#messageOf(record);
    return undefined;
  }

  #noteChannel(record: McapTypes.Channel): void {
    const { id, topic, messageEncoding, schemaId } = record;
    if (!this.#channels.has(id) && this.#channels.size >= CHANNELS_MAX) throw new RangeError(`more than ${CHANNELS_MAX} channels`);
    const schema = this.#schemas.get(schemaId);
    this.#raw.set(id, record);
    const { name = '', encoding = '', data = new Uint8Array(0) } = schema ?? {};
    this.#channels.set(id, { id, topic, encoding: messageEncoding, schema: name, schemaEncoding: encoding, schemaData: data });
  }

  #messageOf({ channelId, logTime, publishTime, sequence, data }: McapTypes.Message): McapMessage | undefined {
    const channel = this.#channels.get(channelId);
    const schemaId = this.#raw.get(channelId)?.schemaId ?? 0;
    if (channel === undefined) throw new RangeError(`a message of channel ${channelId}, which is not declared`);
    const decode = (): Readonly<Record<string, unknown>> =>
      this.#decoder.decode(this.file, channel, { id: schemaId, ...this.#schemas.get(schemaId) }, data);
    return { channel, topic: channel.topic, logTimeNs: logTime, publishTimeNs: publishTime, sequence, data, decode };
  }

  #broken(atByte: number, found: string): void {
    this.#damageCount++;
    if (this.#damages.length < DAMAGES_MAX) this.#damages.push({ atByte, found });
  }
}

type Unpack = (packed: Uint8Array, bytes: number) => Uint8Array;
/** In Node from 22.15 on. */
const unpackZstd = (zlib as unknown as { zstdDecompressSync?: (packed: Uint8Array, options: { maxOutputLength: number }) => Uint8Array })
  .zstdDecompressSync;

function newStream(): McapStreamReader {
  const bounded =
    (unpack: Unpack) =>
    (packed: Uint8Array, size: bigint): Uint8Array => {
      if (size > BigInt(RECORD_BYTES_MAX)) throw new RangeError(`a chunk that unpacks to ${size} bytes`);
      return unpack(packed, Number(size));
    };
  const zstd: Unpack = (packed, bytes) => {
    if (unpackZstd) return unpackZstd(packed, { maxOutputLength: bytes });
    const [expected, found] = ['chunks without compression or with lz4', 'zstd'];
    const remedy = 'Update Node to 22.15 or later, or convert the recording.';
    const message = `This recording cannot be unpacked here: expected ${expected}, found ${found}. ${remedy}`;
    throw new PremotorError('MCAP_UNSUPPORTED', message, { expected, found });
  };
  return new McapStreamReader({ noMagicPrefix: true, decompressHandlers: { lz4: bounded(unpackLz4), zstd: bounded(zstd) } });
}
