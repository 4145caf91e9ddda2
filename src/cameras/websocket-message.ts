/**
 * The messages by which another program pushes pictures: their bytes, their limits and what is wrong with one (docs/CAMERAS.md, "Pictures from
 * another program"). Pure functions.
 *
 *   u32 little-endian: length of the header | header: JSON, UTF-8 | data
 */
import { z } from 'zod';

export const HEADER_BYTES_MAX = 4096;

/** Numbers in JSON are exact up to 2^53, which is 104 days of nanoseconds: a text is exact always. */
const nanoseconds = z.union([
  z
    .int()
    .nonnegative()
    .transform((value) => BigInt(value)),
  z
    .string()
    .regex(/^\d{1,19}$/)
    .transform((value) => BigInt(value)),
]);

const header = z.strictObject({
  camera: z.string().min(1).max(256),
  captured_at_ns: nanoseconds.optional(),
  width: z.int().min(1).max(16_384),
  height: z.int().min(1).max(16_384),
  format: z.enum(['rgb', 'jpeg', 'png']),
});

export interface PictureMessage {
  readonly camera: string;
  /** CLOCK_MONOTONIC of this machine; absent: the moment of arrival. */
  readonly capturedAtNs?: bigint;
  readonly width: number;
  readonly height: number;
  readonly format: 'rgb' | 'jpeg' | 'png';
  readonly data: Uint8Array;
}

/** Why a message is refused; docs/CAMERAS.md has the table. */
export type Refusal = 'malformed' | 'unknown_camera' | 'size' | 'undecodable' | 'stamp_future' | 'stamp_order';

export class RefusedMessage extends Error {
  readonly reason: Refusal;

  constructor(reason: Refusal, message: string) {
    super(message);
    this.reason = reason;
  }
}

/** Throws RefusedMessage. The data is a view of the message. */
export function parsePicture(message: Uint8Array): PictureMessage {
  if (message.length < 4) throw new RefusedMessage('malformed', `expected at least 4 bytes, found ${message.length}`);
  const length = new DataView(message.buffer, message.byteOffset, message.byteLength).getUint32(0, true);
  if (length > HEADER_BYTES_MAX) throw new RefusedMessage('malformed', `expected a header of at most ${HEADER_BYTES_MAX} bytes, found ${length}`);
  if (length > message.length - 4)
    throw new RefusedMessage('malformed', `expected a header of ${length} bytes, found ${message.length - 4} bytes altogether`);
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(message.subarray(4, 4 + length)));
  } catch (error) {
    throw new RefusedMessage('malformed', `expected a header in JSON, found ${(error as Error).message}`);
  }
  const parsed = header.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new RefusedMessage('malformed', `header: ${[issue?.path.join('.'), issue?.message].filter(Boolean).join(': ')}`);
  }
  const { captured_at_ns, ...rest } = parsed.data;
  const data = message.subarray(4 + length);
  const bytes = rest.width * rest.height * 3;
  if (rest.format === 'rgb' && data.length !== bytes)
    throw new RefusedMessage('size', `expected ${bytes} bytes of ${rest.width} x ${rest.height} RGB, found ${data.length}`);
  if (data.length === 0) throw new RefusedMessage('size', 'expected a picture behind the header, found nothing');
  return { ...rest, ...(captured_at_ns === undefined ? {} : { capturedAtNs: captured_at_ns }), data };
}

/** The message of a picture, for programs that push and for tests. */
export function encodePicture({ camera, capturedAtNs, width, height, format, data }: PictureMessage): Uint8Array {
  const stamp = capturedAtNs === undefined ? {} : { captured_at_ns: String(capturedAtNs) };
  const head = Buffer.from(JSON.stringify({ camera, ...stamp, width, height, format }), 'utf8');
  const length = Buffer.alloc(4);
  length.writeUInt32LE(head.length);
  return Buffer.concat([length, head, data]);
}
