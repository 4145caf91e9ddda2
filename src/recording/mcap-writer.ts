/**
 * Writes one MCAP file so that a crash or a power cut takes at most the chunk that was being written: types and channels stand at the beginning,
 * outside of chunks, every chunk goes to the disk as a whole, and the index comes last. Adding is synchronous and only fills memory; writing follows
 * behind in its order. Owned by one recording; a disk that refuses ends the file and is told to its owner, once.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { McapChunkBuilder, McapConstants, McapRecordBuilder, type McapTypes } from '@mcap/core';

const PROFILE = '';

/** As much of a file as is needed; tests give one whose disk is full. */
export interface WritableFile {
  write(bytes: Uint8Array, offset: number, length: number, position: number): Promise<{ readonly bytesWritten: number }>;
  datasync(): Promise<void>;
  close(): Promise<void>;
}
export type OpenFile = (path: string) => Promise<WritableFile>;

const openNew: OpenFile = async (path): Promise<FileHandle> => open(path, 'wx');

/** What is written where. */
export interface ChannelAbout {
  readonly topic: string;
  readonly schema: string;
  /** Its types. Default encodings: protobuf. */
  readonly schemaData: Uint8Array;
  readonly schemaEncoding?: string;
  readonly messageEncoding?: string;
}

interface Channel {
  readonly record: McapTypes.Channel;
  sequence: number;
  count: bigint;
}

export class McapWriter {
  readonly path: string;
  readonly #file: WritableFile;
  readonly #records = new McapRecordBuilder();
  #chunk = new McapChunkBuilder({ useMessageIndex: true });
  readonly #schemas = new Map<string, McapTypes.Schema>();
  readonly #channels: Channel[] = [];
  readonly #chunks: McapTypes.ChunkIndex[] = [];
  readonly #metadata: McapTypes.MetadataIndex[] = [];
  #messages = 0n;
  #startTime = 0n;
  #endTime = 0n;
  /** Where the next record will stand, and the CRC of all before it. */
  #position = 0;
  #crc = 0;
  #written = 0;
  #backlog = 0;
  #writing: Promise<void> = Promise.resolve();
  #error: Error | undefined;
  #isClosed = false;

  private constructor(path: string, file: WritableFile) {
    this.path = path;
    this.#file = file;
  }

  /** A new file, which must not exist yet. Errors: those of the file system. */
  static async create(path: string, openFile: OpenFile = openNew): Promise<McapWriter> {
    const writer = new McapWriter(path, await openFile(path));
    writer.#records.writeMagic();
    writer.#records.writeHeader({ profile: PROFILE, library: 'premotor' });
    return writer;
  }

  /** Bytes that are in the file, or will be once what was given is written. */
  get bytes(): number {
    return this.#position + this.#records.length + this.#chunk.byteLength;
  }
  /** Bytes that the disk has. */
  get bytesWritten(): number {
    return this.#written;
  }
  /** Bytes that wait for the disk. */
  get backlogBytes(): number {
    return this.#backlog;
  }
  /** Bytes that were added since the last chunk. */
  get pendingBytes(): number {
    return this.#chunk.byteLength;
  }
  get messageCount(): bigint {
    return this.#messages;
  }
  /** Of the messages so far. */
  get timesNs(): { readonly start: bigint; readonly end: bigint } {
    return { start: this.#startTime, end: this.#endTime };
  }
  /** Why nothing is written any more. */
  get error(): Error | undefined {
    return this.#error;
  }

  /** Declares a topic, once, and gives its number. */
  channel(about: ChannelAbout): number {
    const { topic, messageEncoding = 'protobuf' } = about;
    const schemaId = about.schema === '' ? 0 : this.#schema(about);
    const same = this.#channels.find(
      ({ record: one }) => one.topic === topic && one.schemaId === schemaId && one.messageEncoding === messageEncoding,
    );
    if (same) return same.record.id;
    const id = this.#channels.length;
    const record = { id, schemaId, topic, messageEncoding, metadata: new Map<string, string>() };
    this.#channels.push({ record, sequence: 0, count: 0n });
    this.#records.writeChannel(record);
    return id;
  }

