/**
 * Records one after another in a file: each with its length, its number and a CRC-32, so that a record that was only half written, or was changed
 * later, is told from a whole one. Pure functions on bytes, shared by the journal and by replay records; they open no file and know no content.
 *
 * ```
 * byte  0  4  8         12       16        20
 *       | mark | kind | number | length | CRC-32 | payload ...      all u32, little-endian; the CRC covers the first 16 bytes and the payload
 * ```
 */
import { crc32 } from 'node:zlib';

/** "PMJ1" */
const MARK = 0x314a4d50;
export const FRAME_BYTES = 20;

export interface Framed {
  readonly kind: number;
  readonly payload: Uint8Array;
}

/** One record as bytes. */
export function frame(kind: number, number: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(FRAME_BYTES + payload.length);
  const view = new DataView(bytes.buffer);
  for (const [index, value] of [MARK, kind, number, payload.length].entries()) view.setUint32(4 * index, value, true);
  view.setUint32(16, crc32(payload, crc32(bytes.subarray(0, 16))), true);
  bytes.set(payload, FRAME_BYTES);
  return bytes;
}

/** Where whole records end, and why. */
export interface Break {
  readonly atByte: number;
  readonly expected: string;
  readonly found: string;
}

export interface Frames {
  readonly frames: readonly Framed[];
  /** Where each of them ends. */
  readonly ends: readonly number[];
  /** Absent when the file ends with a whole record. */
  readonly broken?: Break;
}

/** The whole records from the start; what follows a broken one is never looked at, because its place is not known. */
export function readFrames(bytes: Uint8Array): Frames {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const frames: Framed[] = [];
  const ends: number[] = [];
  let at = 0;
  const broken = (expected: string, found: string): Frames => ({ frames, ends, broken: { atByte: at, expected, found } });
  while (at < bytes.length) {
    const left = bytes.length - at;
    if (left < FRAME_BYTES) return broken(`a record's head of ${FRAME_BYTES} bytes`, `${left} bytes`);
    const [mark, kind, number, length, crc] = [0, 4, 8, 12, 16].map((offset) => view.getUint32(at + offset, true)) as [
      number,
      number,
      number,
      number,
      number,
    ];
    if (mark !== MARK) return broken('the mark of a record', `0x${mark.toString(16)}`);
    if (number !== frames.length) return broken(`record ${frames.length}`, `record ${number}`);
    if (length > left - FRAME_BYTES) return broken(`a record of ${length} bytes`, `${left - FRAME_BYTES} bytes`);
    const payload = bytes.subarray(at + FRAME_BYTES, at + FRAME_BYTES + length);
    const found = crc32(payload, crc32(bytes.subarray(at, at + 16)));
    if (found !== crc) return broken(`CRC-32 ${crc.toString(16)}`, found.toString(16));
    frames.push({ kind, payload });
    at += FRAME_BYTES + length;
    ends.push(at);
  }
  return { frames, ends };
}
