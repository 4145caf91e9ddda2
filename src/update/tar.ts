/**
 * The tar format as far as releases need it: plain files with relative paths, written so that equal content gives equal bytes, read as a stream with
 * every bound checked. Owned by the release format; it touches no file itself.
 */

export const BLOCK = 512;
const NAME_BYTES = 100;
const PREFIX_BYTES = 155;
/** What eleven octal digits hold. */
const OCTAL_MAX = 8 ** 11 - 1;

/** A member's header, or undefined when the format cannot hold the path. */
export function tarHeader(path: string, bytes: number): Buffer | undefined {
  const names = splitPath(path);
  if (names === undefined) return undefined;
  const header = Buffer.alloc(BLOCK);
  header.write(names.name, 0, 'utf8');
  header.write('0000644\0', 100);
  // Owner, group and time say nothing about the content.
  header.write('0000000\0', 108);
  header.write('0000000\0', 116);
  writeSize(header, bytes);
  header.write('00000000000\0', 136);
  header.write('        ', 148);
  header.write('0', 156);
  header.write('ustar\x0000', 257);
  header.write(names.prefix, 345, 'utf8');
  header.write(`${checksum(header).toString(8).padStart(6, '0')}\0 `, 148);
  return header;
}

/** Zero bytes up to the next block. */
export const tarPadding = (bytes: number): Buffer => Buffer.alloc((BLOCK - (bytes % BLOCK)) % BLOCK);

/** What ends an archive. */
export const TAR_END = Buffer.alloc(2 * BLOCK);

function splitPath(path: string): { name: string; prefix: string } | undefined {
  if (Buffer.byteLength(path) <= NAME_BYTES) return { name: path, prefix: '' };
  for (let at = path.indexOf('/'); at > 0; at = path.indexOf('/', at + 1)) {
    const [prefix, name] = [path.slice(0, at), path.slice(at + 1)];
    if (Buffer.byteLength(prefix) <= PREFIX_BYTES && Buffer.byteLength(name) <= NAME_BYTES) return { name, prefix };
  }
  return undefined;
}

function writeSize(header: Buffer, bytes: number): void {
  if (bytes <= OCTAL_MAX) return void header.write(`${bytes.toString(8).padStart(11, '0')}\0`, 124);
  header.writeUInt8(0x80, 124);
  header.writeBigUInt64BE(BigInt(bytes), 128);
}

function checksum(header: Buffer): number {
  let sum = 0;
  for (const [index, byte] of header.entries()) sum += index >= 148 && index < 156 ? 0x20 : byte;
  return sum;
}

export interface TarMember {
  readonly path: string;
  readonly bytes: number;
}

/** A text says what is wrong with a header; undefined is the archive's end. */
export function parseHeader(header: Buffer): TarMember | string | undefined {
  if (header.every((byte) => byte === 0)) return undefined;
  if (Number.parseInt(text(header, 148, 8), 8) !== checksum(header)) return 'a header whose checksum is wrong';
  const type = String.fromCharCode(header[156] ?? 0);
  const [prefix, name] = [text(header, 345, PREFIX_BYTES), text(header, 0, NAME_BYTES)];
  const path = prefix === '' ? name : `${prefix}/${name}`;
  if (type !== '0' && type !== '\0') return `member ${JSON.stringify(path)} of type ${JSON.stringify(type)}, which is no plain file`;
  const isBinary = ((header[124] ?? 0) & 0x80) !== 0;
  const bytes = isBinary ? Number(header.readBigUInt64BE(128)) : Number.parseInt(text(header, 124, 12), 8);
  return Number.isSafeInteger(bytes) && bytes >= 0 ? { path, bytes } : `member ${JSON.stringify(path)} without a size`;
}

function text(header: Buffer, at: number, bytes: number): string {
  const field = header.subarray(at, at + bytes);
  const end = field.indexOf(0);
  return field.toString('utf8', 0, end < 0 ? bytes : end).trim();
}

/** Exact pieces of a stream of buffers. */
export class Pieces {
  readonly #source: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);
  /** Bytes that were taken. */
  taken = 0;

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** The next bytes, in parts as they come; fewer when the stream ends. */
  async *parts(bytes: number): AsyncGenerator<Buffer> {
    for (let left = bytes; left > 0; ) {
      if (this.#rest.length === 0 && !(await this.#more())) return;
      const part = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(part.length);
      left -= part.length;
      this.taken += part.length;
      yield part;
    }
  }

  /** Exactly so many bytes, or undefined when the stream ends before. */
  async exactly(bytes: number): Promise<Buffer | undefined> {
    const parts: Buffer[] = [];
    for await (const part of this.parts(bytes)) parts.push(part);
    const all = Buffer.concat(parts);
    return all.length === bytes ? all : undefined;
  }

  async #more(): Promise<boolean> {
    const { done, value } = await this.#source.next();
    if (done === true) return false;
    this.#rest = value;
    return true;
  }
}