  /** Adds a message. Nothing is written before `flush`. */
  add(channelId: number, logTimeNs: bigint, data: Uint8Array, publishTimeNs = logTimeNs): void {
    const channel = this.#channels[channelId];
    if (channel === undefined || this.#error !== undefined || this.#isClosed) return;
    const logTime = logTimeNs < 0n ? 0n : logTimeNs;
    this.#chunk.addMessage({ channelId, sequence: channel.sequence++, logTime, publishTime: publishTimeNs < 0n ? 0n : publishTimeNs, data });
    channel.count++;
    if (this.#messages === 0n || logTime < this.#startTime) this.#startTime = logTime;
    if (this.#messages === 0n || logTime > this.#endTime) this.#endTime = logTime;
    this.#messages++;
  }

  /** Key and value pairs about the whole file; one set of each name. */
  metadata(name: string, values: Readonly<Record<string, string>>): void {
    if (this.#metadata.some((one) => one.name === name)) return;
    this.#cut();
    const offset = BigInt(this.#position);
    const length = this.#records.writeMetadata({ name, metadata: new Map(Object.entries(values)) });
    this.#metadata.push({ offset, length, name });
  }

  /** Writes what was added as one chunk and waits until it is safe. Never rejects: `error` says what happened. */
  flush(): Promise<void> {
    this.#cut();
    return this.#writing;
  }

  /** Resolves when everything given to `flush` is on the disk, or could not be written. */
  settled(): Promise<void> {
    return this.#writing;
  }

  /** Writes the index and closes the file. Idempotent, never rejects. */
  async close(): Promise<void> {
    if (this.#isClosed) return this.#writing;
    this.#cut();
    this.#isClosed = true;
    this.#records.writeDataEnd({ dataSectionCrc: this.#crc });
    this.#emit(false);
    this.#summary();
    this.#emit(true);
    this.#writing = this.#writing.then(() => this.#file.close()).catch((error: unknown) => this.#failed(error));
    await this.#writing;
  }

  #schema({ schema: name, schemaData, schemaEncoding: encoding = 'protobuf' }: ChannelAbout): number {
    const key = `${name} ${encoding} ${schemaData.length} ${crc32(schemaData)}`;
    const known = this.#schemas.get(key);
    if (known) return known.id;
    const schema = { id: this.#schemas.size + 1, name, encoding, data: schemaData };
    this.#schemas.set(key, schema);
    this.#records.writeSchema(schema);
    return schema.id;
  }

  /** What was declared, and the chunk so far, become bytes; the next message begins another chunk. */
  #cut(): void {
    if (this.#records.length > 0) this.#emit(false);
    const chunk = this.#chunk;
    if (chunk.numMessages === 0) return;
    const records = chunk.buffer;
    const chunkStartOffset = BigInt(this.#position);
    const times = { messageStartTime: chunk.messageStartTime, messageEndTime: chunk.messageEndTime };
    const size = BigInt(records.byteLength);
    const about = { ...times, compression: '', uncompressedSize: size };
    const chunkLength = this.#records.writeChunk({ ...about, uncompressedCrc: crc32(records), records });
    const messageIndexOffsets = new Map<number, bigint>();
    let messageIndexLength = 0n;
    for (const index of chunk.indices) {
      messageIndexOffsets.set(index.channelId, chunkStartOffset + chunkLength + messageIndexLength);
      messageIndexLength += this.#records.writeMessageIndex(index);
    }
    this.#chunks.push({ ...about, compressedSize: size, chunkStartOffset, chunkLength, messageIndexOffsets, messageIndexLength });
    // A new one: the old one's memory is as large as the largest chunk ever was.
    this.#chunk = new McapChunkBuilder({ useMessageIndex: true });
    this.#emit(true);
  }

  /** Hands the records so far to the disk. */
  #emit(sync: boolean): void {
    const bytes = this.#records.buffer;
    this.#records.reset();
    this.#crc = crc32(bytes, this.#crc);
    const at = this.#position;
    this.#position += bytes.length;
    this.#backlog += bytes.length;
    this.#writing = this.#writing
      .then(() => this.#write(bytes, at, sync))
      .catch((error: unknown) => this.#failed(error))
      .finally(() => {
        this.#backlog -= bytes.length;
      });
  }

  async #write(bytes: Uint8Array, at: number, sync: boolean): Promise<void> {
    if (this.#error !== undefined) return;
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await this.#file.write(bytes, done, bytes.length - done, at + done);
      done += bytesWritten;
    }
    if (sync) await this.#file.datasync();
    this.#written = at + bytes.length;
  }

  #failed(error: unknown): void {
    this.#error ??= error instanceof Error ? error : new Error(String(error));
  }

  #summary(): void {
    const start = BigInt(this.#position);
    const groups: McapTypes.SummaryOffset[] = [];
    const group = (groupOpcode: number, write: () => void): void => {
      const from = this.#records.length;
      write();
      const groupLength = BigInt(this.#records.length - from);
      if (groupLength > 0n) groups.push({ groupOpcode, groupStart: start + BigInt(from), groupLength });
    };
    const { Opcode } = McapConstants;
    group(Opcode.SCHEMA, () => {
      for (const schema of this.#schemas.values()) this.#records.writeSchema(schema);
    });
    group(Opcode.CHANNEL, () => {
      for (const { record } of this.#channels) this.#records.writeChannel(record);
    });
    group(Opcode.STATISTICS, () => this.#records.writeStatistics(this.#statistics()));
    group(Opcode.METADATA_INDEX, () => {
      for (const index of this.#metadata) this.#records.writeMetadataIndex(index);
    });
    group(Opcode.CHUNK_INDEX, () => {
      for (const index of this.#chunks) this.#records.writeChunkIndex(index);
    });
    const summaryOffsetStart = start + BigInt(this.#records.length);
    for (const one of groups) this.#records.writeSummaryOffset(one);
    // The CRC covers the summary and the footer up to itself: its head and two places.
    const head = new DataView(new ArrayBuffer(25));
    head.setUint8(0, Opcode.FOOTER);
    head.setBigUint64(1, 20n, true);
    head.setBigUint64(9, start, true);
    head.setBigUint64(17, summaryOffsetStart, true);
    const summaryCrc = crc32(new Uint8Array(head.buffer), crc32(this.#records.buffer));
    this.#records.writeFooter({ summaryStart: start, summaryOffsetStart, summaryCrc });
    this.#records.writeMagic();
  }

  #statistics(): McapTypes.Statistics {
    return {
      messageCount: this.#messages,
      schemaCount: this.#schemas.size,
      channelCount: this.#channels.length,
      attachmentCount: 0,
      metadataCount: this.#metadata.length,
      chunkCount: this.#chunks.length,
      messageStartTime: this.#startTime,
      messageEndTime: this.#endTime,
      channelMessageCounts: new Map(this.#channels.map(({ record, count }) => [record.id, count])),
    };
  }
}
