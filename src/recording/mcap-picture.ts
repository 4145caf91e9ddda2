/**
 * Pictures in recordings: messages of Foxglove's picture types, in JSON or protocol buffers, as one form. For whoever plays, exports or shows a
 * recording; it decodes no JPEG.
 */
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import type { McapMessage } from './mcap-reader.js';

/** A picture as it was recorded. */
export interface RecordedPicture {
  /** jpeg, png, webp, avif; or of raw pictures the encoding: rgb8, bgr8, mono8, ... */
  readonly format: string;
  readonly data: Uint8Array;
  /** Of raw pictures. */
  readonly raw?: { readonly width: number; readonly height: number; readonly rowBytes: number };
}

const bytes = z.union([
  z.instanceof(Uint8Array),
  z
    .string()
    .regex(/^[A-Za-z0-9+/]*={0,2}$/)
    .transform((text) => new Uint8Array(Buffer.from(text, 'base64'))),
]);
const compressed = z.object({ format: z.string().min(1), data: bytes });
const raw = z.object({ encoding: z.string(), width: z.int().positive(), height: z.int().positive(), step: z.int().positive(), data: bytes });

/** Types of messages that are pictures. */
export const PICTURE_SCHEMAS: readonly string[] = ['foxglove.CompressedImage', 'foxglove.RawImage'];

export const isPicture = ({ channel }: Pick<McapMessage, 'channel'>): boolean => PICTURE_SCHEMAS.includes(channel.schema);

/** Errors: MCAP_DAMAGED, MCAP_UNSUPPORTED. */
export function pictureOf(message: McapMessage): RecordedPicture {
  const value = message.decode();
  if (message.channel.schema === 'foxglove.CompressedImage') {
    const parsed = compressed.safeParse(value);
    if (parsed.success) return parsed.data;
    throw noPicture(message, parsed.error.issues[0]?.message ?? '');
  }
  const parsed = raw.safeParse(value);
  if (!parsed.success) throw noPicture(message, parsed.error.issues[0]?.message ?? '');
  const { encoding, width, height, step, data } = parsed.data;
  if (step * height !== data.length) throw noPicture(message, `${data.length} bytes for ${height} rows of ${step}`);
  return { format: encoding, data, raw: { width, height, rowBytes: step } };
}

function noPicture({ topic, channel }: McapMessage, found: string): PremotorError {
  const expected = `a picture of ${PICTURE_SCHEMAS.join(' or ')}`;
  const what = `${channel.schema || 'no type'}: ${found}`;
  const text = `A message of ${topic} is no picture: expected ${expected}, found ${what}. Name a topic with pictures.`;
  return new PremotorError('MCAP_DAMAGED', text, { field: topic, expected, found });
}
