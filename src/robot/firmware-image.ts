/**
 * Files of bridge firmware (`.pmfw`): one image per slot, each a header and a body (firmware-bridge/slots.h). Read and made here for the
 * command line and tests; what a bridge accepts it decides itself.
 */
import { PremotorError } from '../errors.js';

/** Slot 0 is called A, slot 1 B. */
export type Slot = 0 | 1;
export const slotName = (slot: number): string => (slot === 0 ? 'A' : slot === 1 ? 'B' : 'boot loader');

export interface FirmwareImage {
  /** Four letters. */
  readonly board: string;
  readonly version: string;
  readonly versionWord: number;
  /** First eight digits of the commit's name. */
  readonly source: string;
  readonly slot: Slot;
  readonly bodyChecksum: number;
  /** CRC-32 of the whole image. */
  readonly checksum: number;
  /** Header and body: what is sent. */
  readonly bytes: Uint8Array;
}

const HEADER_BYTES = 512;
const FIELD_BYTES = 40;
const UNIT_BYTES = 8;
const FORMAT = 1;
const IMAGES_MAX = 2;

const table = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = (value & 1) === 0 ? value >>> 1 : (value >>> 1) ^ 0xedb88320;
  return value;
});

/** CRC-32/ISO-HDLC. */
export function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ (table[(crc ^ byte) & 0xff] ?? 0);
  return ~crc >>> 0;
}

export const versionText = (word: number): string => (word === 0 ? 'none' : `${word >>> 24}.${(word >>> 16) & 0xff}.${word & 0xffff}`);
export const lettersOf = (word: number): string => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(word);
  return bytes.toString('latin1').replaceAll(/[^ -~]/g, '?');
};
export const wordOf = (letters: string): number => Buffer.from(letters.padEnd(4).slice(0, 4), 'latin1').readUInt32LE();

function refuse(file: string, found: string): PremotorError {
  const expected = 'a firmware file made by npm run build:firmware';
  return new PremotorError('FIRMWARE_IMAGE', `${file}: ${found}. Expected ${expected}: build it again, or copy it again.`, { file, expected, found });
}

function parseOne(file: string, bytes: Uint8Array): FirmwareImage {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const word = (index: number): number => view.getUint32(4 * index, true);
  if (bytes.length < HEADER_BYTES || lettersOf(word(0)) !== 'PMFW') throw refuse(file, 'it is no firmware image');
  if (word(1) !== FORMAT) throw refuse(file, `its format is ${word(1)}, this version knows ${FORMAT}`);
  if (word(9) !== crc32(bytes.subarray(0, FIELD_BYTES - 4))) throw refuse(file, 'a header is damaged');
  const end = HEADER_BYTES + word(5);
  if (word(5) === 0 || word(5) % UNIT_BYTES !== 0 || end > bytes.length) throw refuse(file, 'an image is cut off');
  const slot = word(8);
  if (slot !== 0 && slot !== 1) throw refuse(file, `an image is for slot ${slot}`);
  const whole = bytes.slice(0, end);
  if (crc32(whole.subarray(HEADER_BYTES)) !== word(6)) throw refuse(file, 'a body is damaged');
  return {
    board: lettersOf(word(2)),
    version: versionText(word(3)),
    versionWord: word(3),
    source: word(4).toString(16).padStart(8, '0'),
    slot,
    bodyChecksum: word(6),
    checksum: crc32(whole),
    bytes: whole,
  };
}

/** Every image of a file. Errors: FIRMWARE_IMAGE. */
export function parseFirmware(file: string, bytes: Uint8Array): FirmwareImage[] {
  const images: FirmwareImage[] = [];
  for (let at = 0; at < bytes.length; at += images.at(-1)?.bytes.length ?? bytes.length) {
    if (images.length === IMAGES_MAX) throw refuse(file, `it has more than ${IMAGES_MAX} images`);
    images.push(parseOne(file, bytes.subarray(at)));
  }
  if (images.length === 0) throw refuse(file, 'it is empty');
  return images;
}

export interface ImageParts {
  readonly body: Uint8Array;
  readonly board: string;
  readonly versionWord: number;
  readonly slot: Slot;
  /** Where the slot begins; 0 for a bridge that is a process of the host. */
  readonly address?: number;
}

/** An image of these parts, as build.mjs makes one of a linked body. */
export function packFirmware({ body: given, board, versionWord, slot, address = 0 }: ImageParts): Uint8Array {
  const body = new Uint8Array(Math.ceil(given.length / UNIT_BYTES) * UNIT_BYTES).fill(0xff);
  body.set(given);
  const image = new Uint8Array(HEADER_BYTES + body.length).fill(0xff);
  image.set(body, HEADER_BYTES);
  const view = new DataView(image.buffer);
  const words = [wordOf('PMFW'), FORMAT, wordOf(board), versionWord, 0, body.length, crc32(body), address + HEADER_BYTES, slot];
  words.forEach((word, index) => void view.setUint32(4 * index, word, true));
  view.setUint32(FIELD_BYTES - 4, crc32(image.subarray(0, FIELD_BYTES - 4)), true);
  return image;
}
