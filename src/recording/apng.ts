/**
 * Animated PNG, lossless: sharp writes only single PNGs, so each picture is compressed here and the chunks are put together by hand (PNG
 * specification, third edition, section 11.3.6). Owned by animation.ts, which checks the pictures.
 */
import { promisify } from 'node:util';
import { constants, deflate } from 'node:zlib';
import type { Picture } from './animation.js';

const compress = promisify(deflate);
const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const FILTER_UP = 2;

export interface AnimatedPngOptions {
  readonly delayMs: number;
  /** 0: for ever. */
  readonly loop: number;
}

/** The file's bytes. Pictures are of one size. */
export async function encodeAnimatedPng(frames: readonly Picture[], options: AnimatedPngOptions): Promise<Uint8Array> {
  const { width, height } = frames[0] as Picture;
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  // 8 bits, RGB, no interlace.
  header.set([8, 2, 0, 0, 0], 8);
  const control = Buffer.alloc(8);
  control.writeUInt32BE(frames.length, 0);
  control.writeUInt32BE(options.loop, 4);
  const chunks = [SIGNATURE, pngChunk('IHDR', header), pngChunk('acTL', control)];
  let sequence = 0;
  for (const [index, frame] of frames.entries()) {
    chunks.push(pngChunk('fcTL', frameControl(sequence++, width, height, options.delayMs)));
    const data = await compress(filterRows(frame), { level: 6, strategy: constants.Z_FILTERED });
    if (index === 0) {
      chunks.push(pngChunk('IDAT', data));
      continue;
    }
    const numbered = Buffer.alloc(4 + data.length);
    numbered.writeUInt32BE(sequence++, 0);
    data.copy(numbered, 4);
    chunks.push(pngChunk('fdAT', numbered));
  }
  chunks.push(pngChunk('IEND', Buffer.alloc(0)));
  return Buffer.concat(chunks);
}

/** The whole picture replaces the one before; the delay is a fraction of a second in 1/10000ths. */
function frameControl(sequence: number, width: number, height: number, delayMs: number): Buffer {
  const control = Buffer.alloc(26);
  for (const [index, value] of [sequence, width, height, 0, 0].entries()) control.writeUInt32BE(value, index * 4);
  control.writeUInt16BE(Math.min(65535, Math.max(1, Math.round(delayMs * 10))), 20);
  control.writeUInt16BE(10000, 22);
  return control;
}

/** Each row as its difference from the row above, which compresses photographs better than plain bytes. */
function filterRows({ width, height, data }: Picture): Buffer {
  const stride = width * 3;
  const rows = Buffer.alloc(height * (stride + 1));
  for (let y = 0; y < height; y++) {
    const target = y * (stride + 1);
    rows[target] = FILTER_UP;
    for (let x = 0; x < stride; x++) {
      const above = y === 0 ? 0 : (data[(y - 1) * stride + x] ?? 0);
      rows[target + 1 + x] = (data[y * stride + x] ?? 0) - above;
    }
  }
  return rows;
}

export function pngChunk(type: string, data: Buffer): Buffer {
  const bytes = Buffer.alloc(12 + data.length);
  bytes.writeUInt32BE(data.length, 0);
  bytes.write(type, 4, 'latin1');
  data.copy(bytes, 8);
  bytes.writeUInt32BE(crc32(bytes.subarray(4, 8 + data.length)), 8 + data.length);
  return bytes;
}

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc32(bytes: Uint8Array): number {
  let value = 0xffffffff;
  for (const byte of bytes) value = (crcTable[(value ^ byte) & 0xff] ?? 0) ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}
